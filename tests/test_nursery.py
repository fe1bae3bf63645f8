"""A program that the nursery forks sees what one sees that was started afresh, and ends as that does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nursery
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="here all programs are started afresh")

LOOK = """
import json, os, resource, signal, sys, warnings
print(json.dumps({
    "words": sys.argv, "name": __name__, "place": sys.path[0], "cwd": os.getcwd(), "env": dict(os.environ),
    "program": sys.executable, "said": sys.stdin.read(), "strict": [sys.warnoptions, warnings.filters[0][0]],
    "files": sorted(os.listdir("/proc/self/fd")), "limit": resource.getrlimit(resource.RLIMIT_NOFILE),
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "signals": [str(signal.getsignal(one)) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)],
    "streams": [(s.encoding, s.errors, s.line_buffering, s.mode) for s in (sys.stdin, sys.stdout, sys.stderr)],
    "umask": os.umask(0o22), "group": os.getpgid(0), "session": os.getsid(0),
}))
print("a word on the side", file=sys.stderr)
sys.exit(7)
"""
WAIT = """
import sys, time
print("here", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit("interrupted")
"""
Start = Callable[..., Any]


def both() -> pytest.MarkDecorator:
    """Try it with a fork, and afresh: what a test says here is then true of both."""
    return pytest.mark.parametrize("start", [nursery.start, subprocess.Popen], ids=["forked", "afresh"])


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Write a program; give its command."""
    here = Path(sys.executable).parent.parent.name
    monkeypatch.setattr(nursery, "PRELOADS", {("program.py", here): ("json", "decimal")})

    def write(text: str) -> list[str]:
        (tmp_path / "program.py").write_text(text, encoding="utf-8")
        return [sys.executable, *nursery.STRICT, str(tmp_path / "program.py")]

    return write


def test_it_sees_what_one_sees_that_was_started_afresh(script: Callable[[str], list[str]], tmp_path: Path) -> None:
    told = []
    for start in (nursery.start, subprocess.Popen):
        pipe = subprocess.PIPE
        command, env = [*script(LOOK), "--a", "wörd"], {**os.environ, "OF_THE_TEST": "ü"}
        one = start(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, env=env)
        assert isinstance(one, nursery.Warm) == (start is nursery.start)
        out, err = one.communicate("what is säid", timeout=20)
        assert (one.returncode, err) == (7, "a word on the side\n")
        told.append(json.loads(out))
    assert told[0] == told[1]


@both()
@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 1, "interrupted\n"), (signal.SIGTERM, -15, ""), (signal.SIGKILL, -9, "")],
)
def test_a_signal_ends_it(
    script: Callable[[str], list[str]], start: Start, number: int, code: int, words: str
) -> None:
    one = start(script(WAIT), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert one.stdout.readline() == "here\n"
    assert one.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        one.wait(0.01)
    one.send_signal(number)
    assert one.communicate(timeout=20) == ("", words)
    assert (one.returncode, one.poll(), one.wait()) == (code, code, code)
    one.kill()  # long since over


@both()
def test_its_output_goes_where_it_shall(script: Callable[[str], list[str]], start: Start, tmp_path: Path) -> None:
    command = script("import sys; print('o'); sys.exit('e')")
    with open(tmp_path / "out", "wb") as out, start(command, stdout=out, stderr=out) as one:
        assert one.wait(20) == 1
    assert sorted((tmp_path / "out").read_text()) == ["\n", "\n", "e", "o"]
    with start(script("print('o')"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as one:
        assert one.communicate() == (None, b"")


def test_many_at_once_are_told_apart(script: Callable[[str], list[str]]) -> None:
    command = script("import sys; print(sys.argv[1]); sys.exit(int(sys.argv[1]))")
    all_ = [nursery.start([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(20)]
    assert [(one.communicate()[0], one.returncode) for one in all_] == [(f"{n}\n", n) for n in range(20)]


def test_what_is_not_known_is_started_afresh(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("print(1)")
    with nursery.start([sys.executable, tmp_path / "other.py"], stdout=subprocess.PIPE) as one:
        assert isinstance(one, subprocess.Popen)
        assert one.communicate()[0] == b"1\n"
    done = nursery.run([sys.executable, "-c", "import sys; sys.exit(sys.stdin.read())"], said="no")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "no\n")
    with pytest.raises(subprocess.CalledProcessError):
        nursery.run([sys.executable, "-c", "raise SystemExit(2)"], check=True)
