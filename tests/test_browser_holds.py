"""Lanes that go round in circles, in a real browser: their cards, what is held, rulings, settings, the past."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from agents import agent
from browsers import LINE_LOST, OBSERVER, OPERATOR, Open, Page, agree, enter, peer, row, violations
from hubs import HubProcess, eventually, running_hub
from test_journal import kept_hub

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect
expect.set_options(timeout=20_000)

LANE = "ann ↔ bob"
THANKS = "Thank you!"
FAST = {"refill_rate": 1000, "capacity": 1000}
MANY = 60  # messages: whoever thanks so often and is not held will never be


def fast(hub: HubProcess, auth: str | None = None) -> None:
    """Let peers speak as fast as they like, a slowed lane is a quarter of that; and have lanes held."""
    with hub.console(auth) as operator:
        operator.send(set_rate=FAST)
        operator.next("rate")
        operator.send(loops={"upto": "hold", "release": 1})
        operator.next("loops")
        operator.send(loops={"release": 0})
        operator.next("loops")


def thank(hub: HubProcess, ann: str, bob: str, state: str = "held", level: str = "", to: str = "") -> int:
    """Have two thank each other until the hub says that their lane is so; give how many messages that took."""
    for count in range(1, MANY):
        token, other = (ann, "bob") if count % 2 else (bob, "ann")
        loop = hub.say(token, to or other, THANKS).get("loop") or {}
        if loop.get("state") == state and level in ("", loop["level"]):
            return count
    raise AssertionError(f"never {state} {level}")


def pair(hub: HubProcess) -> tuple[str, str]:
    """Seat two."""
    return hub.register("ann"), hub.register("bob")


def card(page: Page, lane: str = LANE) -> Any:
    """Find the card of a lane."""
    return page.locator(f'.loop[data-lane="{lane}"]')


def need(page: Page, kind: str = "loop") -> Any:
    """Find what the strip says of loops."""
    return page.locator(f'#attention > .needs > .need[data-kind="{kind}"]')


def rule(page: Page, word: str, lane: str = LANE) -> None:
    """Press a button of a lane's card."""
    card(page, lane).get_by_role("button", name=word).click()


def ticks(page: Page, state: str) -> Any:
    """Find messages that have come so far."""
    return page.locator(f'#flow .tick[data-state="{state}"]')


@pytest.fixture
def held(hub: HubProcess) -> tuple[str, str]:
    """Give the tokens of two whose lane is held."""
    fast(hub)
    ann, bob = pair(hub)
    thank(hub, ann, bob)
    return ann, bob


def test_a_held_lane_calls_the_operator_with_its_evidence(hub: HubProcess, console: Open) -> None:
    fast(hub)
    page = console(hub)
    ann, bob = pair(hub)
    thank(hub, ann, bob)
    hub.say(bob, "ann", THANKS)
    expect(need(page)).to_contain_text("ann and bob go round in circles and are held")
    expect(need(page)).to_contain_text("2 messages wait")
    expect(card(page).locator(".loop-state")).to_contain_text("held for")
    facts = re.compile(r"\w+: \d+ of \d+ messages by .*(ann|bob).* · 2 messages wait")
    expect(card(page).locator(".loop-facts")).to_have_text(facts)
    expect(peer(page, "ann").locator(".loop-chip")).to_have_text("held with bob")
    expect(page.locator(".lanes-canvas")).to_have_attribute("aria-label", re.compile(f"Held: {LANE}"))
    expect(ticks(page, "held")).to_have_count(2)
    page.keyboard.press("n")
    page.keyboard.press("Enter")
    expect(card(page).locator(".rule-continue")).to_be_focused()


def test_what_waits_says_held_until_it_is_released(hub: HubProcess, held: tuple[str, str], console: Open) -> None:
    page = console(hub)
    expect(ticks(page, "held")).to_have_text("held")
    ticks(page, "held").click()
    expect(page.locator("#fates .fate")).to_contain_text("its lane is held for the operator")
    page.keyboard.press("Escape")
    expect(page.locator(".peer .mail").filter(has_text="1 of them held")).to_have_count(1)
    rule(page, "Continue")
    expect(ticks(page, "held")).to_have_count(0)
    expect(page.locator(".mail").filter(has_text="of them held")).to_have_count(0)


