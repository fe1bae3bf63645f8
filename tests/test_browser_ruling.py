"""The operator's seat in a real browser: what needs one, controls that tell the truth, the composer, settings, tabs."""

from __future__ import annotations

import re
import signal
from typing import Any

import pytest
from browsers import (
    CHOICE,
    LINE_LOST,
    LONG,
    OBSERVER,
    OPERATOR,
    Open,
    Page,
    agree,
    ask,
    enter,
    heard,
    opened,
    peer,
    resized,
    row,
)
from hubs import HubProcess, running_hub

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect
expect.set_options(timeout=20_000)

AWAY = "document.hasFocus = () => false;"  # the operator looks elsewhere
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


def need(page: Page, kind: str) -> Any:
    """Find what the strip says of this kind."""
    return page.locator(f'#attention > .needs > .need[data-kind="{kind}"]')


def order(page: Page) -> Any:
    """Find what became of the newest order."""
    return page.locator("#orders > .order")


def write(page: Page, text: str) -> None:
    """Say something, or give a command."""
    page.locator("#composer textarea").fill(text)
    page.locator("#composer textarea").press("Enter")


def fast(hub: HubProcess) -> None:
    """Let peers speak as fast as they like."""
    hub.unthrottle()


# --- needs you --------------------------------------------------------------------------------------------------------


