"""Needs, in a real browser: each appears within a second, is seen, names its cause, and goes only when that has gone.

A stop, budgets, loops, quiet rooms, nudges and sticks have theirs in test_browser_ruling, _budgets, _holds and _notify.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from browsers import CHOICE, LINE_LOST, OBSERVER, Open, Page, ask, enter, peer, violations_by_theme
from hubs import HubProcess, KeptHub, running_hub

import caucus

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect

SECOND = 1_000
SURVEY = SECOND + int(caucus.HEALTH_S * 1_000)  # of what only the hub's survey tells
TINY = "import sys, caucus; caucus.MAILBOX_MAX = 3; sys.exit(caucus.main(['hub', '--loops', 'off', *sys.argv[1:]]))"
HASTY = (
    "import sys, caucus; caucus.SWEEP_S = 0.2; caucus.QUIET_AFTER_S = 1.0; caucus.PEER_TTL_S = 3.0;"
    "sys.exit(caucus.main(['hub', '--loops', 'off', '--client-ttl', '3', '--quiet-after', '1', *sys.argv[1:]]))"
)
IN_VIEW = """(node) => {
  const { left, top, right, bottom } = node.getBoundingClientRect();
  const at = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
  return left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight
    && (node.contains(at) || at?.contains(node));
}"""
LATER = "(ms) => { const now = Date.now; Date.now = () => now() + ms; }"


@contextlib.contextmanager
def patched(code: str) -> Iterator[HubProcess]:
    """Run a hub with other numbers."""
    hub = HubProcess(command=(sys.executable, "-c", code))
    try:
        yield hub
    finally:
        _, log = hub.stop()
    assert "Traceback" not in log, log


def need(page: Page, kind: str) -> Any:
    """Find the needs of a kind in the strip."""
    return page.locator(f'#attention > .needs > .need[data-kind="{kind}"]')


def sees(page: Page, kind: str, words: str | re.Pattern[str], within: int = SECOND) -> Any:
    """Wait for a need in the strip, inside the window; give it."""
    found = need(page, kind).first
    expect(found).to_contain_text(words, timeout=within)
    assert found.evaluate(IN_VIEW), "it is out of sight"
    return found


def say(page: Page, words: str) -> None:
    """Say something to everyone."""
    page.locator("#composer textarea").fill(words)
    page.locator("#composer textarea").press("Enter")
    expect(page.locator("#flow")).to_contain_text(words)


def sizes() -> Any:
    return pytest.mark.parametrize("size", [(1280, 720), (1024, 768)], ids=str)


# --- questions and words to the operator ---


def test_seven_words_to_the_operator_are_seven_needs_until_each_is_answered(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    tokens = [hub.register(f"p{n}") for n in range(7)]
    for n, token in enumerate(tokens):
        hub.say(token, "human" if n % 2 else "#db", f"@operator may I, {n}?")
    sees(page, "mention", "p0 writes to you: @operator may I, 0?")
    expect(page.locator(".needs-count")).to_have_text("7")
    say(page, "good morning, all of you")
    page.wait_for_timeout(300)
    expect(page.locator(".needs-count")).to_have_text("7")
    page.reload()
    expect(page.locator(".needs-count")).to_have_text("7")
    page.locator(".needs-open").click()
    expect(page.locator("#needs-all .need")).to_have_count(7)
    page.locator("#needs-all .need").nth(3).get_by_role("button", name="Answer").click()
    page.keyboard.type("yes")
    page.keyboard.press("Enter")
    expect(page.locator(".needs-count")).to_have_text("6", timeout=SECOND)
    page.locator(".needs-open").click()
    expect(page.locator("#needs-all")).not_to_contain_text("may I, 3?")
    page.locator("#needs-all .need-away").first.click()
    expect(page.locator(".needs-count")).to_have_text("5")
    page.reload()
    expect(page.locator(".needs-count")).to_have_text("5")


def test_to_be_shown_a_word_is_not_to_have_answered_it(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    hub.say(hub.register("api"), "human", "may I drop the table?")
    sees(page, "mention", "may I drop the table?").get_by_role("button", name="Show").click()
    page.wait_for_timeout(300)
    expect(need(page, "mention")).to_have_count(1)


def test_a_form_and_a_question_stay_until_they_are_settled(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    api = hub.register("api")
    ask(hub, api, CHOICE, title="Deploy now?")
    sees(page, "form", "api asks: Deploy now?")
    hub.post("/send", token=api, to="human", content="which port?", expects_answer=True)
    sees(page, "question", "api asks you: which port?")
    say(page, "I am here")
    expect(page.locator(".needs-count")).to_have_text("2")
    page.locator(".form .option, .form label", has_text="now").first.click()
    page.locator(".form .submit-form").click()
    expect(need(page, "form")).to_have_count(0, timeout=SECOND)
    page.locator(".needs-open").click()
    page.locator("#needs-all .need").get_by_role("button", name="Settle").click()
    page.mouse.move(640, 400)
    expect(need(page, "question")).to_have_count(0, timeout=SECOND)


# --- losses, floods, silence ---


@sizes()
def test_losses_are_a_need_that_names_who_loses_what_and_the_card_is_not_green(
    console: Open, size: tuple[int, int]
) -> None:
    with patched(TINY) as hub:
        page = console(hub, viewport={"width": size[0], "height": size[1]})
        api = hub.register("api")
        hub.register("web")
        for n in range(8):
            hub.say(api, "web", f"for you {n}")
        found = sees(page, "loss", re.compile("web loses what is said to it: .* gave way, the latest from api"))
        expect(found).to_contain_text("5 messages gave way", timeout=SURVEY)
        state = peer(page, "web").locator(".state")
        expect(state).to_have_text("losing mail", timeout=SURVEY)
        assert state.get_attribute("data-state") == "losing"
        expect(page.locator("#flow")).to_contain_text("web's mailbox is full: 1 lost")
        page.evaluate(LATER, 700_000)
        expect(found).to_contain_text("web has lost messages")  # what is lost stays lost
        expect(state).to_have_text("live")
        page.locator(".needs-open").click()
        page.locator('#needs-all [data-kind="loss"] .need-away').click()
        expect(need(page, "loss")).to_have_count(0)


@sizes()
def test_who_is_refused_in_mass_is_a_need_with_hands(hub: HubProcess, console: Open, size: tuple[int, int]) -> None:
    page = console(hub, viewport={"width": size[0], "height": size[1]})
    api = hub.register("api")
    codes = [hub.post("/send", token=api, to="all", content="now!").status for _ in range(60)]
    assert codes.count(429) > 30
    found = sees(page, "flood", re.compile(r"api floods the room: \d+ of its last \d+ sends were refused"), SURVEY)
    found.get_by_role("button", name="Pause api").click()
    expect(peer(page, "api").locator(".held")).to_be_visible()
    expect(need(page, "flood").get_by_role("button", name="Kick api")).to_be_visible()  # it floods on, though paused


def test_a_peer_that_has_gone_silent_is_a_need_and_later_is_away_until_it_comes_back(console: Open) -> None:
    with patched(HASTY) as hub:
        page = console(hub)
        api = hub.register("api")
        sees(page, "silent", "api has gone silent", 5 * SECOND)
        sees(page, "away", "api is away: it has not called for", 8 * SECOND)
        hub.receive(api)
        expect(need(page, "away")).to_have_count(0, timeout=SURVEY)


# --- what only time makes a need ---


def test_a_stick_that_is_held_for_long_is_a_need_until_it_is_put_away(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    api, web = hub.register("api"), hub.register("web")
    hub.post("/floor", token=api, action="take", scope="all", reason="merging")
    hub.post("/floor", token=web, action="raise", scope="all")
    expect(page.locator(".floor .hands")).to_contain_text("web")
    expect(need(page, "stick")).to_have_count(0)
    page.evaluate(LATER, 301_000)
    found = sees(page, "stick", "api holds the stick of the whole room for 5 min; web waits", SURVEY)
    found.get_by_role("button", name="Clear the stick").click()
    page.mouse.move(640, 400)
    expect(need(page, "stick")).to_have_count(0)


def test_mail_that_nobody_fetches_and_a_question_that_nobody_answers_are_needs(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    api, web = hub.register("api"), hub.register("web")
    asked = hub.post("/send", token=api, to="web", content="which port?", expects_answer=True).body["seq"]
    expect(page.locator("#flow")).to_contain_text("queued")
    for _ in range(3):  # a row that the hub's survey sends meanwhile begins its count anew
        page.evaluate(LATER, 200_000)
        with contextlib.suppress(AssertionError):
            sees(page, "deaf", re.compile(r"web does not listen for \d+ min: 1 message waits"), SURVEY)
            break
    expect(need(page, "deaf")).to_have_count(1)
    sees(page, "owed", "api waits for an answer of web: which port?")
    hub.receive(web)
    expect(need(page, "deaf")).to_have_count(0, timeout=SURVEY)
    say(page, "good morning")
    expect(need(page, "owed")).to_have_count(1)
    hub.post("/send", token=web, content="8765", reply_to=asked)
    expect(need(page, "owed")).to_have_count(0, timeout=SECOND)


# --- a hub that starts anew ---


def test_a_hub_that_forgot_the_questions_is_a_need_until_everybody_was_told(console: Open) -> None:
    with running_hub() as first:
        port = first.port
        page = console(first, expected=LINE_LOST)
        api = first.register("api")
        ask(first, api, CHOICE, title="Deploy now?")
        first.say(api, "human", "and may I merge?")
        expect(page.locator(".needs-count")).to_have_text("2")
    with running_hub("--port", str(port)):
        found = sees(page, "restart", "2 questions that waited for you died with the old room", 15 * SECOND)
        expect(found).to_contain_text("api: “Deploy now?”")
        page.reload()
        found = sees(page, "restart", "2 questions that waited for you died", 15 * SECOND)
        found.get_by_role("button", name="Tell everyone").click()
        page.mouse.move(640, 400)  # a hand on the list keeps what is done in its place
        expect(page.locator("#flow")).to_contain_text("Who still needs an answer, please ask again")
        expect(need(page, "restart")).to_have_count(0)


def test_with_a_journal_the_questions_live_on_and_nothing_died(console: Open, tmp_path: Any) -> None:
    kept = KeptHub(tmp_path / "room.db")
    try:
        page = console(kept.hub, expected=LINE_LOST)
        api = kept.hub.register("api")
        ask(kept.hub, api, CHOICE, title="Deploy now?")
        kept.hub.say(api, "human", "and may I merge?")
        expect(page.locator(".needs-count")).to_have_text("2")
        kept.kill_and_restart()
        expect(page.locator("#flow")).to_contain_text("the hub restarted; nothing was lost", timeout=15_000)
        expect(page.locator(".needs-count")).to_have_text("2")
        expect(need(page, "restart")).to_have_count(0)
    finally:
        kept.hub.stop()


# --- the runbook, the offer, the observer ---


def test_every_need_has_its_page_in_the_runbook(hub: HubProcess, console: Open) -> None:
    page = console(hub, reduced_motion="reduce")
    api = hub.register("api")
    hub.say(api, "human", "hello?")
    sees(page, "mention", "hello?")
    page.locator(".needs-open").click()
    line = page.locator("#needs-all .need")
    assert line.locator(".need-book").evaluate(IN_VIEW)
    expect(line.locator(".need-means")).to_contain_text("It may wait for you")
    expect(line.locator(".need-tried")).to_contain_text("until you answer it")
    assert line.locator(".need-acts").evaluate(IN_VIEW)
    assert line.locator(".need-help, .need-also").all_text_contents() == ["Show", "Answer"]
    assert violations_by_theme(page) == {}


def test_the_runbook_says_what_the_operator_has_tried(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    api = hub.register("api")
    for _ in range(40):
        hub.post("/send", token=api, to="all", content="now!")
    sees(page, "flood", "api floods", SURVEY).get_by_role("button", name="Pause api").click()
    page.locator(".needs-open").click()
    tried = page.locator('#needs-all [data-kind="flood"] .need-tried')
    expect(tried).to_contain_text(re.compile(r"You, \d+ s ago: Pause api: its mailbox is held"))


def test_to_be_called_is_offered_once_and_never_again_after_a_no(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    offer = page.locator(".call-offer")
    expect(page.locator(".needs-none")).to_be_visible()
    expect(offer).to_be_hidden()
    form = ask(hub, hub.register("api"), CHOICE)
    expect(offer).to_be_visible(timeout=SECOND)
    assert offer.evaluate(IN_VIEW)
    assert page.locator("dialog[open]").count() == 0
    offer.get_by_role("button", name="No").click()
    expect(offer).to_be_hidden()
    page.reload()
    expect(need(page, "form")).to_be_visible()
    expect(offer).to_be_hidden()
    assert form


def test_who_wants_to_be_called_is_by_notification_and_tone(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    page.evaluate("() => { Notification.requestPermission = async () => 'granted'; }")
    ask(hub, hub.register("api"), CHOICE)
    page.locator(".call-offer").get_by_role("button", name="Call me when away").click()
    expect(page.locator(".call-offer")).to_be_hidden()
    page.keyboard.press(",")
    expect(page.locator("#pref-sound")).to_have_value("tone")
    page.reload()
    page.keyboard.press(",")
    expect(page.locator("#pref-notify")).to_be_checked()


def test_an_observer_sees_what_waits_for_the_operator_and_may_press_nothing_of_it(
    guarded: HubProcess, console: Open
) -> None:
    page = console(guarded)
    enter(page, OBSERVER)
    expect(page.locator(".needs-none")).to_have_text("Nothing waits for the operator.")
    api = guarded.register("api")
    ask(guarded, api, CHOICE, title="Deploy now?")
    guarded.say(api, "human", "and may I merge?")
    expect(page.locator(".needs-title")).to_have_text("Waits for the operator2")
    assert page.locator(".needs-title").evaluate(IN_VIEW)
    sees(page, "mention", "api writes to the operator: and may I merge?")
    assert {*page.locator("#attention > .needs .need-help").all_text_contents()} == {"Show"}
    page.locator(".needs-open").click()
    expect(page.locator("#needs-all .need")).to_have_count(2)
    assert {*page.locator("#needs-all :is(.need-help, .need-also)").all_text_contents()} == {"Show"}
    expect(page.locator(".call-offer")).to_be_hidden()
    expect(page).to_have_title("Caucus")


def test_words_to_the_operator_are_a_need_on_every_console_however_much_was_said_since(
    hub: HubProcess, console: Open
) -> None:
    api, web = hub.register("api"), hub.register("web")
    seq = hub.say(api, "human", "may I drop the table?")["seq"]
    with hub.console() as operator:
        operator.send(set_rate={"refill_rate": 1e6, "capacity": 1e6})
        operator.next("rate")
        for n in range(caucus.LOG_MAX + 20):
            hub.say(web, "#plans", f"line {n}")
        page = console(hub)
        sees(page, "mention", "may I drop the table?", 5 * SECOND)
        operator.send(say="yes", reply_to=seq)
        expect(need(page, "mention")).to_have_count(0)
        expect(need(console(hub), "mention")).to_have_count(0)
