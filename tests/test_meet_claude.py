"""A meeting of real `claude` processes, which take their turns from a fake Messages API, and of what they may lack."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tornado
from agents import FAKE_CLAUDE, SDK
from fake_messages import FakeMessages
from hubs import eventually
from test_agent_claude import CLAUDE, say, variables, version
from test_meet import ROOT, Held, hold  # noqa: F401  # a fixture

import caucus

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are compared as Linux shows them"),
    pytest.mark.skipif(not SDK.exists(), reason="no claude-agent-sdk: tests/run.py installs it"),
]
# The SDK's Python holds the meeting, and so runs the agents; a hub needs tornado as well, as caucus.pyz has it.
WITH_SDK = {"python": SDK, "PYTHONPATH": str(Path(tornado.__file__).parent.parent)}
# Each in a folder of its own, and with rights of its own.
WORKERS = """
[roles.worker]
kind = "claude"
type = "worker"
dollars = 5
environment = ["ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
               "DISABLE_AUTOUPDATER", "CLAUDE_CODE_MAX_RETRIES"]
[agents.ann]
role = "worker"
cwd = "ann"
permission_mode = "acceptEdits"
[agents.bob]
role = "worker"
cwd = "bob"
permission_mode = "dontAsk"
"""


def asked_by(model: FakeMessages, name: str) -> str:
    """Give all that one agent's mind was told."""
    return json.dumps([one for one in model.requests if f"You are the peer {name}" in json.dumps(one["system"])])


@pytest.mark.skipif(CLAUDE is None, reason="no `claude` on this machine, on PATH nor in CAUCUS_TEST_CLAUDE")
@pytest.mark.skipif(() < version() < caucus.CLI_MIN, reason="this `claude` is too old for an agent")
def test_two_claudes_meet_and_an_answer_to_the_form_of_one_ends_it(
    tmp_path: Path, hold: Callable[..., Held]  # noqa: F811
) -> None:
    for folder in ("ann", "bob", "home"):
        (tmp_path / folder).mkdir()
    fields = [{"key": "who", "label": "Who", "type": "text"}]
    ask = "!tool mcp__caucus__ask_operator " + json.dumps({"title": "Verdict", "fields": fields})
    opening = "\n".join(["Please begin.", '!tool Bash {"command": "touch was-here"}', say("bob", ask)])
    head = f"[meeting]\ntitle = \"T\"\nends_on = [\"Verdict\"]\nopening = '''{opening}'''\n"
    with FakeMessages() as model:
        held = hold(head + WORKERS, **WITH_SDK, **variables(model), HOME=str(tmp_path / "home"))
        with held.console() as console:
            form = console.next("form")["form"]
            eventually(lambda: ask_of_bob_is_done(model), "the end of bob's turn")
            console.send(answer={"id": form["id"], "answers": {"who": "ann"}})
        code, about = held.end()
        told = {name: asked_by(model, name) for name in ("ann", "bob")}
    assert (code, about["ended"]) == (0, 'the form "Verdict" is answered')
    [decision] = about["decisions"]
    assert (decision["title"], decision["asker"], decision["answers"][0]["answer"]) == ("Verdict", "bob", "ann")
    assert all("Please begin." in words for words in told.values())
    assert ((tmp_path / "ann/was-here").exists(), (tmp_path / "bob/was-here").exists()) == (True, False)
    ann, bob = about["agents"]
    assert [(one["state"], one["exit_code"], one["dollars"] > 0) for one in (ann, bob)] == [("ended", 0, True)] * 2
    assert ann["messages"] == 1


