"""A hub that is there when it is needed: started by a bridge, kept by the system's own keeper of services."""

from __future__ import annotations

import contextlib
import json
import os
import plistlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import keeper
import pytest
from hubs import DEADLINE_S, ROOT, eventually, running_hub
from test_bridge import BridgeProcess, bridge_at, environment
from wires import LOOPBACK, call, stub_hub

import caucus

# --- a bridge that starts the hub ---


def free_port() -> int:
    """Give a port that nothing listens on."""
    with socket.create_server((LOOPBACK, 0)) as closed:
        port: int = closed.getsockname()[1]
        return port


def state_in(home: Path, xdg: Path) -> Path:
    """Give the place of what outlives programs, of a user whose folder is `home`."""
    return home / "Library" / "Application Support" / "caucus" if sys.platform == "darwin" else xdg / "caucus"


class Home:
    """A user's place for what outlives programs, and the hubs that bridges start there: each has a journal."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.env = {"CAUCUS_AUTOSTART": "1", "CAUCUS_JOURNAL": "1"}  # its lock tells the hub's process
        self.env |= dict.fromkeys(("HOME", "XDG_STATE_HOME", "LOCALAPPDATA"), str(folder))
        self.state = state_in(folder, folder)
        self.log = self.state / f"hub-{self.port}.log"

    def hub(self) -> int | None:
        """Give the process of the hub that runs, if one does."""
        holder = caucus.holder_of(str(self.state / f"hub-{self.port}.journal.lock"))
        return int(holder.removeprefix("process ")) if holder else None

    def starts(self) -> int:
        """Count the hubs that were started: each says in one line that it runs, or why not."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return sum("the room is kept in" not in line and " head " not in line for line in lines)

    def end(self) -> None:
        """End the hub, if there is one, and see it end."""
        if (process := self.hub()) is not None:
            os.kill(process, signal.SIGTERM)
            eventually(lambda: self.hub() is None, "the end of the hub")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give a user without a hub; one that was started is ended."""
    home = Home(tmp_path / "state")
    try:
        yield home
    finally:
        home.end()


def setup_of(bridge: BridgeProcess) -> tuple[dict[str, Any], str]:
    """Call setup; give what the first line tells besides, and the rest."""
    first, _, rest = bridge.call("setup").partition("\n")
    return json.loads(first), rest


def test_a_bridge_starts_the_hub_that_is_not_there_and_goes_on_with_the_call(home: Home, tmp_path: Path) -> None:
    with bridge_at(home.url, tmp_path, env=home.env) as bridge:
        bridge.initialize("2025-06-18")
        bridge.ask("tools/list")
        assert home.hub() is None  # no tool was called
        news, rules = setup_of(bridge)
        assert "Next: join()" in rules
        assert news["note"].startswith(f"no hub ran: one, process {home.hub()}, was started.")
        assert home.url in news["note"]
        assert str(home.log) in news["note"]
        assert "note" not in bridge.call("whoami")
        assert bridge.join("api")["joined"] is True
        assert home.starts() == 1


def test_a_started_hub_outlives_its_bridge(home: Home, tmp_path: Path) -> None:
    with bridge_at(home.url, tmp_path, env=home.env) as bridge:
        bridge.join("api")
        started = home.hub()
        assert bridge.end().code == 0
    assert home.hub() == started is not None
    assert call(home.port, "GET", "/peers")[1]["peers"] == []
    if sys.platform != "win32":
        assert os.getsid(started) == started  # what ends the host's session does not end it


def test_bridges_that_ask_at_once_start_one_hub(home: Home, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        bridges = [stack.enter_context(bridge_at(home.url, tmp_path, env=home.env)) for _ in range(3)]
        for bridge in bridges:
            bridge.initialize("2025-06-18")  # all are up
        asked = [bridge.tool("setup") for bridge in bridges]
        for bridge, request in zip(bridges, asked, strict=True):
            bridge.send(request)
        for bridge, request in zip(bridges, asked, strict=True):
            assert "Next: join()" in bridge.answer(request)["result"]["content"][0]["text"]
        assert home.starts() == 1


def test_a_bridge_starts_a_hub_once_and_not_again(home: Home, tmp_path: Path) -> None:
    with bridge_at(home.url, tmp_path, env=home.env) as bridge:
        bridge.call("setup")
        home.end()
        refused = bridge.call("list_peers")
        assert refused["error"] == "hub_unreachable"
        assert "note" not in refused
        assert home.hub() is None
        assert home.starts() == 1


def test_a_hub_that_ended_after_the_first_call_is_started_before_the_next(home: Home, tmp_path: Path) -> None:
    with running_hub() as hub:
        home.port, home.url = hub.port, hub.url
        home.log = home.state / f"hub-{hub.port}.log"
        with bridge_at(hub.url, tmp_path, env=home.env) as bridge:
            assert bridge.call("setup").startswith("#")
            hub.process.terminate()
            hub.process.wait(DEADLINE_S)
            assert "was started" in bridge.call("list_peers")["note"]


def test_the_end_of_a_bridge_starts_no_hub(home: Home, tmp_path: Path) -> None:
    with running_hub() as hub:
        home.port = hub.port
        with bridge_at(hub.url, tmp_path, env=home.env) as bridge:
            bridge.join("api")
            hub.process.terminate()
            hub.process.wait(DEADLINE_S)
            assert bridge.end().code == 0
    assert home.hub() is None


def test_without_the_variable_no_hub_is_started(home: Home, tmp_path: Path) -> None:
    for value in ("", "0"):
        with bridge_at(home.url, tmp_path, env={**home.env, "CAUCUS_AUTOSTART": value}) as bridge:
            assert bridge.call("setup")["error"] == "hub_unreachable"
    assert not home.state.exists()


@pytest.mark.parametrize("url", ["http://192.0.2.1:{}", "https://127.0.0.1:{}", "http://127.0.0.1:{}/behind/a/proxy"])
def test_a_hub_elsewhere_is_never_started(url: str, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caucus, "start_detached", lambda *_: pytest.fail("it would start one"))
    monkeypatch.setenv("CAUCUS_AUTOSTART", "1")
    assert caucus.HubStarter(url.format(home.port)).ensure() == ""


def test_a_hub_that_cannot_be_started_is_told_with_its_log(home: Home, tmp_path: Path) -> None:
    env = {**home.env, "CAUCUS_OBSERVER_TOKEN": "w"}  # without an operator's: the hub refuses
    with bridge_at(home.url, tmp_path, env=env) as bridge:
        refused = bridge.call("setup")
        assert refused["error"] == "hub_unreachable"
        assert refused["note"] == f"no hub ran, and one that was started ended with exit code 2: {home.log} says why"
        assert "--observer-token" in home.log.read_text(encoding="utf-8")


def test_a_hub_that_starts_and_does_not_answer_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, home.env[name])
    monkeypatch.setattr(caucus, "_START_S", 0.3)
    mute = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(mute, stdin=subprocess.PIPE) as hub:
        monkeypatch.setattr(caucus, "start_detached", lambda words, log_file: hub)
        starter = caucus.HubStarter(home.url)
        note = f"no hub ran, and one that was started did not answer within 0.3 s: {home.log} says why"
        assert starter.ensure() == note
        assert starter.ensure() == ""  # once
        caucus.Lock(f"{home.log}.lock").release()  # others may try


def test_who_starts_a_hub_is_waited_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, home.env[name])
    home.state.mkdir(parents=True)
    monkeypatch.setattr(caucus, "start_detached", lambda *_: pytest.fail("it would start another"))
    lock = caucus.Lock(f"{home.log}.lock")
    told: list[str] = []
    waiting = threading.Thread(target=lambda: told.append(caucus.HubStarter(home.url).ensure()))
    waiting.start()
    with running_hub("--port", str(home.port)):
        waiting.join(DEADLINE_S)
    lock.release()
    assert told == [f"no hub ran: one was started. Its console is at {home.url}, its log is {home.log}"]


def test_a_place_that_cannot_be_written_is_told(home: Home, tmp_path: Path) -> None:
    home.state.parent.mkdir(parents=True)
    home.state.write_text("a file where the folder should be", encoding="utf-8")
    with bridge_at(home.url, tmp_path, env=home.env) as bridge:
        refused = bridge.call("setup")
        assert refused["error"] == "hub_unreachable"
        assert "none could be started" in refused["note"]
        assert str(home.log) in refused["note"]
    home.state.unlink()


def test_the_log_of_a_started_hub_begins_anew_when_it_is_large_and_is_private(home: Home, tmp_path: Path) -> None:
    home.state.mkdir(parents=True)
    home.log.write_bytes(b"x" * 1_000_001)
    with bridge_at(home.url, tmp_path, env=home.env) as bridge:
        bridge.call("setup")
    assert home.log.stat().st_size < 1000
    if sys.platform != "win32":
        assert home.log.stat().st_mode & 0o777 == 0o600


def test_a_short_log_is_kept(home: Home, tmp_path: Path) -> None:
    home.state.mkdir(parents=True)
    home.log.write_bytes(b"what was before\n")
    with bridge_at(home.url, tmp_path, env=home.env) as bridge:
        bridge.call("setup")
    assert home.log.read_text(encoding="utf-8").startswith("what was before\n")


def test_where_another_program_listens_no_hub_is_started(home: Home, tmp_path: Path) -> None:
    with stub_hub(lambda path, body: (200, b"<html>")) as stub, bridge_at(stub.url, tmp_path, env=home.env) as bridge:
        assert bridge.call("setup")["error"] == "hub_unreachable"
    assert not home.state.exists()


# --- a hub that the system keeps ---

SYSTEMS = {"linux": "systemctl", "darwin": "launchctl", "win32": "schtasks"}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins for the system's commands are scripts")
AS = "import sys, caucus; caucus.KEEPERS = {sys.platform: caucus.KEEPERS[%r]}; sys.exit(caucus.main())"
ODD = "o d % %h it's $HOME ${x}"


class User:
    """A user of one system, whose keeper of services is the stand-in."""

    def __init__(self, system: str, folder: Path, source: Path = ROOT) -> None:
        self.system, self.home, self.port, self.source = system, folder / ODD, free_port(), source
        self.config = self.home / ".config"
        self.secrets = self.config / "caucus" / "hub.env"
        (folder / "keeper").mkdir()
        (folder / "bin").mkdir()
        self.told_file = folder / "keeper" / "told"
        self.tool = folder / "bin" / SYSTEMS[system]
        body = (ROOT / "tests" / "keeper.py").read_text(encoding="utf-8")
        self.tool.write_text(f"#!{sys.executable}\n{body}", encoding="utf-8")
        self.tool.chmod(0o755)
        places = {"HOME": self.home, "XDG_CONFIG_HOME": self.config, "XDG_STATE_HOME": self.home / "state"}
        self.env = {name: str(place) for name, place in places.items()}
        self.env |= {"KEEPER": str(folder / "keeper"), "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        self.env |= {"PYTHONPATH": str(source), "USERDOMAIN": "BOX", "USERNAME": "R&D", "LOCALAPPDATA": str(self.home)}

    @property
    def url(self) -> str:
        """Give the address of the hub that is kept."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def file(self) -> Path:
        """Give the file that says what to run."""
        return {
            "linux": self.config / "systemd" / "user" / "caucus.service",
            "darwin": self.home / "Library" / "LaunchAgents" / "org.caucus.hub.plist",
            "win32": state_in(self.home, self.home / "state") / "hub-task.xml",
        }[self.system]

    def service(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run `caucus service`."""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", AS % self.system, "service", *words],
            env=environment({**self.env, **(env or {})}), capture_output=True, text=True, check=False, timeout=60,
            stdin=subprocess.DEVNULL, cwd=self.told_file.parent,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def install(self, *flags: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Install, on the port of this user."""
        return self.service("install", "--", "--port", str(self.port), *flags, env=env)

    def refused(self, *words: str, env: dict[str, str] | None = None) -> str:
        """Run it, which must be refused in one line and have written nothing; give the reason."""
        done = self.service(*words, env=env)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert not self.file.exists()
        return done.stderr

    def told(self) -> list[list[str]]:
        """Give what the system was told to do since the last time, questions left out."""
        lines = self.told_file.read_text(encoding="utf-8").splitlines() if self.told_file.exists() else []
        self.told_file.unlink(missing_ok=True)
        asks = {"show", "show-environment", "print", "/Query", "/?"}
        return [words for line in lines if not asks & set(words := json.loads(line)[1:])]

    def version(self) -> str | None:
        """Ask the hub for its version."""
        return caucus.version_at(self.url)

    def tidy(self) -> None:
        """End the hub that the stand-in may have started."""
        if (pid := self.told_file.parent / "pid").exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid.read_text(encoding="ascii")), signal.SIGTERM)
            eventually(lambda: self.version() is None, "the end of the hub")


