"""caucus install and uninstall: people's own files keep every byte that is not ours, and come back as they were."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import nursery
import pytest
from hubs import START
from hypothesis import given
from hypothesis import strategies as some

import caucus

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = str(ROOT / "caucus.py")
HOSTS = [*caucus.HOST_NAMES]
SETTINGS = {  # what install sets besides entries and hooks
    ("tools", "shell", "backgroundCompletionBehavior"): "inject", ("experimental", "modelSteering"): True,
}


# --- reading, by other means than the program's ---


def plain(text: str) -> Any:
    """Read JSON that may have comments and trailing commas; an empty text is an empty object."""
    strings_and_comments = r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/'
    bare = re.sub(strings_and_comments, lambda found: found[1] or " ", text.removeprefix("\ufeff"), flags=re.DOTALL)
    closed = re.sub(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', lambda found: found[1] or "", bare, flags=re.DOTALL)
    return json.loads(closed) if closed.strip() else {}


def read(path: str, data: bytes) -> Any:
    """Parse a file as its host would; what is no data is itself."""
    text = data.decode()
    if path.endswith(".toml"):
        return tomllib.loads(text.removeprefix("\ufeff"))
    return plain(text) if path.endswith((".json", ".jsonc")) else text


def contains(whole: Any, part: Any) -> bool:
    """Whether `whole` is `part` with more keys in its objects, and more at the ends of its arrays."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and contains(whole[key], value) for key, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(whole) >= len(part) and all(contains(w, p) for w, p in zip(whole, part, strict=False))
    return bool(whole == part)


def is_grown_from(after: bytes, before: bytes) -> bool:
    """Whether `after` is `before` with something put in between."""
    rest = iter(after)
    return all(byte in rest for byte in before)


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """Give all that is below a folder: files with their bytes, links with where they lead, folders."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


# --- fifty configurations ---

OWN = {"mcpServers": {"files": {"command": "npx", "args": ["-y", "server-files", "/srv"]}}}
HOOKS = {"hooks": {"Stop": [{"hooks": [{"type": "command", "command": "afplay done.wav"}]}],
                   "PreToolUse": [{"matcher": "Bash", "hooks": [{"type": "command", "command": "./guard.sh"}]}]}}
COMMENTED = """\
{
  // our servers: ask Ann before you change one
  "mcpServers": {
    /* the tracker */
    "tracker": { "command": "uvx", "args": ["tracker"] }, // pinned
  },
  "other": [1, 2, 3,], // a last comma
}
"""
TONE = """\
{
\t"hooks": {
\t\t// a tone
\t\t"Stop": [
\t\t\t{"hooks": [{"type": "command", "command": "tone"}]}, // mine
\t\t],
\t},
\t"permissions": {"allow": ["Bash(git:*)"],},
}
"""
ZED = '{\n    "$schema": "https://example/schema.json",\n    "theme": "nord",\n    "mcp": {}\n}\n'
CODEX = """\
# my settings
model = "o-large"   # the big one
approval_policy = "on-request"

[mcp_servers.files]
command = "npx"
args = ["-y", "server-files"]

[projects."/srv/app"]
trust_level = "trusted"
"""
CLAUDE_JSON = json.dumps({
    "numStartups": 412, "tipsHistory": {f"tip-{n}": n for n in range(40)},
    "projects": {f"/srv/{n}": {"allowedTools": [], "history": [{"display": f'say "{n}"'}]} for n in range(30)},
    "mcpServers": {}, "oauthAccount": {"emailAddress": "someone"},
}, indent=2)

CASES: dict[str, tuple[str, str, str | bytes]] = {  # host, the file, what is in it
    "a plain project": ("claude", ".mcp.json", json.dumps(OWN, indent=2) + "\n"),
    "no final newline": ("claude", ".mcp.json", json.dumps(OWN, indent=2)),
    "one line": ("claude", ".mcp.json", json.dumps(OWN)),
    "one dense line": ("claude", ".mcp.json", json.dumps(OWN, separators=(",", ":"))),
    "one line and a newline": ("claude", ".mcp.json", json.dumps(OWN) + "\n"),
    "tabs": ("claude", ".mcp.json", json.dumps(OWN, indent="\t") + "\n"),
    "four blanks": ("claude", ".mcp.json", json.dumps(OWN, indent=4) + "\n"),
    "one blank": ("claude", ".mcp.json", json.dumps(OWN, indent=1) + "\n"),
    "eight blanks": ("claude", ".mcp.json", json.dumps(OWN, indent=8) + "\n"),
    "no indentation": ("claude", ".mcp.json", json.dumps(OWN, indent=0) + "\n"),
    "carriage returns": ("claude", ".mcp.json", json.dumps(OWN, indent=2).replace("\n", "\r\n") + "\r\n"),
    "carriage returns and tabs": ("claude", ".mcp.json", json.dumps(OWN, indent="\t").replace("\n", "\r\n")),
    "a byte order mark": ("claude", ".mcp.json", "\ufeff" + json.dumps(OWN, indent=2)),
    "a mark, carriage returns": ("claude", ".mcp.json", "\ufeff" + json.dumps(OWN, indent=2).replace("\n", "\r\n")),
    "an empty file": ("claude", ".mcp.json", ""),
    "blanks only": ("claude", ".mcp.json", "\n  \n"),
    "a mark only": ("claude", ".mcp.json", "\ufeff"),
    "a comment only": ("claude", ".mcp.json", "// nothing yet"),
    "an empty object": ("claude", ".mcp.json", "{}"),
    "an empty object on two lines": ("claude", ".mcp.json", "{\n}\n"),
    "an empty object with a blank": ("claude", ".mcp.json", "{ }\n"),
    "an object with a comment only": ("claude", ".mcp.json", "{\n  // soon\n}\n"),
    "no servers yet": ("claude", ".mcp.json", '{\n  "mcpServers": {}\n}\n'),
    "no servers, on two lines": ("claude", ".mcp.json", '{\n  "mcpServers": {\n  }\n}\n'),
    "no servers, with a comment": ("claude", ".mcp.json", '{\n  "mcpServers": {\n    // none\n  }\n}\n'),
    "unicode": ("claude", ".mcp.json", '{\n  "café ☕": "naïve — 日本語",\n  "e\\u0301": "\\ud83d\\ude00 😀"\n}\n'),
    "escapes": ("claude", ".mcp.json", '{"a\\"b": "\\\\", "c": "// no comment", "d": "/* nor this */, }"}\n'),
    "numbers": ("claude", ".mcp.json", '{\n  "a": 1.50,\n  "b": -0,\n  "c": 1E+10,\n  "d": 12345678901234567890\n}\n'),
    "a closing brace beside the last": ("claude", ".mcp.json", '{\n  "a": 1,\n  "mcpServers": {\n    "x": {}}}\n'),
    "commas first": ("claude", ".mcp.json", '{ "a": 1\n, "b": 2\n, "mcpServers": { "x": { "command": "y" }\n  }\n}\n'),
    "blank lines": ("claude", ".mcp.json", '\n\n{\n\n  "a": 1,\n\n  "b": 2\n\n}\n\n\n'),
    "hooks of others": ("claude", ".claude/settings.json", json.dumps(HOOKS, indent=2) + "\n"),
    "hooks of others, one line": ("claude", ".claude/settings.json", json.dumps(HOOKS)),
    "hooks with comments": (
        "claude", ".claude/settings.json",
        TONE,
    ),
    "permissions only": ("claude", ".claude/settings.json", '{\n  "permissions": {\n    "deny": ["Read"]\n  }\n}\n'),
    "empty hooks": ("claude", ".claude/settings.json", '{"hooks": {}, "model": "opus"}'),
    "an empty event": ("claude", ".claude/settings.json", '{\n  "hooks": {\n    "Stop": []\n  }\n}\n'),
    "the user's big file": ("claude --scope user", "~/.claude.json", CLAUDE_JSON),
    "the user's settings": ("claude --scope user", "~/.claude/settings.json", json.dumps(HOOKS, indent=2)),
    "comments and last commas": ("gemini", ".gemini/settings.json", COMMENTED),
    "comments, carriage returns": ("gemini", ".gemini/settings.json", COMMENTED.replace("\n", "\r\n")),
    "settings nearby": ("gemini", ".gemini/settings.json", '{"tools": {"shell": {"pager": ""}}, "experimental": {}}'),
    "settings that we want": (
        "gemini", ".gemini/settings.json", '{\n  "experimental": {\n    "modelSteering": true\n  },\n  "ui": {}\n}\n'
    ),
    "the user's gemini": ("gemini --scope user", "~/.gemini/settings.json", '{\n  "security": {"auth": {}}\n}'),
    "codex": ("codex --scope user", "~/.codex/config.toml", CODEX),
    "codex, no final newline": ("codex --scope user", "~/.codex/config.toml", CODEX.rstrip()),
    "codex, carriage returns": ("codex --scope user", "~/.codex/config.toml", CODEX.replace("\n", "\r\n")),
    "codex, a byte order mark": ("codex --scope user", "~/.codex/config.toml", "\ufeff" + CODEX),
    "codex, empty": ("codex --scope user", "~/.codex/config.toml", ""),
    "codex, strings of lines": ("codex", ".codex/config.toml", 'notes = """\n[not.a.table]\n# >>> nor this\n"""\n\n\n'),
    "codex, array of tables": ("codex", ".codex/config.toml", '[[profiles]]\nname = "a"\n[[profiles]]\nname = "b"\n'),
    "codex, hooks": ("codex --scope user", "~/.codex/hooks.json", json.dumps(HOOKS, indent="\t") + "\n"),
    "opencode": ("opencode", "opencode.json", ZED),
    "opencode, with comments": ("opencode", "opencode.jsonc", ZED.replace('"theme"', '// dark\n    "theme"')),
    "opencode's user": ("opencode --scope user", "~/.config/opencode/opencode.json", ZED),
    "a plugin of that name": ("opencode", ".opencode/plugin/caucus.js", "export const mine = async () => ({});\n"),
    "cursor": ("cursor", ".cursor/mcp.json", json.dumps(OWN, indent=2)),
    "cursor's user": ("cursor --scope user", "~/.cursor/mcp.json", json.dumps(OWN, indent=4)),
    "vscode": ("vscode", ".vscode/mcp.json", '{\n\t"inputs": [],\n\t"servers": {\n\t\t"a": {"type": "stdio"},\n\t}\n}'),
    "copilot": ("copilot", "~/.copilot/mcp-config.json", '{\n  "mcpServers": {}\n}'),
    "instructions": ("claude --instructions", "CLAUDE.md", "# Rules\n\n- be brief\n"),
    "instructions, no final newline": ("codex --instructions", "AGENTS.md", "# Rules\r\n\r\n- be brief"),
}


