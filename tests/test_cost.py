"""What a message costs, counted and not timed: user instructions under callgrind hardly differ from run to run.

tests/bench.py measures the rest. A change that makes a message dearer fails here, in figures that a busy machine
cannot spoil.
"""

from __future__ import annotations

import shutil
import sys

import bench
import pytest

INSTRUCTIONS_MAX = 306_000  # per direct message; measured 297,000 with CPython 3.11, and 3 % slack
MESSAGES = 300  # counted; more do not change the figure by 1 %


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="the figure is CPython's")
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind counts the instructions, and is not installed")
def test_a_direct_message_costs_no_more_instructions_than_it_did() -> None:
    bench.allow_many_sockets()
    spent = bench.instructions_per_message(bench.hub_of_checkout(), MESSAGES)
    print(f"{spent:,.0f} user instructions per message")
    assert spent <= INSTRUCTIONS_MAX
