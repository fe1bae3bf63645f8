"""Meetings that ship: what they say, that they can be rehearsed, and that they are held from the .pyz alone."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hubs import Console
from test_meet import running_in
from websockets.sync.client import connect

import caucus

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs/meetings"
MODELS = tuple(name for name in caucus.SHIPPED if name != "demo")  # meetings of models
GIVEN = {
    "topic": "the plan",
    "agents.provider.cwd": "left",
    "agents.consumer.cwd": "right",
}
ASKERS = {
    "debate": ("judge", "Verdict"),
    "critic": ("proposer", "Proposal"),
    "review": ("correctness", "Review"),
    "contract": ("provider", "Contract"),
    "incident": ("lead", "Incident"),
    "demo": ("ops", "The hour"),
}
pytestmark = pytest.mark.skipif(os.name == "nt", reason="stand-ins are shell scripts")


def needs_of(name: str) -> list[str]:
    """Give what a meeting needs, as options."""
    needs = caucus.tables_in(f"docs/meetings/{name}.toml")["meeting"].get("needs", [])
    return [f"{key}={GIVEN[key]}" for key in needs]


def read(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, is_rehearsed: bool = False) -> caucus.Meeting:
    """Read a meeting that ships, in a folder of its own."""
    for one in ("left", "right"):
        (folder / one).mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    return caucus.MeetingReader(name, [] if is_rehearsed else needs_of(name), is_rehearsed=is_rehearsed).read()


# --- what they say ---


def test_all_that_are_there_ship() -> None:
    assert sorted(caucus.SHIPPED) == sorted(path.stem for path in FOLDER.iterdir())


def test_the_manual_has_each_with_its_form() -> None:
    text = (ROOT / "docs/meetings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z]+)` \| [^|]* \| ([A-Z][^|]*) \| [^|]* \|$", text, re.MULTILINE)
    assert rows == [(name, ASKERS[name][1]) for name in caucus.SHIPPED]


@pytest.mark.parametrize("name", MODELS)
def test_a_meeting_has_limits_and_somebody_who_ends_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting = read(name, tmp_path, monkeypatch)
    asker, title = ASKERS[name]
    assert meeting.ends_on == (title,)
    assert meeting.minutes <= 60
    assert 0 < meeting.messages <= 60
    assert 0 < meeting.dollars <= 10
    assert meeting.closing
    assert meeting.outcome == str(tmp_path / "outcome.md")
    personas = {one.name: " ".join(one.persona.split()) for one in meeting.attendees}
    assert [one for one, persona in personas.items() if f"title {title}" in persona] == [asker]
    assert {one.kind for one in meeting.attendees} == {"claude"}
    assert all(one.dollars and one.turns and one.persona and one.lines for one in meeting.attendees)


class Stage:
    """A room without a hub, in which stand-ins get their messages in batches as chance will have it."""

    def __init__(self, meeting: caucus.Meeting, seed: int) -> None:
        self.minds = {one.name: caucus.StandIn(one.lines) for one in meeting.attendees}
        self.boxes: dict[str, list[dict[str, Any]]] = {name: [] for name in self.minds}
        self.chance, self.meeting = random.Random(seed), meeting
        self.said: list[tuple[str, str]] = []
        self.asked: list[tuple[str, Any]] = []

    def deliver(self, sender: str, text: str, kind: str = "message") -> None:
        """Put a message into all mailboxes but the sender's."""
        origin = "operator" if sender == caucus.OPERATOR else "agent"
        about = {"sender": sender, "recipient": "all", "content": text, "kind": kind, "origin": origin}
        for name in self.boxes.keys() - {sender}:
            self.boxes[name].append({"seq": len(self.said), **about})

    async def settle(self) -> None:
        """Let all take turns until nobody has mail."""
        while ready := sorted(name for name, box in self.boxes.items() if box):
            name = self.chance.choice(ready)
            end = self.chance.randint(1, len(self.boxes[name]))
            batch, self.boxes[name] = self.boxes[name][:end], self.boxes[name][end:]
            reply = (await self.minds[name].think(caucus.fenced(batch, "running", 0))).reply
            if asked := caucus.forms_in(reply):
                self.asked += [(name, form) for form in asked[1]]
            elif reply:
                self.said.append((name, reply))
                self.deliver(name, reply)