class World:
    """A home and a project, both empty, and the two commands in them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.project = folder, folder / "home", folder / "project"
        self.home.mkdir()
        self.project.mkdir()

    def place(self, name: str) -> Path:
        """Give the path of a file of the home, or of the project."""
        return self.home / name[2:] if name.startswith("~/") else self.project / name

    def write(self, name: str, text: str | bytes) -> Path:
        """Make a file."""
        path = self.place(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def tree(self) -> dict[str, bytes | str | None]:
        """Give all that a user could see in both."""
        return {**{f"home/{k}": v for k, v in tree(self.home).items()}, **tree(self.project)}

    def install(self, words: str) -> dict[str, str]:
        """Do what `caucus install` does, without a process; give the action for each file."""
        host, _, flags = words.partition(" ")
        scope = caucus.install_scope(host, "user" if "--scope user" in flags else None)
        has_notes = "--instructions" in flags
        parts = caucus.our_parts(host, scope).items()
        chosen = [one for one in parts if has_notes or not isinstance(one[1], caucus.NotePart)]
        deeds = [caucus.plan_install(host, *one) for one in chosen]
        for deed in deeds:
            caucus.carry_out(deed, 0o600)
        return {os.path.basename(deed.path): deed.action for deed in deeds}

    def uninstall(self, words: str) -> dict[str, caucus.Deed]:
        """Do what `caucus uninstall` does, without a process."""
        host, _, flags = words.partition(" ")
        scope = caucus.install_scope(host, "user" if "--scope user" in flags else None)
        deeds = [caucus.plan_uninstall(host, *one) for one in caucus.our_parts(host, scope).items()]
        for deed in deeds:
            caucus.carry_out(deed, 0o600)
        return {os.path.basename(deed.path): deed for deed in deeds}

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the program in the project."""
        env = {"HOME": str(self.home), "XDG_STATE_HOME": str(self.folder / "state"), "PATH": "/nowhere"}
        ended = nursery.run([sys.executable, "-W", "error", START, *words], cwd=self.project, env=env,
                            stdin=subprocess.DEVNULL)
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Be in an empty project of a user with an empty home."""
    world = World(tmp_path)
    monkeypatch.setenv("HOME", str(world.home))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for variable in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(world.project)
    return world


def test_there_are_fifty() -> None:
    assert len(CASES) >= 50


@pytest.mark.parametrize("case", CASES)
def test_a_configuration_keeps_its_bytes_and_its_sense_and_comes_back_whole(world: World, case: str) -> None:
    words, name, text = CASES[case]
    path = world.write(name, text)
    before, there = path.read_bytes(), world.tree()
    assert world.install(words)[path.name] == "wrote"
    after = path.read_bytes()
    if not name.endswith(".js"):
        assert contains(read(name, after), read(name, before)) or isinstance(read(name, after), str)
        assert is_grown_from(after, before)
    assert b"caucus" in after
    everything = world.tree()
    assert set(world.install(words).values()) == {"unchanged"}
    assert world.tree() == everything
    world.uninstall(words)
    assert world.tree() == there
    assert tree(world.folder / "state/caucus/installed") == {}


STYLES_LOST = {  # by taking out in place, where only the sense must stay
    *("an empty file", "blanks only", "a mark only", "a comment only", "a closing brace beside the last"),
    *("codex, no final newline", "instructions, no final newline"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_was_added_by_hand_stays_when_ours_is_taken_out(world: World, case: str) -> None:
    words, name, text = CASES[case]
    path = world.write(name, text)
    before = path.read_bytes()
    world.install(words)
    path.write_bytes(path.read_bytes() + b"\n")  # by hand
    deed = world.uninstall(words)[path.name]
    if name.endswith(".js"):
        assert (deed.action, path.exists()) == ("kept", True)
        return
    after = path.read_bytes()
    assert b"caucus" not in after
    assert read(name, after) == read(name, before) or not name.endswith(("json", "toml"))
    if case not in STYLES_LOST:
        assert after == before + b"\n"


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = some.dictionaries(some.text(max_size=4), JSON, max_size=4)
GROUPS = some.lists(some.just({"hooks": [{"type": "command", "command": "x"}]}), max_size=2)
CONFIGURATIONS = some.builds(
    lambda rest, servers, hooks: {**rest, **({"mcpServers": servers} if servers is not None else {}),
                                  **({"hooks": hooks} if hooks is not None else {})},
    OBJECTS, some.none() | OBJECTS,
    some.none() | some.dictionaries(some.sampled_from(["Stop", "PreToolUse", "Other"]), GROUPS, max_size=3),
)
STYLES = some.sampled_from([None, 0, 1, 2, 4, "\t"]), some.sets(some.sampled_from(["dense", "crlf", "notes", "commas"]))


@given(CONFIGURATIONS, *STYLES)
def test_any_object_in_any_style_gets_our_part_and_loses_it_again(
    config: dict[str, Any], indent: int | str | None, style: set[str]
) -> None:
    text = json.dumps(config, indent=indent, separators=(",", ":") if "dense" in style else None)
    if "commas" in style and indent is not None:
        text = re.sub(r"(?<=[^\s{\[,])(?=\n\s*[}\]])", ",", text)
    if "notes" in style and indent is not None:
        text = re.sub(r"(?m)([{\[,])$", r"\1 // a comment, with } and ]", text)
        text = re.sub(r"(?m)^(\s*[}\]])", r"/* , */ // {\n\1", text)
    text = text.replace("\n", "\r\n") if "crlf" in style else text
    part = caucus.JsonPart("gemini", "mcpServers", ("py", "x", "bridge"), caucus.hooks_of("gemini"), SETTINGS)
    with_ours = part.put(text)
    assert contains(plain(with_ours), plain(text))
    assert is_grown_from(with_ours.encode(), text.encode())
    assert plain(with_ours)["mcpServers"]["caucus"] == {"command": "py", "args": ["x", "bridge"], "trust": True}
    assert part.put(with_ours) == with_ours
    assert plain(part.drop(with_ours, text)) == config


def test_what_is_not_looked_at_is_not_read_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    read_one, count = caucus.JsonText._read, [0]

    def counted(self: caucus.JsonText, *about: Any, **more: Any) -> caucus.Spot:
        count[0] += 1
        return read_one(self, *about, **more)

    monkeypatch.setattr(caucus.JsonText, "_read", counted)
    part = caucus.JsonPart("claude", "mcpServers", ("py", "x", "bridge"), caucus.hooks_of("claude"), {})
    text = json.dumps({"projects": {str(n): {"history": [n]} for n in range(5_000)}}, indent=2)
    assert part.drop(part.put(text), text) == text
    assert count[0] < 5_000  # they were read anew after each edit: 400,000


# --- what is written ---


def test_every_host_has_its_table_and_no_other() -> None:
    assert (*caucus.mcp_hosts(),) == caucus.HOST_NAMES


def test_every_file_that_is_written_is_in_the_manual() -> None:
    table = (ROOT / "docs/operating.md").read_text(encoding="utf-8").partition("## Install")[2].partition("## Watch")[0]
    named = {path for host in caucus.mcp_hosts().values() for path in (*host.servers, *host.hooks, *host.notes) if path}
    assert {path for path in named if f"`{path}`" not in table} == set()


def installed(world: World, words: str, name: str) -> Any:
    """Install, and read a file."""
    world.install(words)
    return read(name, world.place(name).read_bytes())


def move(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Let the program be elsewhere."""
    monkeypatch.setattr(caucus, "program_words", lambda *words: [sys.executable, place, *words])


