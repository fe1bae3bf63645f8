"""Real MCP hosts in terminals of their own, set up by `caucus install`, with a script where their model would be.

Claude Code, Codex, Gemini CLI and OpenCode run as a user starts them, each in a tmux and with a home of its own. What
they ask of their model's API is answered here: the model does what the latest prompt says in lines that begin with `+`,
one a turn, and calls listen where it is told that mail waits.

    +tool NAME JSON    call a tool
    +say WORDS         end the turn with these words

Run as a program, it measures what docs/connect.md says of costs: what hooks take, and what waiting for forty messages
takes of a model, with a watch in a background shell and with the hooks.

    .venv/bin/python tests/terminals.py caucus.pyz                       the hooks
    CAUCUS_HOSTS=DIR .venv/bin/python tests/terminals.py caucus.pyz 40   and so many messages
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from hubs import Console, HubProcess, eventually

HOSTS = Path(os.environ["CAUCUS_HOSTS"]).resolve() if os.environ.get("CAUCUS_HOSTS") else None  # has node_modules
PACKAGES = ("@anthropic-ai/claude-code", "@openai/codex", "@google/gemini-cli", "opencode-ai")
HOW = (
    f"mkdir -p DIR && npm install --prefix DIR {' '.join(f'{name}@latest' for name in PACKAGES)}, "
    "then CAUCUS_HOSTS=DIR python3 tests/run.py -k terminals; it needs Linux and tmux"
)
BOOT_S = 120.0  # until a host shows its prompt: OpenCode took over 30 s on a machine with much to do
TURN_S = 40.0  # until a prompt has reached the model, or its turn is over
WAKE_S = 20.0  # until mail has begun a turn
QUIET_S = 6.0  # in which nothing may happen: thirty times what a wake takes
KEY = "sk-ant-api03-" + "fake" * 9  # it has the form of a key, and is none

Part = tuple[str, str]  # who: user, result, call, said; and what
STEP = re.compile(r"^\+(\w+) ?(.*)$", re.MULTILINE)
POINTER = re.compile(r"\[caucus\] (?:\d+ messages? waits? for|The operator rings for)")


# --- the model ---


def texts_of(content: Any) -> list[str]:
    """List the texts of a message's content, as each of the four APIs words it."""
    if isinstance(content, str):
        return [content]
    return [str(part["text"]) for part in content or () if isinstance(part, dict) and "text" in part]


def plain(value: Any) -> str:
    """Word a value for a search in it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def story_of_messages(body: Any) -> Iterator[Part]:
    """Tell what a request of Anthropic's Messages repeats of the conversation."""
    for message in body["messages"]:
        content = message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if block["type"] == "tool_result":
                yield "result", plain(block.get("content", ""))
            elif block["type"] == "tool_use":
                yield "call", block["name"]
            elif block["type"] == "text":
                yield ("said" if message["role"] == "assistant" else "user"), block["text"]


def story_of_responses(body: Any) -> Iterator[Part]:
    """Tell it of OpenAI's Responses."""
    for item in body.get("input", ()):
        kind = item.get("type", "message")
        if kind == "message":
            who = {"assistant": "said", "user": "user"}.get(item.get("role"), "context")
            for text in texts_of(item["content"]):
                yield who, text
        elif kind.endswith("_output"):
            yield "result", plain(item.get("output", ""))
        elif kind.endswith("_call"):
            yield "call", item.get("name", "")


def story_of_chat(body: Any) -> Iterator[Part]:
    """Tell it of chat completions."""
    for message in body["messages"]:
        for call in message.get("tool_calls") or ():
            yield "call", call["function"]["name"]
        who = {"assistant": "said", "user": "user", "tool": "result"}.get(message["role"], "context")
        for text in texts_of(message.get("content")):
            if text or who == "result":
                yield who, text