def test_continue_shows_what_is_left_and_the_lane_is_held_again(
    hub: HubProcess, held: tuple[str, str], console: Open
) -> None:
    page = console(hub)
    need(page).get_by_role("button", name="Not now").click()
    expect(need(page)).to_have_count(0)
    rule(page, "Continue for 20 messages")
    expect(card(page).locator(".deed")).to_have_text("Continue: it goes on for 20 messages; 1 that waited is delivered")
    expect(page.locator("#orders > .order")).to_contain_text("it goes on for 20 messages")
    expect(card(page).locator(".loop-state")).to_contain_text("20 of 20 messages left")
    expect(card(page).locator(".rule-continue")).to_be_hidden()
    for _ in range(8):
        hub.say(held[0], "bob", THANKS)
    expect(card(page).locator(".loop-state")).to_contain_text("12 of 20 messages left")
    thank(hub, *held)
    expect(need(page)).to_contain_text("are held")  # another cause: it was waved away before
    expect(card(page).locator(".rule-continue")).to_be_visible()


def test_a_closed_matter_takes_no_words_until_it_is_watched_again(
    hub: HubProcess, held: tuple[str, str], console: Open
) -> None:
    page = console(hub)
    rule(page, "Close the matter")
    expect(card(page).locator(".deed")).to_contain_text("agents say nothing there any more; 1 that waited is delivered")
    expect(card(page).locator(".loop-state")).to_contain_text("closed by the operator")
    expect(peer(page, "bob").locator(".loop-chip")).to_have_text("closed with ann")
    expect(need(page)).to_have_count(0)
    refused = hub.post("/send", token=held[0], to="bob", content="and thanks")
    assert (refused.status, refused.body["error"]) == (403, "matter_closed")
    rule(page, "Watch again")
    expect(card(page)).to_have_count(0)
    expect(page.locator("#loops-title")).to_be_focused()
    hub.say(held[0], "bob", "now to the tests in parser.py")


def test_a_lane_that_may_run_is_not_held_again(hub: HubProcess, held: tuple[str, str], console: Open) -> None:
    page = console(hub)
    rule(page, "Let it run")
    expect(card(page).locator(".loop-state")).to_contain_text("may run")
    for _ in range(30):
        assert hub.say(held[0], "bob", THANKS)["loop"]["state"] == "free"
    expect(peer(page, "ann").locator(".loop-chip")).to_have_text("may run with bob")
    rule(page, "Close the matter")
    expect(card(page).locator(".loop-state")).to_contain_text("closed")


def test_stop_all_from_the_card_asks_and_ends_every_hold(
    hub: HubProcess, held: tuple[str, str], console: Open
) -> None:
    page = console(hub)
    rule(page, "Stop all")
    agree(page)
    expect(page.locator("#mode")).to_contain_text("Stopped")
    expect(card(page)).to_have_count(0)
    expect(need(page)).to_have_count(0)


def test_a_slowed_lane_comes_without_a_call_and_a_hint_stays_in_its_place(hub: HubProcess, console: Open) -> None:
    fast(hub)
    page = console(hub)
    ann, bob = pair(hub)
    thank(hub, ann, bob, "watched", "hint", to="#plans")
    expect(page.locator('.channel[data-channel="#plans"] .loop-chip')).to_have_text("watched: who speaks there is told")
    expect(page.locator(".needs-none")).to_be_visible()
    thank(hub, ann, bob, "watched", "slow", to="#plans")
    expect(need(page, "slow")).to_contain_text("#plans goes round in circles and is slowed")
    need(page, "slow").get_by_role("button", name="Look at it").click()
    expect(card(page, "#plans").locator(".rule-close")).to_be_focused()
    expect(card(page, "#plans").locator(".rule-continue")).to_be_hidden()


