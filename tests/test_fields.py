"""What the hub sends, the page shows: each field of each frame has its place on the screen, or a written reason."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from browsers import USAGE, Open, opened, row
from hubs import HubProcess

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect

FIELD = {"key": "k", "label": "Which?", "type": "radio", "options": ["now"], "required": True, "allow_other": True}
TICK = '.message[data-origin="operator"] .tick'
API, X = '.peer[data-peer="api"]', '.channel[data-channel="#x"]'

# field of a frame -> where it is on the page, and what stands there in the room that `busy` makes.
# No pattern: that it is there, is what it says. A place that only a stopped room has is in STOPPED.
SHOWN: dict[str, tuple[str, str]] = {
    "mode": ("#mode", "Running"),
    "version": ("#health-facts", r"\d+\.\d+"),
    "stage.off": ("#stage .empty", "Off: start the hub with --stage FILE"),
    "rate.refill_rate": ('[data-figure="rate"]', "50/s"),
    "rate.capacity": ('[data-figure="rate"]', "burst 70"),
    "health.uptime": ('[data-figure="uptime"]', r"\d+ s"),
    "health.peer_count": ('[data-figure="peer_count"]', "2"),
    "health.msg_per_min": ('[data-figure="msg_per_min"]', r"\d"),
    "health.char_per_min": ('[data-figure="char_per_min"]', r"\d"),
    "health.msg_total": ('[data-figure="msg_total"]', r"\d"),
    "health.queue_depth": ('[data-figure="queue_depth"]', r"\d"),
    "health.wrong_credentials": ('[data-figure="wrong_credentials"]', r"\d+"),
    "health.journal": ('[data-figure="journal"]', "none"),
    "health.notify": ('[data-figure="notify"]', "none"),
    "health.unsent_bytes": ('[data-figure="unsent_bytes"]', r"\d+\.\d MB"),
    "health.mem_rss_mb": ('[data-figure="mem_rss_mb"]', r"\d+ MB"),
    "health.console_count": ("#health-facts", "2 consoles"),
    "peers.name": (f"{API} .name", "^api$"),
    "peers.state": (f"{API} .state", "live"),
    "peers.listening": (f"{API} .ears", "not listening"),
    "peers.deaf_age": (f"{API} .ears", "not listening"),  # how long, once it is longer than between two polls
    "peers.paused": ('.peer[data-peer="web"] .held', "paused"),
    "peers.status": (f"{API} .status", "on the parser"),
    "peers.status_age": (f"{API} .status", r"\d+ s ago"),
    "peers.last_seen_age": (f"{API} .chips", r"heard \d+ s ago"),
    "peers.uptime": (f"{API} .here", r"here \d+ s"),
    "peers.msg_count": (f"{API} .here", r"\d+ said"),
    "peers.char_count": (f"{API} .here", r"\d+ char"),
    "peers.usage": (f"{API} .usage", r"12 turns · 48k tokens · \$0\.31"),
    "peers.waiting": (f"{API} .mail", "waiting"),
    "peers.unacknowledged": ('.peer[data-peer="web"] .mail', "not confirmed"),
    "peers.wake": (f"{API} .ears", "not listening"),  # in its words, once a waiter has asked: test_browser_awake
    "peers.brake": (f"{API} .here", r"here \d+ s · brakes fitted"),
    "channels.topic": (f"{X} .topic", "plans"),
    "channels.members": (f"{X} .names", "api"),
    "channels.msg_count": (f"{X} .traffic", "said"),
    "channels.char_count": (f"{X} .traffic", "characters"),
    "channels.last_ts": (f"{X} .traffic", r"last \d+ s ago"),
    "floors.scope": (".floor .scope", "#x"),
    "floors.holder": (".floor .holder", "api"),
    "floors.reason": (".floor .topic", "merging"),
    "floors.hands": (".floor .hands", "web"),
    "floors.since": (".floor .card-head", r"for \d+ s"),
    "forms.title": (".form .form-title", "Deploy now"),
    "forms.asker": (".form .asker", "web"),
    "forms.to": (".form .asker", "#x"),
    "forms.ts": (".form .asker", r"\d+ s ago"),
    "forms.fields.label": (".form .field-label", "Which"),
    "forms.fields.type": ('.form input[type="radio"]', ""),
    "forms.fields.options": (".form .choice", "now"),
    "forms.fields.required": (".form .required", "required"),
    "forms.fields.allow_other": (".form .other", "Other"),
    "decisions.ts": (".settled li", r"\d\d:\d\d"),
    "decisions.asker": (".settled li", "api"),
    "decisions.title": (".settled li", "Merge first"),
    "decisions.status": (".settled li", "rejected"),
    "decisions.reason": (".settled li", "not today"),
    "log.sender": ('.message[data-origin="agent"] .who .name', "api"),
    "log.recipient": ('.message[data-audience="channel"] .route', "x"),
    "log.content": ('.message[data-audience="channel"] .content', "soon"),
    "log.kind": ('.message[data-kind="answer"] .kind', "answer"),
    "log.ts": (".message time", r"\d\d:\d\d:\d\d"),
    "log.origin": ('.message[data-origin="operator"] .badge', "Operator"),
    "log.meta.reason": ('.message[data-kind="answer"] .content', "not today"),
    "log.meta.title": ('.message[data-kind="answer"] .content', "Merge first"),
    "log.meta.status": ('.message[data-kind="answer"] .content', "cancelled"),
    "log.meta.asker": (".settled li", "api"),
    "log.meta.to": ('.message[data-kind="answer"] .route', "all"),
    "trees": ('.message[data-audience="channel"] .content.md em', "soon"),
    "log.reply_to": (".quote", "which port"),  # by which the first words are found, or named
    "log.quote": (".quote", "which port"),
    "log.outcome": (".quote .outcome", "declines"),
    "log.expects_answer": (".asks", "expects an answer"),
    "owed.asker": (".owe", "owes api"),
    "owed.to": (".owe", "web owes"),
    "owed.text": (".owe-words", "may I merge"),
    "owed.ts": (".owe", r"for \d+ s"),
    "receipts.queued": (TICK, "1 of 2 have it"),
    "receipts.fetched": (TICK, "1 of 2 have it"),
    "receipts.lost": (".tick", "lost"),
    "receipts.answered": (".tick", "answered"),
    "receipts.acknowledged": (".tick", "acknowledged"),
    "receipts.who": (".fate", "api.*queued: waits in its mailbox"),
    "rules.text": ("#rules-readers", "Not read yet by api and web"),  # the field beside it has the text itself
    "rules.version": ("#rules .count", "Version 1"),
    "budgets.text": ("#budgets-how", "For the room, for each agent"),  # the field above it has the text itself
    "budgets.rows": ("#budgets tr", "api.*0 of 100 wakes"),  # part by part: test_browser_budgets
    "peers.rules_read": ("#rules-readers", "Not read yet by api and web"),
    "peers.held": (".peer .mail", "of them held"),
    "loops.upto": ("#loops-settings label", "Hold"),  # the one that is chosen
    "loops.release": ("#loops-settings", "minutes of your silence"),  # the field beside it has the number
    "loops.lanes.lane": (".loop .scope", "#loop"),
    "loops.lanes.state": (".loop-state", "held"),
    "loops.lanes.ts": (".loop-state", r"for \d+ s"),
    "loops.lanes.waiting": (".loop-facts", "1 message waits"),
    "loops.lanes.kind": (".loop-facts", r"^\w+: "),
    "loops.lanes.count": (".loop-facts", r"\d+ of \d+ messages"),
    "loops.lanes.of": (".loop-facts", r"\d+ of \d+ messages"),
    "loops.lanes.names": (".loop-facts", "by .*(api|web)"),
    "loops.lanes.words": (".loop-words", r"\w"),
    "loops.lanes.first_seq": (".loop-evidence", "Show the evidence"),
    "loops.lanes.last_seq": (".loop-evidence", "Show the evidence"),
    "quiet_stop": (".quiet-stop", "Stop when nobody has spoken for"),  # the field in it has the number
}
STOPPED = {"peers.stop_told": (f"{API} .untold", "not told of the stop")}
UNSHOWN = {
    "stage.agents": "A card each, where the hub has a stage: test_browser_stage.",
    "budgets.more": "How many rows are left out; more than 200 have to be.",
    "agents": "Native agents are not there yet; the list is empty.",
    "peers.prompts": "The gavel on the card, pressed or not; only where the hub has an operator token.",
    "room": "The page tells by it that a hub started anew: test_browser_fates has what follows.",
    "last_seq": "Where the record ends, when the log has notices alone: test_browser_record has what follows.",
    "health.quiet": "Null until nobody has spoken for ten minutes; then it is a need: test_browser_notify.",
    "quiet_after": "It is in the title of the quiet mark, and it moves when `peers.quiet` becomes true.",
    "peers.quiet": "A mark that takes minutes to appear; test_room has when, roster.js has `.quiet-peer`.",
    "peers.lost": "A need and a red mark, once a mailbox is full: test_browser_needs.",
    "peers.refused": "A need, once many sends are refused: test_browser_needs.",
    "peers.status_stale": "The line is dimmed, minutes after it was set; roster.js has `.stale`.",
    "forms.id": "The page's own handle: the answer goes back with it.",
    "forms.seq": "Always 0: a question is no message.",
    "forms.status": "Always pending: what is settled is in `decisions`.",
    "forms.answers": "Always null while it is pending.",
    "forms.fields.key": "The handle of an answer; what the operator reads is the label.",
    "decisions.id": "The page's own handle: it joins the ledger to what the page saw itself.",
    "decisions.answer_summary": "Shown for an answered form that the page did not see; a cancelled one has a reason.",
    "decisions.asked_ts": "The picture: where the form's line begins on the time axis.",
    "decisions.to": "The picture: the form's scope.",
    "log.id": "The address of a message: #m-ID, behind the row's link button.",
    "log.seq": "In the title of the time: its number at this hub.",
    "log.meta.form_id": "The page's own handle: it settles the form.",
    "log.meta.answers": "Null for a cancelled form; the message's own text words the answers of an answered one.",
    "receipts.id": "The handle: the message whose receipt it is.",
    "receipts.seq": "As `log.seq`, of the same message.",
    "loops.lanes.credit": "On the card, once the operator has let the lane go on; test_browser_holds.",
    "loops.lanes.waits_from": "By it messages have the mark that says held; test_browser_holds.",
    "loops.lanes.level": "It chooses the word of the card: watched, slowed or held.",
    "log.meta.event": "The kind of what the line says in words: by it the card of an absence sorts them.",
    "owed.seq": "The handle: which message is nudged for, or settled.",
}


def busy(hub: HubProcess, console: Any) -> None:
    """Make a room in which every field has something to say."""
    console.send(set_rate={"refill_rate": 50, "capacity": 70})
    console.send(loops={"upto": "hold"})
    api, web = hub.register("api"), hub.register("web")
    for speaker in itertools.cycle((api, web)):
        thanked = hub.say(speaker, "#loop", "Thank you!")
        assert thanked["seq"] < 60, "nobody holds them"
        if thanked.get("loop", {}).get("state") == "held":
            break
    hub.post("/status", token=api, status="on the parser", usage=USAGE)
    hub.post("/brake", token=api)
    hub.say(api, "#x", "I am done *soon*")
    hub.say(api, "web", "for you")
    hub.receive(web)
    hub.post("/channels/topic", token=api, channel="#x", topic="plans")
    hub.post("/channels/join", token=web, channel="#x")
    hub.post("/floor", token=api, action="take", scope="#x", reason="merging")
    hub.post("/floor", token=web, action="raise", scope="#x")
    hub.post("/ask", token=web, to="#x", title="Deploy now?", fields=[FIELD])
    settled = hub.post("/ask", token=api, to="all", title="Merge first?", fields=[FIELD]).body["form_id"]
    console.send(cancel_form=settled, reason="not today")
    console.next("form_resolved")
    console.send(say="as you were")
    console.next("message", where=lambda frame: frame["message"]["content"] == "as you were")
    hub.receive(web)
    asked = hub.post("/send", token=api, to="web", content="which port?", expects_answer=True).body["seq"]
    hub.receive(web)
    hub.post("/send", token=web, content="ask ops", declines=asked)
    answered = hub.say(api, "web", "a second one")["seq"]
    hub.receive(web, ack_seq=hub.receive(web)["messages"][-1]["seq"])
    hub.post("/send", token=web, content="yes", reply_to=answered)
    hub.post("/send", token=api, to="web", content="may I merge?", expects_answer=True)
    hub.receive(web)
    gone = hub.register("gone")
    hub.say(api, "gone", "too late")
    hub.post("/leave", token=gone)
    console.send(budgets="*: 100 wakes")
    console.send(rules="Tests first.")
    console.send(pause_peer="web")
    console.next("peers", where=lambda frame: frame["peers"][-1]["paused"])


def listed(part: str, value: Any) -> Any:
    """Give as a list what goes by name."""
    return [*value.values()] if part in ("channels", "floors") else value


def fields_of(part: str, value: Any) -> set[str]:
    """Name the fields of one part of a snapshot; of a list, those of its members."""
    if isinstance(value, list) and part != "agents":
        return {name for item in value for name in fields_of(part, item)}
    if not isinstance(value, dict) or part in ("trees", "agents"):
        return {part}
    names = set()
    for key, inner in value.items():
        is_deeper = (part, key) in {("forms", "fields"), ("log", "meta"), ("loops", "lanes")}
        names |= fields_of(f"{part}.{key}", inner) if is_deeper else {f"{part}.{key}"}
    return names


def test_every_field_that_the_hub_sends_has_a_place_or_a_reason(hub: HubProcess) -> None:
    with hub.console() as console:
        busy(hub, console)
        with hub.console() as fresh:
            parts = {part: listed(part, value) for part, value in fresh.snapshot.items() if part != "type"}
        with hub.console(path="/ui?changes=1") as ours:
            parts["receipts"] = ours.next("receipts")["changed"]
    sent = {name for part, value in parts.items() for name in fields_of(part, value)}
    assert sent - SHOWN.keys() - STOPPED.keys() - UNSHOWN.keys() == set(), "computed means shown"
    assert (SHOWN.keys() | STOPPED.keys() | UNSHOWN.keys()) - sent == set(), "nobody sends it any more"


def test_every_place_is_on_the_page_and_says_it(hub: HubProcess, console: Open) -> None:
    with hub.console() as operator:
        busy(hub, operator)
        page = console(hub)
        expect(row(page, "as you were")).to_be_visible()
        for name in ("api", "web"):
            opened(page, name)
        missing = [name for name, place in SHOWN.items() if not is_behind_a_button(name) and not says(page, *place)]
        for button, names in BEHIND.items():
            page.locator(button).last.click()
            missing += [name for name in names if not says(page, *SHOWN[name])]
            page.keyboard.press("Escape")
        expect(page.locator("#rules-text")).to_have_value("Tests first.")
        assert missing == []
        operator.send(action="stop")
        expect(page.locator("#mode")).to_have_text("Stopped")
        for name, (selector, words) in STOPPED.items():
            expect(page.locator(selector).first, name).to_contain_text(re.compile(words))


BEHIND = {  # what has to be opened -> what is there
    "#budgets-open": ("budgets.text", "budgets.rows"),
    ".needs-owed": ("owed.asker", "owed.to", "owed.text", "owed.ts"),
    "#settings-open": ("rules.text", "rules.version", "peers.rules_read", "loops.upto", "loops.release", "quiet_stop"),
    TICK: ("receipts.who",),
}


def is_behind_a_button(name: str) -> bool:
    """Whether a field is on the page only when something is opened."""
    return any(name in names for names in BEHIND.values())


def says(page: Any, selector: str, words: str) -> bool:
    """Whether one of these places is visible and says this, now or within a second health frame."""
    place = page.locator(selector).filter(has_text=re.compile(words), visible=True)
    try:
        expect(place.first).to_be_visible(timeout=4_000)
    except AssertionError:
        return False
    return True
