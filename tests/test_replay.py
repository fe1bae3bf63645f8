"""The past as it was: what a recorder tells, against what a console was told live; records that open alone."""

from __future__ import annotations

import itertools
import json
import queue
import random
import re
import sqlite3
import subprocess
import threading
import time
import urllib.parse
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest
from fakes import FakeClock, RecordingRoom, question
from hubs import ROOT, HubProcess, eventually
from test_journal import journal, kept_hub
from test_ui_model import Audience, nearly, node

import caucus

READINGS = {*caucus.READINGS, "heardAt"}


def recorded(events: Any, since: float = 0.0, until: float = 1e11, **narrow: Any) -> list[Any]:
    """Give the entries that a recorder makes of events."""
    recorder = caucus.Recorder(None, caucus.Span(since, until, **narrow))  # type: ignore[arg-type]  # reads no file
    return [json.loads(entry) for entry in recorder.record(events)]


def part_of(entries: list[Any], **more: Any) -> dict[str, Any]:
    """Give entries as a hub would, all of them in one part."""
    return {"version": "0", "from": entries[0][0] / 1000, "to": entries[-1][0] / 1000, "entries": entries, **more}


def in_node(program: str, data: Any) -> Any:
    """Run a module of the console's on some data."""
    head = 'let text = ""; for await (const chunk of process.stdin) text += chunk; const data = JSON.parse(text);\n'
    run = subprocess.run(
        [node(), "--input-type=module", "-e", f"{program.partition('---')[0]}{head}{program.partition('---')[2]}"],
        input=json.dumps(data), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


SIGHT = """
import { apply, copyOf, emptyModel, passedSince } from "./ui/model.js";
import { addPart, emptyReplay, goTo, lengthOf, markFrom, msOf, placeOf, readOn, xOf } from "./ui/replay.js";
import { isDeepStrictEqual } from "node:util";
---
const sight = (model, now) => {
  const row = (peer) => ({ ...peer, uptime: peer.uptime + passedSince(model, peer, now),
    status_age: peer.status_age === null ? null : peer.status_age + passedSince(model, peer, now) });
  const { mode, floors, forms, rate, rules, owed, settled } = model;
  return { mode, floors, forms, rate, rules, owed, settled: settled.map(({ askedAt, at, ...rest }) => rest),
    channels: Object.entries(model.channels), peers: model.peers.map(row), log: model.log.map(({ id }) => id),
    receipts: [...model.receipts.values()].map(({ at, ...rest }) => rest).sort((a, b) => a.seq - b.seq),
    trees: [...model.trees.keys()].sort(), threads: [...model.threads.values()].sort(),
    pauses: model.spans.filter(({ kind, to }) => kind === "pause" && to === null).map(({ who }) => who).sort(),
    sticks: model.spans.filter(({ kind }) => kind === "stick").map(({ who, scope }) => [who, scope]) };
};
"""
COMPARED = SIGHT + """
process.stdout.write(JSON.stringify(data.moments.map(({ script, part, now }) => {
  const live = script.reduce((one, [at, frame]) => apply(one, frame, at), emptyModel());
  const replay = addPart(emptyReplay(), part);
  while (readOn(replay, 50));
  return [sight(live, now), sight(goTo(replay, replay.to), now)];
})));
"""


def told(seed: int, steps: int = 400) -> tuple[Audience, list[tuple[int, int, float]]]:
    """Tell a random story to a console; note moments at which it knows everything."""
    audience, moments = Audience(random.Random(seed)), list[tuple[int, int, float]]()
    audience.open()
    for step in range(steps):
        audience.act()
        if audience.chance.random() < 0.4:
            audience.turn()
        if audience.chance.random() < 0.03 or step == steps - 1:
            audience.tick()
            moments.append((len(audience.room.events), len(audience.scripts[1]), audience.clock.wall() * 1000))
    return audience, moments


def of_the_past(sight: dict[str, Any]) -> dict[str, Any]:
    """Leave of what a console shows what is replayed."""
    rows = [{key: row[key] for key in row.keys() - READINGS - {"joined", "status_at"}} for row in sight["peers"]]
    return {**sight, "peers": rows}


def agree(fewer: list[Any], more: list[Any]) -> bool:
    """Whether receipts are the same, but for the lost whose names others bear soon after: a later look knows less."""
    known = {one["id"]: one["who"] or {} for one in more}
    apart = [{*(one["who"] or {}).items()} ^ {*known[one["id"]].items()} for one in fewer]
    names = [[name for name, _ in one] for one in apart]
    return all(fate.startswith("lost") for one in apart for _, fate in one) and all(
        len(one) == len(set(one)) for one in names
    )


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the hub tell consoles all at once, however slow this machine is; else it takes no more than its share."""
    monkeypatch.setattr(caucus, "WHOLE_SHARE", 1e9)
    monkeypatch.setattr(caucus, "TREES_BURST_S", 1e9)


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("seed", range(8))
def test_the_replay_shows_at_any_moment_what_a_console_showed_then(seed: int) -> None:
    audience, moments = told(seed)
    events, script = audience.room.events, audience.scripts[1]
    data = [{"script": script[:count], "part": part_of(recorded(events[:upto])), "now": now}
            for upto, count, now in moments if upto]
    assert len(data) > 3
    for live, then in in_node(COMPARED, {"moments": data}):
        live, then = of_the_past(live), of_the_past(then)
        assert agree(live.pop("receipts"), then.pop("receipts"))
        for key in live:
            assert nearly(live[key], then[key]), (key, live[key], then[key])


JUMPS = SIGHT + """
const replay = addPart(emptyReplay(), data.part);
replay.every = 20;
while (readOn(replay, 7));
const upTo = (ms) => ({ ...data.part, entries: data.part.entries.filter(([at]) => at <= ms) });
const past = (ms) => goTo(addPart(emptyReplay(), upTo(ms)), ms);
const applied = [];
const wrong = data.jumps.filter((ms) => {
  const model = goTo(replay, ms);
  applied.push(replay.applied);
  return !isDeepStrictEqual({ ...model, link: 0 }, { ...past(ms), link: 0 });
});
process.stdout.write(JSON.stringify({ wrong, applied, every: replay.every, copies: replay.copies.length }));
"""


@pytest.mark.parametrize("seed", range(4))
def test_however_one_jumps_the_model_is_the_one_that_gets_there_step_by_step(seed: int) -> None:
    audience, _ = told(seed + 100)
    part, chance = part_of(recorded(audience.room.events)), random.Random(seed)
    moments = [entry[0] for entry in part["entries"][1:]]
    jumps = [chance.choice(moments) + chance.choice([-1, 0, 1]) for _ in range(60)]
    jumps += sorted(chance.choices(moments, k=20))  # and as it plays
    done = in_node(JUMPS, {"part": part, "jumps": [moments[0], *jumps, moments[-1]]})
    assert done["wrong"] == []
    assert 3 < done["copies"] <= 32
    assert max(done["applied"][1:]) <= 2 * done["every"]


WINDOW = SIGHT + """
process.stdout.write(JSON.stringify(data.parts.map((part) => {
  const replay = addPart(emptyReplay(), part);
  return sight(goTo(replay, replay.to), data.now);
})));
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_replay_that_begins_in_the_middle_ends_as_the_whole_one(seed: int) -> None:
    audience, [*_, (_, _, now)] = told(seed + 200)
    events = audience.room.events
    middle = random.Random(seed).choice(events[50:-50]).ts
    parts = [part_of(recorded(events, since)) for since in (0.0, middle)]
    assert parts[1]["from"] == round(middle, 3)
    whole, late = in_node(WINDOW, {"parts": parts, "now": now})
    for key in ("mode", "channels", "floors", "forms", "rate", "rules", "owed", "peers"):
        assert nearly(whole[key], late[key]), key
    assert whole["log"][-len(late["log"]) :] == late["log"]
    assert agree(late["receipts"], whole["receipts"])


def test_no_token_and_nothing_made_of_one_is_in_a_recording() -> None:
    audience, _ = told(1)
    text = json.dumps(recorded(audience.room.events))
    secrets = [*audience.room.tokens.values()]
    secrets += [event.token_hash for event in audience.room.events if isinstance(event, caucus.PeerJoined)]
    assert len(secrets) > 5
    assert [one for one in secrets if one in text] == []
    assert "client_id" not in text


def test_marks_are_what_one_may_want_to_jump_to() -> None:
    clock = FakeClock()
    room = RecordingRoom(clock)
    api = room.join("api")
    form = room.ask(api, question())
    room.cancel(form.id, "not now")
    for action in ("pause", "resume", "stop", "reset"):
        room.set_mode(action)
    room.pause_peer("api")
    room.resume_peer("api")
    room.join("bob")
    room.kick("api")
    room.leave(room.tokens["bob"])
    room.reopen()
    marks = [(entry[3]["kind"], entry[3]["text"]) for entry in recorded(room.events) if len(entry) > 3]
    assert marks == [
        ("arrival", "api joined"), ("form", "api asks the operator: Deploy?"), ("decision", "cancelled: Deploy?"),
        ("pause", "control: paused"), ("go", "control: running"), ("stop", "control: stopped"),
        ("go", "control: running"), ("pause", "api paused by the operator"), ("go", "api resumed by the operator"),
        ("arrival", "bob joined"), ("kick", "api was kicked by the operator"), ("departure", "bob left"),
        ("restart", "the hub restarted; nothing was lost"),
    ]


def test_time_never_runs_backwards_in_a_recording() -> None:
    audience, _ = told(5)
    stamps = [(ms, serial) for ms, serial, *_ in recorded(audience.room.events)]
    assert stamps == sorted(stamps)


def test_where_a_span_begins_is_found_without_reading_the_journal_through() -> None:
    with closing(sqlite3.connect(":memory:")) as base:
        base.execute("CREATE TABLE event(serial INTEGER PRIMARY KEY, ts REAL)")
        assert caucus.serial_before(base, 1.0) == 0
        base.executemany("INSERT INTO event VALUES(?, ?)", [(3 * n, float(n)) for n in range(1, 20_001)])
        steps = itertools.count()
        base.set_progress_handler(lambda: next(steps) and 0, 1)
        assert [caucus.serial_before(base, ts) for ts in (0.0, 1.0, 1.5, 7_000.0, 1e9)] == [0, 0, 3, 20_997, 60_000]
        assert next(steps) < 10_000


# --- of one channel, or of a time: nothing else ---


def chatty(seed: int, steps: int = 500) -> Audience:
    """Tell a story in which every word says to whom it was said, and as the how-many-th."""
    audience = Audience(random.Random(seed))
    say, room = audience.room.say, audience.room
    room.say = lambda peer, to, content, manner: say(  # type: ignore[method-assign]
        peer, to, f"word {len(room.events)} to <{to}>", manner)
    own = room.operator_say
    room.operator_say = lambda to, content: own(to, f"word {len(room.events)} to <{to}>")  # type: ignore[method-assign]
    for _ in range(steps):
        audience.act()
    return audience


@pytest.mark.parametrize("seed", range(8))
def test_the_record_of_a_channel_has_nothing_of_what_is_not_the_channels(seed: int) -> None:
    events = chatty(seed).room.events
    since = events[0].ts if seed % 2 else events[len(events) // 3].ts
    entries = recorded(events, since, channel="#1", is_strict=not seed % 2)
    members = {event.name for event in events if isinstance(event, caucus.ChannelJoined) and event.channel == "#1"}
    others = {event.name for event in events if isinstance(event, caucus.PeerJoined)} - members
    text = json.dumps(entries)
    quoted = {name: json.dumps(name) for name in others}
    assert [name for name, one in quoted.items() if one in text] == []
    assert [name for name, one in quoted.items() if name[1:] and re.search(rf"{re.escape(one[1:-1])}\b", text)] == []
    assert '"busy"' not in text
    assert "Deploy" not in text
    said = [frame["message"] for _, _, frame, *_ in entries if frame["type"] == "message"]
    assert {one["recipient"] for one in said if one["seq"]} <= {"#1"}
    notices = {one["content"] for one in said if not one["seq"]}
    assert [one for one in notices if "#1" not in one and not one.startswith("control: ")] == []
    routed = [event.message for event in events if isinstance(event, caucus.MessageRouted)]
    mine = [one.id for one in routed if one.recipient == "#1" and one.ts >= since]
    assert [one["id"] for one in said if one["seq"]] == mine
    assert {scope for scope in ("all", "#0", "#2", "#3", "#4") if f"<{scope}>" in text} == set()


@pytest.mark.parametrize("seed", range(6))
def test_a_record_from_a_time_on_has_no_word_from_before(seed: int) -> None:
    events = chatty(seed + 50).room.events
    since, until = (events[len(events) * n // 3].ts for n in (1, 2))
    text = json.dumps(recorded(events, since, until, is_strict=True), ensure_ascii=False)
    routed = [event.message for event in events if isinstance(event, caucus.MessageRouted)]
    for one in routed:
        assert (one.content in text) == (since <= one.ts <= until), one
        assert (f'"{one.id}"' in text) == (since <= one.ts <= until), one
    asked = [event for event in events if isinstance(event, caucus.FormOpened)]
    assert [event for event in asked if f'"{event.form_id}"' in text and not since <= event.ts <= until] == []


# --- over HTTP ---


def parts_of(hub: HubProcess, token: str | None = None, **query: Any) -> list[Any]:
    """Ask for all parts of a span."""
    parts, after = list[Any](), 0
    while after is not None:
        answer = hub.get("/replay", token, after=after, **query)
        assert answer.status == 200, answer.text
        parts.append(answer.body)
        query, after = {"from": answer.body["from"], "to": answer.body["to"]}, answer.body["next"]
    return parts


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Name a journal that is not there yet."""
    return tmp_path / "state" / "room.journal"


def test_a_hub_tells_its_past_in_parts_which_are_one_recording(place: Path) -> None:
    with kept_hub(place) as kept:
        hub = kept.hub
        hub.unthrottle()
        ann, bob = hub.register("ann"), hub.register("bob")
        for n in range(330):
            hub.say(ann, "all", f"{n} {'*w*o' * 1990}")
        hub.receive(bob)
        parts = parts_of(hub)
        assert len(parts) >= 3
        assert all(len(part["entries"]) < 400 for part in parts)
        entries = [entry for part in parts for entry in part["entries"]]
        with closing(caucus.connect_reader(str(place))) as base:
            span = caucus.Span(parts[0]["from"], parts[0]["to"])
            assert entries == [json.loads(one) for one in caucus.Recorder(base, span).entries()]
        whole = [parts_of(hub, **{"from": parts[0]["from"] + n / 1000}) for n in range(6)]  # more than are kept
        assert {len(one) for one in whole} <= {len(parts), len(parts) + 1}
        again = hub.get("/replay", **{"from": parts[0]["from"], "to": parts[0]["to"], "after": parts[0]["next"]})
        assert again.body | {"last": 0} == parts[1] | {"last": 0}  # whatever was asked in between
        assert again.body["last"] >= parts[1]["last"]  # that bob has fetched may be in the record only now


def test_what_is_asked_of_the_past_is_checked(place: Path) -> None:
    with kept_hub(place) as kept:
        hub = kept.hub
        hub.register("ann")
        for wrong in ({"from": "x"}, {"to": "nan"}, {"from": "1e300"}, {"from": "-1"}, {"after": "-1"}, {"after": "x"}):
            answer = hub.get("/replay", **wrong)
            assert (answer.status, answer.body["error"]) == (422, "invalid"), wrong
        for odd in ({"after": 10**9}, {"after": 2**53}, {"from": 9e10}, {"to": 1}, {"from": 5e9, "to": 1}):
            answer = hub.get("/replay", **odd)
            assert answer.status == 200, odd
            assert answer.body["next"] is None
            assert len(answer.body["entries"]) <= 3
        for wrong in ({"since": "x"}, {"until": "inf"}, {"channel": "build"}, {"channel": "#" + "x" * 64}):
            assert hub.get("/record", **wrong).status == 422
        assert hub.get("/record", channel="#nobody-was-here").status == 200


def test_the_past_is_for_operators_and_observers(place: Path) -> None:
    with kept_hub(place, "--operator-token", "op", "--observer-token", "ob", "--agent-key", "key") as kept:
        hub = kept.hub
        ann = hub.post("/register", "key", project="ann").body["token"]
        for path in ("/replay", "/record"):
            for token in (None, "key", ann, "wrong"):
                answer = hub.get(path, token)
                assert (answer.status, answer.body["error"]) == (401, "credential_required")
            assert [hub.get(path, token).status for token in ("op", "ob")] == [200, 200]


def test_a_hub_without_a_journal_says_so() -> None:
    hub = HubProcess()
    try:
        for path in ("/replay", "/record"):
            answer = hub.get(path)
            assert (answer.status, answer.body["error"]) == (404, "no_record")
            assert answer.body["detail"] == "this hub has no journal: start it with --journal"
    finally:
        hub.stop()


def test_a_journal_in_which_nothing_has_happened_is_empty_and_not_damaged(place: Path, tmp_path: Path) -> None:
    with kept_hub(place, "--loops", "hold") as kept:
        for path in ("/replay", "/record"):
            answer = kept.hub.get(path)
            assert (answer.status, answer.body["error"]) == (404, "no_record")
            assert answer.body["detail"] == "nothing has happened yet: the journal is empty"
    out = tmp_path / "out.html"
    refused = journal("export", str(place), str(out), "--html")
    assert (refused.returncode, out.exists()) == (2, False)
    assert "nothing has happened yet" in refused.stderr


class Asking:
    """Who asks for the past, and may hang up."""

    def __init__(self) -> None:
        self.replies = list[Any]()
        self.hang_up: Callable[[], None] = lambda: None

    def on_gone(self, callback: Callable[[], None]) -> None:
        self.hang_up = callback

    def reply(self, reply: Any) -> None:
        self.replies.append(reply)


def test_what_nobody_waits_for_any_more_is_not_made() -> None:
    calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    replays, callers, begun = caucus.Replays("journal", calls.put), [Asking() for _ in range(6)], threading.Event()
    made = list[int]()

    def making(number: int) -> caucus.Reply:
        made.append(number)
        while number == 0:  # a long one
            begun.set()
            replays._rest_while_wanted()
        return caucus.json_reply({"number": number})

    for number, caller in enumerate(callers):
        replays._ask(cast(Any, caller), lambda path, number=number: making(number))
    assert begun.wait(30)
    for caller in callers[:-1]:
        caller.hang_up()
    for _ in range(2):
        calls.get(timeout=30)()
    assert made == [0, 5]
    assert [len(caller.replies) for caller in callers] == [0, 0, 0, 0, 0, 1]


def damage(place: Path) -> None:
    """Change a word that somebody has said."""
    with closing(sqlite3.connect(place)) as base:
        base.execute("UPDATE event SET body = replace(body, 'yes', 'no!') WHERE kind = 'MessageRouted'")
        base.commit()


def test_a_damaged_journal_is_named_as_such(place: Path, tmp_path: Path) -> None:
    with kept_hub(place) as kept:
        ann = kept.hub.register("ann")
        kept.hub.say(ann, "all", "I say yes")
        damage(place)
        for path in ("/replay", "/record"):
            answer = kept.hub.get(path)
            assert (answer.status, answer.body["error"]) == (404, "no_record")
            assert re.search(r"the journal is damaged: event \d+: not what was written", answer.body["detail"])
        assert kept.hub.say(ann, "all", "and on")["seq"] == 2
    out = tmp_path / "out.html"
    run = journal("export", place, "--html", out)
    assert run.returncode == 2
    assert "is damaged: event" in run.stderr
    assert not out.exists()


def test_where_old_events_were_dropped_the_past_begins_at_the_oldest_snapshot(place: Path) -> None:
    with kept_hub(place) as kept:
        ann = kept.hub.register("ann")
        kept.hub.say(ann, "all", "long ago")
        assert journal("compact", place).returncode == 0
        middle = time.time()
        kept.hub.say(ann, "all", "then")
        assert journal("compact", place).returncode == 0
        kept.hub.say(ann, "all", "now")
        with closing(sqlite3.connect(place)) as base:
            (kept_serial,) = base.execute("SELECT min(serial) FROM snapshots").fetchone()
            base.execute("INSERT OR REPLACE INTO meta VALUES('dropped', '1')")
            base.execute("DELETE FROM event WHERE serial < ?", (kept_serial,))
            base.commit()
        [part] = parts_of(kept.hub)
        _, _, opening = part["entries"][0]
        assert part["first"] <= middle
        assert [one["content"] for one in opening["log"] if one["seq"]] == ["long ago"]
        assert [one["name"] for one in opening["peers"]] == ["ann"]
        said = [frame["message"]["content"] for _, _, frame, *_ in part["entries"] if frame["type"] == "message"]
        assert [words for words in said if words in ("then", "now")] == ["then", "now"]


def test_of_many_snapshots_a_few_are_kept_far_apart(place: Path) -> None:
    with kept_hub(place, "--loops", "off") as kept:
        ann = kept.hub.register("ann")
        for _ in range(14):
            assert eventually(lambda: kept.hub.post("/send", token=ann, to="all", content="x").status == 200, "a turn")
            assert caucus.compact(str(place))["dropped"] == 0
        with closing(sqlite3.connect(place)) as base:
            serials = [serial for (serial,) in base.execute("SELECT serial FROM snapshots ORDER BY serial")]
            rows = {serial for (serial,) in base.execute("SELECT DISTINCT serial FROM snapshot")}
            first, last = base.execute("SELECT min(serial), max(serial) FROM event").fetchone()
        assert len(serials) == caucus.SNAPSHOTS_KEPT
        assert rows == {*serials}
        assert (serials[0] - first, last - serials[-1]) <= (4, 0)
        gaps = [b - a for a, b in itertools.pairwise(serials)]
        assert max(gaps) <= 4
        late = parts_of(kept.hub, **{"from": time.time()})
        assert len(late[0]["entries"][0][2]["log"]) == 16


# --- as a page ---


def record_in(page: str) -> dict[str, Any]:
    """Read what is in a page."""
    [data] = re.findall(r'<script type="application/json" id="record">(.*?)</script>', page, re.DOTALL)
    about: dict[str, Any] = json.loads(data)
    return about


def test_every_module_of_the_console_is_in_the_page_after_what_it_imports() -> None:
    text = caucus.bundle()
    modules = re.findall(r"^const \$(\w+) = ", text, re.MULTILINE)
    assert sorted(f"{name}.js" for name in modules) == sorted(
        name for name in caucus.CONSOLE_FILES if name.endswith(".js")
    )
    for name in modules:
        for used in re.findall(r"\} = \$(\w+);", text[text.index(f"const ${name} = ") :].partition("\n})();")[0]):
            assert modules.index(used) < modules.index(name)


def test_a_page_lets_nothing_run_but_the_console_and_load_nothing() -> None:
    before, after = caucus.record_frame()
    page = (before + after).decode()
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy
    for tag, kind in (("script", "script"), ("style", "style")):
        text = re.findall(rf"<{tag}(?: type=\"module\")?>(.*?)</{tag}>", page, re.DOTALL)
        assert len(text) == 1
        assert f"{kind}-src 'sha256-{b64encode(sha256(text[0].encode()).digest()).decode()}'" in policy
    assert not re.search(r'(?:src|href)="(?!data:|#|/record|/export)', page)
    assert "\r" not in page


HOSTILE = [
    "</script><script>alert(1)</script>", "<!--<script>", "]]>", "\u2028\u2029", "\x00",
    "<img src=x onerror=alert(1)>",
    "&lt;script&gt;", "\\u003c/script>", "\ufeff", "\u202e", '"}],"entries":[', "a\U0001f600b", "\\\\\"'`${1}",
]


def test_no_text_breaks_out_of_the_record(place: Path, tmp_path: Path) -> None:
    with kept_hub(place) as kept:
        hub = kept.hub
        ann = hub.register("ann <b>")
        for one in HOSTILE:
            hub.post("/send", token=ann, to="all", content=one)
        hub.post("/status", token=ann, status="</script>")
        wanted = [one["content"] for one in hub.get("/export").body["messages"] if one["seq"]]
        served = hub.request("GET", "/record").text
    assert len(wanted) > 8
    out = tmp_path / "out.html"
    assert journal("export", place, "--html", out).returncode == 0
    for page in (served, out.read_text(encoding="utf-8")):
        [data] = re.findall(r'id="record">(.*?)</script>', page, re.DOTALL)
        assert not set("<>&\u2028") & set(data)
        frames = [entry[2] for entry in record_in(page)["entries"]]
        assert [frame["message"]["content"] for frame in frames if frame.get("message", {}).get("seq")] == wanted
    lone = caucus.as_data(caucus.encode_plain({"text": "\ud800</script>"}).encode("ascii"))
    assert json.loads(lone) == {"text": "\ud800</script>"}
    assert b"<" not in lone


def test_export_takes_a_channel_and_times_and_writes_no_other_file(place: Path, tmp_path: Path) -> None:
    with kept_hub(place) as kept:
        hub = kept.hub
        ann, bob = hub.register("ann"), hub.register("bob")
        hub.post("/channels/join", token=ann, channel="#x")
        hub.say(ann, "#x", "in the channel")
        hub.say(bob, "all", "aloud")
        middle = time.time() + 0.002
        eventually(lambda: time.time() > middle + 0.002, "another moment")
        hub.say(ann, "#x", "later")
        tries = {
            (): ["in the channel", "aloud", "later"],
            ("--channel", "#x"): ["in the channel", "later"],
            ("--since", f"{middle:.3f}"): ["later"],
            ("--until", f"{middle:.3f}"): ["in the channel", "aloud"],
            ("--since", "2099-01-01"): [],
            ("--channel", "#x", "--until", f"{middle:.3f}"): ["in the channel"],
        }  # fmt: skip
        for number, (words, wanted) in enumerate(tries.items()):
            run = journal("export", place, "--html", tmp_path / f"{number}.html", *words, "--json")
            assert run.returncode == 0, run.stderr
            page = (tmp_path / f"{number}.html").read_text(encoding="utf-8")
            assert json.loads(run.stdout)["bytes"] == len(page.encode())
            frames = [entry[2] for entry in record_in(page)["entries"]]
            assert [one["message"]["content"] for one in frames if one.get("message", {}).get("seq")] == wanted
        query = {"channel": "#x", "until": f"{middle:.3f}"}
        served = record_in(hub.request("GET", "/record?" + urllib.parse.urlencode(query)).text)
        assert served["entries"] == record_in(page)["entries"]
    assert (tmp_path / "0.html").stat().st_mode & 0o077 == 0
    for words, blamed in [
        ((), "--html"), (("--html", tmp_path / "0.html"), "is there already"),
        (("--html", f"{place}-wal"), "SQLite"), (("--html", tmp_path / "z.html", "--since", "soon"), "--since"),
    ]:  # fmt: skip
        run = journal("export", place, *words)
        assert run.returncode == 2
        assert blamed in run.stderr
    for words in (("info", place, "--html", tmp_path / "z.html"), ("info", place, "--channel", "#x")):
        assert journal(*words).returncode == 2
    assert not (tmp_path / "z.html").exists()


# --- at length ---

DAY = SIGHT + """
const replay = addPart(emptyReplay(), data.part);
const began = performance.now();
while (readOn(replay, 100));
const read = performance.now() - began;
const told = data.jumps.map((share) => {
  const from = performance.now();
  const model = goTo(replay, msOf(replay, share * lengthOf(replay)));
  return { applied: replay.applied, ms: performance.now() - from, said: model.log.length };
});
process.stdout.write(JSON.stringify({ read, told, copies: replay.copies.length, entries: replay.entries.length }));
"""


def test_a_jump_in_a_day_of_ten_thousand_messages_applies_a_small_part_of_it() -> None:
    clock, chance = FakeClock(), random.Random(7)
    room = RecordingRoom(clock)
    room.set_rate(1e6, 1e6)
    peers = [room.join(f"peer-{n}") for n in range(6)]
    for n in range(10_000):
        clock.advance(chance.choice([2.0, 5.0, 12.0]))
        room.say(peers[n % 6], peers[(n + 1) % 6].name, f"word {n} " * 20)
        for one in chance.sample(peers, 2):
            room.fetch(one)
            room.acknowledge(one, 1 << 40, is_proof=True)
    part = part_of(recorded(room.events))
    done = in_node(DAY, {"part": part, "jumps": [chance.random() for _ in range(50)]})
    assert done["entries"] > 30_000
    assert done["copies"] <= 32
    assert max(one["applied"] for one in done["told"]) <= done["entries"] / 10
    assert max(one["said"] for one in done["told"]) > 9_000
    slowest = max(one["ms"] for one in done["told"])
    print(f"read in {done['read']:.0f} ms; the slowest of 50 jumps took {slowest:.0f} ms")
