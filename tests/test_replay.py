"""The past as it was: what a recorder tells, against what a console was told live; records that open alone."""

from __future__ import annotations

import json
import random
import subprocess
from typing import Any

import pytest
from fakes import FakeClock, RecordingRoom, question
from hubs import ROOT
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