BRIDGE = [sys.executable, PROGRAM, "bridge"]


@pytest.mark.parametrize(
    ("words", "name", "key", "more"),
    [
        ("claude", ".mcp.json", "mcpServers", {}),
        ("claude --scope user", "~/.claude.json", "mcpServers", {}),
        ("codex", ".codex/config.toml", "mcp_servers",
         {"tool_timeout_sec": 60, "default_tools_approval_mode": "approve"}),
        ("codex --scope user", "~/.codex/config.toml", "mcp_servers",
         {"tool_timeout_sec": 60, "default_tools_approval_mode": "approve"}),
        ("gemini", ".gemini/settings.json", "mcpServers", {"trust": True}),
        ("gemini --scope user", "~/.gemini/settings.json", "mcpServers", {"trust": True}),
        ("cursor", ".cursor/mcp.json", "mcpServers", {}),
        ("cursor --scope user", "~/.cursor/mcp.json", "mcpServers", {}),
        ("vscode", ".vscode/mcp.json", "servers", {"type": "stdio"}),
        ("copilot", "~/.copilot/mcp-config.json", "mcpServers", {"type": "local", "tools": ["*"]}),
    ],
)
def test_the_entry_starts_the_bridge(world: World, words: str, name: str, key: str, more: dict[str, Any]) -> None:
    entry = installed(world, words, name)[key]["caucus"]
    assert entry == {"command": BRIDGE[0], "args": BRIDGE[1:], **more}


def test_an_entry_that_is_null_is_replaced(world: World) -> None:
    world.write(".mcp.json", '{"mcpServers": {"caucus": null}}')
    assert installed(world, "claude", ".mcp.json")["mcpServers"]["caucus"]["args"] == BRIDGE[1:]


@pytest.mark.parametrize("name", ["opencode.json", "~/.config/opencode/opencode.json"])
def test_opencodes_entry_is_one_list(world: World, name: str) -> None:
    config = installed(world, "opencode --scope user" if "~" in name else "opencode", name)
    assert config == {"mcp": {"caucus": {"type": "local", "command": BRIDGE, "enabled": True}}}


def hook(*words: str, **more: Any) -> dict[str, Any]:
    """Word a hook as it is to be written."""
    return {"type": "command", "command": " ".join([sys.executable, "-I", "-S", PROGRAM, *words]), **more}


def test_the_hooks_of_claude(world: World) -> None:
    waiter = hook("wake", "claude", asyncRewake=True, timeout=86400)
    assert installed(world, "claude", ".claude/settings.json") == {"hooks": {
        "PreToolUse": [{"matcher": "*", "hooks": [hook("brake", "claude", timeout=10)]}],
        "PostToolUse": [{"matcher": "mcp__caucus__.*", "hooks": [waiter]}],
        "SessionStart": [{"hooks": [hook("wake", "claude", "--context"), waiter]}],
        "Stop": [{"hooks": [waiter]}],
    }}


