"""Stands in for systemctl, launchctl and schtasks: writes down what it is told, and runs what the file says.

It is on a test's PATH under one of those names. In the folder $KEEPER it has `told`, a line of JSON for each call,
`pid` and, for schtasks, `task`. A call with the word $KEEPER_FAILS in it fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import plistlib
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(os.environ.get("KEEPER", "."))
PID, TASK = HERE / "pid", HERE / "task"
OF_TASKS = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"


def words_of_unit(text: str) -> list[str]:
    """Read a unit's command as systemd does."""
    found = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert found is not None, text
    program, *words = shlex.split(found[1].replace("%%", "%"))
    return [program, *(word.replace("$$", "$") for word in words)]


def words_of_task(path: str) -> list[str]:
    """Read a task's command."""
    tree = ElementTree.fromstring(Path(path).read_text(encoding="utf-16"))
    found = {part.tag.removeprefix(OF_TASKS): part.text or "" for part in tree.iter()}
    return [found["Command"], *shlex.split(found["Arguments"])]


def start(argv: list[str]) -> int:
    """Run the hub, and remember it."""
    quiet = subprocess.DEVNULL
    hub = subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    PID.write_text(str(hub.pid), encoding="ascii")
    return 0


def stop() -> int:
    """End the hub; fail if there is none."""
    if not PID.exists():
        return 3
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(PID.read_text(encoding="ascii")), signal.SIGTERM)
    PID.unlink()
    return 0


def systemctl(argv: list[str]) -> int:
    """Do what systemctl would."""
    unit = Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user" / "caucus.service"
    if argv[1] == "show":
        state = "active" if PID.exists() else "inactive"
        print(f"ActiveState={state}\nActiveEnterTimestamp=Thu 2026-01-01 10:00:00 UTC")
    elif argv[1] == "enable" and not PID.exists():
        return start(words_of_unit(unit.read_text(encoding="utf-8")))
    elif argv[1] == "disable":
        return stop()
    return 0


def launchctl(argv: list[str]) -> int:
    """Do what launchctl would."""
    if argv[0] == "bootstrap":
        return start(plistlib.loads(Path(argv[2]).read_bytes())["ProgramArguments"])
    if argv[0] == "bootout":
        return stop()
    if "/org.caucus.hub" in argv[1]:
        print(f"\tstate = running\n\tpid = {PID.read_text(encoding='ascii')}" if PID.exists() else "Could not find it")
        return 0 if PID.exists() else 113
    return 0


def schtasks(argv: list[str]) -> int:
    """Do what schtasks would, in some other language."""
    if argv[0] == "/Create":
        TASK.write_text(argv[argv.index("/XML") + 1], encoding="utf-8")
    elif argv[0] == "/Run":
        return start(words_of_task(TASK.read_text(encoding="utf-8")))
    elif argv[0] == "/Query":
        result = "267009" if PID.exists() else "0"
        print(f'"BOX","\\Caucus hub","N/V","Läuft","Interaktiv","01.01.2026 10:00:00","{result}","me"')
    elif argv[0] == "/End":
        return stop()
    return 0


def main() -> int:
    """Answer one call."""
    argv = sys.argv[1:]
    name = Path(sys.argv[0]).name
    with (HERE / "told").open("a", encoding="utf-8") as file:
        file.write(json.dumps([name, *argv]) + "\n")
    if os.environ.get("KEEPER_FAILS") in argv:
        print("Failed to do it:\nfor a reason", file=sys.stderr)
        return 1
    return {"systemctl": systemctl, "launchctl": launchctl, "schtasks": schtasks}[name](argv)


if __name__ == "__main__":
    sys.exit(main())