@pytest.fixture(params=SYSTEMS)
def user(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[User]:
    """Give a user of each system."""
    user = User(str(request.param), tmp_path)
    try:
        yield user
    finally:
        user.tidy()


@pytest.fixture
def linux(tmp_path: Path) -> Iterator[User]:
    """Give a user of Linux, with the program in a folder with an odd name."""
    (tmp_path / f'{ODD} "q" \\n').symlink_to(ROOT)
    user = User("linux", tmp_path, tmp_path / f'{ODD} "q" \\n')
    try:
        yield user
    finally:
        user.tidy()


COMMANDS = {
    "linux": (["--user", "daemon-reload"], ["--user", "enable", "--now", "caucus.service"]),
    "darwin": (["bootstrap", "gui/{uid}", "{file}"],),
    "win32": (["/Create", "/TN", "Caucus hub", "/XML", "{file}", "/F"], ["/Run", "/TN", "Caucus hub"]),
}
ENDS = {
    "linux": (["--user", "disable", "--now", "caucus.service"], ["--user", "daemon-reload"]),
    "darwin": (["bootout", "gui/{uid}/org.caucus.hub"],),
    "win32": (["/End", "/TN", "Caucus hub"], ["/Delete", "/TN", "Caucus hub", "/F"]),
}


def commands_of(user: User, table: dict[str, tuple[list[str], ...]]) -> list[list[str]]:
    """Fill in a row."""
    uid = os.getuid() if sys.platform != "win32" else 0
    return [[word.format(uid=uid, file=user.file) for word in words] for words in table[user.system]]


@POSIX
def test_a_file_that_cannot_be_removed_is_not_called_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "caucus.service"
    file.write_text("the unit")
    nothing = [sys.executable, "-c", ""]
    service = caucus.Service(
        lambda *_: "", lambda _: "", str(file), "utf-8", "", nothing, "", [], [nothing], [], nothing
    )

    def unlink(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        with pytest.raises(caucus.Invalid, match="cannot be removed: remove it by hand"):
            service.uninstall(is_dry=False)
    assert service.uninstall(is_dry=False) == f"uninstalled: {file} is removed"
    assert not file.exists()


@POSIX
def test_a_service_is_installed_runs_and_is_uninstalled(user: User) -> None:
    done = user.install()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"installed: {user.file}"
    assert f"Caucus {caucus.__version__} answers at {user.url}" in done.stdout
    assert user.file.stat().st_mode & 0o077 == 0
    status = user.service("status", "--json")
    assert status.returncode == 0
    about = json.loads(status.stdout)
    assert about.pop("since")
    version = caucus.__version__
    file = str(user.file)
    assert about == {"installed": True, "file": file, "running": True, "url": user.url, "version": version}
    assert user.told() == commands_of(user, COMMANDS)
    done = user.service("uninstall")
    assert (done.returncode, done.stdout) == (0, f"uninstalled: {user.file} is removed\n")
    assert user.told() == commands_of(user, ENDS)
    assert not user.file.exists()
    eventually(lambda: user.version() is None, "the end of the hub")
    status = user.service("status")
    assert status.returncode == 1
    assert status.stdout.splitlines()[0] == f"not installed: there is no {user.file}"
    assert status.stdout.splitlines()[1] == "not running"


@POSIX
def test_what_is_installed_is_left_alone_and_what_is_changed_is_restarted(user: User) -> None:
    user.install()
    user.told()
    again = user.install()
    assert again.returncode == 0
    assert again.stdout.startswith("nothing to do: this service is installed, and runs\n")
    assert user.told() == []
    before, user.port = user.url, free_port()
    assert user.install("--client-ttl", "400").returncode == 0
    assert user.version() == caucus.__version__
    assert caucus.version_at(before) is None
    assert user.service("uninstall").returncode == 0
    user.told()
    done = user.service("uninstall")
    assert (done.returncode, done.stdout) == (0, f"nothing to do: there is no {user.file}\n")
    assert user.told() == []


@POSIX
def test_a_dry_run_prints_the_file_and_the_commands_and_does_nothing(user: User) -> None:
    done = user.service("install", "--dry-run", "--", "--port", str(user.port))
    assert done.returncode == 0
    first, *_ = done.stdout.splitlines()
    assert first == f"# {user.file}"
    assert user.url in done.stdout
    for words in commands_of(user, COMMANDS):
        assert f"$ {user.tool.name} {' '.join(words)}\n" in done.stdout
    ending = user.service("uninstall", "--dry-run")
    assert f"$ {user.tool.name} {' '.join(commands_of(user, ENDS)[0])}\n" in ending.stdout
    assert not user.home.exists()
    assert not user.told_file.exists()


@POSIX
def test_where_nobody_keeps_services_the_way_out_is_named_and_nothing_written(user: User) -> None:
    probe = {"linux": "show-environment", "darwin": f"gui/{os.getuid()}", "win32": "/?"}[user.system]
    reason = user.refused("install", env={"KEEPER_FAILS": probe})
    assert "for a reason" in reason
    assert "caucus hub" in reason
    assert "loginctl enable-linger" in reason or user.system != "linux"
    user.tool.unlink()
    empty = user.tool.parent
    reason = user.refused("install", env={"PATH": str(empty)})
    assert user.tool.name in reason
    status = user.service("status", "--json", env={"PATH": str(empty)})
    assert status.returncode == 1
    assert not user.home.exists()


@POSIX
def test_what_cannot_be_started_leaves_nothing_behind(user: User) -> None:
    last = commands_of(user, COMMANDS)[-1][1 if user.system == "linux" else 0]
    reason = user.refused("install", "--", "--port", str(user.port), env={"KEEPER_FAILS": last})
    assert "for a reason; all is as it was" in reason
    assert user.version() is None


@POSIX
def test_a_change_that_fails_leaves_the_service_as_it_was(linux: User) -> None:
    linux.install()
    text = linux.file.read_text(encoding="utf-8")
    linux.file.chmod(0o600)
    folder = linux.told_file.parent
    script = linux.tool.read_text(encoding="utf-8")
    once = f"import os, sys\nif 'enable' in sys.argv and not os.path.exists({str(folder / 'once')!r}):\n"
    once += f"    open({str(folder / 'once')!r}, 'w').close()\n    sys.exit('no, not this time')\n"
    head, _, body = script.partition("from __future__ import annotations\n")
    linux.tool.write_text(f"{head}from __future__ import annotations\n{once}{body}", encoding="utf-8")
    done = linux.install("--client-ttl", "400")
    assert done.returncode == 2
    assert "not this time; all is as it was" in done.stderr
    assert linux.file.read_text(encoding="utf-8") == text
    eventually(linux.version, "the hub as it was")


@POSIX
def test_a_hub_that_was_started_by_hand_is_not_in_the_services_way(user: User) -> None:
    with running_hub() as hub:
        user.port = hub.port
        assert f"that is no service runs at {hub.url}" in user.refused("install", "--", "--port", str(hub.port))


# --- what is written ---


def arguments_of(linux: User) -> list[str]:
    """Read the command of the unit as systemd does."""
    return keeper.words_of_unit(linux.file.read_text(encoding="utf-8"))


@POSIX
def test_a_unit_survives_odd_paths_and_says_what_to_run(linux: User) -> None:
    assert linux.install("--client-ttl", "400").returncode == 0
    argv = arguments_of(linux)
    assert argv[:2] == [sys.executable, str(linux.source / "caucus.py")]
    assert argv[2:] == ["hub", "--journal", "--no-browser", "--port", str(linux.port), "--client-ttl", "400"]
    text = linux.file.read_text(encoding="utf-8")
    assert f"EnvironmentFile=-{str(linux.secrets).replace('%', '%%')}\n" in text
    assert "\nRestart=on-failure\n" in text
    assert "\nWantedBy=default.target\n" in text
    assert "%" not in text.replace("%%", "")


@POSIX
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_itself_takes_the_unit(linux: User, tmp_path: Path) -> None:
    linux.install()
    (tmp_path / "run").mkdir()
    verify = ["systemd-analyze", "--user", "verify", str(linux.file)]
    env = {**environment(), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    done = subprocess.run(verify, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_python_that_systemd_cannot_start_is_refused() -> None:
    for path in ('/a"b/python3', "/it's/python3", "/a\\b/python3"):
        with pytest.raises(caucus.Invalid, match="quotes or backslashes"):
            caucus.unit_of([path, "caucus.py"], "a hub", "/secrets")


@POSIX
def test_an_agent_of_launchd_says_what_to_run(tmp_path: Path) -> None:
    user = User("darwin", tmp_path)
    done = user.service("install", "--dry-run", "--", "--port", "9000")
    entry = plistlib.loads(done.stdout.partition("\n")[2].partition("\n$ ")[0].encode())
    assert entry["Label"] == "org.caucus.hub"
    assert entry["RunAtLoad"] is True
    assert entry["KeepAlive"] == {"SuccessfulExit": False}
    program = [sys.executable, str(ROOT / "caucus.py"), "hub", "--journal", "--no-browser", "--port", "9000"]
    assert entry["ProgramArguments"] == ["/bin/sh", "-c", caucus._WITH_SECRETS, str(user.secrets), *program]


@POSIX
def test_a_task_of_windows_begins_at_logon_and_has_no_end(tmp_path: Path) -> None:
    done = User("win32", tmp_path).service("install", "--dry-run")
    text = done.stdout.partition("\n")[2].partition("\n$ ")[0]
    tree = ElementTree.fromstring(text.partition("\n")[2])
    found = {part.tag.removeprefix(keeper.OF_TASKS): part.text for part in tree.iter()}
    assert found["UserId"] == "BOX\\R&D"
    assert found["ExecutionTimeLimit"] == "PT0S"
    assert found["DisallowStartIfOnBatteries"] == "false"
    assert found["Command"] == sys.executable
    assert (found["Arguments"] or "").endswith("caucus.py hub --journal --no-browser")


# --- secrets and options ---


SECRETS = ["--operator-token", "--observer-token", "--agent-key", "--agent-k", "--notify-secret", "--notify"]


@POSIX
@pytest.mark.parametrize("flag", SECRETS)
def test_a_secret_is_refused_and_its_place_named(user: User, flag: str) -> None:
    reason = user.refused("install", "--", "--operator-token", "o", flag, "hush")
    assert "hush" not in reason
    assert str(user.secrets) in reason or "setx" in reason
    assert not user.home.exists()


@POSIX
def test_a_secret_of_the_shell_is_not_lost_in_silence(linux: User) -> None:
    reason = linux.refused("install", env={"CAUCUS_OPERATOR_TOKEN": "hush"})
    assert f"write CAUCUS_OPERATOR_TOKEN=... into {linux.secrets}, with mode 0600" in reason


@POSIX
def test_the_users_file_of_secrets_is_what_the_hub_is_checked_and_started_with(tmp_path: Path) -> None:
    mac = User("darwin", tmp_path)
    mac.secrets.parent.mkdir(parents=True)
    mac.secrets.write_text("# mine\nCAUCUS_OPERATOR_TOKEN=o\nCAUCUS_AGENT_KEY='k e y'\n", encoding="utf-8")
    assert "others can read it" in mac.refused("install")
    mac.secrets.chmod(0o600)
    try:
        done = mac.install("--public-url", "https://caucus.example", env={"CAUCUS_AGENT_KEY": "other"})
        assert done.returncode == 0, done.stderr
        assert call(mac.port, "GET", "/peers")[0] == 401
        assert call(mac.port, "GET", "/peers", bearer="k e y")[0] == 200
    finally:
        mac.tidy()


@POSIX
@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--port", "99999"), "is not a port"),
        (("--bogus",), "there is no option '--bogus'"),
        (("9000",), "there is no option '9000' (did you mean --port 9000?)"),
        (("--host", "0.0.0.0"), "beyond this machine"),
        (("--log-file", "room.jsonl"), "give the whole path"),
        (("--journal", "room.journal"), "give the whole path"),
        (("--port", "0", "--journal", "/room"), "0 is any free one"),
    ],
)
def test_the_hubs_options_are_checked_before_anything_is_written(
    linux: User, flags: tuple[str, ...], reason: str
) -> None:
    assert reason in linux.refused("install", "--", *flags)
    assert not linux.home.exists()


@POSIX
def test_options_of_the_hub_have_their_place(linux: User) -> None:
    assert "what is for the hub comes after --" in linux.refused("install", "--port", "9000")
    assert linux.service("status", "--dry-run").stdout == linux.service("status").stdout


@POSIX
@pytest.mark.parametrize("words", [("status", "--", "--port", "9000"), ("dance",), ()])
def test_words_that_mean_nothing_are_refused(linux: User, words: tuple[str, ...]) -> None:
    assert linux.service(*words).returncode == 2


# --- a port that is busy ---


ENDLESS = {"headers": b"X: y\r\n", "a-line": b"X" * 4096, "chunks": b"Transfer-Encoding: chunked\r\n\r\n1\r\ny\r\n"}
ENDLESS["interim-answers"] = b"\r\nHTTP/1.1 100 Continue\r\n"


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_listener_that_never_ends_does_not_hold_the_hub_up(kind: str) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]

        def pour() -> None:
            line, _ = listener.accept()
            with line, contextlib.suppress(OSError):
                line.sendall(b"HTTP/1.1 200 OK\r\n" if kind != "interim-answers" else b"HTTP/1.1 100 Continue\r\n")
                line.sendall(ENDLESS[kind])
                while True:
                    line.sendall((ENDLESS[kind] if kind != "chunks" else b"10000\r\n%b\r\n" % bytes(1 << 16)) * 16)

        pouring = threading.Thread(target=pour)
        pouring.start()
        began = time.monotonic()
        assert caucus.version_at(f"http://{LOOPBACK}:{port}") is None
        assert time.monotonic() - began < 2  # on a machine that does other things as well
        pouring.join(DEADLINE_S)
        assert not pouring.is_alive()  # who asked has hung up
        hub = subprocess.run(
            [sys.executable, str(ROOT / "caucus.py"), "hub", "--port", str(port)],
            env=environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        assert hub.returncode == 3
        assert "something else listens there" in hub.stderr