def test_the_evidence_is_shown_where_it_was_said(hub: HubProcess, console: Open) -> None:
    fast(hub)
    page = console(hub)
    ann, bob = pair(hub)
    thank(hub, ann, bob)
    eve = hub.register("eve")
    for n in range(30):
        hub.say(eve, "all", f"step {n} of the plan is done, with its own result {n * n}")
    rule_on = card(page).get_by_role("button", name="Show the evidence")
    rule_on.click()
    marked = page.locator("#flow .message.evidence")
    expect(marked.first).to_be_focused()
    expect(marked.first).to_contain_text(THANKS)
    expect(marked.first.locator(".evidence-mark")).to_have_text("evidence")
    expect(page.locator("#evidence-bar")).to_contain_text(LANE)
    expect(row(page, "step 0 of the plan is done, with its own result 0").and_(marked)).to_have_count(0)
    page.keyboard.press("Escape")
    expect(marked).to_have_count(0)
    expect(page.locator("#evidence-bar")).to_be_hidden()


def test_of_two_consoles_one_rules_and_the_other_sees_it(
    hub: HubProcess, held: tuple[str, str], console: Open
) -> None:
    one, other = console(hub), console(hub)
    expect(need(other)).to_have_count(1)
    rule(one, "Close the matter")
    expect(need(other)).to_have_count(0)
    expect(card(other).locator(".rule-continue")).to_be_hidden()
    expect(card(other).locator(".loop-state")).to_contain_text("closed")


def test_a_ruling_that_comes_too_late_is_refused_where_it_was_pressed(
    hub: HubProcess, held: tuple[str, str], console: Open
) -> None:
    page = console(hub)
    expect(card(page)).to_be_visible()
    with hub.console() as other:
        other.send(rule={"lane": LANE, "ruling": "close"})
        other.next("loop", where=lambda frame: frame["loop"]["state"] == "closed")
    # The page has heard by now; a hand that was faster pressed what is hidden since.
    page.locator(".rule-continue").dispatch_event("click")
    expect(card(page).locator(".deed")).to_contain_text("refused: continue is no ruling on ann ↔ bob: it is closed")


def test_an_observer_sees_a_hold_and_has_no_button(guarded: HubProcess, console: Open) -> None:
    fast(guarded, OPERATOR)
    ann, bob = pair(guarded)
    thank(guarded, ann, bob)
    page = console(guarded)
    enter(page, OBSERVER)
    expect(card(page).locator(".loop-state")).to_contain_text("held for")
    expect(card(page).get_by_role("button")).to_have_text(["Show the evidence"])
    need(page).get_by_role("button", name="Show").click()
    expect(card(page).get_by_role("button", name="Show the evidence")).to_be_focused()
    page.keyboard.press(",")
    expect(page.locator("#loops-hold")).to_be_checked()
    expect(page.locator("#loops-hold")).to_be_disabled()
    expect(page.locator("#loops-settings")).to_contain_text("Only the operator changes this.")
    assert violations(page) == []


def test_how_far_loops_are_answered_is_set_and_tells_what_came_of_it(
    hub: HubProcess, held: tuple[str, str], console: Open
) -> None:
    page, other = console(hub), console(hub)
    for one in (page, other):
        one.keyboard.press(",")
        expect(one.locator("#loops-hold")).to_be_checked()
    setter = page.locator("#loops-settings").get_by_role("button", name="Set")
    expect(setter).to_be_disabled()
    page.locator("#loops-release").fill("10")
    setter.click()
    expect(page.locator("#loops-settings [role=status]")).to_contain_text("a held lane goes on after 10 min of silence")
    expect(other.locator("#loops-release")).to_have_value("10")
    assert violations(page) == []
    page.locator("#loops-slow").check()
    expect(setter).to_be_enabled()
    page.keyboard.press("Enter")
    expect(page.locator("#loops-settings [role=status]")).to_contain_text("what was held is delivered")
    expect(other.locator("#loops-slow")).to_be_checked()
    page.keyboard.press("Escape")
    expect(card(page)).to_have_count(0)