@pytest.mark.parametrize("name", caucus.SHIPPED)
def test_its_lines_lead_to_its_form_and_to_last_words_however_messages_come(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caucus, "STAND_IN_S", 0.0)
    meeting = read(name, tmp_path, monkeypatch, is_rehearsed=True)
    told = []

    async def play(seed: int) -> None:
        stage = Stage(meeting, seed)
        for words in (meeting.opening, "Here is the diff, part 1 of 2.", "Here is the diff, part 2 of 2."):
            stage.deliver(caucus.OPERATOR, words)
        await stage.settle()
        assert [(who, form["title"]) for who, form in stage.asked] == [ASKERS[name]]
        before = len(stage.said)
        stage.deliver(caucus.OPERATOR, "the answer", "answer")
        await stage.settle()
        assert len(stage.said) == before
        stage.deliver(caucus.OPERATOR, meeting.closing)
        await stage.settle()
        assert sorted(who for who, _ in stage.said[before:]) == sorted(stage.minds)
        assert len(stage.said) + 1 == sum(len(one.lines) for one in meeting.attendees)
        told.append(stage.said[:before])

    for seed in range(20):
        asyncio.run(play(seed))
    assert all(one == told[0] for one in told)  # nobody speaks before his cue


# --- the command line ---


def test_they_are_listed_with_what_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    assert caucus.main(["meet", "--list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert [*rows] == [*caucus.SHIPPED]
    assert (rows["review"]["stdin"], rows["review"]["needs"]) == ("the diff", [])
    assert rows["contract"]["needs"] == ["topic", "agents.provider.cwd", "agents.consumer.cwd"]
    assert caucus.main(["meet", "--list"]) == 0
    said = capsys.readouterr().out
    assert all(words in said for row in rows.values() for words in (row["title"], row["about"]))
    assert "needs the diff on stdin" in said


def test_one_is_shown_to_be_kept_and_a_file_of_that_name_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert caucus.main(["meet", "--show", "debate"]) == 0
    shown = capsys.readouterr().out
    assert shown == (FOLDER / "debate.toml").read_text(encoding="utf-8")
    (tmp_path / "debate").write_text(shown.replace('title = "Debate"', 'title = "Mine"'), encoding="utf-8")
    assert caucus.main(["meet", "debate", "--set", "topic=x", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Mine"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["debat"], "debat: there is no such file, and none that ships (did you mean debate?); `caucus meet --list`"),
        ([], "FILE: is required"),
        (["debate"], "debate:10: it needs topic: give --set topic=..."),
        (["debate", "--exec", ""], "--exec: a command is required"),
        (["debate", "--exec", "cat", "--rehearse"], "--exec: runs a model, and with --rehearse none does"),
    ],
)
def test_what_cannot_be_held_is_refused(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert caucus.main(["meet", *words]) == 2
    assert told in capsys.readouterr().err


def test_with_a_command_each_claude_is_one_and_in_a_rehearsal_all_are_stand_ins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read("contract", tmp_path, monkeypatch)
    given = [word for need in needs_of("contract") for word in ("--set", need)]
    assert caucus.main(["meet", "contract", *given, "--exec", "llm -m X", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(one["kind"], one["runs"], "$" in str(one["limits"])) for one in plan["agents"]] == [
        ("exec", "llm -m X", False)
    ] * 2
    assert [one["cwd"] for one in plan["agents"]] == [str(tmp_path / "left"), str(tmp_path / "right")]
    assert caucus.main(["meet", "contract", "--rehearse", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(one["kind"], one["rights"], one["environment"]) for one in plan["agents"]] == [
        ("stand-in", "it talks, and no more", [])
    ] * 2


# --- what is given on stdin ---


def test_what_is_given_is_said_in_order_in_parts_that_fit_and_nothing_leads_out_of_their_fences() -> None:
    text = "".join(f"line {number}\n" for number in range(9000)) + "`````\nout\n" + "x" * 40_000
    parts = caucus.handed_over("the diff", text.encode() + b"\xff")
    shape = re.compile(r"Here is the diff, part (\d) of (\d)\.([^\n]*)\n(`+)\n(.*)\n\4", re.DOTALL)
    found = [match for one in parts if (match := shape.fullmatch(one))]
    count = len(parts)
    assert [(one[1], one[2]) for one in found] == [(str(at), str(count)) for at in range(1, count + 1)]
    assert ["wait for the last part" in one[3] for one in found] == [True] * (count - 1) + [False]
    assert {one[4] for one in found} == {"``````"}
    assert max(map(len, parts)) <= caucus.OPERATOR_CONTENT_MAX
    whole = "".join(one[5] for one in found)
    assert whole.replace("\n", "") == text.replace("\n", "") + "\ufffd"


def test_too_much_and_nothing_are_refused_with_the_number_and_the_way(tmp_path: Path) -> None:
    with pytest.raises(caucus.Invalid, match="the diff has 300,000 characters; at most 8 messages of 32,768 are said"):
        caucus.handed_over("the diff", b"x" * 300_000)
    with pytest.raises(caucus.Invalid, match="the diff has over 1,048,576 bytes; at most 8"):
        caucus.handed_over("the diff", b"x" * (caucus.HANDED_MAX_BYTES + 1))
    argv = [sys.executable, str(ROOT / "caucus.py"), "meet", "review"]
    done = subprocess.run(argv, input="\n", capture_output=True, text=True, check=False, timeout=30, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "caucus: stdin: is empty: give it the diff, such as with: git diff | caucus meet review\n"
    )
    assert [*tmp_path.iterdir()] == []


def test_an_end_of_stdin_that_does_not_come_is_told_and_ctrl_c_leaves_word(tmp_path: Path) -> None:
    argv = [sys.executable, str(ROOT / "caucus.py"), "meet", "review"]
    pipe, err = subprocess.PIPE, subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=err, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "caucus: waiting for the end of stdin, the diff\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 2
        assert "stdin: interrupted before the end of the diff; nothing was started" in process.stderr.read()
    done = subprocess.run(["sh", "-c", '"$0" "$@" <&-', *argv], capture_output=True, text=True, check=False, timeout=30)
    assert "stdin: is closed: give it the diff" in done.stderr


@pytest.mark.parametrize(("given", "is_told"), [("a diff", True), ("", False)])
def test_what_is_given_to_a_meeting_that_asks_for_nothing_is_told_of(
    given: str, is_told: bool, tmp_path: Path
) -> None:
    (tmp_path / "m.toml").write_text('[meeting]\ntitle = "T"\n[agents.a]\nkind = "stand-in"\nlines = ["x"]', "utf-8")
    (tmp_path / "given").write_text(given, encoding="utf-8")
    argv = [sys.executable, str(ROOT / "caucus.py"), "meet", "m.toml", "--hub", "http://127.0.0.1:1", "--no-browser"]
    with open(tmp_path / "given", encoding="utf-8") as file:
        done = subprocess.run(argv, stdin=file, capture_output=True, text=True, check=False, timeout=30, cwd=tmp_path)
    assert done.returncode == 3
    assert ("what is there is not read" in done.stderr) == is_told


# --- they are held, from the .pyz alone, with a script in place of each model ---

# Its arguments: a folder for what it remembers, who asks, and the title. What it was given stays there.
MIND = """\
#!/bin/sh
said=$(cat)
name=$(printf '%s' "$said" | sed -n 's/^You are the peer \\(.*\\) in a Caucus room.*/\\1/p' | head -n 1)
printf '%s' "$said" > "$1/part-$name" && mv "$1/part-$name" "$1/given-$name"
case $said in
*"last message to all"*)
  mkdir "$1/last-$name" 2> /dev/null && printf '# Decisions\\n<h1>%s</h1> says | so\\n> and so\\n' "$name" ;;
*)
  if mkdir "$1/spoken-$name" 2> /dev/null; then echo "$name speaks."
  elif [ "$name" = "$2" ] && mkdir "$1/asked" 2> /dev/null; then
    printf 'ASK %s\\nShall it be so?\\n- Yes\\n- No\\n' "$3"
  else echo PASS
  fi ;;
esac
true
"""
DIFF = "".join(f"+ line {number} of the diff\n" for number in range(3000))


class Past:
    """A meeting that was held: its end, and all that it has told."""

    def __init__(self, pyz: Path, name: str, folder: Path) -> None:
        self.folder = folder
        for one in ("left", "right", "kept"):
            (folder / one).mkdir(parents=True)
        mind = folder / "kept/mind.sh"
        mind.write_text(MIND, encoding="utf-8")
        mind.chmod(0o755)
        asker, title = ASKERS[name]
        argv = [sys.executable, str(pyz), "meet", name, "--no-browser", "--json"]
        argv += ["--exec", f"{mind} {folder / 'kept'} {asker} {title}"]
        argv += [word for need in needs_of(name) for word in ("--set", need)]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CAUCUS_")}
        (folder / "kept/diff").write_text(DIFF if name == "review" else "", encoding="utf-8")
        with (folder / "kept/diff").open(encoding="utf-8") as given:
            out = subprocess.PIPE
            process = subprocess.Popen(argv, stdin=given, stdout=out, stderr=out, text=True, cwd=folder, env=clean)
        self.told: list[str] = []
        killer = threading.Timer(40.0, process.kill)
        killer.start()
        with process:
            self._follow(process)
        killer.cancel()
        self.code, self.running = process.returncode, running_in(folder)

    def _follow(self, process: subprocess.Popen[str]) -> None:
        """Take what it tells, and answer its form, until it ends."""
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            self.told.append(line.rstrip("\n"))
            if (found := re.search(r"console is at (http://\S+)", line)) is not None:
                operator = threading.Thread(target=self._rule, args=(found[1],))
                operator.start()
        self.about = json.loads(process.stdout.read() or "null")
        operator.join()

    def _rule(self, url: str) -> None:
        """Answer its form."""
        with connect(f"ws{url.removeprefix('http')}/ui", proxy=None) as socket:
            console = Console(socket)
            form = console.next("form")["form"]
            console.send(answer={"id": form["id"], "answers": {"answer": "Yes", "note": "# None\n|"}})
            console.next("form_resolved")


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Past]]:
    """Hold all of them at once."""
    folder = tmp_path_factory.mktemp("shipped")
    pyz = folder / "caucus.pyz"
    subprocess.run([sys.executable, ROOT / "build_zipapp.py", "-o", pyz], check=True, cwd=folder, capture_output=True)
    with ThreadPoolExecutor(len(MODELS)) as pool:
        held = pool.map(lambda name: Past(pyz, name, folder / name), MODELS)
    return dict(zip(MODELS, held, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_it_is_held_to_its_end_and_nothing_of_it_runs_on(name: str, past: dict[str, Past]) -> None:
    one, (asker, title) = past[name], ASKERS[name]
    seats = [*caucus.tables_in(f"docs/meetings/{name}.toml")["agents"]]
    order = [line for line in one.told if "console is at" not in line]
    assert sorted(order[: len(seats)]) == sorted(f"caucus: {seat} is seated" for seat in seats)
    assert order[len(seats) :] == [
        "caucus: the meeting is open",
        f"caucus: {asker} asks you, in the console: {title}",
        f'caucus: the meeting ends: the form "{title}" is answered',
        "caucus: the closing is said: last words may take 60 s",
    ]
    assert (one.code, one.running) == (0, [])
    assert [(row["name"], row["state"], row["exit_code"]) for row in one.about["agents"]] == [
        (seat, "ended", 0) for seat in seats
    ]
    assert one.about["decisions"] == [
        {
            "title": title,
            "asker": asker,
            "answers": [
                {"question": "Shall it be so?", "options": ["Yes", "No"], "answer": "Yes"},
                {"question": caucus.NOTE_LABEL, "options": [], "answer": "# None\n|"},
            ],
        }
    ]
    assert one.about["journal"] == str(one.folder / f"{name}.journal")


@pytest.mark.parametrize("name", MODELS)
def test_its_outcome_has_the_decision_and_all_last_words_as_citations(name: str, past: dict[str, Past]) -> None:
    one, (asker, title) = past[name], ASKERS[name]
    assert one.about["outcome"] == str(one.folder / "outcome.md")
    text = (one.folder / "outcome.md").read_text(encoding="utf-8")
    seats = [row["name"] for row in one.about["agents"]]
    headings = ["Decisions", "Last words", *(f"# {seat}" for seat in seats), "Who took part"]
    assert re.findall(r"^##(#? ?.*)", text, re.MULTILINE) == [
        heading if heading.startswith("#") else f" {heading}" for heading in headings
    ]
    assert f"**{title}**, asked by {asker}:\n\n> ```\n> Shall it be so?\n> - Yes\n> - No\n> ```\n" in text
    assert "The operator's answer:\n\n> ```\n> # None\n> |\n> ```\n" in text
    for seat in seats:
        assert f"### {seat}\n\n> ```\n> # Decisions\n> <h1>{seat}</h1> says | so\n> > and so\n> ```\n" in text
        assert re.search(rf"^\| {seat} \| ended \| \d+ \| \d+ \| unknown \|  \|$", text, re.MULTILINE)


def test_the_diff_reaches_all_who_review_it_in_order(past: dict[str, Past]) -> None:
    for seat in ("correctness", "security", "simplicity"):
        given = (past["review"].folder / f"kept/given-{seat}").read_text(encoding="utf-8")
        assert re.findall(r"^\+ line (\d+) of the diff", given, re.MULTILINE) == [str(number) for number in range(3000)]
        assert given.index("Please review the diff") < given.index("part 1 of 3") < given.index("part 3 of 3")
