"""caucus doctor: each part of a set-up is broken in its way, and each is found with what mends it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nursery
import pytest
from hubs import ROOT, START, HubProcess, eventually, running_hub
from test_awake import Hooks, waiting, wake_of
from test_bridge import environment
from test_install import tree
from wires import stub_hub

import caucus

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins for hosts are scripts of sh")

OPERATOR = "operator-secret"
OLD = 1_000_000_000  # a time before any process of this machine
NOBODY = "4194399"  # a process that cannot be: Linux has at most 4194304, macOS 99999
Finding = dict[str, Any]


class Machine:
    """A user's folder, a project and a PATH of our own; what `caucus doctor` finds there."""

    def __init__(self, folder: Path, url: str) -> None:
        self.home, self.project, self.bin, self.temp = (folder / name for name in ("home", "project", "bin", "temp"))
        for one in (self.home, self.project, self.bin, self.temp):
            one.mkdir()
        self.url = url
        self.env = {"HOME": str(self.home), "PATH": str(self.bin), "TMPDIR": str(self.temp)}
        self.env |= {"XDG_STATE_HOME": str(folder / "state"), "XDG_CONFIG_HOME": str(folder / "config")}
        os.symlink(str(shutil.which("ps")), self.bin / "ps")
        linux = folder / "state" / "caucus"
        self.state = self.home / "Library/Application Support/caucus" if sys.platform == "darwin" else linux
        (self.home / ".gemini").mkdir()  # of which Gemini's hosts are known
        self.write(self.home / ".claude.json", {"projects": {str(self.project): {"hasTrustDialogAccepted": True}}})

    def run(self, *words: str, program: tuple[str, ...] = (START,), **env: str) -> tuple[int, str]:
        """Run a command of ours in the project; give exit code and stdout."""
        hidden = ("CLAUDE", "CODEX", "XDG_", "NO_COLOR") + (() if sys.platform == "darwin" else ("LOCALAPPDATA",))
        clean = {key: value for key, value in environment().items()
                 if not key.startswith(hidden) and not key.lower().endswith("_proxy")}
        done = nursery.run([sys.executable, "-W", "error", *program, *words],
                           cwd=self.project, env={**clean, **self.env, **env})
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        assert done.stderr == "" or done.returncode == 2, done.stderr
        return done.returncode, done.stdout or done.stderr

    def doctor(self, *flags: str, url: str | None = None, **env: str) -> list[Finding]:
        """Give its findings; the exit code must be that of the worst."""
        hub = ["--hub", self.url if url is None else url] if url != "" else []
        began = time.monotonic()
        code, out = self.run("doctor", "--json", *hub, *flags, **env)
        assert time.monotonic() - began < 15  # ten, and a slow machine
        findings: list[Finding] = json.loads(out)["findings"]
        assert all(one.keys() == {"what", "where", "state", "words", "fix"} for one in findings)
        assert code == any(one["state"] == "broken" for one in findings)
        return findings

    def finding(self, what: str, words: str, *flags: str, url: str | None = None, **env: str) -> Finding:
        """Give the one finding of a kind whose place and words contain something."""
        return one_of(self.doctor(*flags, url=url, **env), what, words)

    def install(self, host: str, *flags: str) -> None:
        """Install for this machine's hub."""
        code, out = self.run("install", host, "--hub", self.url, *flags)
        assert code == 0, out

    def write(self, path: Path, content: Any) -> Path:
        """Write a file, as JSON where it is no text."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    def program(self, name: str, script: str) -> Path:
        """Put a program into PATH."""
        path = self.write(self.bin / name, f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def change(self, path: Path, change: Callable[[Any], None]) -> None:
        """Change a file of JSON."""
        data = json.loads(path.read_text(encoding="utf-8"))
        change(data)
        self.write(path, data)

    def session(self, name: str = "claude-abc", pid: str = NOBODY, token: str = "t" * 32, **files: str) -> Path:
        """Leave the files of a session behind, long ago."""
        place = self.state / "sessions" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        self.state.chmod(0o700)
        place.parent.chmod(0o700)
        text = f"url={self.url}\ntoken={token}\nname=api\npid={pid}\nhost=1\n"
        for path, content in {"": text, **files}.items():
            file = self.write(place.with_name(f"{name}{'.' if path else ''}{path}"), content)
            file.chmod(0o600)
            os.utime(file, (OLD, OLD))
        return place


def one_of(findings: list[Finding], what: str, words: str) -> Finding:
    """Give the one finding of a kind whose place and words contain something."""
    found = [one for one in findings if one["what"] == what and words in f"{one['where']}: {one['words']}"]
    assert len(found) == 1, (what, words, findings)
    return found[0]


def shown(finding: Finding) -> tuple[str, str]:
    """Give state and fix."""
    return finding["state"], finding["fix"]


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProcess]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def machine(hub: HubProcess, tmp_path: Path) -> Iterator[Machine]:
    yield Machine(tmp_path, hub.url)
    hub.clear()


# --- the whole ---


def test_a_set_up_that_is_well_is_ok_throughout(machine: Machine) -> None:
    machine.program("claude", "echo '2.1.332 (Claude Code)'")
    machine.install("claude")
    findings = machine.doctor()
    assert [one for one in findings if one["state"] != "ok" or one["fix"]] == []
    assert one_of(findings, "hosts", "Claude Code")["words"] == f"2.1.332 (Claude Code), {machine.bin / 'claude'}"
    assert one_of(findings, "hosts", "not here")["where"].startswith("Codex, ")
    assert one_of(findings, "installed", "entry in")["words"] == f"starts this program, {caucus.__version__}"
    assert one_of(findings, "installed", "hooks in")["words"] == "as an install writes them"
    assert one_of(findings, "hub", "answers")["words"] == f"Caucus {caucus.__version__} answers"
    assert [*dict.fromkeys(one["what"] for one in findings)] == [one for one in caucus.CHECKS if one != "wakes"]


def test_where_nothing_is_set_up_it_says_what_comes_first(machine: Machine) -> None:
    findings = machine.doctor(url="http://127.0.0.1:9")
    assert shown(one_of(findings, "installed", "in no host")) == ("warning", "caucus install")
    assert shown(one_of(findings, "hub", "no hub answers")) == ("broken", "caucus hub --port 9")
    assert shown(one_of(findings, "service", "none")) == ("ok", "")


def test_it_writes_nothing(machine: Machine, tmp_path: Path) -> None:
    machine.install("claude")
    machine.install("opencode")
    machine.session(waiter=NOBODY)
    before = tree(tmp_path)
    machine.doctor()
    machine.run("doctor")
    assert tree(tmp_path) == before


def test_text_is_a_line_for_each_finding_by_what_it_is_about(machine: Machine) -> None:
    machine.install("claude")
    machine.session()
    code, out = machine.run("doctor", "--hub", machine.url)
    lines = out.splitlines()
    assert code == 0
    assert [line for line in lines if line in caucus.CHECKS] == [*caucus.CHECKS][:-1]
    rest = [line for line in lines if line not in caucus.CHECKS]
    assert [line for line in rest if not re.match(r"  (ok|warning|broken) +\S", line)] == ["1 to look at"]
    assert [line for line in lines if line.endswith(". Fix: caucus doctor --tidy")]
    assert "\x1b" not in out


@pytest.mark.parametrize(("env", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_are_for_terminals_whose_user_wants_them(
    machine: Machine, env: dict[str, str], is_coloured: bool
) -> None:
    import pty

    terminal, end = pty.openpty()
    clean = {key: value for key, value in environment().items() if key != "NO_COLOR"}
    process = subprocess.Popen([sys.executable, START, "doctor", "--hub", machine.url], stdin=end, stdout=end,
                               cwd=machine.project, env={**clean, **machine.env, "TERM": "xterm", **env})
    os.close(end)
    said = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while data := os.read(terminal, 65_536):
            said += data
    os.close(terminal)
    assert process.wait(20) == 0
    assert (b"\x1b[32mok" in said) == is_coloured
    assert b"\x1b[" not in said or is_coloured


def test_no_token_is_ever_shown(machine: Machine) -> None:
    secrets = {"CAUCUS_OPERATOR_TOKEN": "s3cret-operator", "CAUCUS_AGENT_KEY": "s3cret key", "CAUCUS_TOKEN": "s3cret-é",
               "HTTP_PROXY": "http://me:s3cret@proxy", "CAUCUS_HUB_URL": "http://me:s3cret@127.0.0.1:9"}
    entry = {"type": "http", "url": f"{machine.url.replace('//', '//me:s3cret@')}/mcp?token=s3cret"}
    machine.write(machine.project / ".mcp.json", {"mcpServers": {"caucus": entry}})
    machine.session(pid=str(os.getpid()), token="s3cret-token")
    for flags in ((), ("--json",), ("--tidy",), ("--wake", "api")):
        _, out = machine.run("doctor", *flags, **secrets)
        assert "s3cret" not in out


def test_a_place_that_stdout_cannot_print_is_no_traceback(machine: Machine) -> None:
    machine.project = machine.project / "köln→"
    machine.project.mkdir()
    machine.install("claude")
    _, out = machine.run("doctor", "--hub", machine.url, PYTHONIOENCODING="ascii")
    assert "k\\xf6ln" in out


@pytest.mark.skipif(sys.platform == "win32", reason="a shell closes it")
def test_with_stdout_closed_the_exit_code_tells_all_the_same(machine: Machine) -> None:
    words = ("-c", 'exec "$@" >&-', "sh", sys.executable, "-W", "error", str(START), "doctor", "--hub", machine.url)
    for more in ((), ("--json",)):
        done = subprocess.run(["/bin/sh", *words, *more], cwd=machine.project, env={**environment(), **machine.env},
                              capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")


# --- hosts ---


def test_hosts_that_hang_or_fail_are_told_of_and_hold_up_nobody(machine: Machine) -> None:
    for name in ("claude", "codex", "gemini"):
        machine.program(name, "/bin/sleep 60 & wait")
    failing = machine.program("opencode", "echo 'cannot find\nits engine'; exit 3")
    machine.write(machine.bin / "copilot", "neither a script nor a program").chmod(0o755)
    findings = machine.doctor()
    claude = one_of(findings, "hosts", "Claude Code")
    assert claude["words"] == f"{machine.bin / 'claude'} says nothing within 5 s"
    assert shown(claude) == ("warning", f"{machine.bin / 'claude'} --version")
    assert one_of(findings, "hosts", "Gemini CLI")["state"] == "warning"
    opencode = one_of(findings, "hosts", "OpenCode")
    assert opencode["words"] == f"{failing} fails with exit code 3: cannot find"
    assert one_of(findings, "hosts", "Copilot CLI")["state"] == "warning"


def test_a_host_that_is_not_in_path_may_have_settings_here(machine: Machine) -> None:
    assert machine.finding("hosts", "Gemini CLI")["words"] == "has settings here, and no program in PATH"


# --- entries ---

BRIDGES: dict[str, tuple[list[str], str, str]] = {  # the entry's words before "bridge", state, what is said of it
    "no Python": (["/nowhere/python3", "P/caucus.pyz"], "broken", "there is no /nowhere/python3"),
    "no program": ([sys.executable, "/nowhere/caucus.pyz"], "broken", "there is no /nowhere/caucus.pyz"),
    "another version": ([sys.executable, "P/old.py"], "warning", "starts Caucus 0.0.9 at P/old.py; this is"),
    "the same elsewhere": ([sys.executable, "P/same.py"], "warning", f"{caucus.__version__} at P/same.py; this is"),
    "another program": ([sys.executable, "P/other.py"], "broken", "P/other.py is no Caucus: it says 'other 1.0'"),
    "one that fails": ([sys.executable, "P/bad.py"], "broken", "fails with exit code 1"),
    "by its name": (["caucus"], "warning", "starts Caucus 0.0.8 at caucus"),
    "another Python": (["python-too", str(ROOT / "caucus.py")], "ok", f"{caucus.__version__}, with python-too"),
}


@pytest.mark.parametrize("case", BRIDGES)
def test_what_an_entry_starts_is_looked_at_and_run(machine: Machine, case: str) -> None:
    place = machine.home / "programs"
    for name, said in (("old", "caucus 0.0.9"), ("same", f"caucus {caucus.__version__}"), ("other", "other 1.0")):
        machine.write(place / f"{name}.py", f"print({said!r})")
    machine.write(place / "bad.py", "raise SystemExit('no, not today')")
    machine.program("caucus", "echo caucus 0.0.8")
    machine.program("python-too", f'exec {sys.executable} "$@"')
    machine.install("claude", "--scope", "user")
    words, state, said = BRIDGES[case]
    words = [word.replace("P/", f"{place}/") for word in words]

    def change(data: Any) -> None:
        data["mcpServers"]["caucus"] |= {"command": words[0], "args": [*words[1:], "bridge", "--hub", machine.url]}

    machine.change(machine.home / ".claude.json", change)
    finding = machine.finding("installed", "claude (user), entry in")
    assert said.replace("P/", f"{place}/") in finding["words"]
    fix = f"caucus install claude --scope user --hub {machine.url}"
    assert shown(finding) == (state, "" if state == "ok" else fix)


def test_a_program_that_came_with_a_repository_is_not_run(machine: Machine) -> None:
    machine.write(machine.project / "evil.py", "open('was-run', 'w').close(); print('caucus 0.0.9')")
    words = {"command": sys.executable, "args": ["evil.py", "bridge", "--hub", machine.url]}
    machine.write(machine.project / ".mcp.json", {"mcpServers": {"caucus": words}})
    finding = machine.finding("installed", "claude (project), entry in")
    assert finding["state"] == "warning"
    assert "not tried" in finding["words"]
    assert not (machine.project / "was-run").exists()


def test_this_program_by_another_python_is_known_wherever_the_entry_came_from(machine: Machine) -> None:
    machine.program("python3", f'exec {sys.executable} "$@"')
    entry = {"command": "python3", "args": [str(ROOT / "caucus.py"), "bridge", "--hub", machine.url]}
    machine.write(machine.project / ".mcp.json", {"mcpServers": {"caucus": entry}})
    words = f"starts this program, {caucus.__version__}, with python3"
    assert machine.finding("installed", "entry in")["words"] == words


def test_an_entry_that_an_install_of_another_program_wrote_is_run(machine: Machine, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(ROOT / "docs", copy / "docs")
    text = (ROOT / "caucus.py").read_text(encoding="utf-8")
    machine.write(copy / "caucus.py", text.replace(f'__version__ = "{caucus.__version__}"', '__version__ = "0.0.7"'))
    code, out = machine.run("install", "claude", "--hub", machine.url, program=(str(copy / "caucus.py"),))
    assert code == 0, out
    findings = machine.doctor()
    entry = one_of(findings, "installed", "entry in")
    assert "starts Caucus 0.0.7" in entry["words"]
    fix = f"caucus install claude --scope project --hub {machine.url}"
    assert shown(entry) == ("warning", fix)
    assert shown(one_of(findings, "installed", "hooks in")) == ("warning", fix), "hooks of an older install"
    machine.install("claude")
    assert {one["state"] for one in machine.doctor()} == {"ok"}, "the fix mends it"


def test_an_entry_that_starts_no_bridge_must_go_first(machine: Machine) -> None:
    machine.write(machine.project / ".mcp.json", {"mcpServers": {"caucus": {"command": "npx", "args": ["x"]}}})
    finding = machine.finding("installed", "starts no bridge")
    assert finding["state"] == "broken"
    assert finding["fix"].startswith("remove or rename it, then `caucus install claude")


def test_entries_by_url_and_of_claudes_own_making_are_known(machine: Machine) -> None:
    machine.write(machine.project / ".cursor/mcp.json", {"mcpServers": {"caucus": {"url": f"{machine.url}/mcp"}}})
    mine = {"command": sys.executable, "args": [str(ROOT / "caucus.py"), "bridge", "--hub", machine.url]}
    machine.change(machine.home / ".claude.json",
                   lambda data: data["projects"][str(machine.project)].update(mcpServers={"caucus": mine}))
    findings = machine.doctor(url="")
    assert one_of(findings, "installed", "cursor (project)")["words"] == f"by URL, {machine.url}"
    assert one_of(findings, "installed", "claude (local)")["state"] == "ok"
    assert [one["where"] for one in findings if one["what"] == "hub"] == [machine.url] * 2


@pytest.mark.parametrize(("host", "path"), [("claude", ".mcp.json"), ("codex", ".codex/config.toml")])
@pytest.mark.parametrize("text", ["{ what", "x = " + 100_000 * "[", 100_000 * "[", b"\xff\xfe".decode("latin-1")])
def test_a_file_that_cannot_be_read_is_named(machine: Machine, host: str, path: str, text: str) -> None:
    machine.write(machine.project / path, text)
    finding = machine.finding("installed", f"{host} (project)")
    assert shown(finding) == ("broken", "mend that file")
    assert str(machine.project / path) in finding["words"]


# --- hooks ---


def test_hooks_in_both_scopes_run_twice(machine: Machine) -> None:
    machine.install("claude")
    machine.install("claude", "--scope", "user")
    finding = machine.finding("installed", "hooks in both scopes")
    assert shown(finding) == ("warning", "caucus uninstall claude --scope project")
    machine.run("uninstall", "claude")
    assert {one["state"] for one in machine.doctor()} == {"ok"}


@pytest.mark.parametrize("host", ["claude", "codex", "gemini", "opencode"])
def test_hooks_that_an_install_would_write_otherwise(machine: Machine, host: str) -> None:
    machine.install(host)
    path = machine.project / caucus.mcp_hosts()[host].hooks[0]
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"(?<![\d:])10", "11", text)  # a time, and no part of the hub's port
    path.write_text(text.replace("// Caucus", "// Our").replace("--now", ""), encoding="utf-8")
    finding = machine.finding("installed", f"{host} (project), {'plugin' if host == 'opencode' else 'hooks'}")
    assert finding["words"] == "other than an install would write them now"
    assert shown(finding) == ("warning", f"caucus install {host} --scope project --hub {machine.url}")


def test_the_hook_for_permission_prompts_is_a_wish_that_stays(machine: Machine) -> None:
    machine.install("claude", "--permissions")
    assert {one["state"] for one in machine.doctor()} == {"ok"}
    path = machine.project / ".claude/settings.json"
    path.write_text(path.read_text(encoding="utf-8").replace("660", "661"), encoding="utf-8")
    finding = machine.finding("installed", "other than an install")
    assert finding["fix"] == f"caucus install claude --scope project --hub {machine.url} --permissions"


@pytest.mark.parametrize("host", ["claude", "opencode"])
def test_hooks_of_a_program_that_is_gone(machine: Machine, host: str) -> None:
    machine.install(host)
    path = machine.project / caucus.mcp_hosts()[host].hooks[0]
    path.write_text(path.read_text(encoding="utf-8").replace(f"{ROOT}/ca", "/nowhere/ca"), encoding="utf-8")
    finding = machine.finding("installed", f"{host} (project), {'plugin' if host == 'opencode' else 'hooks'}")
    assert finding["words"] == "there is no /nowhere/caucus.py"
    assert finding["state"] == "broken"


def test_half_of_an_install_is_missed(machine: Machine) -> None:
    machine.install("claude")
    (machine.project / ".claude/settings.json").unlink()
    findings = machine.doctor()
    fix = f"caucus install claude --scope project --hub {machine.url}"
    assert shown(one_of(findings, "installed", "no hooks: nothing wakes")) == ("warning", fix)
    assert shown(one_of(findings, "installed", "was taken out by somebody")) == ("warning", fix)
    machine.install("claude")
    (machine.project / ".mcp.json").unlink()
    assert machine.finding("installed", "hooks without an MCP entry")["state"] == "warning"


def test_what_was_installed_elsewhere_is_told(machine: Machine) -> None:
    machine.install("claude")
    here, machine.project = machine.project, machine.home
    finding = machine.finding("installed", f"{here / '.mcp.json'}")
    assert (finding["state"], finding["words"]) == ("ok", "elsewhere, for claude")
    shutil.rmtree(here)
    assert machine.finding("installed", f"{here / '.mcp.json'}")["words"].endswith("the file is not there now")


# --- trust ---


def test_whether_claude_trusts_the_folder(machine: Machine) -> None:
    machine.install("claude")
    about = {"hasTrustDialogAccepted": False, "disabledMcpjsonServers": ["caucus"]}
    for folder, state in ((machine.project, "warning"), (machine.project.parent, "ok")):
        machine.write(machine.home / ".claude.json", {"projects": {
            str(folder): {"hasTrustDialogAccepted": state == "ok"}, str(machine.project / "not" / "here"): about,
        }})
        assert machine.finding("trust", "claude")["state"] == state
    machine.write(machine.home / ".claude.json", {"projects": {str(machine.project): about}})
    findings = machine.doctor()
    assert one_of(findings, "trust", "does not trust")["fix"] == "start `claude` here once, and trust the folder"
    assert shown(one_of(findings, "trust", "switched off")) == ("broken", "in `claude`: /mcp, and enable caucus")


def test_whether_codex_has_been_told_to_trust_the_hooks(machine: Machine) -> None:
    machine.install("codex")
    hooks = machine.project / ".codex/hooks.json"
    findings = machine.doctor()
    finding = one_of(findings, "trust", "hooks")
    assert finding["words"].startswith("3 of 3 hooks")
    assert shown(finding) == ("warning", "in `codex`: /hooks, and confirm them")
    folder = one_of(findings, "trust", "does not trust")
    assert shown(folder) == ("warning", "start `codex` here once, and trust the folder")

    keys = [f"{hooks}:{event}:0:0" for event in ("pre_tool_use", "session_start", "stop")]
    states = "".join(f'[hooks.state.{json.dumps(key)}]\ntrusted_hash = "sha256:0"\n' for key in keys)
    trusted = f'[projects.{json.dumps(str(machine.project))}]\ntrust_level = "trusted"\n'
    config = machine.write(machine.home / ".codex/config.toml", f"{trusted}{states}enabled = false\n")
    assert machine.finding("trust", "codex")["words"].startswith("1 of 3 hooks")
    machine.write(config, trusted + states)
    finding = machine.finding("trust", "codex")
    assert finding["state"] == "ok"
    assert "cannot be known" in finding["words"]


def test_whether_gemini_trusts_the_folder(machine: Machine) -> None:
    machine.install("gemini")
    told = machine.home / ".gemini/trustedFolders.json"
    fix = "start `gemini` here once, and trust the folder"
    assert shown(machine.finding("trust", "gemini")) == ("warning", fix)
    here, above = str(machine.project), str(machine.project.parent)
    cases: list[tuple[dict[str, str], str]] = [
        ({here: "TRUST_FOLDER"}, "ok"), ({above: "TRUST_FOLDER"}, "ok"), ({here: "TRUST_PARENT"}, "ok"),
        ({f"{above}/other": "TRUST_PARENT"}, "ok"), ({above: "TRUST_FOLDER", here: "DO_NOT_TRUST"}, "warning"),
        ({f"{above}/other": "TRUST_FOLDER"}, "warning"),
    ]  # fmt: skip
    for levels, state in cases:
        machine.write(told, levels)
        assert machine.finding("trust", "gemini")["state"] == state, levels
    machine.write(machine.home / ".gemini/settings.json", {"security": {"folderTrust": {"enabled": False}}})
    assert machine.finding("trust", "gemini")["words"].startswith("trusts every folder")


def test_what_cannot_be_known_of_trust_is_said(machine: Machine) -> None:
    machine.install("opencode")
    machine.install("vscode")
    findings = machine.doctor()
    assert one_of(findings, "trust", "opencode")["state"] == "ok"
    assert one_of(findings, "trust", "vscode")["words"].startswith("cannot be known")


# --- the hub ---


def test_a_hub_of_another_version_is_told(machine: Machine) -> None:
    def script(target: str, body: bytes) -> tuple[int, bytes] | None:
        return (200, b'{"version": "9.9"}') if target == "/version" else (404, b"{}")

    with stub_hub(script) as stub:
        finding = machine.finding("hub", "9.9", url=stub.url)
    assert finding["words"] == f"Caucus 9.9 answers; this is {caucus.__version__}"
    assert shown(finding) == ("warning", "end that hub, and start it with this program")


def test_what_answers_and_is_no_hub_is_broken(machine: Machine) -> None:
    with stub_hub(lambda target, body: (200, b"hello")) as stub:
        assert machine.finding("hub", stub.url, url=stub.url)["state"] == "broken"
    given_up = threading.Event()
    with stub_hub(lambda target, body: (200, b"%d" % given_up.wait(20.0))) as stub:
        assert machine.finding("hub", stub.url, url=stub.url)["state"] == "broken", "it never answers"
        given_up.set()


def test_whether_a_hub_is_guarded_and_the_token_is_here(machine: Machine) -> None:
    with running_hub("--operator-token", OPERATOR) as guarded:
        said = machine.finding("hub", "asks for the operator token", url=guarded.url)
        assert said["words"].endswith("is not set here, and is needed for --wake only")
        said = machine.finding("hub", "asks for the operator token", url=guarded.url, CAUCUS_OPERATOR_TOKEN="x")
        assert said["words"].endswith("CAUCUS_OPERATOR_TOKEN is set here")
    finding = machine.finding("hub", "asks for no", CAUCUS_OPERATOR_TOKEN="x")
    assert shown(finding) == ("warning", "start it again from here")


def test_the_hubs_of_entries_are_asked_and_one_that_a_bridge_starts_may_be_away(machine: Machine) -> None:
    machine.install("claude")
    far = {"command": sys.executable, "args": [str(ROOT / "caucus.py"), "bridge", "--hub", "http://127.0.0.1:9"]}
    entry = machine.write(machine.project / ".cursor/mcp.json", {"mcpServers": {"caucus": far}})
    findings = machine.doctor(url="")
    assert one_of(findings, "hub", f"{machine.url}: Caucus")["state"] == "ok"
    assert shown(one_of(findings, "hub", "http://127.0.0.1:9")) == ("broken", "caucus hub --port 9")
    machine.change(entry, lambda data: data["mcpServers"]["caucus"].update(env={"CAUCUS_AUTOSTART": "1"}))
    assert machine.finding("hub", "a bridge starts one", url="")["state"] == "warning"


# --- the environment ---


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_that_would_catch_loopback(machine: Machine, name: str) -> None:
    finding = machine.finding("environment", "PROXY", **{name: "http://proxy:3128", "NO_PROXY": "localhost"})
    assert shown(finding) == ("warning", "export NO_PROXY=127.0.0.1,localhost")
    for spared in ("localhost, 127.0.0.1", "*"):
        said = machine.finding("environment", "", **{name: "http://proxy:3128", "no_proxy": spared})
        assert said["state"] == "ok"


@pytest.mark.parametrize(
    ("name", "value", "state", "words"),
    [
        ("CAUCUS_OPERATOR_TOKEN", "gehäim", "broken", "is not one word of ASCII"),
        ("CAUCUS_AGENT_KEY", "two words", "broken", "is not one word of ASCII"),
        ("CAUCUS_HUB_URL", "127.0.0.1:8765", "broken", "cannot be used: it is not an http or https URL"),
        ("CAUCUS_HUB_URL", "http://far.example", "broken", "plain http shows the token to the network"),
        ("CAUCUS_PROJECT", "all", "broken", "cannot be used: name"),
        ("CAUCUS_BUDGET", "room: 5 massages", "broken", "this is wrong at character 9"),
        ("CAUCUS_QUIET_AFTER_SECONDS", "soon", "broken", "is not a number from 0"),
        ("CAUCUS_LOG_RETENTION_HOURS", "-1", "broken", "is not a number from 0"),
        ("CAUCUS_AUTOSTART", "yes", "warning", "is neither 1 nor 0"),
        ("CAUCUS_OBSERVER_TOKEN", "w", "warning", "without CAUCUS_OPERATOR_TOKEN"),
        ("CAUCUS_HUBURL", "http://127.0.0.1:1", "warning", "is no variable that Caucus knows"),
    ],
)
def test_variables_that_make_no_sense(machine: Machine, name: str, value: str, state: str, words: str) -> None:
    finding = machine.finding("environment", name, **{name: value})
    assert shown(finding) == (state, f"unset {name}")
    assert words in finding["words"]


def test_every_variable_of_ours_is_known() -> None:
    manual = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    assert set(re.findall(r"CAUCUS_[A-Z_]*[A-Z]", manual)) == set(caucus._VARIABLES)


# --- the service ---


@pytest.mark.skipif(sys.platform != "linux", reason="the stand-in is systemd's")
@pytest.mark.parametrize("state", ["active", "inactive"])
def test_a_service_that_is_installed_runs_or_is_broken(machine: Machine, tmp_path: Path, state: str) -> None:
    unit = machine.write(tmp_path / "config/systemd/user/caucus.service", "[Unit]\n")
    machine.program("systemctl", f"echo ActiveState={state}; echo ActiveEnterTimestamp=today")
    finding = machine.finding("service", str(unit))
    if state == "active":
        assert (finding["state"], finding["words"]) == ("ok", "runs since today")
    else:
        assert shown(finding) == ("broken", "systemctl --user enable --now caucus.service")


# --- what is kept, and what is left ---


def test_what_is_kept_is_for_this_user_only(machine: Machine) -> None:
    machine.install("claude")
    assert machine.finding("state folder", "")["words"] == "for this user only"
    machine.state.chmod(0o755)
    fix = f"chmod -R go-rwx {caucus.shell_line([str(machine.state)])}"
    assert shown(machine.finding("state folder", "")) == ("warning", fix)
    place = machine.session()
    place.chmod(0o644)
    assert machine.finding("state folder", "")["state"] == "ok", "its folder is closed"
    machine.state.chmod(0o755)
    assert machine.finding("state folder", "")["state"] == "warning", "the inner one is"
    place.parent.chmod(0o755)
    assert shown(machine.finding("state folder", str(place))) == ("broken", fix)
    subprocess.run(fix, shell=True, check=True)
    assert machine.finding("state folder", "")["state"] == "ok"


def test_tidy_removes_exactly_what_nobody_needs(machine: Machine, tmp_path: Path) -> None:
    machine.install("claude")
    here = str(os.getpid())
    kept = machine.session("claude-live", here, "u" * 32, children="", unasked="..", waiter=here)
    alias = machine.write(kept.with_name("claude-after-clear"), f"alias={kept}\n")
    alias.chmod(0o600)
    (kept.parent / "claude-young.new").touch(0o600)  # about to become a session
    (machine.temp / "caucus-0123456789abcdef.token").write_text("u" * 32)  # of the session that is there
    (machine.temp / "caucus-fedcba9876543210.token").write_text("young")
    (machine.temp / "caucus-notes.token").write_text("somebody's own")
    (machine.project / ".mcp.json.new").write_text("somebody's own")
    for name in ("caucus-0123456789abcdef.token", "caucus-notes.token"):
        os.utime(machine.temp / name, (OLD, OLD))
    (machine.state / "hub-1.journal.lock").write_text(str(os.getpid()))
    os.chmod(machine.state / "hub-1.journal.lock", 0o600)
    before = tree(tmp_path)

    over = machine.session("codex-over", children="", unasked=".", new="", waiter=NOBODY)
    token = machine.temp / "caucus-00000000000000aa.token"
    stale = [over, *(over.with_name(f"codex-over.{end}") for end in ("children", "unasked", "new", "waiter"))]
    stale += [token, machine.project / ".mcp.json.0123abcd.new", machine.state / "hub-2.journal.lock",
              machine.write(kept.with_name("claude-lost"), f"alias={kept.parent / 'claude-gone'}\n"),
              machine.session("claude-alone").rename(kept.with_name("claude-alone.unasked"))]  # fmt: skip
    for path in stale[5:8]:
        path.write_text(NOBODY)
        os.utime(path, (OLD, OLD))
        path.chmod(0o600)
    findings = [one for one in machine.doctor() if one["what"] == "leftovers"]
    assert {one["fix"] for one in findings} == {"caucus doctor --tidy"}
    assert {one["words"]: one["state"] for one in findings} == {
        "of a session that is over": "warning", "the lock of a process that has ended": "ok",
        "a token that no watch of a running bridge needs": "warning", "half written": "warning",
    }
    assert all(path.exists() for path in stale)
    findings = [one for one in machine.doctor("--tidy") if one["what"] == "leftovers"]
    assert len(findings) == 4
    assert all(one["words"].startswith("removed: ") and shown(one) == ("ok", "") for one in findings)
    assert tree(tmp_path) == before
    assert machine.finding("leftovers", "none")["state"] == "ok"


def test_where_nobody_tells_how_old_bridges_are_their_tokens_stay(machine: Machine) -> None:
    token = machine.temp / "caucus-00000000000000aa.token"
    token.write_text("t")
    os.utime(token, (OLD, OLD))
    (machine.bin / "ps").unlink()
    machine.doctor("--tidy")
    assert token.exists()


def test_what_cannot_be_looked_at_is_said_and_the_rest_goes_on(machine: Machine) -> None:
    machine.write(machine.home / ".claude.json", {"projects": ["not an object"]})
    machine.install("claude")
    findings = machine.doctor()
    assert one_of(findings, "trust", "cannot be looked at")["state"] == "warning"
    assert one_of(findings, "hub", "answers")["state"] == "ok"


def test_a_check_that_never_ends_is_left(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    monkeypatch.setattr(caucus, "_DOCTOR_S", 0.2)
    monkeypatch.setattr(caucus, "CHECKS", {"slow": lambda checkup: time.sleep(30), "quick": lambda checkup: []})
    monkeypatch.chdir(machine.project)
    assert [(one.what, one.state) for one in caucus.examine("", False)] == [("slow", "warning")]


# --- who wakes ---


def hooks_of(machine: Machine, folder: Path) -> Hooks:
    """Give the hooks of a session on this machine."""
    return Hooks(machine.url, folder, **machine.env)


@pytest.fixture
def end() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as end:
        yield end


def test_how_each_seat_was_woken_last(
    machine: Machine, hub: HubProcess, tmp_path: Path, end: contextlib.ExitStack
) -> None:
    hooks = hooks_of(machine, tmp_path)
    bridge = hooks.bridge(end, machine.temp)
    finding = machine.finding("wakes", f"api at {hub.url}")
    assert finding["words"] == "nothing has waited for its mail yet"
    assert finding["fix"].startswith("caucus install claude, and start it anew")
    waiter = waiting(end, hub, hooks)
    assert machine.finding("wakes", "api")["words"] == "can be woken, not proven yet"
    hub.post("/ring", peer="api")
    waiter.wait(10)
    bridge.call("listen", timeout=0)
    eventually(lambda: wake_of(hub)["proven_ts"], "a proof")
    waiter = waiting(end, hub, hooks)
    assert re.fullmatch(r"can be woken; woke in \d+\.\d s, \d+ s ago", machine.finding("wakes", "api")["words"])
    waiter.kill()
    eventually(lambda: wake_of(hub)["kind"] == "nobody waits", "that nobody waits", 8)
    assert machine.finding("wakes", "nobody waits")["state"] == "warning"
    bridge.call("leave")
    assert [one for one in machine.doctor() if one["what"] == "wakes"] == []


def test_a_seat_that_the_hub_does_not_know_is_told(machine: Machine) -> None:
    machine.session(pid=str(os.getpid()))
    assert machine.finding("wakes", "api")["words"] == "cannot be known: the hub has no live peer api"


def ring(machine: Machine, *flags: str, url: str = "", **env: str) -> tuple[int, str]:
    """Run `doctor --wake api`."""
    return machine.run("doctor", "--wake", "api", "--hub", url or machine.url, *flags, **env)


def test_a_wake_is_proven(machine: Machine, hub: HubProcess, tmp_path: Path, end: contextlib.ExitStack) -> None:
    hooks = hooks_of(machine, tmp_path)
    bridge = hooks.bridge(end, machine.temp)
    for flags in ((), ("--json",)):
        waiter = waiting(end, hub, hooks)
        command = [sys.executable, "-W", "error", START, "doctor", "--wake", "api", "--hub", hub.url, *flags]
        doctor = nursery.start(command, stdout=subprocess.PIPE, text=True, env=environment(machine.env))
        assert waiter.wait(10) == caucus.EXIT_WAKE
        bridge.call("listen", timeout=0)
        out = doctor.communicate(timeout=25)[0]
        assert doctor.returncode == 0
        if flags:
            [finding] = json.loads(out)["findings"]
            assert (finding["what"], finding["state"], finding["where"]) == ("wake", "ok", f"api at {hub.url}")
        else:
            assert re.fullmatch(r"api woke in \d+\.\d s\n", out)


def test_who_does_not_call_has_not_woken(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, hub: HubProcess, tmp_path: Path, end: contextlib.ExitStack
) -> None:
    hooks = hooks_of(machine, tmp_path)
    hooks.bridge(end, machine.temp)
    waiting(end, hub, hooks)
    monkeypatch.setattr(caucus, "_RING_S", 0.5)
    finding = caucus.ring_for("api", hub.url, "")
    assert (finding.state, finding.words) == ("broken", "api was rung for, and has not called within 0.5 s")


def test_why_nobody_can_be_woken(machine: Machine, hub: HubProcess) -> None:
    assert ring(machine) == (1, "the hub has no live peer api\n")
    hub.register("api")
    assert ring(machine) == (1, "nobody waits beside api, so nothing can wake it. Fix: caucus doctor\n")
    code, out = ring(machine, url="http://127.0.0.1:9")
    assert code == 1
    assert out.endswith("Fix: caucus hub --port 9\n")


def test_only_with_the_operators_token_it_rings_where_a_hub_asks_for_it(machine: Machine) -> None:
    with running_hub("--operator-token", OPERATOR, "--agent-key", "key") as guarded:
        guarded.register("api", bearer="key")
        code, out = ring(machine, url=guarded.url)
        assert code == 1
        assert out.endswith("Fix: set CAUCUS_OPERATOR_TOKEN to the hub's, or give --operator-token\n")
        for flags, env in (("--operator-token", OPERATOR), {}), ((), {"CAUCUS_OPERATOR_TOKEN": OPERATOR}):
            assert "nobody waits beside api" in ring(machine, *flags, url=guarded.url, **env)[1]


def test_where_a_hub_has_an_agent_key_alone_that_opens_what_is_read(machine: Machine) -> None:
    with running_hub("--agent-key", "key") as keyed:
        keyed.register("api", bearer="key")
        assert "agent key" in ring(machine, url=keyed.url)[1]
        assert "nobody waits beside api" in ring(machine, url=keyed.url, CAUCUS_AGENT_KEY="key")[1]


def test_a_folder_that_is_gone_is_no_traceback(machine: Machine) -> None:
    gone = machine.home / "gone"
    gone.mkdir()
    command = [sys.executable, START, "doctor", "--hub", machine.url]
    env = environment(machine.env)
    done = subprocess.run(["/bin/sh", "-c", f'rmdir "$PWD"; exec {caucus.shell_line(command)}'], cwd=gone, env=env,
                          capture_output=True, text=True, check=False, timeout=30)
    assert "Traceback" not in done.stderr
    assert "Caucus" in done.stdout


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--hub", "ftp://x"], "is not an http or https URL"),
        (["--wake", "api", "--tidy"], "--wake does nothing but ring"),
        (["--wake", "api", "--operator-token", "é"], "is not one word of ASCII"),
    ],
)
def test_bad_options_end_it(machine: Machine, flags: list[str], words: str) -> None:
    code, out = machine.run("doctor", *flags)
    assert code == 2
    assert words in out