def story_of_gemini(body: Any) -> Iterator[Part]:
    """Tell it of Gemini's contents."""
    for content in body.get("contents", ()):
        for part in content["parts"]:
            if "functionResponse" in part:
                yield "result", plain(part["functionResponse"])
            elif "functionCall" in part:
                yield "call", part["functionCall"]["name"]
            elif "text" in part:
                yield ("said" if content.get("role") == "model" else "user"), part["text"]


React = Callable[[str], list[Part]]  # what a model does when it reads a text that no user has typed


def next_step(story: list[Part], react: React) -> Part:
    """Give what the model does now, by all that went before: the verb and the rest of its line."""
    todo: list[Part] = []
    for who, text in story:
        if who == "user":
            todo = [*react(text), *(STEP.findall(text) or todo)]
        elif who in ("call", "said"):
            todo = todo[1:]
    return todo[0] if todo else ("say", "done")


class Turn(NamedTuple):
    """One request of a host that offers tools, and so is a step of its agent."""

    at: float  # monotonic seconds
    story: list[Part]
    size: int  # bytes of its body
    tools: str  # the offered ones, as JSON
    step: Part  # what it was answered

    def has(self, words: str, who: str = "") -> bool:
        """Whether these words are in it, said by `who`."""
        return any(words in text for one, text in self.story if who in ("", one))


def streamed(events: list[tuple[str, Any]], is_named: bool = True) -> tuple[bytes, str]:
    """Word an answer as server-sent events."""
    lines = "".join((f"event: {name}\n" if is_named else "") + f"data: {json.dumps(it)}\n\n" for name, it in events)
    return lines.encode(), "text/event-stream"