def test_a_room_at_peace_says_so_and_a_question_takes_the_strip(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    expect(page.locator(".needs-none")).to_have_text("Nothing needs you.")
    api = hub.register("api")
    ask(hub, api, CHOICE)
    expect(need(page, "form")).to_contain_text("api asks: Deploy now?")
    expect(page.locator(".needs-none")).to_be_hidden()
    page.keyboard.press("n")
    expect(need(page, "form").get_by_role("button", name="Answer")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("now", exact=True)).to_be_focused()
    page.keyboard.press("Space")
    page.locator(".submit-form").click()
    expect(page.locator(".needs-none")).to_be_visible()


def test_words_to_the_operator_wait_until_they_are_answered_or_waved_away(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    api, web = hub.register("api"), hub.register("web")
    hub.say(api, "all", "@operator may I merge?")
    hub.say(web, "#plans", "somebody tell @human that the disk is full")
    expect(need(page, "mention")).to_have_count(2)
    need(page, "mention").filter(has_text="disk").get_by_role("button", name="Not now").click()
    page.mouse.move(640, 400)  # a hand on the list keeps what is done in its place
    expect(need(page, "mention")).to_have_count(1)
    expect(need(page, "mention")).to_contain_text("api writes to you: @operator may I merge?")
    write(page, "good morning")
    expect(need(page, "mention")).to_have_count(1)
    page.locator(".needs-open").click()
    page.locator("#needs-all .need").get_by_role("button", name="Answer").click()
    write(page, "merge it")
    expect(need(page, "mention")).to_have_count(0)


def test_a_stop_tells_whom_it_has_reached_and_who_lacks_it(hub: HubProcess, console: Open) -> None:
    api, web = hub.register("api"), hub.register("web")
    page = console(hub)
    page.locator("#stop").click()
    expect(page.locator("#confirm-text")).to_contain_text("api and web are not listening and learn of it")
    agree(page)
    expect(order(page)).to_contain_text("Stop all")
    expect(order(page)).to_contain_text("0 of 2 agents reached, not yet api and web")
    expect(page.locator("#mode")).to_contain_text("0 of 2 reached")
    hub.receive(api)
    expect(order(page)).to_contain_text("1 of 2 agents reached, not yet web")
    expect(peer(page, "web").locator(".untold")).to_be_visible()
    expect(peer(page, "api").locator(".untold")).to_be_hidden()
    expect(need(page, "stop")).to_contain_text("web does not know of the stop yet (1 of 2 do)")
    need(page, "stop").get_by_role("button", name="Kick web").click()
    agree(page)
    expect(need(page, "stop")).to_have_count(0)
    expect(page.locator("#mode")).to_contain_text("1 of 1 reached")
    assert hub.get("/receive", web, timeout=0).status == 401
    page.keyboard.press("w")
    expect(page.locator("#orders-all .order")).to_have_count(2)
    expect(page.locator("#orders-all .order").first).to_contain_text("Kick web")


def test_the_list_of_all_needs_covers_no_brake_and_nothing_leaves_the_page(hub: HubProcess, console: Open) -> None:
    api = hub.register("api")
    for n in range(5):
        ask(hub, api, LONG, title=f"Question {n}?")
    page = console(hub)
    listed = page.locator("#needs-all")
    for width, height in resized(page, (1280, 800), (1000, 700), (800, 600), (390, 844), (320, 568)):
        page.locator(".needs-more" if width > 480 else ".needs-open").click()
        expect(listed).to_be_visible()
        list_top = listed.evaluate("(one) => one.getBoundingClientRect().top")
        for brake in ("#pause", "#stop"):
            assert page.locator(brake).evaluate("(one) => one.getBoundingClientRect().bottom") <= list_top
        assert listed.evaluate("(one) => one.getBoundingClientRect().bottom") <= height
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.keyboard.press("Escape")
        expect(listed).to_be_hidden()


def test_a_cost_of_astronomers_spills_over_nothing(hub: HubProcess, console: Open) -> None:
    api = hub.register("api")
    usage = {"model": "m", "turns": 2**53, "input_tokens": 2**53, "output_tokens": 2**53, "cost_usd": 2.0**53}
    assert hub.post("/status", token=api, status="busy", usage=usage).status == 200
    page = console(hub)
    expect(page.locator('[data-figure="usage"]')).to_contain_text("$9,007,199,254,740,992")
    spilt = "(all) => all.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.dataset.figure)"
    assert page.locator(".figure").evaluate_all(spilt) == []
    height = page.locator('[data-figure="rate"]').evaluate("(one) => one.clientHeight")
    assert height < 3 * page.locator('[data-figure="rate"] button').evaluate("(one) => one.clientHeight")


def test_many_needs_fit_the_strip_and_open_as_a_list(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    api = hub.register("api")
    for n in range(5):
        ask(hub, api, CHOICE, title=f"Question {n}?")
    expect(page.locator(".needs-count")).to_have_text("5")
    expect(need(page, "form")).to_have_count(2)
    page.locator(".needs-more").click()
    expect(page.locator("#needs-all .need")).to_have_count(5)
    page.locator("#needs-all .need").nth(4).get_by_role("button", name="Answer").click()
    expect(page.locator("#needs-all")).to_be_hidden()
    expect(page.locator(".form").nth(4).get_by_label("now", exact=True)).to_be_focused()


def test_the_reading_debt_counts_what_came_while_nobody_looked(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    expect(page.locator(".debt")).to_contain_text("Nothing unread")
    page.evaluate(AWAY)
    fast(hub)
    api = hub.register("api")
    for _ in range(4):
        hub.say(api, "all", "x" * 7000)
    expect(page.locator(".debt")).to_contain_text("20 min to read since")
    expect(page.locator(".debt")).to_have_attribute("title", re.compile("28,000 characters"))
    page.locator(".caught-up").click()
    expect(page.locator(".debt")).to_contain_text("Nothing unread")


def test_calls_are_made_only_if_they_are_wished(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    page.evaluate("""() => {
      window.calls = [];
      window.Notification = class { constructor(title, more) { calls.push(more.body); } };
      Notification.permission = "granted";
      Notification.requestPermission = async () => "granted";
      window.AudioContext = class { constructor() { calls.push("tone"); throw new Error("no device"); } };
      Object.defineProperty(document, "hidden", { get: () => true });
    }""")
    api = hub.register("api")
    ask(hub, api, CHOICE, title="First?")
    expect(need(page, "form")).to_have_count(1)
    assert page.evaluate("calls") == []
    expect(page).to_have_title("(1) Caucus")
    page.keyboard.press(",")
    page.get_by_label("Browser notifications").check()
    page.get_by_label("A number in the tab's title").uncheck()
    expect(page).to_have_title("Caucus")
    page.get_by_label("A number in the tab's title").check()
    page.locator("#settings-close").click()
    ask(hub, api, CHOICE, title="Second?")
    expect(page).to_have_title("(2) Caucus")
    assert page.evaluate("calls") == ["api asks: Second?"]
    page.reload()
    expect(page).to_have_title("(2) Caucus")  # the browser keeps what was wished


# --- controls that tell the truth -------------------------------------------------------------------------------------


def test_every_order_is_asked_then_in_effect_or_refused(hub: HubProcess, console: Open) -> None:
    api, web = hub.register("api"), hub.register("web")
    hub.say(api, "#plans", "hello")
    hub.post("/floor", token=api, action="take")
    page = console(hub)
    for control, word, effect in [
        (page.locator("#pause"), "Pause", "the room is paused; what agents say waits"),
        (page.locator("#resume"), "Resume", "the room runs; what was held is delivered"),
        (opened(page, "web").locator(".hold"), "Pause web", "its mailbox is held"),
        (opened(page, "web").locator(".hold"), "Resume web", "its mailbox is released"),
        (opened(page, "web").locator(".ping"), "Ping web", "the hub answered"),
        (page.locator(".clear-floor"), "Clear the stick of the whole room", "everyone may speak there"),
    ]:
        control.click()
        expect(order(page).locator(".order-word")).to_have_text(word)
        expect(order(page).locator(".order-text")).to_have_text(effect)
    opened(page, "web").locator(".interrupt").click()
    expect(order(page)).to_contain_text("0 of 1 agent reached, not yet web")
    message = hub.receive(web)["messages"][-1]
    assert (message["kind"], message["content"]) == ("control", "interrupt")
    expect(order(page)).to_contain_text("1 of 1 agent reached")
    opened(page, "web").locator(".reset-peer").click()
    agree(page)
    expect(order(page)).to_contain_text("Reset web")
    page.locator(".close-channel").click()
    agree(page)
    expect(order(page)).to_contain_text("it has no members any more")


def test_what_is_said_shows_whom_it_reached(hub: HubProcess, console: Open) -> None:
    api = hub.register("api")
    hub.register("web")
    page = console(hub)
    write(page, "good morning")
    expect(order(page)).to_contain_text("0 of 2 agents reached, not yet api and web")
    assert heard(hub, api) == ["good morning"]
    expect(order(page)).to_contain_text("1 of 2 agents reached, not yet web")


def test_a_refusal_says_why(hub: HubProcess, console: Open) -> None:
    api = hub.register("api")
    page = console(hub)
    page.locator("#target").select_option("api")
    hub.post("/leave", token=api)
    expect(peer(page, "api")).to_have_count(0)
    expect(page.locator("#composer")).to_have_attribute("data-gone", "")
    write(page, "are you there?")
    expect(order(page)).to_contain_text("refused:")
    expect(order(page)).to_have_attribute("data-state", "refused")
    expect(page.locator("#composer textarea")).to_have_value("are you there?")
    expect(page.locator("#target")).to_have_value("api")


def test_the_rate_is_set_for_all(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    page.locator(".retune").click()
    expect(page.locator("#rate-refill")).to_have_value("2")
    page.locator("#rate-refill").fill("0")
    page.locator("#rate-form button[type=submit]").click()
    expect(page.locator("#rate-dialog")).to_be_visible()  # the browser says what is wrong with 0
    page.locator("#rate-refill").fill("5")
    page.locator("#rate-burst").fill("50")
    page.locator("#rate-form button[type=submit]").click()
    expect(page.locator('[data-figure="rate"]')).to_contain_text("5/s, burst 50")
    expect(order(page)).to_contain_text("it holds for every peer")


def test_an_order_is_asked_until_the_hub_shows_its_effect(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    expect(page.locator("#pause")).to_be_enabled()
    hub.process.send_signal(signal.SIGSTOP)  # the hub is there and says nothing
    try:
        page.locator("#pause").click()
        expect(page.locator("#pause")).to_have_text("Asked…")
        expect(page.locator("#pause")).to_be_disabled()
        expect(order(page)).to_have_text("Pauseasked…")
        expect(page.locator("#mode")).to_have_text("Running")
        expect(order(page)).to_contain_text("not confirmed")  # after some seconds it says so
    finally:
        hub.process.send_signal(signal.SIGCONT)
    expect(page.locator("#mode")).to_have_text("Paused")
    expect(order(page)).to_have_attribute("data-state", "effective")


def test_without_a_line_nothing_can_be_pressed_and_nothing_moves(console: Open) -> None:
    with running_hub() as first:
        port = str(first.port)
        api = first.register("api")
        first.say(api, "#plans", "hello")
        first.post("/floor", token=api, action="take")
        ask(first, api, LONG)
        page = console(first, expected=LINE_LOST)
        expect(peer(page, "api")).to_be_visible()
        place = page.locator("main").bounding_box()
    expect(page.locator("#banner-text")).to_contain_text("No line to the hub since")
    acts = "#brakes button, .card-buttons button:not(.write), .clear-floor, .close-channel, #say, .submit-form, .retune"
    expect(page.locator(acts)).not_to_have_count(0)
    for control in page.locator(acts).all():
        expect(control).to_be_disabled()
    assert page.locator("main").bounding_box() == place  # nothing moved
    with running_hub("--port", port) as second:
        expect(page.locator("#connection")).to_have_text("Connected", timeout=20_000)  # by itself
        expect(page.locator("#pause")).to_be_enabled()
        second.clear()
        page.close()


# --- the composer -----------------------------------------------------------------------------------------------------


def test_reading_and_acting_never_change_where_the_next_message_goes(hub: HubProcess, console: Open) -> None:
    api, web = hub.register("api"), hub.register("web")
    page = console(hub)
    page.locator("#target").select_option("web")
    hub.say(api, "all", "look here")
    row(page, "look here").click()
    opened(page, "api").locator(".ping").click()
    hub.post("/leave", token=web)
    expect(peer(page, "web")).to_have_count(0)
    hub.register("newcomer")
    expect(peer(page, "newcomer")).to_be_visible()
    expect(page.locator("#target")).to_have_value("web")
    opened(page, "api").locator(".write").click()  # by the operator's own hand it does
    expect(page.locator("#target")).to_have_value("api")
    expect(page.locator("#composer textarea")).to_be_focused()


def test_names_channels_and_commands_are_completed(hub: HubProcess, console: Open) -> None:
    api = hub.register("api")
    hub.register("web")
    hub.say(api, "#plans", "hello")
    page = console(hub)
    text, offers = page.locator("#composer textarea"), page.locator("#offers .offer")
    expect(page.locator("#target option")).to_have_count(4)
    page.keyboard.press("m")
    page.keyboard.type("@w")
    expect(offers).to_have_text(["@websend to it"])
    page.keyboard.press("Tab")
    expect(page.locator("#target")).to_have_value("web")
    expect(text).to_have_value("")
    page.keyboard.type("ask @a")
    page.keyboard.press("Enter")
    expect(text).to_have_value("ask @api ")
    page.keyboard.type("in #pl")
    page.keyboard.press("Tab")
    expect(text).to_have_value("ask @api in #plans ")
    page.keyboard.press("Enter")
    expect(text).to_have_value("")
    page.keyboard.type("/")
    expect(offers.first).to_contain_text("/to")
    expect(text).to_have_attribute("aria-activedescendant", "offer-0")
    page.keyboard.press("Escape")
    expect(page.locator("#offers")).to_be_hidden()
    expect(text).to_be_focused()
    text.fill("")
    page.keyboard.type("/pau")
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    expect(page.locator("#mode")).to_have_text("Paused")
    write(page, "/nonsense")
    expect(page.locator(".composer-hint")).to_contain_text("There is no command /nonsense")
    expect(text).to_have_value("/nonsense")
    write(page, "/rate 4 40")
    expect(page.locator('[data-figure="rate"]')).to_contain_text("4/s, burst 40")
    write(page, "/stop")
    agree(page)
    expect(page.locator("#mode")).to_contain_text("Stopped")


def test_history_draft_and_target_survive_a_reload(hub: HubProcess, console: Open) -> None:
    hub.register("api")
    page = console(hub)
    text = page.locator("#composer textarea")
    write(page, "first")
    write(page, "second\nof two lines")
    page.locator("#target").select_option("api")
    text.fill("half a sen")
    page.reload()
    expect(text).to_have_value("half a sen")
    expect(page.locator("#target")).to_have_value("api")
    text.fill("")
    text.press("ArrowUp")
    expect(text).to_have_value("second\nof two lines")
    text.press("ArrowUp")
    expect(text).to_have_value("first")
    text.press("ArrowDown")
    text.press("ArrowDown")
    expect(text).to_have_value("")


def test_the_room_pauses_while_one_types_if_that_is_wished(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    text = page.locator("#composer textarea")
    expect(page.locator("#pause")).to_be_enabled()
    text.fill("not so fast")
    expect(page.locator("#mode")).to_have_text("Running")
    text.fill("")
    page.locator("#settings-open").click()
    page.get_by_label("Pause the room while you type").check()
    page.keyboard.press("Escape")
    text.fill("wait a moment")
    expect(page.locator("#mode")).to_have_text("Paused")
    expect(page.locator(".composer-hint")).to_contain_text("paused while you write")
    text.press("Enter")
    expect(page.locator("#mode")).to_have_text("Running")
    text.fill("again")
    expect(page.locator("#mode")).to_have_text("Paused")
    text.fill("")
    expect(page.locator("#mode")).to_have_text("Running")
    page.locator("#pause").click()
    expect(page.locator("#mode")).to_have_text("Paused")
    text.fill("the pause was mine")
    text.fill("")
    expect(page.locator("#mode")).to_have_text("Paused")


# --- roles, themes, tabs, keys ----------------------------------------------------------------------------------------


def test_an_observer_has_the_strip_and_no_deeds(guarded: HubProcess, console: Open) -> None:
    api = guarded.register("api")
    ask(guarded, api, CHOICE)
    page = console(guarded)
    enter(page, OBSERVER)
    expect(need(page, "form")).to_contain_text("api asks: Deploy now?")
    acts = page.locator("#composer, #orders, .retune, .card-buttons, .form-buttons, #brakes button, .write")
    expect(acts.filter(visible=True)).to_have_count(0)
    page.locator("#settings-open").click()
    expect(page.locator("#settings")).to_be_visible()


def test_a_token_is_kept_for_the_tab_or_if_wished_for_the_browser(guarded: HubProcess, console: Open) -> None:
    page = console(guarded)
    enter(page, OPERATOR)
    expect(page.locator("#mode")).to_have_text("Running")
    other = page.context.new_page()
    other.goto(guarded.url)
    expect(other.locator("#token-dialog")).to_be_visible()
    other.locator("#token-remember").check()
    enter(other, OPERATOR)
    expect(other.locator("#mode")).to_have_text("Running")
    third = page.context.new_page()
    third.goto(guarded.url)
    expect(third.locator("#mode")).to_have_text("Running")
    assert all(OPERATOR not in one.url for one in (page, other, third))


def test_the_theme_goes_by_the_system_and_by_hand(hub: HubProcess, console: Open) -> None:
    page = console(hub, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert page.evaluate(ground) != dark
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    page.locator("#theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate(ground) == dark


def test_on_a_phone_the_panels_are_tabs(hub: HubProcess, console: Open) -> None:
    api = hub.register("api")
    hub.say(api, "#plans", "hello")
    ask(hub, api, CHOICE, LONG)
    page = console(hub, **PHONE)
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    for tab, shown in [("health", "#roster"), ("channels", "#channels"), ("forms", "#forms"), ("flow", "#flow")]:
        page.locator(f'[data-goto="{tab}"]').tap()
        expect(page.locator(shown)).to_be_visible()
        expect(page.locator(f'[data-goto="{tab}"]')).to_have_attribute("aria-current", "true")
        for other in {"#roster", "#channels", "#forms", "#flow"} - {shown}:
            expect(page.locator(other)).to_be_hidden()
        assert not page.evaluate(wide), tab
    need(page, "form").get_by_role("button", name="Answer").tap()
    expect(page.locator(".form")).to_be_visible()
    page.get_by_label("now", exact=True).tap()
    page.locator(".form-next").tap()
    page.locator(".form-next").tap()
    page.locator(".submit-form").tap()
    expect(page.locator(".form")).to_have_count(0)


def test_the_map_names_every_key_and_each_does_what_it_says(hub: HubProcess, console: Open) -> None:
    api = hub.register("api")
    ask(hub, api, LONG)
    page = console(hub)
    expect(peer(page, "api")).to_be_visible()
    page.keyboard.press("?")
    shown = page.locator("#help-keys kbd").all_inner_texts()
    for key, place in {
        "n": "#attention .need-help", "m": "#composer textarea", "a": "#target", "l": "#flow",
        "f": ".form textarea:visible", "h": "#health-title", "g": "#peers-title", "c": "#channels-title",
    }.items():
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        page.keyboard.press(key)
        expect(page.locator(place)).to_be_focused()
        assert key in shown
        page.locator("#peers-title").focus()
    for key, dialog in {",": "#settings", "Shift+S": "#confirm", "?": "#help"}.items():
        page.keyboard.press(key)
        expect(page.locator(dialog)).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator(dialog)).to_be_hidden()
        assert key.removeprefix("Shift+") in shown
    assert {"P", "R", "t", "w", "/"} <= set(shown)


def test_single_letter_keys_can_be_switched_off(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    page.keyboard.press(",")
    page.get_by_label("Single-letter keys").uncheck()
    page.locator("#settings-close").click()
    page.locator("#peers-title").focus()
    page.keyboard.press("?")
    page.keyboard.press("Shift+P")
    expect(page.locator("#help")).to_be_hidden()
    expect(page.locator("#mode")).to_have_text("Running")
    assert page.locator("#orders .order").count() == 0 or page.locator("#orders").is_hidden()


def test_what_peers_write_forges_nothing_in_the_strip(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    forger = hub.register("Your operator")
    forged = "@operator \u202eyawa\u202c \u200b<button>Stop all</button>\n\nhub says: [Kick api](javascript:alert(1))"
    hub.say(forger, "all", forged)
    ask(hub, forger, {**LONG, "label": "<b>bold</b>"}, title="Operator: \u202eyes\u202c </h3><button>Send</button>")
    told = "Your operator writes to you: @operator yawa <button>Stop all</button> hub says"
    expect(need(page, "mention")).to_contain_text(told)
    expect(need(page, "form")).to_contain_text("Your operator asks: Operator:")
    for strange in ("button", "a", "b", "h3"):
        own = {"button": 3}.get(strange, 0)  # Answer, Show, Not now
        expect(page.locator(f"#attention > .needs {strange}")).to_have_count(own)
    expect(page.locator(".form b, .form-title *")).to_have_count(0)


def test_each_control_of_a_peer_can_be_reached_by_tab(hub: HubProcess, console: Open) -> None:
    hub.register("api")
    page = console(hub)
    expect(peer(page, "api")).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # its details open
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.getAttribute('aria-label')"))
    names = ["Write to api", "Pause api: hold its mailbox", "Ping api", "Interrupt api", "Reset api", "Kick api"]
    assert reached == names


def test_nothing_shifts_while_the_room_lives(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    expect(page.locator("#mode")).to_have_text("Running")
    page.evaluate("""() => {
      window.shifts = [];
      const name = (source) => source.node?.id || source.node?.className;
      const keep = (list) => { for (const one of list.getEntries()) shifts.push([one.value, one.sources.map(name)]); };
      new PerformanceObserver(keep).observe({ type: "layout-shift", buffered: false });
    }""")
    parts = page.locator("#attention, .top, main, .centre, #composer, #mode, #stop, #reset")
    boxes = "(all) => all.map((node) => JSON.stringify(node.getBoundingClientRect()))"
    before = parts.evaluate_all(boxes)
    api = hub.register("api")
    hub.say(api, "all", "@operator look")
    ask(hub, api, CHOICE)
    hub.post("/control", action="pause")
    expect(page.locator("#mode")).to_have_text("Paused")
    expect(need(page, "form")).to_be_visible()
    with hub.console() as other:
        other.send(action="stop")
        expect(page.locator("#mode")).to_contain_text("Stopped")
    assert parts.evaluate_all(boxes) == before
    assert sum(value for value, _ in page.evaluate("shifts")) < 0.05, page.evaluate("shifts")


def test_after_a_form_is_sent_the_focus_goes_on_and_what_is_typed_rules_nothing(hub: HubProcess, console: Open) -> None:
    api = hub.register("api")
    for title in ("First?", "Second?"):
        ask(hub, api, CHOICE, title=title)
    page = console(hub)
    expect(page.locator(".form")).to_have_count(2)
    for left in (1, 0):
        form = page.locator(".form").first
        form.locator("input[type=radio]").first.check()
        form.locator(".submit-form").click()
        expect(page.locator(".form")).to_have_count(left)
        expect(page.locator("body")).not_to_be_focused()
        page.keyboard.type("p s r")
        expect(page.locator("#mode")).to_have_text("Running")
    expect(page.locator("#forms-title")).to_be_focused()