def test_the_hooks_of_codex(world: World) -> None:
    assert installed(world, "codex", ".codex/hooks.json") == {"hooks": {
        "PreToolUse": [{"matcher": "*", "hooks": [hook("brake", "codex")]}],
        "SessionStart": [{"hooks": [hook("wake", "codex", "--context")]}],
        "Stop": [{"hooks": [hook("wake", "codex", "--now")]}],
    }}


def test_the_hooks_and_settings_of_gemini(world: World) -> None:
    config = installed(world, "gemini", ".gemini/settings.json")
    assert config["hooks"] == {
        "BeforeTool": [{"matcher": "*", "hooks": [hook("brake", "gemini", timeout=10_000)]}],
        "AfterAgent": [{"hooks": [hook("wake", "gemini", "--now")]}],
        "SessionStart": [{"hooks": [hook("wake", "gemini", "--context")]}],
    }
    assert config["tools"] == {"shell": {"backgroundCompletionBehavior": "inject"}}
    assert config["experimental"] == {"modelSteering": True}


def test_the_plugin_of_opencode_has_the_two_commands(world: World) -> None:
    text = installed(world, "opencode", ".opencode/plugin/caucus.js")
    assert "{{" not in text
    for verb in ("brake", "wake"):
        assert json.dumps([sys.executable, "-I", "-S", PROGRAM, verb, "opencode"]) in text


def test_a_path_with_a_blank_is_quoted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    move(monkeypatch, "/a place/caucus.py")
    config = installed(world, "codex", ".codex/hooks.json")
    assert config["hooks"]["Stop"][0]["hooks"][0]["command"].endswith("'/a place/caucus.py' wake codex --now")


def test_a_path_that_cannot_be_written_down_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    move(monkeypatch, "/a\nplace/caucus.py")
    with pytest.raises(caucus.Invalid, match="move it"):
        world.install("claude")


def test_another_hub_and_the_name_of_the_seat_are_in_the_command(world: World) -> None:
    args = ["caucus.pyz", "bridge", "--hub", "http://old", "--project", "api"]
    entry = {"command": "old", "args": args, "env": {"A": "1"}}
    world.write(".mcp.json", json.dumps({"mcpServers": {"caucus": entry}}))
    world.run("install", "claude", "--hub", "http://127.0.0.1:9000")
    written = read(".mcp.json", world.place(".mcp.json").read_bytes())["mcpServers"]["caucus"]
    assert [written["command"], *written["args"]] == [*BRIDGE, "--hub", "http://127.0.0.1:9000", "--project", "api"]
    assert written["env"] == {"A": "1"}
    world.uninstall("claude")
    assert read(".mcp.json", world.place(".mcp.json").read_bytes())["mcpServers"]["caucus"] == entry


def test_instructions_are_short_and_marked(world: World) -> None:
    text = installed(world, "gemini --instructions", "GEMINI.md")
    lines = text.splitlines()
    assert (lines[0], lines[-1]) == ("<!-- caucus: begin -->", "<!-- caucus: end -->")
    assert len(lines) <= 10
    assert {"setup", "join", "listen"} <= set(re.findall(r"`(\w+)`", text))


def test_variables_that_move_a_hosts_folder_are_followed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(world.folder / variable))
    for host in ("claude", "codex", "opencode"):
        world.install(f"{host} --scope user")
    assert tree(world.home) == {}
    written = {name for name, data in tree(world.folder).items() if data is not None and name[:2] in ("CL", "CO", "XD")}
    assert written == {
        "CLAUDE_CONFIG_DIR/.claude.json", "CLAUDE_CONFIG_DIR/settings.json", "CODEX_HOME/config.toml",
        "CODEX_HOME/hooks.json", "XDG_CONFIG_HOME/opencode/opencode.json", "XDG_CONFIG_HOME/opencode/plugin/caucus.js",
    }


# --- files: links, rights, backups ---


def test_a_link_stays_a_link_and_its_target_is_edited(world: World) -> None:
    target = world.write("~/dotfiles/mcp.json", '{"a": 1}')
    world.place(".mcp.json").symlink_to(target)
    there = world.tree()
    world.install("claude")
    assert world.place(".mcp.json").is_symlink()
    assert "caucus" in plain(target.read_text())["mcpServers"]
    world.uninstall("claude")
    assert world.tree() == there


def test_a_link_to_nothing_gets_its_target_and_loses_it_again(world: World) -> None:
    world.place(".mcp.json").symlink_to(world.home / "later/mcp.json")
    there = world.tree()
    world.install("claude")
    assert world.place("~/later/mcp.json").exists()
    world.uninstall("claude")
    assert world.tree() == there


def test_a_linked_folder_is_followed(world: World) -> None:
    world.write("~/dotfiles/claude/settings.json", "{}")
    world.place("~/.claude").symlink_to("dotfiles/claude")
    there = world.tree()
    world.install("claude --scope user")
    assert "PreToolUse" in world.place("~/dotfiles/claude/settings.json").read_text()
    world.uninstall("claude --scope user")
    assert world.tree() == there


@pytest.mark.skipif(os.name == "nt", reason="rights of POSIX")
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
def test_a_files_rights_stay_and_the_backup_has_them_too(world: World, mode: int) -> None:
    path = world.write("~/.claude.json", "{}")
    path.chmod(mode)
    world.install("claude --scope user")
    backup = world.place("~/.claude.json.caucus-backup")
    assert (path.stat().st_mode & 0o777, backup.stat().st_mode & 0o777) == (mode, mode)
    world.uninstall("claude --scope user")
    assert path.stat().st_mode & 0o777 == mode


@pytest.mark.skipif(os.name == "nt", reason="rights of POSIX")
def test_a_new_file_of_the_user_is_private_and_one_of_a_project_is_not(world: World) -> None:
    world.run("install", "claude")
    world.run("install", "claude", "--scope", "user")
    assert world.place("~/.claude.json").stat().st_mode & 0o777 == 0o600
    assert world.place(".mcp.json").stat().st_mode & 0o077 == 0o044


def test_the_backup_has_what_was_there_first_whatever_is_installed_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write(".mcp.json", '{"a": 1}')
    there = world.tree()
    world.install("claude")
    move(monkeypatch, "/moved/caucus.py")
    assert set(world.install("claude").values()) == {"wrote"}
    assert world.place(".mcp.json.caucus-backup").read_text() == '{"a": 1}'
    world.uninstall("claude")
    assert world.tree() == there


def test_a_backup_of_somebody_else_is_left_alone(world: World) -> None:
    world.write(".mcp.json", "{}")
    world.write(".mcp.json.caucus-backup", "precious")
    there = world.tree()
    world.install("claude")
    assert world.place(".mcp.json.caucus-backup").read_text() == "precious"
    world.uninstall("claude")
    assert world.tree() == there