class Model:
    """The four APIs behind one port. `listen` is the tool that is called when mail waits."""

    def __init__(self, listen: str) -> None:
        self.listen, self.turns = listen, list[Turn]()
        self.react: React = lambda text: [("tool", listen)] if POINTER.search(text) else []
        self.sizes: list[int] = []  # of all requests, those without tools too
        self._ids = itertools.count(1)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # a host has ended
                    super().handle()

            def do_GET(self) -> None:
                self._give(b'{"object":"list","data":[],"models":[]}')

            do_HEAD = do_GET  # noqa: N815 (so it is called there)

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._give(*model.answer(self.path, data))

            def _give(self, data: bytes, kind: str = "application/json") -> None:
                with contextlib.suppress(OSError):  # the host was interrupted, or has ended
                    self.send_response(200)
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def answer(self, path: str, data: bytes) -> tuple[bytes, str]:
        """Answer a request of any of the APIs."""
        route = path.partition("?")[0]
        if route.endswith(("/count_tokens", ":countTokens")):
            return b'{"input_tokens":5,"totalTokens":5}', "application/json"
        for end, story_of, word in (
            ("/messages", story_of_messages, self._messages),
            ("/responses", story_of_responses, self._responses),
            ("/chat/completions", story_of_chat, self._chat),
            ("enerateContent", story_of_gemini, self._gemini),
        ):
            if route.endswith(end):
                body = json.loads(data)
                story = list(story_of(body))
                step = next_step(story, self.react) if body.get("tools") else ("say", "words")
                self.sizes.append(len(data))
                if body.get("tools"):
                    self.turns.append(Turn(time.monotonic(), story, len(data), json.dumps(body["tools"]), step))
                return word(body, route, *step)
        return b"{}", "application/json"

    @staticmethod
    def _call(rest: str) -> tuple[str, str]:
        name, _, given = rest.partition(" ")
        return name, given or "{}"

    def _messages(self, body: Any, _route: str, verb: str, rest: str) -> tuple[bytes, str]:
        number, (name, given) = next(self._ids), self._call(rest)
        block: dict[str, Any] = {"type": "text", "text": rest}
        shell, delta, why = {**block, "text": ""}, {"type": "text_delta", "text": rest}, "end_turn"
        if verb == "tool":
            block = {"type": "tool_use", "id": f"toolu_{number:024}", "name": name, "input": json.loads(given)}
            shell, delta, why = {**block, "input": {}}, {"type": "input_json_delta", "partial_json": given}, "tool_use"
        about = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": body["model"]}
        usage = {"input_tokens": 100, "output_tokens": 5}
        if not body.get("stream"):
            whole = {**about, "content": [block], "stop_reason": why, "stop_sequence": None, "usage": usage}
            return json.dumps(whole).encode(), "application/json"
        begun = {**about, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        events: list[tuple[str, dict[str, Any]]] = [
            ("message_start", {"message": begun}),
            ("content_block_start", {"index": 0, "content_block": shell}),
            ("content_block_delta", {"index": 0, "delta": delta}),
            ("content_block_stop", {"index": 0}),
            ("message_delta", {"delta": {"stop_reason": why, "stop_sequence": None}, "usage": {"output_tokens": 5}}),
            ("message_stop", {}),
        ]
        return streamed([(kind, {"type": kind, **more}) for kind, more in events])

    def _responses(self, _body: Any, _route: str, verb: str, rest: str) -> tuple[bytes, str]:
        number, (name, given) = next(self._ids), self._call(rest)
        words = [{"type": "output_text", "text": rest, "annotations": []}]
        item: dict[str, Any] = {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed",
                                "content": words}
        if verb == "tool":
            space, _, own = name.rpartition("__")  # tools of servers are in namespaces
            item = {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}", "name": own,
                    "arguments": given, **({"namespace": space} if space else {})}
        usage = {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 5,
                 "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 105}
        events: list[tuple[str, dict[str, Any]]] = [
            ("response.created", {"response": {"id": f"r{number}"}}),
            ("response.output_item.added", {"output_index": 0, "item": item}),
            ("response.output_item.done", {"output_index": 0, "item": item}),
            ("response.completed", {"response": {"id": f"r{number}", "output": [item], "usage": usage}}),
        ]
        return streamed([(kind, {"type": kind, **more}) for kind, more in events])

    def _chat(self, body: Any, _route: str, verb: str, rest: str) -> tuple[bytes, str]:
        number, (name, given) = next(self._ids), self._call(rest)
        delta: dict[str, Any] = {"role": "assistant", "content": rest}
        if verb == "tool":
            function = {"name": name, "arguments": given}
            calls = [{"index": 0, "id": f"call_{number}", "type": "function", "function": function}]
            delta = {"role": "assistant", "content": None, "tool_calls": calls}
        base = {"id": f"c{number}", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        why = "tool_calls" if verb == "tool" else "stop"
        usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
        data, kind = streamed([
            ("", {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}),
            ("", {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": why}], "usage": usage}),
        ], is_named=False)
        return data + b"data: [DONE]\n\n", kind

    def _gemini(self, _body: Any, route: str, verb: str, rest: str) -> tuple[bytes, str]:
        name, given = self._call(rest)
        part = {"functionCall": {"name": name, "args": json.loads(given)}} if verb == "tool" else {"text": rest}
        whole = {"candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}],
                 "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 1, "totalTokenCount": 10}}
        if ":stream" in route:
            return streamed([("", whole)], is_named=False)
        return json.dumps(whole).encode(), "application/json"


# --- the hosts ---


class Kind(NamedTuple):
    """What differs between the hosts, as far as a terminal and a script have to know."""

    package: str
    command: str
    tool: str  # how one of our tools is called
    shell: tuple[str, str]  # its tool for a shell command, and the name of the argument
    prompt: str  # a regular expression: it waits for its user
    busy: str  # is on the screen while a turn runs
    resume: str  # arguments with which it goes on with the last session
    leave: tuple[str, ...]  # keys that end it
    clear: str  # its command for a new conversation in the same process
    has_wake: bool  # its idle agent is woken without a watch


KINDS = {
    "claude": Kind(PACKAGES[0], "claude", "mcp__caucus__{}", ("Bash", "command"), r"(?m)^\s*❯", "esc to interrupt",
                   "--continue", ("/exit", "Enter"), "/clear", True),
    "codex": Kind(PACKAGES[1], "codex --dangerously-bypass-hook-trust", "mcp__caucus__{}", ("exec_command", "cmd"),
                  r"(?m)^\s*›", "esc to interrupt", "resume --last", ("/quit", "Enter"), "/new", True),
    "gemini": Kind(PACKAGES[2], "gemini --approval-mode=yolo", "mcp_caucus_{}", ("run_shell_command", "command"),
                   r"(?s)Type your message.*1 MCP server|1 MCP server.*Type your message", "esc to cancel",
                   "--resume latest", ("/quit", "Enter"), "/clear", False),
    "opencode": Kind(PACKAGES[3], "opencode", "caucus_{}", ("bash", "command"), r"Ask anything|ctrl\+p commands",
                     "esc interrupt", "--continue", ("/exit", "Enter"), "/new", True),
}


def version_of(host: str) -> str:
    """Give the installed version of a host."""
    assert HOSTS is not None
    about = json.loads((HOSTS / "node_modules" / KINDS[host].package / "package.json").read_text())
    return str(about["version"])


class World:
    """One user with a home, a project, a host that was set up there, its model and a hub."""

    def __init__(self, host: str, pyz: Path, is_installed: bool = True) -> None:
        self.host, self.kind, self.pyz = host, KINDS[host], pyz
        self.home = Path(tempfile.mkdtemp(prefix=f"caucus-{host}-")).resolve()
        self.project = self.home / "shop"
        self.project.mkdir()
        subprocess.run(["git", "init", "-q", self.project], check=True)
        (self.home / "tmp").mkdir()
        self.model = Model(self.kind.tool.format("listen"))
        self.hub = HubProcess(command=(sys.executable, str(pyz), "hub"))
        self.terminals: list[Terminal] = []
        self.env = self._environment()
        getattr(self, f"_settings_{host}")()
        self.original = self.files()
        if is_installed:
            self.caucus("install")
            self.caucus("install")  # as somebody does who is not sure

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("NODE_EXTRA_CA_CERTS", "npm_config_registry") if name in os.environ}
        return {
            **kept, "HOME": str(self.home), "TMPDIR": str(self.home / "tmp"),
            "PATH": f"{HOSTS}/node_modules/.bin:{os.environ['PATH']}",
            "TERM": "xterm-256color", "LANG": "C.UTF-8", "IS_SANDBOX": "1",
            "ANTHROPIC_BASE_URL": self.model.url, "ANTHROPIC_API_KEY": KEY, "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "ENABLE_TOOL_SEARCH": "false",  # a script does not search for the tools that it calls
            "GEMINI_API_KEY": "x", "GOOGLE_GEMINI_BASE_URL": self.model.url, "GEMINI_CLI_TRUST_WORKSPACE": "true",
            "OPENCODE_DISABLE_AUTOUPDATE": "1", "FAKE_KEY": "x",
        }

    def caucus(self, *words: str) -> Any:
        """Run a command for this host in the project, as its user would; give what it tells."""
        hub = ["--hub", self.hub.url] if words[0] == "install" else []
        command = [sys.executable, str(self.pyz), words[0], self.host, *words[1:], *hub, "--json"]
        done = subprocess.run(command, cwd=self.project, env=self.env, capture_output=True, text=True,
                              timeout=60, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    def run(self, *words: str) -> str:
        """Run a program in the project; give what it prints."""
        done = subprocess.run(words, cwd=self.project, env=self.env, capture_output=True, text=True, timeout=BOOT_S,
                              stdin=subprocess.DEVNULL, check=False)
        return done.stdout + done.stderr

    def _write(self, name: str, data: Any) -> None:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(data if isinstance(data, str) else json.dumps(data, indent=2) + "\n")

    # What a user has agreed to before: the key, the folder, the server and its tools.
    def _settings_claude(self) -> None:
        trusted = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True,
                   "enabledMcpjsonServers": ["caucus"]}
        self._write(".claude.json", {
            "hasCompletedOnboarding": True, "theme": "dark", "bypassPermissionsModeAccepted": True,
            "customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []},
            "projects": {str(self.project): trusted},
        })
        self._write(".claude/settings.json", {
            "enableAllProjectMcpServers": True, "permissions": {"allow": ["mcp__caucus", "Bash", "Agent", "Task"]},
        })
        self._write("shop/.claude/settings.json", {"permissions": {"defaultMode": "acceptEdits"}})

    def _settings_codex(self) -> None:
        self._write(".codex/config.toml", f"""\
model = "gpt-5"
model_provider = "fake"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false

[model_providers.fake]
name = "fake"
base_url = "{self.model.url}/v1"
wire_api = "responses"
env_key = "FAKE_KEY"
request_max_retries = 0
supports_websockets = false

[projects."{self.project}"]
trust_level = "trusted"

[tui]
show_tooltips = false
""")
        self._write("shop/.codex/config.toml", '# of this project\nmodel_reasoning_effort = "low"\n')

    def _settings_gemini(self) -> None:
        self._write(".gemini/settings.json", {
            "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
            "general": {"enableAutoUpdate": False}, "privacy": {"usageStatisticsEnabled": False},
            "model": {"name": "gemini-2.5-pro"},
        })
        self._write("shop/.gemini/settings.json", '{\n  // of this project\n  "ui": {"hideTips": true}\n}\n')

    def _settings_opencode(self) -> None:
        options = {"baseURL": f"{self.model.url}/v1", "apiKey": "x"}
        fake = {"npm": "@ai-sdk/openai-compatible", "name": "fake", "options": options, "models": {"m": {"name": "m"}}}
        self._write(".config/opencode/opencode.json", {
            "model": "fake/m", "autoupdate": False, "permission": {"bash": "allow", "edit": "allow"},
            "provider": {"fake": fake},
        })
        schema = "https://opencode.ai/config.json"
        self._write("shop/opencode.json", f'{{\n  "$schema": "{schema}",\n  "share": "disabled"\n}}')

    def files(self) -> dict[str, bytes]:
        """Give what is in the project's files, git's own aside."""
        return {str(path.relative_to(self.project)): path.read_bytes() for path in sorted(self.project.rglob("*"))
                if path.is_file() and ".git" not in path.relative_to(self.project).parts}

    def sessions(self) -> list[str]:
        """List the files by which hooks find seats."""
        folder = self.home / ".local/state/caucus/sessions"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def terminal(self, arguments: str = "") -> Terminal:
        """Start the host in a new terminal, and wait until it takes prompts."""
        terminal = Terminal(self, arguments)
        self.terminals.append(terminal)
        terminal.boot()
        return terminal

    def processes(self) -> list[int]:
        """List the processes that live in this home, by what they have in their environment."""
        mine, found = f"HOME={self.home}\0".encode(), []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdecimal() and mine in (folder / "environ").read_bytes() + b"\0":
                    found.append(int(folder.name))
        return found

    def peers(self) -> list[str]:
        """List who is in the room."""
        return list(self.hub.get("/peers").body["peers"])

    def wake(self, name: str) -> Any:
        """Tell what the hub knows of how a peer is woken."""
        return self.hub.get("/ping", peer=name).body.get("wake") or {}

    def end(self) -> None:
        """End all that was started here, and remove the home."""
        for terminal in self.terminals:
            terminal.kill()
        with contextlib.suppress(AssertionError):
            eventually(lambda: not self.processes(), "the end of all processes", 5)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.hub.stop()
        self.model.end()
        shutil.rmtree(self.home, ignore_errors=True)


class Terminal:
    """A host on a screen, and the hands of its user."""

    _numbers = itertools.count(1)

    def __init__(self, world: World, arguments: str) -> None:
        self.world, self.kind, self.number = world, world.kind, next(self._numbers)
        self.mark = f"(terminal {self.number})"  # in each of its prompts, and so in each of its requests
        self.name = ""  # of its seat
        self._tmux = ["tmux", "-S", str(world.home / f"tmux-{self.number}")]
        self._prompts = itertools.count(1)
        words = [*self._tmux, "-f", "/dev/null", "new-session", "-d", "-x", "150", "-y", "50"]
        command = f"exec {self.kind.command} {arguments}"
        subprocess.run([*words, "-c", world.project, command], env=world.env, check=True)

    def boot(self) -> None:
        """Wait until it shows its prompt."""
        self.see(lambda: re.search(self.kind.prompt, self.screen()), "its prompt", BOOT_S)

    def see(self, check: Callable[[], Any], what: str, deadline_s: float = TURN_S) -> Any:
        """Wait until `check` gives something true; else show the screen."""
        try:
            return eventually(check, what, deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.screen()}") from None

    def screen(self) -> str:
        """Give what is on the screen."""
        done = subprocess.run([*self._tmux, "capture-pane", "-p"], check=False, capture_output=True, text=True)
        return "\n".join(line for line in done.stdout.splitlines() if line.strip())

    def keys(self, *keys: str) -> None:
        """Press keys."""
        subprocess.run([*self._tmux, "send-keys", *keys], check=True)

    def turns(self) -> list[Turn]:
        """List what it has asked of the model."""
        return [turn for turn in self.world.model.turns if turn.has(self.mark, "user")]

    def type(self, *steps: str) -> Turn:
        """Type a prompt; give the request with which its turn begins."""
        title = f"{self.mark} Prompt {next(self._prompts)} of this terminal:"
        before = self.screen()
        subprocess.run([*self._tmux, "set-buffer", "-b", "p", "\n".join([title, *steps])], check=True)
        subprocess.run([*self._tmux, "paste-buffer", "-p", "-b", "p"], check=True)
        self.see(lambda: self.screen() != before, "a pasted prompt")
        end = time.monotonic() + TURN_S
        while time.monotonic() < end:
            self.keys("Enter")
            with contextlib.suppress(AssertionError):  # right after a paste some hosts take Enter for a part of it
                begun: Turn = eventually(lambda: next((t for t in self.turns() if t.has(title, "user")), 0), title, 3)
                return begun
        raise AssertionError(f"the prompt never reached the model: {self.screen()}")

    def is_idle(self) -> bool:
        """Whether its turn is over."""
        turns = self.turns()
        return bool(turns) and turns[-1].step[0] == "say" and self.kind.busy not in self.screen().lower()

    def rest(self) -> None:
        """Wait until its turn is over."""
        self.see(self.is_idle, "the end of a turn")

    def do(self, *steps: str) -> Turn:
        """Type a prompt and wait until all of it is done; give the last request."""
        self.type(*steps, "+say end")
        self.rest()
        return self.turns()[-1]

    def tool(self, name: str, **arguments: Any) -> str:
        """Word the step that calls one of our tools."""
        return f"+tool {self.kind.tool.format(name)} {json.dumps(arguments)}"

    def shell(self, command: str, **more: Any) -> str:
        """Word the step that runs a shell command."""
        name, argument = self.kind.shell
        about = {"description": "a command"} if self.world.host == "opencode" else {}
        return f"+tool {name} {json.dumps({argument: command, **about, **more})}"

    def result(self, turn: Turn) -> str:
        """Give the latest result of a tool that a request shows."""
        return next(text for who, text in reversed(turn.story) if who == "result")

    def join(self, name: str = "") -> str:
        """Have the agent join; give what the tool said."""
        for _ in range(20):  # a host may show its prompt before it has started its servers
            if '"setup"' in self.type("+say hello").tools.replace(self.kind.tool.format("setup"), "setup"):
                break
            self.rest()
        self.rest()
        before = self.world.peers()
        said = self.result(self.do(self.tool("setup"), self.tool("join", **({"project": name} if name else {}))))
        came = [one for one in self.world.peers() if one not in before]
        assert len(came) == 1, f"{said}\n{self.screen()}"
        self.name = came[0]
        return said

    def watch(self) -> str:
        """Have the agent start what waits for its mail in a background shell, as join tells it to; give the step."""
        said = self.result(self.do(self.tool("watch_command")))
        found = re.search(r'\\*"command\\*": ?\\*"([^"\\]+)', said)
        assert found is not None, said
        about = {"gemini": {"is_background": True}, "claude": {"run_in_background": True}}[self.world.host]
        step = self.shell(found[1], **about)
        self.do(step)
        is_waiting = lambda: (self.world.wake(self.name) or {}).get("kind") == "waits"  # noqa: E731
        self.see(lambda: self.world.hub.is_listening(self.name) or is_waiting(), "a watch")
        return step

    def leave(self) -> None:
        """End it as its user would."""
        words, enter = self.kind.leave
        self.keys("-l", words)
        eventually(lambda: words in self.screen(), "what was typed")
        end = time.monotonic() + TURN_S
        while self.is_there() and time.monotonic() < end:
            with contextlib.suppress(subprocess.CalledProcessError):  # it has ended meanwhile
                self.keys(enter)
            with contextlib.suppress(AssertionError):
                eventually(lambda: not self.is_there(), "its end", 3)
        assert not self.is_there(), self.screen()

    def command(self, words: str) -> None:
        """Type one of the host's own commands."""
        before = self.screen().count(words)
        self.keys("-l", words)
        self.see(lambda: self.screen().count(words) > before, "what was typed")
        self.keys("Enter")

    def clear(self) -> None:
        """Begin a new conversation in the same process."""

        def is_cleared() -> bool:
            return not self.shows(self.mark)

        self.do("+say hello")  # else its mark may have left the screen already
        for _ in range(5):  # a turn may just be ending
            self.command(self.kind.clear)
            for _ in range(3):  # some ask which of their commands, and where
                with contextlib.suppress(AssertionError):
                    eventually(is_cleared, "an empty screen", 2)
                    return self.boot()
                self.keys("Enter")
        raise AssertionError(self.screen())

    def shows(self, words: str) -> bool:
        """Whether these words are on the screen, however they are broken into lines."""
        return re.sub(r"[\W_]+", "", words) in re.sub(r"[\W_]+", "", self.screen())

    def is_there(self) -> bool:
        """Whether the terminal is open."""
        return subprocess.run([*self._tmux, "has-session"], check=False, capture_output=True).returncode == 0

    def kill(self) -> None:
        """Close the terminal."""
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)

    def woken(self, since: int, wait_s: float = WAKE_S) -> Turn | None:
        """Give the first request after `since` of them that was told that mail waits; None: none came."""

        def found() -> Turn | None:
            return next((t for t in self.turns()[since:] if POINTER.search(" ".join(x for w, x in t.story[-6:]))), None)

        with contextlib.suppress(AssertionError):
            turn: Turn = eventually(found, "a wake", wait_s)
            return turn
        return None


@contextlib.contextmanager
def operator(world: World) -> Iterator[Callable[..., Console]]:
    """Give what has the operator rule, and waits until it is done."""
    with world.hub.console() as console:

        def rule(**frame: Any) -> Console:
            console.send(**frame)
            console.send(heartbeat="x")
            console.next("heartbeat_result")
            return console

        yield rule


# --- what it costs ---


def took_ms(words: list[str], env: dict[str, str], said: str) -> float:
    """Run a hook to its end; give the milliseconds."""
    begun = time.perf_counter()
    subprocess.run(words, env=env, input=said.encode(), check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begun) * 1000


def cost_of_hooks(pyz: Path, rounds: int = 20) -> Iterator[str]:
    """Measure what a tool call pays for its brake, and what a waiter takes."""
    from test_bridge import bridge_at

    hub, folder = HubProcess(command=(sys.executable, str(pyz), "hub")), Path(tempfile.mkdtemp(prefix="caucus-cost-"))
    mine = {"XDG_STATE_HOME": str(folder), "CLAUDE_CODE_SESSION_ID": "of-this-session"}
    env = {"PATH": os.environ["PATH"], **mine}
    python, said = [sys.executable, "-I", "-S"], json.dumps({"tool_name": "Bash", "tool_input": {"command": "ls"}})
    hook = [*python, str(pyz), "brake", "claude"]
    try:
        with bridge_at(hub.url, folder, env=mine, command=(sys.executable, str(pyz), "bridge")) as bridge:
            bridge.join("api")
            tried: dict[str, tuple[list[str], dict[str, str]]] = {
                "Python alone": ([*python, "-c", "pass"], env),
                "brake, not joined": (hook, {**env, "CLAUDE_CODE_SESSION_ID": "of-another"}),
                "brake, joined": (hook, env),
            }
            rows: dict[str, list[float]] = {name: [] for name in tried}
            for _ in range(rounds):
                for name, (words, its) in tried.items():
                    rows[name].append(took_ms(words, its, said))
            for name, row in rows.items():
                yield f"{name}: {statistics.median(row):.0f} ms (median of {rounds}, {min(row):.0f} to {max(row):.0f})"
            begun = time.perf_counter()
            waiter = subprocess.Popen([*python, str(pyz), "wake", "claude"], env=env, stderr=subprocess.DEVNULL)
            eventually(lambda: (hub.get("/ping", peer="api").body["wake"] or {}).get("kind") == "waits", "a waiter")
            yield f"wake: waits after {(time.perf_counter() - begun) * 1000:.0f} ms"
            about = Path(f"/proc/{waiter.pid}/smaps_rollup").read_text()
            sizes = {key: int(size) / 1024 for key, size in re.findall(r"(?m)^(Rss|Pss): +(\d+) kB", about)}
            yield f"wake: {sizes['Rss']:.0f} MiB resident, {sizes['Pss']:.0f} MiB its own share"
            waiter.kill()
            waiter.wait()
    finally:
        hub.stop()
        shutil.rmtree(folder, ignore_errors=True)


def cost_of_messages(pyz: Path, count: int, has_hooks: bool) -> str:
    """Let one peer write to an idle Claude Code, so many times; count what that takes of the model."""
    world = World("claude", pyz)
    try:
        if not has_hooks:  # the entry for the bridge stays
            for name, data in world.original.items():
                (world.project / name).write_bytes(data)
        terminal = world.terminal()
        terminal.join()
        if not has_hooks:
            again, file = terminal.watch().removeprefix("+tool "), re.compile(r"<output-file>(.+?)</output-file>")
            world.model.react = lambda text: [
                step for path in file.findall(text)[:1]
                for step in (("tool", again), ("tool", f"Read {json.dumps({'file_path': path})}"))
            ]
        terminal.rest()
        peer, turns, sizes = world.hub.register("web"), len(world.model.turns), len(world.model.sizes)
        for number in range(count):
            if has_hooks:
                terminal.see(lambda: world.wake(terminal.name).get("kind") == "waits", "a waiter")
            else:
                terminal.see(lambda: world.hub.is_listening(terminal.name), "a watch")
            words = f"Message {number}: the fields of /orders that must stay are id, total and currency."
            said = {"token": peer, "to": terminal.name, "content": words}
            eventually(lambda: world.hub.post("/send", **said).status == 200, "that it may speak")  # noqa: B023
            terminal.see(lambda: terminal.turns()[-1].has(f"Message {number}:", "result"), words)  # noqa: B023
            terminal.rest()
        tokens = [size // 4 for size in world.model.sizes[sizes:]]
        grown = world.model.turns[-1].size - world.model.turns[turns].size
        asked = f"{len(world.model.turns) - turns} requests, {sum(tokens)} tokens sent, {grown // 4} of them new"
        return f"{'hooks' if has_hooks else 'watch'}: {asked}, for {count} messages"
    finally:
        world.end()


def main() -> None:
    """Print what it costs."""
    pyz = Path(sys.argv[1]).resolve()
    for line in cost_of_hooks(pyz):
        print(line, flush=True)
    for has_hooks in (False, True) if len(sys.argv) > 2 else ():
        print(cost_of_messages(pyz, int(sys.argv[2]), has_hooks), flush=True)


if __name__ == "__main__":
    main()