def test_a_hold_outlives_the_hub_and_the_past_shows_it_without_a_button(tmp_path: Path, console: Open) -> None:
    with kept_hub(tmp_path / "room.journal", "--loops", "hold") as kept:
        fast(kept.hub)
        ann, bob = pair(kept.hub)
        count = thank(kept.hub, ann, bob)
        page = console(kept.hub, expected=LINE_LOST)
        expect(card(page)).to_be_visible()
        hub = kept.kill_and_restart()
        expect(page.locator("#flow")).to_contain_text("the hub restarted; nothing was lost", timeout=15_000)
        expect(card(page).locator(".loop-state")).to_contain_text("held for")
        expect(ticks(page, "held")).to_have_count(1)
        assert sum(len(hub.receive(token)["messages"]) for token in (ann, bob)) == count - 1
        rule(page, "Let it run")
        expect(card(page).locator(".loop-state")).to_contain_text("may run")
        page.keyboard.press("b")
        expect(page.locator("#past-banner")).to_contain_text("Read-only")
        expect(card(page).locator(".loop-state")).to_contain_text("may run")
        page.keyboard.press("[")
        page.keyboard.press("[")
        expect(card(page).locator(".loop-state")).to_contain_text("held for")
        expect(card(page).locator(".rulings")).to_have_count(0)
        page.keyboard.press("b")
        expect(card(page).locator(".rule-close")).to_be_visible()


def test_a_hold_can_be_ruled_on_in_every_window(hub: HubProcess, held: tuple[str, str], console: Open) -> None:
    page = console(hub, reduced_motion="reduce")
    for width, height, scheme in ((1280, 800, "dark"), (640, 400, "light"), (390, 844, "dark"), (320, 480, "light")):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        need(page).get_by_role("button", name="Rule on it").click()
        expect(card(page).locator(".rule-continue")).to_be_focused()
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        for brake in ("#pause", "#stop"):
            box = page.locator(brake).bounding_box()
            assert min(box["x"], width - box["x"] - box["width"]) >= 0
            assert min(box["y"], height - box["y"] - box["height"]) >= 0
            page.locator(brake).click(trial=True)
        assert violations(page) == []
        page.keyboard.press("Tab")
        expect(card(page).locator(".rule-close")).to_be_focused()
    page.keyboard.press("Enter")
    expect(card(page).locator(".loop-state")).to_contain_text("closed")


def thanker(folder: Path, to: str) -> str:
    """Write a mind that thanks one peer whatever it hears; give the command that runs it."""
    mind = folder / f"to-{to}.py"
    mind.write_text(f"import sys\nsys.stdin.read()\nprint('@{to}\\n{THANKS}')\n")
    return f"{sys.executable} {mind}"


def thanks_until_held(watching: Any) -> int:
    """Count what the two say to each other until their lane is held, as the hub tells a console."""
    count = 0
    while True:
        frame = watching.next("message", "loop")
        if frame["type"] == "message":
            count += {frame["message"]["sender"], frame["message"]["recipient"]} == {"ann", "bob"}
        elif frame["loop"] and frame["loop"]["state"] == "held" and frame["loop"]["waiting"]:
            return count


def test_two_programs_that_thank_each_other_are_held_released_and_held_again(tmp_path: Path, console: Open) -> None:
    with (
        running_hub("--loops", "hold") as hub,
        hub.console() as watching,
        agent(hub.url, "--project", "ann", "--exec", thanker(tmp_path, "bob")),
        agent(hub.url, "--project", "bob", "--exec", thanker(tmp_path, "ann")),
    ):
        fast(hub)
        page = console(hub)
        hub.say(hub.register("eve"), "ann", "bob has reviewed your patch")
        assert thanks_until_held(watching) <= 12
        expect(card(page).locator(".loop-state")).to_contain_text("held for")
        rule(page, "Continue for 20 messages")
        assert thanks_until_held(watching) == 21, "twenty, and the one that waits"
        expect(card(page).locator(".loop-state")).to_contain_text("held for")
        expect(card(page).locator(".loop-facts")).to_contain_text("1 message waits")
        eventually(lambda: hub.is_listening("ann") and hub.is_listening("bob"), "both wait for mail")