def test_after_the_program_has_moved_its_entries_are_brought_up_to_date(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write(".claude/settings.json", json.dumps(HOOKS, indent=2))
    for host in ("claude", "codex", "gemini", "opencode", "copilot"):
        world.install(host)
    move(monkeypatch, "/moved/caucus.py")
    for host in ("claude", "codex", "gemini", "opencode", "copilot"):
        assert set(world.install(host).values()) == {"wrote"}
    for data in world.tree().values():
        assert data is None or PROGRAM.encode() not in bytes(data)  # type: ignore[arg-type]
    commands = re.findall(r'"command": "(.*?)"', world.place(".claude/settings.json").read_text())
    assert len(commands) == 7  # two of theirs, five of ours


# --- hand edits ---


def test_edits_between_two_installs_are_not_lost_by_the_uninstall(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world.write(".mcp.json", '{\n  "a": 1\n}\n')
    world.install("claude")
    path.write_text(path.read_text().replace('"a": 1', '"a": 2'))
    move(monkeypatch, "/moved/caucus.py")
    world.install("claude")
    deed = world.uninstall("claude")[".mcp.json"]
    assert path.read_text() == '{\n  "a": 2\n}\n'
    assert deed.changes == ['-  "a": 1,', '+  "a": 2,'] or deed.changes == ['-  "a": 1', '+  "a": 2']


def test_what_others_put_into_our_own_new_file_stays(world: World) -> None:
    world.install("claude")
    path = world.place(".mcp.json")
    config = plain(path.read_text())
    config["mcpServers"]["files"] = {"command": "npx"}
    path.write_text(json.dumps(config))
    world.uninstall("claude")
    assert plain(path.read_text()) == {"mcpServers": {"files": {"command": "npx"}}}


def test_our_own_new_file_goes_even_when_it_was_formatted_anew(world: World) -> None:
    there = world.tree()
    world.install("gemini")
    path = world.place(".gemini/settings.json")
    path.write_text(json.dumps(plain(path.read_text())))
    world.uninstall("gemini")
    assert world.tree() == there


def test_a_hook_that_was_put_into_our_group_stays(world: World) -> None:
    world.install("codex")
    path = world.place(".codex/hooks.json")
    config = plain(path.read_text())
    config["hooks"]["Stop"][0]["hooks"].append({"type": "command", "command": "tone"})
    path.write_text(json.dumps(config, indent=2))
    world.uninstall("codex")
    assert plain(path.read_text()) == {"hooks": {"Stop": [{"hooks": [{"type": "command", "command": "tone"}]}]}}


def test_a_setting_that_was_changed_by_hand_stays(world: World) -> None:
    world.write(".gemini/settings.json", '{"experimental": {"modelSteering": false}}')
    world.install("gemini")
    path = world.place(".gemini/settings.json")
    path.write_text(path.read_text().replace('"inject"', '"silent"'))
    world.uninstall("gemini")
    left = {"experimental": {"modelSteering": False}, "tools": {"shell": {"backgroundCompletionBehavior": "silent"}}}
    assert plain(path.read_text()) == left


OWN_ENTRY = '{"mcpServers":{"caucus":{"command":"python3","args":["/opt/caucus.pyz","bridge","--project","mine"]}}}'
STEERED = """\
{
  "experimental": {
    "modelSteering": true
  },
  "tools": {"shell": {"backgroundCompletionBehavior": "inject"}}
}
"""
USERS_OWN = {  # host, the file, what the user wrote there
    "settings that we would set": ("gemini", ".gemini/settings.json", STEERED),
    "an entry of the user's": ("claude", ".mcp.json", OWN_ENTRY),
    "an empty object": ("claude", ".mcp.json", "{}"),
    "empty settings": ("claude", ".claude/settings.json", "{}\n"),
    "an empty line": ("claude", "CLAUDE.md", "\n"),
    "an empty file": ("claude", ".mcp.json", ""),
    "a table of the user's": ("codex", ".codex/config.toml",
                              '[mcp_servers.caucus]\ncommand = "py"\nargs = ["c", "bridge"]\n'),
    "what is no JSON": ("claude", ".mcp.json", "{"),
}


@pytest.mark.parametrize("case", USERS_OWN)
def test_where_nothing_was_installed_an_uninstall_touches_nothing_and_says_so(world: World, case: str) -> None:
    host, name, text = USERS_OWN[case]
    world.write(name, text)
    there = world.tree()
    told = world.run("uninstall", host).stdout
    assert world.tree() == there
    assert "nothing of ours is remembered here" in told
    assert ("looks like ours" in told) == ("bridge" in text)


@pytest.mark.parametrize("case", [one for one in USERS_OWN if not one.startswith(("a table", "what is"))])
def test_a_second_uninstall_touches_nothing(world: World, case: str) -> None:
    host, name, text = USERS_OWN[case]
    world.write(name, text)
    there = world.tree()
    world.install(host)
    world.uninstall(host)
    assert world.tree() == there
    world.uninstall(host)
    assert world.tree() == there


@pytest.mark.parametrize("text", ["{}", "\n"])
def test_a_file_in_which_nothing_is_ours_any_more_is_not_deleted(world: World, text: str) -> None:
    world.install("claude")
    path = world.write(".mcp.json", text)
    world.uninstall("claude")
    assert path.read_text() == text


def test_without_what_was_remembered_ours_stays_and_is_named(world: World) -> None:
    for host in ("claude", "codex", "opencode"):
        world.install(f"{host} --instructions")
    for record in (world.folder / "state/caucus/installed").iterdir():
        record.unlink()
    there = world.tree()
    deeds = {name: deed for host in ("claude", "codex", "opencode") for name, deed in world.uninstall(host).items()}
    assert {name: (deed.action, deed.changes[1].partition(" looks")[0]) for name, deed in deeds.items()} == {
        ".mcp.json": ("kept", "line 3: mcpServers.caucus"),
        "settings.json": ("kept", "line 7: hooks.PreToolUse"),
        "CLAUDE.md": ("kept", "line 1: <!-- caucus: begin --> to <!-- caucus: end -->"),
        "config.toml": ("kept", "[mcp_servers.caucus]"),
        "hooks.json": ("kept", "line 7: hooks.PreToolUse"),
        "AGENTS.md": ("kept", "line 1: <!-- caucus: begin --> to <!-- caucus: end -->"),
        "opencode.json": ("kept", "line 3: mcp.caucus"),
        "caucus.js": ("kept", "all of it"),
    }
    assert world.tree() == there


def test_a_file_that_somebody_deleted_is_no_trouble(world: World) -> None:
    world.write(".mcp.json", "{}")
    world.install("claude")
    world.place(".mcp.json").unlink()
    assert world.uninstall("claude")[".mcp.json"].action == "unchanged"
    assert tree(world.folder / "state/caucus/installed") == {}


def test_uninstalling_what_was_never_installed_changes_nothing(world: World) -> None:
    world.write(".mcp.json", json.dumps(OWN))
    there = world.tree()
    for host in HOSTS:
        assert {deed.action for deed in world.uninstall(host).values()} == {"unchanged"}
    assert world.tree() == there


def test_two_hosts_that_read_one_file_leave_it_together(world: World) -> None:
    there = world.tree()
    for host in ("codex", "opencode"):
        world.install(f"{host} --instructions")
    assert world.uninstall("codex")["AGENTS.md"].action == "kept"
    assert "caucus" in world.place("AGENTS.md").read_text()
    assert world.uninstall("opencode")["AGENTS.md"].action == "removed"
    assert world.tree() == there


CODEX_REWROTE = """\
[mcp_servers.caucus]
command = "/old/python"
args = ["/old/caucus.pyz", "bridge", "--project", "api"]
tool_timeout_sec = 60
default_tools_approval_mode = "approve"
env_vars = ["CAUCUS_AGENT_KEY"]

[mcp_servers.caucus.tools.say]
approval_mode = "approve"

[mcp_servers.other]
command = "true"

[projects."/srv/app"]
trust_level = "trusted"
# <<< caucus
"""


def test_what_codex_itself_puts_between_our_marks_stays(world: World) -> None:
    path = world.write("~/.codex/config.toml", CODEX_REWROTE)
    world.install("codex --scope user")
    config = tomllib.loads(path.read_text())
    ours = config["mcp_servers"]["caucus"]
    assert [ours["command"], *ours["args"]] == [*BRIDGE, "--project", "api"]
    assert ours["env_vars"] == ["CAUCUS_AGENT_KEY"]
    assert ours["tools"] == {"say": {"approval_mode": "approve"}}
    path.write_text(path.read_text() + "# by hand\n")
    world.uninstall("codex --scope user")
    left = tomllib.loads(path.read_text())
    assert left["projects"] == {"/srv/app": {"trust_level": "trusted"}}
    assert left["mcp_servers"]["other"] == {"command": "true"}


CODEX_EDITS = {  # of what an install wrote: what becomes of it, and what is then left of "a = 1"
    "marks dropped": (r"(?m)^# (>>>|<<<) caucus\n", ""),
    "the first mark dropped": (r"(?m)^# >>> caucus\n", ""),
    "the last mark dropped": (r"(?m)^# <<< caucus\n", ""),
    "args over several lines": (r"(?m)^args = \[(.*)\]$", r"args = [\n  \1\n]"),
    "args in brackets": (r"(?m)^args = \[.*\]$", 'args = [\n  ["x"],\n]'),
    "args and no marks": (r"(?ms)^# >>> caucus\n(.*)args = \[(.*?)\](.*)# <<< caucus\n", r"\1args = [\n\2\n]\3"),
    "a table below, no marks": (r"(?ms)^# >>> caucus\n(.*)# <<< caucus\n",
                                r'\1\n[mcp_servers.caucus.tools.say]\nnotes = """\n[x]\n"""\n'),
    "a name in quotes": (r"(?ms)^# >>> caucus\n\[mcp_servers.caucus\](.*)# <<< caucus\n", r'[mcp_servers."caucus"]\1'),
    "a comment": (r"(?m)^(\[mcp_servers.caucus\])$", r"\1 # the room"),
}


@pytest.mark.parametrize("case", CODEX_EDITS)
def test_our_table_in_codex_is_ours_as_long_as_its_install_is_remembered(world: World, case: str) -> None:
    path = world.write(".codex/config.toml", "a = 1\n[b]\nc = 2\n")
    there = world.tree()
    world.install("codex")
    wrote = path.read_text()
    path.write_text(re.sub(*CODEX_EDITS[case], wrote) + "[d]\n")
    assert path.read_text() != wrote + "[d]\n"
    assert world.uninstall("codex")["config.toml"].action == "removed"
    assert path.read_text() == "a = 1\n[b]\nc = 2\n[d]\n"
    path.write_text("a = 1\n[b]\nc = 2\n")
    assert world.tree() == there
    assert tree(world.folder / "state/caucus/installed") == {}


def test_an_install_finds_its_table_when_the_marks_are_gone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = world.write(".codex/config.toml", "a = 1\n")
    world.install("codex")
    path.write_text(re.sub(r"(?m)^# (>>>|<<<) caucus\n", "", path.read_text()))
    assert world.install("codex")["config.toml"] == "unchanged"
    move(monkeypatch, "/moved/caucus.py")
    assert world.install("codex")["config.toml"] == "wrote"
    assert tomllib.loads(path.read_text())["mcp_servers"]["caucus"]["args"] == ["/moved/caucus.py", "bridge"]
    world.uninstall("codex")
    assert path.read_text() == "a = 1\n"


def test_what_was_installed_is_remembered_as_long_as_something_of_it_stays(world: World) -> None:
    path = world.write(".codex/config.toml", "a = 1\n")
    world.install("codex")
    entry = tomllib.loads(path.read_text())["mcp_servers"]["caucus"]
    path.write_text(f"[mcp_servers]\ncaucus = {{command = 'py', args = {json.dumps(entry['args'])}}}\n")
    world.write(".opencode/plugin/caucus.js", "// mine\n")
    world.install("opencode")
    plugin = world.place(".opencode/plugin/caucus.js")
    plugin.write_text(plugin.read_text() + "// by hand\n")
    for _ in range(2):
        assert world.uninstall("codex")["config.toml"].action == "kept"
        assert world.uninstall("opencode")["caucus.js"].action == "kept"
        assert path.with_name("config.toml.caucus-backup").read_text() == "a = 1\n"
        assert plugin.with_name("caucus.js.caucus-backup").read_text() == "// mine\n"
    path.write_text("a = 2\n")
    world.uninstall("codex")
    assert not path.with_name("config.toml.caucus-backup").exists()


@pytest.mark.parametrize("backup", [b'{"evil": 1}', b"\xff\xfe", None])
@pytest.mark.parametrize("by_hand", ["", "\n"])
def test_a_backup_that_was_changed_or_lost_is_not_written_back(
    world: World, backup: bytes | None, by_hand: str
) -> None:
    path = world.write(".gemini/settings.json", STEERED)
    world.install("gemini")
    path.write_text(path.read_text() + by_hand)
    kept = path.with_name("settings.json.caucus-backup")
    kept.unlink()
    if backup is not None:
        kept.write_bytes(backup)
    deed = world.uninstall("gemini")["settings.json"]
    assert (deed.action, deed.changes) == (
        "removed", [f"{kept} is lost or was changed, so only our entries and hooks are taken out"]
    )
    assert plain(path.read_text()) == plain(STEERED)
    assert (kept.read_bytes() if kept.exists() else None) == backup
    assert tree(world.folder / "state/caucus/installed") == {}


DAMAGES = {
    "a list": "[1, 2]", "no JSON": "{", "a number for the hosts": '"hosts": 5', "no folders": '"folders": null',
    "a word for the hosts": '"hosts": "ab"', "numbers for folders": '"folders": [1]', "deep": "[" * 100_000,
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_record_that_is_damaged_is_as_none_and_is_told_of(
    world: World, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    world.write(".mcp.json", '{"k": 1}')
    world.install("claude")
    for place in (world.folder / "state/caucus/installed").iterdir():
        damage, name = DAMAGES[case], DAMAGES[case].partition(":")[0]
        text = place.read_text()
        place.write_text(re.sub(rf'{name}: (\[.*?\])', damage, text) if name.startswith('"') else damage)
        assert place.read_text() != text
    there = world.tree()
    deed = world.uninstall("claude")[".mcp.json"]
    assert (deed.action, "is damaged" in deed.changes[0], world.tree()) == ("kept", True, there)
    move(monkeypatch, "/moved/caucus.py")
    assert world.install("claude")[".mcp.json"] == "wrote"
    world.uninstall("claude")
    assert world.tree() == there


def test_what_an_older_program_remembered_is_understood(world: World) -> None:
    world.write(".mcp.json", '{"k": 1}')
    there = world.tree()
    world.install("claude")
    for place in (world.folder / "state/caucus/installed").iterdir():
        record = json.loads(place.read_text())
        del record["backup_sha256"]
        place.write_text(json.dumps(record))
    assert world.uninstall("claude")[".mcp.json"].action == "restored"
    assert world.tree() == there


def test_where_nothing_can_be_remembered_nothing_is_written(world: World) -> None:
    world.write(".mcp.json", '{"k": 1}')
    (world.folder / "state").write_text("a file")
    there = world.tree()
    told = world.run("install", "claude", code=2)
    assert "nothing was written" in told.stderr
    assert world.tree() == there


def test_where_nothing_could_be_remembered_no_backup_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = world.write(".mcp.json", '{"k": 1}'), caucus.write_whole
    there = world.tree()

    def full(place: str, *rest: Any) -> None:
        if "installed" in place:
            raise OSError(28, "No space left on device", place)
        write(place, *rest)

    monkeypatch.setattr(caucus, "write_whole", full)
    deed = caucus.plan_install("claude", str(path), caucus.our_parts("claude", "project")[str(path)])
    with pytest.raises(OSError, match="No space"):
        caucus.carry_out(deed, 0o600)
    assert world.tree() == there


# --- refusals ---

REFUSED: dict[str, tuple[str, str, str | bytes, str]] = {  # host, the file, what is in it, words of the refusal
    "half an object": ("claude", ".mcp.json", '{"a": 1', "line 1 is not JSON"),
    "a missing comma": ("claude", ".mcp.json", '{\n"a": 1\n"b": 2}', "line 3 is not JSON"),
    "two commas": ("claude", ".mcp.json", '{"a": 1,,}', "line 1 is not JSON"),
    "a comma only": ("claude", ".mcp.json", "{,}", "line 1 is not JSON"),
    "something after the end": ("claude", ".mcp.json", "{}\n{}", "line 2 is not JSON"),
    "an open comment": ("claude", ".mcp.json", "{} /* ", "line 1 is not JSON"),
    "an open string": ("claude", ".mcp.json", '{"a": "b}', "line 1 is not JSON"),
    "a line break in a string": ("claude", ".mcp.json", '{"a": "b\nc"}', "line 1 is not JSON"),
    "no quotes": ("claude", ".mcp.json", "{a: 1}", "line 1 is not JSON"),
    "not a number": ("claude", ".mcp.json", '{"a": NaN}', "line 1 is not JSON"),
    "a number for a key": ("claude", ".mcp.json", '{1: 2}', "line 1 is not JSON"),
    "a merge that was left": ("claude", ".mcp.json", "<<<<<<< ours\n{}\n=======\n{}\n>>>>>>>\n", "line 1 is not JSON"),
    "an array": ("claude", ".mcp.json", "[]", "it is not an object"),
    "a word": ("claude", ".mcp.json", '"x"', "it is not an object"),
    "a list of servers": ("claude", ".mcp.json", '{"mcpServers": []}', "mcpServers in it is not an object"),
    "null servers": ("claude", ".mcp.json", '{"mcpServers": null}', "mcpServers in it is not an object"),
    "another caucus": ("claude", ".mcp.json", '{"mcpServers": {"caucus": {"url": "x"}}}', "starts no bridge"),
    "a list of hooks": ("claude", ".claude/settings.json", '{"hooks": []}', "hooks in it is not an object"),
    "an event that is none": ("claude", ".claude/settings.json", '{"hooks": {"Stop": {}}}', "hooks.Stop in it"),
    "deep": ("claude", ".mcp.json", "[" * 50_000, "nested too deeply"),
    "latin": ("claude", ".mcp.json", '{"a": "é"}'.encode("latin-1"), "not UTF-8"),
    "two bytes each": ("claude", ".mcp.json", "{}".encode("utf-16"), "not UTF-8"),
    "no TOML": ("codex", ".codex/config.toml", "a = \n", "line 1"),
    "a TOML of somebody": ("codex", ".codex/config.toml", '[mcp_servers.caucus]\ncommand = "x"\n', "in it already"),
    "a pasted block": ("codex", ".codex/config.toml",
                       '[mcp_servers.caucus]\ncommand = "py"\nargs = ["c", "bridge"]\n', "in it already"),
    "a huge TOML": ("codex", ".codex/config.toml", "a = 1\n" + "#" * 4_000_000, "more than 4,000,000 characters"),
    "an inline table": ("codex", ".codex/config.toml", 'mcp_servers = {a = {command = "x"}}\n', "mcp_servers"),
    "a word for servers": ("codex", ".codex/config.toml", "mcp_servers = 1\n", ""),
    "hooks of codex": ("codex", ".codex/hooks.json", "nothing", "line 1 is not JSON"),
    "half a block": ("claude --instructions", "CLAUDE.md", "<!-- caucus: begin -->\nx\n", "without its end"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_not_understood_ends_the_install_before_anything_is_written(world: World, case: str) -> None:
    words, name, text, why = REFUSED[case]
    path = world.write(name, text)
    there = world.tree()
    with pytest.raises(caucus.Invalid) as refused:
        world.install(words)
    assert str(path) in refused.value.detail
    assert why in refused.value.detail
    assert "\n" not in refused.value.detail
    assert world.tree() == there
    assert tree(world.folder / "state") == {}


@pytest.mark.skipif(os.name == "nt", reason="rights of POSIX")
def test_a_file_that_is_read_only_is_left_alone(world: World) -> None:
    world.write(".claude/settings.json", "{}").chmod(0o444)
    there = world.tree()
    told = world.run("install", "claude", code=2)
    assert "is read-only" in told.stderr
    assert world.tree() == there


@pytest.mark.parametrize("name", [".mcp.json", ".claude/settings.json"])
def test_a_folder_in_the_place_of_a_file_is_left_alone(world: World, name: str) -> None:
    world.place(name).mkdir(parents=True)
    there = world.tree()
    with pytest.raises(caucus.Invalid, match="is not a file"):
        world.install("claude")
    assert world.tree() == there


def test_a_file_in_the_place_of_a_folder_is_left_alone(world: World) -> None:
    world.write(".claude", "x")
    there = world.tree()
    with pytest.raises(caucus.Invalid, match="no folder"):
        world.install("claude")
    assert world.tree() == there


def test_links_in_a_circle_are_left_alone(world: World) -> None:
    world.place(".mcp.json").symlink_to(".mcp.json")
    with pytest.raises(caucus.Invalid, match="is not a file"):
        world.install("claude")


def test_a_file_that_was_broken_since_ends_the_uninstall_before_anything_is_written(world: World) -> None:
    world.install("claude")
    path = world.place(".claude/settings.json")
    path.write_text(path.read_text() + "}")
    there = world.tree()
    with pytest.raises(caucus.Invalid, match="is not JSON"):
        world.uninstall("claude")
    assert world.tree() == there


def test_a_disk_that_is_full_leaves_the_file_as_it_was_and_what_was_begun_can_be_undone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world.write(".claude/settings.json", "{}")
    there, replace = world.tree(), os.replace

    def full(source: str, target: str) -> None:
        if target == str(path):
            raise OSError(28, "No space left on device", target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert caucus.main(["install", "claude"]) == 2
    assert path.read_bytes() == b"{}"
    monkeypatch.undo()
    monkeypatch.chdir(world.project)
    monkeypatch.setenv("HOME", str(world.home))
    monkeypatch.setenv("XDG_STATE_HOME", str(world.folder / "state"))
    world.uninstall("claude")
    assert world.tree() == there


def test_a_file_that_somebody_else_writes_meanwhile_is_not_overwritten(world: World) -> None:
    path = world.write(".mcp.json", "{}")
    deed = caucus.plan_install("claude", str(path), caucus.our_parts("claude", "project")[str(path)])
    path.write_text('{"a": 1}')
    with pytest.raises(caucus.Invalid, match="run this again"):
        caucus.carry_out(deed, 0o600)
    assert path.read_text() == '{"a": 1}'


def test_what_others_changed_is_shown_without_what_may_be_a_secret() -> None:
    lines = caucus.changed_lines(b'{"a": 1}\n', b'{"a": 2}\n"token": "abcdefghijklmnopqrstuvwxyz"\n')
    assert lines == ['-{"a": 1}', '+{"a": 2}', '+"token": "..."']
    assert caucus.changed_lines(b"", b"".join(b"%d\n" % n for n in range(30)))[-1] == "... and 20 more"


@pytest.mark.parametrize(("host", "scope"), [("vscode", "user"), ("copilot", "project")])
def test_a_scope_that_a_host_does_not_have_is_refused_with_the_way_out(host: str, scope: str) -> None:
    with pytest.raises(caucus.Invalid, match=r"Open User Configuration|--scope user"):
        caucus.install_scope(host, scope)


# --- the commands ---


def test_install_says_what_it_wrote_and_what_is_left_to_do(world: World) -> None:
    there = world.tree()
    told = world.run("install", "claude").stdout.splitlines()
    places = [str(world.place(name)) for name in (".mcp.json", ".claude/settings.json")]
    assert [line.split() for line in told[:2]] == [["wrote", place] for place in places]
    assert "trust the folder" in told[2]
    told = world.run("install", "claude").stdout.splitlines()
    assert [line.split() for line in told[:2]] == [["unchanged", place] for place in places]
    told = world.run("uninstall", "claude").stdout.splitlines()
    assert [line.split() for line in told[:2]] == [["removed", place] for place in places]
    assert world.tree() == there


def test_uninstall_says_that_it_restored_or_what_had_changed(world: World) -> None:
    path = world.write("~/.codex/config.toml", CODEX)
    world.run("install", "codex", "--scope", "user")
    assert world.run("uninstall", "codex", "--scope", "user").stdout.startswith("restored")
    world.run("install", "codex", "--scope", "user")
    path.write_text(path.read_text().replace("o-large", "o-small"))
    told = world.run("uninstall", "codex", "--scope", "user").stdout
    assert '+model = "o-small"' in told
    assert path.read_text() == CODEX.replace("o-large", "o-small")


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("flag", ["--dry-run", "--print"])
def test_a_look_ahead_writes_nothing(world: World, host: str, flag: str) -> None:
    world.write(".mcp.json", json.dumps(OWN, indent=2))
    there = world.tree()
    told = world.run("install", host, flag)
    assert "caucus" in told.stdout
    assert world.tree() == there
    assert not (world.folder / "state").exists()


def test_a_dry_run_is_a_diff(world: World) -> None:
    path = world.write(".mcp.json", json.dumps(OWN, indent=2) + "\n")
    told = world.run("install", "claude", "--dry-run").stdout
    assert told.startswith(f"--- {path}\n+++ {path}\n@@")
    assert '+    "caucus": {\n' in told
    assert f"--- /dev/null\n+++ {world.place('.claude/settings.json')}\n" in told


def test_print_gives_each_file_in_full_and_says_on_stderr_where_it_goes(world: World) -> None:
    told = world.run("install", "vscode", "--print")
    entry = {"type": "stdio", "command": BRIDGE[0], "args": BRIDGE[1:]}
    assert json.loads(told.stdout) == {"servers": {"caucus": entry}}
    assert str(world.place(".vscode/mcp.json")) in told.stderr


def test_as_json(world: World) -> None:
    told = json.loads(world.run("install", "cursor", "--json").stdout)
    assert (told["host"], told["scope"], told["is_done"]) == ("cursor", "project", True)
    assert [(one["path"], one["action"]) for one in told["files"]] == [(str(world.place(".cursor/mcp.json")), "wrote")]
    told = json.loads(world.run("install", "cursor", "--json", "--dry-run").stdout)
    assert (told["is_done"], told["files"][0]["diff"]) == (False, "")
    told = json.loads(world.run("uninstall", "cursor", "--json").stdout)
    assert told["files"][0]["action"] == "removed"


def test_without_a_host_those_that_are_here_are_listed(world: World) -> None:
    world.place("~/.codex").mkdir()
    world.place("~/.cursor").mkdir()
    told = world.run("install")
    assert [line.split()[0] for line in told.stdout.splitlines()] == ["codex", "cursor"]
    assert json.loads(world.run("install", "--json").stdout) == {"hosts": ["codex", "cursor"]}


def test_without_any_host_here_that_is_said(world: World) -> None:
    assert "none of claude" in world.run("install").stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("install", "vscode", "--scope", "user"), "--scope"),
        (("install", "copilot", "--instructions"), "--instructions"),
        (("install", "claude", "--hub", "ftp://x"), "--hub"),
        (("install", "claude", "--print", "--json"), "--print"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(world: World, words: tuple[str, ...], why: str) -> None:
    told = world.run(*words, code=2)
    assert told.stderr.startswith(f"caucus: {why}: ")
    assert told.stderr.count("\n") == 1
    assert world.tree() == {}


def test_on_a_terminal_it_asks(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cursor", "gemini"):
        world.place(f"~/.{name}").mkdir()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "cursor, gemini")
    assert caucus.main(["install"]) == 0
    assert world.place(".cursor/mcp.json").exists()
    assert world.place(".gemini/settings.json").exists()
    monkeypatch.setattr("builtins.input", lambda question: "curser")
    assert caucus.main(["install"]) == 2
    assert "did you mean cursor?" in capsys.readouterr().err
