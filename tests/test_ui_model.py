"""The console's pure modules: their tests in tests/ui, and the form rules against the hub's; where Node is present."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
from functools import cache
from itertools import product
from typing import Any

import pytest
from fakes import FakeClock, RecordingRoom, question
from hubs import ROOT
from test_console import NO_HEAD, FakeSocket, consoles_of

import caucus

NODE_FOLDER = ROOT / ".cache/conformance" / ("Scripts" if os.name == "nt" else "bin")  # made by tests/run.py
NODE_MAJOR_MIN = 20  # older ones lack parts of node:test


@cache
def node() -> str:
    """Find a Node that can run the tests, or skip: the program itself, which a wheel wraps in a script of Python."""
    found = shutil.which("node", path=str(NODE_FOLDER)) or shutil.which("node")
    if found is None:
        pytest.skip("no node on this machine; the browser tests exercise the model")
    about = [found, "-p", "process.versions.node + '\\n' + process.execPath"]
    version, path = subprocess.run(about, capture_output=True, text=True, check=True).stdout.splitlines()
    if int(version.partition(".")[0]) < NODE_MAJOR_MIN:
        pytest.skip(f"node {version} is older than {NODE_MAJOR_MIN}")
    return path


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "tests/ui").glob("*.test.mjs")))
def test_the_pure_modules_pass_their_own_tests(file: str) -> None:
    run = subprocess.run(
        [node(), "--test-reporter=tap", f"tests/ui/{file}"],
        cwd=ROOT,
        check=False,  # what failed is told below
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "# fail 0" in run.stdout
    assert "# pass 0" not in run.stdout


# --- the wizard validates as the hub does -----------------------------------------------------------------------------

TEXTS = [
    *("", " ", "\u3000\x1f", "\ufeff", "x", " x ", "now", "now ", "x" * 4096, "x" * 4097, "\U0001f600" * 4096),
    *("\U0001f600" * 4097, "\ud800", "a\ud83d", "\u202enow", "__proto__"),
]
LISTS = [[], [""], ["now"], ["now", "later"], ["now", "now"], ["now", ""], ["now", "mine"], [str(n) for n in range(34)]]
CHECK = """
import { complaintOf, givenOf } from "./ui/answers.js";
let text = "";
for await (const chunk of process.stdin) text += chunk;
const results = JSON.parse(text).map(([field, value]) => [complaintOf(field, value) === "", givenOf([field], [value])]);
process.stdout.write(JSON.stringify(results));
"""


def hubs_verdict(field: dict[str, Any], value: Any) -> tuple[bool, Any]:
    """Ask the hub's own form."""
    question = caucus.Question.parse({"token": "t", "title": "Go?", "fields": [field]})
    form = caucus.Form("f", "Go?", "api", "all", question.fields, 0.0)
    try:
        return True, form.validate({field["key"]: value})
    except caucus.InvalidForm:
        return False, None


def test_the_wizard_takes_what_the_hub_takes_and_refuses_what_it_refuses() -> None:
    cases: list[tuple[dict[str, Any], Any]] = []
    for kind, required, other in product(("text", "textarea", "radio", "checkbox"), (True, False), (True, False)):
        options = {"options": ["now", "later"], "allow_other": other} if kind in ("radio", "checkbox") else {}
        field = {"key": "k", "label": "L", "type": kind, "required": required, **options}
        cases += [(field, value) for value in (LISTS if kind == "checkbox" else TEXTS)]
    run = subprocess.run(
        [node(), "--input-type=module", "-e", CHECK],
        input=json.dumps(cases), cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )
    for (field, value), (is_good, given) in zip(cases, json.loads(run.stdout), strict=True):
        good, kept = hubs_verdict(field, value)
        assert is_good == good, (field, value)
        if good:
            assert given == kept, (field, value)


# --- changes add up to the whole ---

STORY = """
import { apply, emptyModel, passedSince } from "./ui/model.js";
let text = "";
for await (const chunk of process.stdin) text += chunk;
const { now, scripts } = JSON.parse(text);
const told = scripts.map((script) => {
  const model = script.reduce((one, [at, frame]) => apply(one, frame, at), emptyModel());
  const isStill = (peer, key) => peer[key] === null || (peer.listening && key.endsWith("_age") && key !== "status_age");
  const aged = (peer, key) => (isStill(peer, key) ? null : peer[key] + passedSince(model, peer, now));
  const ages = ["last_seen_age", "deaf_age", "uptime", "status_age"];
  const agesOf = (peer) => Object.fromEntries(ages.map((key) => [key, aged(peer, key)]));
  const peers = model.peers.map((peer) => ({ ...peer, heardAt: 0, ...agesOf(peer) }));
  const { mode, channels, floors, forms, rate, isOpening } = model;
  const receipts = [...model.receipts.values()].map(({ at, ...rest }) => rest).sort((a, b) => a.seq - b.seq);
  const pauses = model.spans.filter(({ kind, to }) => kind === "pause" && to === null).map(({ who }) => who).sort();
  const log = model.log.map(({ id }) => id);
  const room = { mode, channels: Object.entries(channels), floors, forms, rate, isOpening, owed: model.owed };
  return { ...room, receipts, peers, pauses, log };
});
process.stdout.write(JSON.stringify(told));
"""
NAMES = [f"peer-{n}" for n in range(14)] + ["\U0001f40d snake", "\uffee last", "Z", "é"]


