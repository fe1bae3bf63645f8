"""The tap on the shoulder and quiet, in a real browser: who looks, what calls, what a quiet room says, links."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from browsers import CHOICE, GUARDED, OBSERVER, OPERATOR, Open, agree, ask, enter
from hubs import HubProcess, eventually, running_hub
from posts import Post

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect

SOON = "import sys, caucus; caucus.ROOM_QUIET_S = 0.5; sys.exit(caucus.main(['hub', *sys.argv[1:]]))"
HIDE = """() => {
  Object.defineProperty(document, "hidden", { get: () => true, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
SHOW = """() => {
  Object.defineProperty(document, "hidden", { get: () => false, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
CALLS = """() => {
  window.calls = [];
  window.Notification = class { constructor(title, more) { calls.push(more.body); } };
  Notification.permission = "default";
  Notification.requestPermission = async () => { calls.push("may I?"); return Notification.permission = "granted"; };
  window.AudioContext = class {
    constructor() { calls.push("sound"); this.currentTime = 0; this.destination = null; }
    createOscillator() { return { frequency: {}, connect: (next) => next, start() {}, stop() {} }; }
    createGain() { return { gain: { setValueAtTime() {}, exponentialRampToValueAtTime() {} }, connect: () => null }; }
    close() {}
  };
}"""


@pytest.fixture
def post() -> Iterator[Post]:
    """Give a server that takes pushes."""
    one = Post()
    yield one
    one.close()


def looks_of(page: Any) -> list[dict[str, Any]]:
    """Listen to what a page tells of who sits before it, and load it anew."""
    told: list[dict[str, Any]] = []

    def listen(line: Any) -> None:
        heard: list[bool] = []

        def hear(data: str) -> None:
            frame = json.loads(data)
            if "looking" not in frame:
                return
            if heard or [one["looking"] for one in told[-1:]] != [frame["looking"]]:  # a new line tells anew what holds
                told.append(frame)
            heard.append(frame["looking"])

        line.on("framesent", hear)

    page.on("websocket", listen)
    page.reload()
    return told


def called(page: Any, count: int) -> list[str]:
    """Wait until so many calls were made; give them."""
    return list(eventually(lambda: len(found := page.evaluate("calls")) >= count and found, f"{count} calls"))


def told(page: Any, looks: list[dict[str, Any]], count: int) -> list[bool]:
    """Wait for so many such frames; give what they say."""
    for _ in range(100):
        if len(looks) >= count:
            break
        page.wait_for_timeout(50)  # in which the page's events are heard
    return [one["looking"] for one in looks]


def test_the_page_tells_when_somebody_comes_and_leaves_and_not_more(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    looks = looks_of(page)
    expect(page.locator("#mode")).to_have_text("Running")
    assert told(page, looks, 1) == [True]
    page.evaluate(HIDE)
    page.evaluate(HIDE)
    assert told(page, looks, 2) == [True, False]
    page.evaluate(SHOW)
    assert told(page, looks, 3) == [True, False, True]
    page.locator("#composer textarea").fill("hello")
    page.locator("#composer textarea").press("Enter")
    expect(page.locator("#flow")).to_contain_text("hello")
    assert told(page, looks, 4) == [True, False, True]


def test_a_page_that_nobody_has_touched_for_long_says_since_when(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    looks = looks_of(page)
    assert told(page, looks, 1) == [True]
    page.evaluate("() => { const now = Date.now; Date.now = () => now() + 301_000; }")
    assert told(page, looks, 2) == [True, False]
    assert 300 <= looks[1]["idle"] < 400
    page.mouse.move(200, 200)
    page.mouse.move(300, 300)
    assert told(page, looks, 3) == [True, False, True]


def test_an_observers_page_tells_nothing(guarded: HubProcess, console: Open) -> None:
    page = console(guarded)
    looks = looks_of(page)
    enter(page, OBSERVER)
    expect(page.locator(".observing")).to_be_visible()
    page.evaluate(HIDE)
    page.evaluate(SHOW)
    expect(page.locator("#mode")).to_have_text("Running")
    assert told(page, looks, 0) == []


def test_a_hub_pushes_nothing_while_the_page_is_looked_at(post: Post, console: Open) -> None:
    with running_hub("--notify", post.url) as hub, hub.console() as other:
        page = console(hub)
        expect(page.locator("#mode")).to_have_text("Running")
        page.wait_for_timeout(200)
        hub.say(hub.register("api"), "human", "hello")
        other.next("health", where=lambda frame: frame["health"]["notify"]["waiting"] == 1)
        page.keyboard.press(",")
        expect(page.locator("#pushes")).to_contain_text("pushed to 127.0.0.1 (webhook)")
        expect(page.locator("#pushes")).to_contain_text("0 sent. 1 waits.")
        page.get_by_role("button", name="Send a test push").click()
        expect(page.locator("#pushes")).to_contain_text("1 sent, the last")
        page.locator("#settings-close").click()
        expect(page.locator('[data-figure="notify"]')).to_contain_text("1 sent")
    assert [one.json["needs"][0]["kind"] for one in post.taken] == ["test"]


def test_a_push_that_fails_is_in_health_with_its_reason(post: Post, console: Open) -> None:
    post.orders = ["403 Forbidden"] * 3
    with running_hub("--notify", post.url) as hub:
        page = console(hub)
        page.keyboard.press(",")
        page.get_by_role("button", name="Send a test push").click()
        expect(page.locator("#pushes")).to_contain_text("It fails: it answered 403.")
        page.locator("#settings-close").click()
        figure = page.locator('[data-figure="notify"]')
        expect(figure).to_contain_text("0 sent, failing")
        expect(figure).to_have_attribute("title", re.compile("it answered 403"))


def test_where_nothing_is_pushed_settings_say_how_it_would_be(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    page.keyboard.press(",")
    expect(page.locator("#pushes")).to_contain_text("start the hub with --notify URL")
    expect(page.get_by_role("button", name="Send a test push")).to_be_hidden()


# --- what calls in the browser ---


def test_nothing_calls_and_nothing_is_asked_until_it_is_wished(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    page.evaluate(CALLS)
    page.evaluate(HIDE)
    ask(hub, hub.register("api"), CHOICE)
    expect(page.locator('.need[data-kind="form"]')).to_have_count(1)
    expect(page).to_have_title("(1) Caucus")  # a mark costs nothing
    assert page.evaluate("calls") == []


def test_each_call_can_be_tried_and_the_browser_is_asked_on_a_click_only(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    page.evaluate(CALLS)
    page.keyboard.press(",")
    assert page.evaluate("calls") == []
    page.locator("#try-notify").click()
    assert called(page, 2) == ["may I?", "This is how it looks."]
    page.locator("#try-mark").click()
    expect(page).to_have_title("(1) Caucus")
    expect(page).to_have_title("Caucus")
    page.locator("#try-sound").click()
    assert page.evaluate("calls").count("sound") == 1
    expect(page.locator("#pref-notify")).not_to_be_checked()
    expect(page.locator("#pref-mark")).to_be_checked()


def test_a_browser_that_does_not_allow_it_says_so(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    page.evaluate(CALLS)
    page.evaluate('() => { Notification.requestPermission = async () => "denied"; }')
    page.keyboard.press(",")
    page.locator("#try-notify").click()
    expect(page.locator("#pref-notify-note")).to_contain_text("does not allow this page")


def test_a_sound_is_chosen_heard_at_once_and_then_with_each_new_need(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    page.evaluate(CALLS)
    page.keyboard.press(",")
    choice = page.get_by_label("A sound", exact=True)
    assert choice.locator("option").all_text_contents() == ["None", "Tone", "Chime", "Knock"]
    expect(choice).to_have_value("")
    choice.select_option("Chime")
    assert page.evaluate("calls") == ["sound"]
    ask(hub, hub.register("api"), CHOICE)
    assert called(page, 2) == ["sound"] * 2
    page.reload()
    page.keyboard.press(",")
    expect(page.get_by_label("A sound", exact=True)).to_have_value("chime")


# --- quiet ---


@pytest.fixture
def hasty() -> Iterator[HubProcess]:
    """Give a hub whose room is quiet after half a second."""
    hub = HubProcess(command=(sys.executable, "-c", SOON))
    yield hub
    code, log = hub.stop()
    assert (code, "Traceback" in log) == (0, False)


def test_a_room_that_converged_says_so_and_offers_the_stop(hasty: HubProcess, console: Open) -> None:
    api = hasty.register("api")
    hasty.say(api, "all", "all done")
    page = console(hasty)
    need = page.locator('.need[data-kind="converged"]')
    expect(need).to_contain_text("and it has converged: every question has its answer")
    need.get_by_role("button", name="Stop all").click()
    agree(page)
    expect(page.locator("#mode")).to_have_text("Stopped")
    expect(need).to_have_count(0)


def test_a_room_that_died_names_who_owes_whom_and_offers_a_nudge(hasty: HubProcess, console: Open) -> None:
    api, web = hasty.register("api"), hasty.register("web")
    hasty.post("/send", token=api, to="web", content="which port?", expects_answer=True)
    hasty.receive(web)
    page = console(hasty)
    need = page.locator('.need[data-kind="died"]')
    expect(need).to_contain_text(re.compile("and it has died: web owes api an answer, for 0 min"))
    need.get_by_role("button", name="Nudge").click()
    assert "Please answer this" in hasty.receive(web, timeout=5.0)["messages"][0]["content"]
    hasty.post("/send", token=web, to="api", content="8765")
    hasty.receive(api)


def test_the_operator_sets_after_how_long_a_quiet_room_stops(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    page.keyboard.press(",")
    field = page.get_by_label("Stop when nobody has spoken for")
    save = page.locator("#away").get_by_role("button", name="Save")
    expect(field).to_have_value("")
    expect(save).to_be_disabled()
    field.fill("-1")
    expect(save).to_be_disabled()
    field.fill("45")
    save.click()
    expect(page.locator("#away [role=status]")).to_have_text("counted from now on")
    expect(save).to_be_disabled()
    with hub.console() as other:
        assert other.snapshot["quiet_stop"] == 45
        other.send(quiet_stop=0)
        expect(field).to_have_value("")
    page.locator("#settings-close").click()
    expect(page.locator("#flow")).to_contain_text("minutes of quiet until the room stops by itself: 45")


def test_an_observer_sees_the_setting_and_cannot_change_it(console: Open) -> None:
    with running_hub(*GUARDED, "--quiet-stop", "20") as hub:
        page = console(hub)
        enter(page, OBSERVER)
        page.locator("#settings-open").click()
        field = page.get_by_label("Stop when nobody has spoken for")
        expect(field).to_have_value("20")
        assert field.get_attribute("readonly") is not None
        expect(page.locator("#away button:visible")).to_have_count(0)


# --- links of pushes ---


def test_a_link_opens_a_page_that_does_nothing_until_its_button_is_pressed(post: Post, console: Open) -> None:
    keys = (*GUARDED, "--agent-key", "agent-secret", "--public-url", "https://caucus.example")
    with running_hub(*keys, "--notify", post.url) as hub:
        hub.say(hub.register("api", bearer="agent-secret"), "human", "hello")
        links = {one["action"]: one["url"] for one in post.next().json["actions"]}
        page = console(hub, expected="404")
        page.goto(links["pause"].replace("https://caucus.example", hub.url))
        expect(page.locator("h1")).to_have_text("Pause the room?")
        with hub.console(OPERATOR) as operator:
            assert operator.snapshot["mode"] == "running"
            page.get_by_role("button", name="Pause the room").click()
            expect(page.locator("h1")).to_have_text("The room is paused.")
            assert operator.next("mode")["mode"] == "paused"
        page.go_back()
        page.reload()
        expect(page.locator("body")).to_contain_text("this link was used, or is too old")
        assert eventually(lambda: page.url.startswith(hub.url), "the page")