@pytest.mark.skipif(CLAUDE is None, reason="no `claude` on this machine, on PATH nor in CAUCUS_TEST_CLAUDE")
@pytest.mark.skipif(() < version() < caucus.CLI_MIN, reason="this `claude` is too old for an agent")
def test_claudes_hold_the_debate_that_ships(tmp_path: Path, hold: Callable[..., Held]) -> None:  # noqa: F811
    fields = [{"key": "answer", "label": "Which?", "type": "radio", "options": ["Tabs", "Spaces"]}]
    ask = "!tool mcp__caucus__ask_operator " + json.dumps({"title": "Verdict", "fields": fields})
    topic = "\n".join(["Tabs or spaces?", say("all", "My case."), ask])  # each of the three takes these steps
    (tmp_path / "home").mkdir()
    with FakeMessages() as model:
        names = json.dumps([name for name in variables(model) if not name.startswith("CAUCUS_")])
        flags = ("--set", f"topic={topic}", "--set", f"roles.model.environment={names}", "--set", "closing_seconds=20")
        text = (ROOT / "docs/meetings/debate.toml").read_text(encoding="utf-8")
        held = hold(text, *flags, **WITH_SDK, **variables(model), HOME=str(tmp_path / "home"))
        with held.console() as console:
            form = console.next("form")["form"]
            console.send(answer={"id": form["id"], "answers": {"answer": "Tabs"}})
        code, about = held.end(40.0)
    assert (code, about["ended"]) == (0, 'the form "Verdict" is answered')
    assert [(one["name"], one["state"], one["dollars"] > 0) for one in about["agents"]] == [
        (name, "ended", True) for name in ("left", "right", "judge")
    ]
    outcome = Path(about["outcome"]).read_text(encoding="utf-8")
    assert outcome.count("> My case.") == 3
    assert "> Tabs\n" in outcome


@pytest.mark.skipif(CLAUDE is None, reason="no `claude` on this machine, on PATH nor in CAUCUS_TEST_CLAUDE")
@pytest.mark.skipif(() < version() < caucus.CLI_MIN, reason="this `claude` is too old for an agent")
def test_a_claude_that_waits_to_be_spoken_to_answers_and_is_asleep_again(
    tmp_path: Path, hold: Callable[..., Held]  # noqa: F811
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "bob").mkdir()
    (tmp_path / "ann").mkdir()
    with FakeMessages() as model:
        text = '[meeting]\ntitle = "T"\n' + WORKERS.replace('cwd = "ann"', 'cwd = "ann"\nstart = "when spoken to"')
        held = hold(text, "--only", "ann", **WITH_SDK, **variables(model), HOME=str(tmp_path / "home"))
        held.until_told("ann has its seat, and is asleep")
        assert model.requests == []
        with contextlib.closing(caucus.Client(held.url)) as guest:
            guest.register("guest")
            for words in (say("guest", "Blue."), "Say nothing."):  # the second it is reminded of, and declines
                guest.post("/send", to="ann", content=f"Which colour?\n{words}", expects_answer=True)
            told = []
            while len(told) < 2:
                told += guest.receive(1.0, "lease", max([0, *[m["seq"] for m in told]]))["messages"]
            held.until_told("ann is asleep again")
        held.process.send_signal(signal.SIGINT)
        code, about = held.end()
    assert [(m["content"], m.get("outcome")) for m in told] == [("Blue.", None), (caucus.NO_ANSWER, "declined")]
    assert (code, about["agents"][0]["sessions"], about["agents"][0]["state"]) == (0, 1, "ended")


def ask_of_bob_is_done(model: FakeMessages) -> bool:
    """Whether bob's mind knows that it has asked."""
    return '"tool_result"' in asked_by(model, "bob").partition("ask_operator ")[2]


@pytest.mark.parametrize(
    ("python", "cli", "mends"),
    [
        (sys.executable, FAKE_CLAUDE, "`uv run --with claude-agent-sdk"),
        (SDK, "/nowhere/claude", "npm install -g @anthropic-ai/claude-code"),
        (SDK, FAKE_CLAUDE, "type /login, or set ANTHROPIC_API_KEY, which a meeting's file has to name"),
    ],
)
def test_a_claude_that_cannot_take_part_is_not_tried_again_and_its_line_names_what_mends_it(
    tmp_path: Path, hold: Callable[..., Held], python: Any, cli: Any, mends: str  # noqa: F811
) -> None:
    lacks = {"CAUCUS_CLAUDE_CLI": str(cli), "FAKE_CLAUDE_START": "no-login", "FAKE_CLAUDE_LOG": str(tmp_path / "log")}
    agent = f'[agents.ann]\nkind = "claude"\nenvironment = {json.dumps([*lacks][1:])}'
    text = f'[meeting]\ntitle = "T"\n{agent}'
    code, about = hold(text, **WITH_SDK | {"python": python}, **lacks).end()
    [ann] = about["agents"]
    assert (code, ann["state"], ann["restarts"], ann["exit_code"]) == (1, "failed", 0, caucus.EXIT_GAVE_UP)
    assert mends in ann["last_lines"][-1]