class Audience:
    """A room with consoles of both dialects, and what each was sent when: the first of them is of the original's."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.clock = chance, FakeClock()
        self.room = RecordingRoom(self.clock)
        self.consoles, self.timers = consoles_of(self.room, self.clock)
        self.sockets: list[FakeSocket] = []
        self.scripts: list[list[tuple[float, Any]]] = []
        self.open(wants_changes=False)

    def open(self, wants_changes: bool = True) -> None:
        """Let one more console in."""
        self.sockets.append(FakeSocket())
        self.scripts.append([])
        self.consoles.open(self.sockets[-1], NO_HEAD, "", wants_changes)

    def turn(self) -> None:
        """Let the loop turn once."""
        self.timers.step()
        self.listen()

    def tick(self) -> None:
        """Let all timers ring, the health's too."""
        self.timers.ring()
        due, self.timers.set = self.timers.set, []
        for _, then in due:
            then()
        self.timers.ring()
        self.listen()

    def listen(self) -> None:
        """Note what came, and when."""
        for socket, script in zip(self.sockets, self.scripts, strict=True):
            script += [(self.clock.wall() * 1000, frame) for frame in socket.take()]

    def manner(self) -> caucus.Manner:
        """Ask, answer, decline, settle, or say it plainly."""
        known = [0, *self.room.recent, *self.room.owed, *self.room.owed]
        about = self.chance.choice(known)
        outcome = self.chance.choice(["", "declined", "settled"]) if about else ""
        asks = not outcome and self.chance.random() < 0.4
        return caucus.Manner(reply_to=about, outcome=outcome, expects_answer=asks)

    def act(self) -> None:
        """Do something that peers or the operator may do; a refusal is fine."""
        name, channel = self.chance.choice(NAMES), f"#{self.chance.randrange(5)}"
        room, peer = self.room, self.room.roster.get(name)
        deeds: list[Any] = [
            lambda: room.operator_say(self.chance.choice(["all", name, channel]), "*now*"),
            lambda: room.set_mode(self.chance.choice(["pause", "resume", "stop", "reset"])),
            lambda: self.clock.advance(self.chance.choice([0.4, 3.0, 50.0, 301.0])),
            room.sweep,
        ]
        if peer is None:
            deeds += [lambda: room.join(name)] * 9
        else:
            token = room.tokens[name]
            scopes = ["all", channel, *NAMES]
            touch = lambda: room.peer_of(token)  # noqa: E731
            deeds += [
                *[lambda: room.say(touch(), self.chance.choice(scopes), "a *word*", self.manner())] * 4,
                *[lambda: room.fetch(touch())] * 3,
                lambda: room.unfetch(touch()),
                lambda: room.acknowledge(touch(), 1 << 40, self.chance.random() < 0.5),
                *[lambda: room.join_channel(touch(), channel)] * 3,
                lambda: room.leave_channel(touch(), channel),
                lambda: room.set_topic(touch(), channel, self.chance.choice(["plans", None])),
                lambda: room.set_status(touch(), self.chance.choice(["busy", None])),
                lambda: room.use_floor(touch(), self.chance.choice(["take", "raise", "drop"]), "all", None),
                lambda: room.ask(touch(), question()),
                *[lambda: room.note_listening(peer, self.chance.random() < 0.5)] * 2,
                lambda: room.pause_peer(name),
                lambda: room.resume_peer(name),
                lambda: room.kick(name),
                lambda: room.leave(token),
                lambda: room.close_channel(channel),
            ]
        with contextlib.suppress(caucus.Refusal):
            self.chance.choice(deeds)()


def nearly(a: Any, b: Any) -> bool:
    """Whether two sights of the room are one, but for the rounding of ages."""
    if isinstance(a, float) or isinstance(b, float):
        return a is not None and b is not None and abs(a - b) < 0.2
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(nearly(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(nearly, a, b))
    return bool(a == b)


@pytest.mark.parametrize("seed", range(12))
def test_who_keeps_the_room_by_changes_knows_what_the_whole_frames_tell(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PAGE_ROWS": 3, "PAGE_CHANNELS": 2, "PAGE_MESSAGES": 4, "LOG_MAX": 30}.items():
        monkeypatch.setattr(caucus, name, value)  # so that every opening has many pages
    monkeypatch.setattr(caucus, "WHOLE_SHARE", 1e9)  # whole frames at every flush, however slow this machine is
    audience = Audience(random.Random(seed))
    for step in range(600):
        audience.act()
        if audience.chance.random() < 0.4:
            audience.turn()
        if audience.chance.random() < 0.03:
            audience.tick()
        if step in (40, 300, 301, 450):
            audience.open()
    audience.tick()
    run = subprocess.run(
        [node(), "--input-type=module", "-e", STORY],
        input=json.dumps({"now": audience.clock.wall() * 1000, "scripts": audience.scripts}),
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )
    whole, *others = json.loads(run.stdout)
    assert [peer["name"] for peer in whole["peers"]] == audience.room.roster.all_names()
    assert whole["log"][-1] == audience.room.log[-1].id
    for other in others:
        assert not other["isOpening"]
        assert whole["log"][-len(other["log"]) :] == other["log"][-len(whole["log"]) :]
        told = {one["id"]: one["who"] or {} for one in other["receipts"]}
        for receipt in map(audience.room.receipt, audience.room.recent.values()):
            if receipt["id"] in other["log"] and receipt["who"] and told[receipt["id"]]:
                assert receipt["who"].items() <= told[receipt["id"]].items()  # of who left long ago the room forgets
        assert other["owed"] == [debt.to_json() for debt in audience.room.owed.values()]
        for part in whole.keys() - {"log", "receipts", "owed"}:
            assert nearly(whole[part], other[part]), (part, whole[part], other[part])
