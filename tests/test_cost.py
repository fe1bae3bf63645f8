"""What a message costs, counted and not timed: user instructions under callgrind hardly differ from run to run.

tests/bench.py measures the rest. A change that makes a message dearer fails here, in figures that a busy machine
cannot spoil.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import bench
import pytest

# By CPython's version: user instructions per direct message, a few per cent above what they are, for a busy machine
# makes more turns; and of these, what the detector of loops takes of a lane in which much is said.
MOST = {
    (3, 11): (308_000, 6_600),
    (3, 12): (352_000, 7_250),
    (3, 13): (339_000, 6_950),
}
MESSAGES = 300  # counted; more do not change the figure by 1 %
# 50 lanes in which so much is said at once that their looks are used up, and then more; each line with another text.
# With each getppid() callgrind ends one count and begins the next.
HEARING = """
import os
import caucus
detector = caucus.Detector(lambda: caucus.tables_in("docs/loops.toml"))
told = [f"{n} tests of part_{n}.py fail in line {n * 7}: " + "what was wanted is not what came " * (n % 9)
        for n in range(61)]
lanes = [(f"a{n} <> b{n}", f"a{n}", told[n]) for n in range(50)]
for n in range(10_000):
    detector.hear(*lanes[n % 50], n, 1.0)
os.getppid()
for n in range(5_000):
    lane = lanes[n % 50]
os.getppid()
for n in range(5_000):
    detector.hear(*lanes[n % 50], n, 1.0)
os.getppid()
"""
if shutil.which("valgrind") is None:
    pytest.skip("valgrind counts the instructions, and is not installed", allow_module_level=True)
if sys.implementation.name != "cpython" or sys.version_info[:2] not in MOST:
    pytest.skip("no figure was measured with this Python", allow_module_level=True)
INSTRUCTIONS_MAX, HEARING_MAX = MOST[sys.version_info[:2]]


def test_a_direct_message_costs_no_more_instructions_than_it_did() -> None:
    bench.allow_many_sockets()
    spent = bench.instructions_per_message(bench.hub_of_checkout(), MESSAGES)
    print(f"{spent:,.0f} user instructions per message")
    assert spent <= INSTRUCTIONS_MAX


def test_to_hear_whether_a_message_goes_round_in_circles_costs_little_more_than_to_note_it(tmp_path: Path) -> None:
    file = tmp_path / "callgrind.out"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={file}", "--dump-before=getppid", sys.executable]
    subprocess.run([*command, "-c", HEARING], cwd=bench.ROOT, capture_output=True, timeout=120, check=True)
    not_heard, heard = (int(bench.COLLECTED.findall(Path(f"{file}.{n}").read_text())[0]) for n in (2, 3))
    spent = (heard - not_heard) / 5_000
    print(f"{spent:,.0f} user instructions per message that is heard")
    assert spent <= HEARING_MAX
