"""Absence, and one thing at a time, in a real browser: what happened, alone, muted, pinned; equal on all consoles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from browsers import OBSERVER, Open, drawn, enter, resized, row, violations
from hubs import HubProcess, eventually, running_hub

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect

LONG_MS = 20_000
SIZES = [(1440, 900), (1280, 720), (1024, 768), (640, 360), (390, 844)]
# The page's clock can be put forward, and its tab hidden, as a browser would.
OTHER_CLOCK = """
const now = Date.now.bind(Date);
window.shift = Number(sessionStorage.getItem("shift") ?? 0);
Date.now = () => now() + window.shift;
window.hide = (isHidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
  document.dispatchEvent(new Event("visibilitychange"));
};
window.later = (ms) => { window.shift += ms; sessionStorage.setItem("shift", String(window.shift)); };
"""
SIX_MIN_MS = 360_000


@pytest.fixture
def hub() -> Iterator[HubProcess]:
    """Give a hub that lets peers say the same often."""
    with running_hub() as process:
        yield process


def fill(hub: HubProcess, rounds: int = 12) -> tuple[str, str, str]:
    """Have three peers talk in three lanes."""
    hub.unthrottle()
    ann, bob, eve = (hub.register(name) for name in ("ann", "bob", "eve"))
    for n in range(rounds):
        hub.say(ann, "bob", f"ask {n}")
        hub.say(bob, "ann", f"reply {n}")
        hub.say(eve, "#plans", f"plan {n}")
        hub.say(ann, "all", f"news {n}")
    return ann, bob, eve


def whole(page: Any, text: str) -> None:
    """Wait until the page has the newest of it."""
    expect(row(page, text)).to_be_visible()


def shown(page: Any) -> set[str]:
    """Give what the rows on the page say, the hub's lines left out."""
    rows = page.locator("#flow .message:not([data-audience=notice]) .content")
    return {*rows.all_inner_texts()}


def is_within(page: Any, selector: str) -> bool:
    """Whether all of it is in the window, and nothing lies over its middle."""
    return bool(
        page.evaluate(
            """(selector) => {
      const node = document.querySelector(selector);
      const box = node.getBoundingClientRect();
      const top = document.elementFromPoint((box.left + box.right) / 2, (box.top + box.bottom) / 2);
      return box.width > 0 && box.top >= 0 && box.left >= 0 && box.bottom <= innerHeight + 0.5
        && box.right <= innerWidth + 0.5 && node.contains(top);
    }""",
            selector,
        )
    )


# --- what leaves something out says so --------------------------------------------------------------------------------


def test_an_export_that_is_not_whole_says_so_where_it_is_clicked(hub: HubProcess, console: Open) -> None:
    hub.unthrottle()
    ann = hub.register("ann")
    hub.say(ann, "all", "first")
    page = console(hub)
    whole(page, "first")
    with page.expect_download():
        page.locator('[data-export="json"]').click()
    expect(page.locator(".toast")).to_have_count(0)
    for n in range(620):
        hub.say(ann, "all", f"line {n}")
    whole(page, "line 619")
    with page.expect_download() as waiting:
        page.locator('[data-export="text"]').click()
    expect(page.locator(".toast")).to_contain_text(re.compile(r"leaves out the oldest 1\d\d of 621 messages"))
    assert re.match(r"--- 1\d\d messages before .* are left out\n", waiting.value.path().read_text())


def test_what_is_needed_opens_though_its_page_of_the_log_is_still_to_come(hub: HubProcess, console: Open) -> None:
    hub.unthrottle()
    ann = hub.register("ann")
    for n in range(400):
        hub.say(ann, "all", f"line {n}" + " words" * 300)
    page = console(hub)
    expect(page.locator("#flow .message").first).to_be_visible()
    page.evaluate("location.hash = '#seq=390'")
    expect(page.locator('#flow .message[data-seq="390"]')).to_be_in_viewport(timeout=LONG_MS)
    assert page.locator(".toast[data-tone=refused]").count() == 0


def test_own_words_said_while_one_reads_above_are_one_click_away(hub: HubProcess, console: Open) -> None:
    fill(hub, 30)
    page = console(hub)
    whole(page, "news 29")
    page.locator("#flow").evaluate("(flow) => flow.scrollTo(0, 0)")
    expect(page.locator("#new-below")).to_be_visible()
    page.locator("#composer textarea").fill("my own words")
    page.keyboard.press("Enter")
    expect(page.locator("#new-below")).to_have_text("1 new below, with what you said")
    assert is_within(page, "#new-below")
    page.locator("#new-below").click()
    expect(row(page, "my own words")).to_be_in_viewport()


def test_own_words_that_a_filter_hides_are_one_click_away(hub: HubProcess, console: Open) -> None:
    fill(hub)
    page = console(hub)
    whole(page, "news 11")
    page.evaluate("location.hash = '#only=%23plans'")
    expect(page.locator("#only-bar")).to_contain_text("Only #plans: 12 of")
    page.locator("#composer textarea").fill("to everyone")
    page.keyboard.press("Enter")
    expect(page.locator("#new-below")).to_contain_text("not among what is shown")
    page.locator("#new-below").click()
    expect(row(page, "to everyone")).to_be_in_viewport()
    expect(page.locator("#new-below")).to_be_hidden()
    assert "only=" not in page.url


# --- the same on every console ----------------------------------------------------------------------------------------

HUES = """() => Object.fromEntries([...document.querySelectorAll("#flow .who .name[style]")]
  .map((one) => [one.textContent, one.style.getPropertyValue("--hue")]))"""
LANES = "document.querySelector('.lanes-canvas').getAttribute('aria-label').split('. ')[0]"


def test_colours_and_lanes_are_those_of_the_names(hub: HubProcess, console: Open) -> None:
    early = console(hub)
    expect(early.locator("#connection")).to_have_text("Connected")
    tokens = {name: hub.register(name) for name in ("zoe", "ann", "bob", "mia", "kim")}
    for name, token in tokens.items():
        hub.say(token, "all", f"I am {name}")
    whole(early, "I am kim")
    lanes = "7 lanes: operator, ann, bob, kim, mia, zoe, everyone"
    eventually(lambda: early.evaluate(LANES) == lanes, "lanes by name")
    hues = early.evaluate(HUES)
    assert hues.keys() == tokens.keys()
    hub.post("/leave", token=tokens["zoe"])
    late = console(hub)
    whole(late, "I am kim")
    assert late.evaluate(HUES) == hues
    eventually(lambda: late.evaluate(LANES) == lanes, "the same lanes")
    early.reload()
    whole(early, "I am kim")
    assert early.evaluate(HUES) == hues


# --- what happened ----------------------------------------------------------------------------------------------------


def leave(page: Any) -> None:
    """Hide the tab for longer than a look out of the window."""
    page.evaluate("window.hide(true)")


def come_back(page: Any, ms: int = SIX_MIN_MS) -> None:
    page.evaluate("(ms) => { window.later(ms); window.hide(false); }", ms)


def opened(console: Open, hub: HubProcess, size: tuple[int, int] = (1280, 720)) -> Any:
    page = console(hub, viewport={"width": size[0], "height": size[1]})
    page.context.add_init_script(OTHER_CLOCK)
    page.reload()
    expect(page.locator("#connection")).to_have_text("Connected")
    return page


def test_who_comes_back_is_told_what_happened_until_it_is_dismissed(hub: HubProcess, console: Open) -> None:
    ann, bob, _ = fill(hub, 3)
    page = opened(console, hub)
    whole(page, "news 2")
    leave(page)
    with hub.console() as operator:
        operator.send(action="pause")
        operator.next("mode")
        operator.send(action="resume")
        operator.next("mode")
    for n in range(6):
        hub.say(ann, "bob", f"away ask {n}")
        hub.say(bob, "ann", f"away reply {n}")
    hub.register("newcomer")
    hub.post("/leave", token=hub.register("visitor"))
    hub.post("/ask", token=ann, to="all", title="Deploy now?", fields=[{"key": "k", "label": "Which?", "type": "text"}])
    expect(page.locator("#flow")).to_contain_text("Deploy now?")  # it has all of it
    expect(page.locator("#happened")).to_be_hidden()
    come_back(page)
    card = page.locator("#happened")
    expect(card).to_be_visible()
    expect(card.locator(".happened-line")).to_contain_text(re.compile(r"Since \d\d:\d\d, for 6 min: 12 messages"))
    for text in (
        "ann and bob: 12 messages",
        "newcomer joined",
        "visitor left",
        "ann asks: Deploy now?",
        "the room was paused, for",
        "12 messages of ann, bob: “away ask 0”",
    ):
        expect(card).to_contain_text(text)
    for width, height in resized(page, *SIZES):
        link = [".happened-link"] if min(width, height) > 360 else []
        for selector in ("#happened-title", ".happened-line", ".happened-close", *link):
            eventually(lambda selector=selector: is_within(page, selector), f"{selector} at {width} x {height}")
        assert violations(page) == []
    hub.say(ann, "all", "and it goes on")
    expect(page.locator("#flow-count")).to_have_text(re.compile(r"\d+ entries"))
    expect(card).to_be_visible()  # not by itself
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()
    come_back(page, 1_000)
    expect(card).to_be_hidden()


def test_a_link_of_it_leads_to_its_message_which_is_seen_and_the_mark_stands_where_one_was(
    hub: HubProcess, console: Open
) -> None:
    ann, bob, _ = fill(hub, 8)
    page = opened(console, hub)
    whole(page, "news 7")
    leave(page)
    for n in range(20):
        hub.say(ann, "bob", f"away ask {n}")
        hub.say(bob, "ann", f"away reply {n}")
    come_back(page)
    page.locator("#happened").get_by_text("40 messages of ann, bob").click()
    first = row(page, "away ask 0")
    expect(first).to_be_in_viewport()
    mark = page.locator("#flow .here")
    expect(mark).to_have_text(re.compile(r"You were here until \d\d:\d\d"))
    expect(mark).to_be_in_viewport()
    above, below = mark.bounding_box(), first.bounding_box()
    assert above is not None
    assert below is not None
    assert 0 < below["y"] - above["y"] < 60
    expect(page.locator("#happened-parts")).to_be_hidden()
    page.get_by_role("button", name="Show what happened").click()
    page.locator("#happened").get_by_text("ann and bob: 40 messages").click()
    expect(page.locator("#only-bar")).to_contain_text("Only ann and bob: 56 of")
    page.get_by_role("button", name="Close (Esc)").click()
    expect(page.locator("#happened")).to_be_hidden()


def test_no_input_is_an_absence_and_a_page_that_is_loaded_again_remembers(hub: HubProcess, console: Open) -> None:
    ann, _, _ = fill(hub, 3)
    page = opened(console, hub)
    whole(page, "news 2")
    page.mouse.move(300, 300)
    eventually(lambda: page.evaluate("sessionStorage.getItem('caucus.here')"), "a note of who is here")
    page.evaluate("(ms) => window.later(ms)", SIX_MIN_MS)
    hub.say(ann, "all", "said to nobody")
    whole(page, "said to nobody")
    expect(page.locator("#happened")).to_be_hidden()
    page.mouse.move(320, 320)
    expect(page.locator("#happened .happened-line")).to_contain_text("1 message")
    page.reload()
    expect(page.locator("#happened .happened-line")).to_contain_text("1 message")
    page.keyboard.press("Escape")
    page.reload()
    whole(page, "said to nobody")
    expect(page.locator("#happened")).to_be_hidden()


# --- one thing at a time ----------------------------------------------------------------------------------------------


def test_a_name_and_a_route_show_themselves_alone_and_escape_leads_back(hub: HubProcess, console: Open) -> None:
    fill(hub)
    page = console(hub)
    whole(page, "news 11")
    row(page, "reply 11").locator(".route").click()
    expect(page.locator("#only-bar")).to_contain_text("Only ann and bob: 24 of")
    assert shown(page) <= {f"{word} {n}" for word in ("ask", "reply") for n in range(12)}
    assert page.url.endswith("#only=" + page.evaluate("encodeURIComponent('ann ↔ bob')"))
    page.reload()
    expect(page.locator("#only-bar")).to_contain_text("Only ann and bob: 24 of")
    expect(row(page, "reply 11")).to_be_in_viewport()
    page.locator("#flow").focus()
    page.keyboard.press("Escape")
    expect(page.locator("#only-bar")).to_be_hidden()
    whole(page, "news 11")
    assert "#" not in page.url
    row(page, "plan 11").locator(".who .name").click()
    expect(page.locator("#only-bar")).to_contain_text("Only eve: 12 of")
    assert shown(page) <= {f"plan {n}" for n in range(12)}
    page.go_back()
    expect(page.locator("#only-bar")).to_be_hidden()
    whole(page, "news 11")


def test_cards_keys_and_the_pictures_lanes_show_one_thing_alone_too(hub: HubProcess, console: Open) -> None:
    fill(hub)
    page = console(hub, viewport={"width": 1440, "height": 900})
    whole(page, "news 11")
    page.locator('.channel[data-channel="#plans"] .only-link').click()
    expect(page.locator("#only-bar")).to_contain_text("Only #plans: 12 of")
    page.locator("#flow").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("s")
    expect(page.locator("#only-bar")).to_contain_text("Only eve: 12 of")
    page.keyboard.press("Escape")
    expect(page.locator("#only-bar")).to_be_hidden()
    canvas, said = page.locator(".lanes-canvas"), set()
    width = canvas.bounding_box()["width"]
    for x in range(60, int(width), 12):  # along the names
        canvas.click(position={"x": x, "y": 14})
        drawn(page)
        if page.locator("#only-bar").is_visible():
            said.add(page.locator(".only-text").inner_text().split(":")[0])
    assert said >= {
        "Only the operator",
        "Only ann",
        "Only bob",
        "Only eve",
        "Only what goes to everyone",
        "Only #plans",
    }


def test_other_parts_of_the_address_stay(hub: HubProcess, console: Open) -> None:
    fill(hub)
    page = console(hub)
    whole(page, "news 11")
    page.evaluate("location.hash = '#z=pay&only=%3Deve'")
    expect(page.locator("#only-bar")).to_contain_text("Only eve")
    page.locator("#flow").focus()
    page.keyboard.press("Escape")
    expect(page.locator("#only-bar")).to_be_hidden()
    assert page.url.endswith("#z=pay")


def test_a_thread_in_what_is_shown_alone_leads_back_to_that_and_then_to_all(hub: HubProcess, console: Open) -> None:
    ann, bob, _ = fill(hub)
    asked = hub.post("/send", token=ann, to="bob", content="which port?").body
    hub.receive(bob, timeout=5.0)
    hub.post("/send", token=bob, to="ann", content="8765", reply_to=asked["seq"])
    page = console(hub)
    whole(page, "8765")
    row(page, "which port?").locator(".route").click()
    expect(page.locator("#only-bar")).to_be_visible()
    row(page, "which port?").locator("..").locator("..").get_by_role("button", name="Only this").click()
    expect(page.locator("#thread-bar")).to_be_visible()
    assert shown(page) == {"which port?", "8765"}
    page.reload()
    expect(page.locator("#thread-bar")).to_be_visible()
    page.locator("#flow").focus()
    page.keyboard.press("Escape")
    expect(page.locator("#only-bar")).to_contain_text("Only ann and bob")
    page.keyboard.press("Escape")
    expect(page.locator("#only-bar")).to_be_hidden()


# --- muted ------------------------------------------------------------------------------------------------------------


def test_what_is_muted_is_counted_and_still_needs_the_operator(hub: HubProcess, console: Open) -> None:
    ann, _, _ = fill(hub)
    page = console(hub)
    whole(page, "news 11")
    row(page, "reply 11").locator(".route").click()
    page.locator("#only-bar").get_by_role("button", name="Mute").click()
    expect(page.locator("#only-bar")).to_be_hidden()
    whole(page, "news 11")
    expect(row(page, "reply 11")).to_have_count(0)
    chip = page.locator("#mutes .mute-chip")
    expect(chip).to_contain_text("ann and bob (24)")
    assert is_within(page, "#mutes .mute-chip")
    page.reload()
    expect(chip).to_contain_text("ann and bob (24)")
    hub.say(ann, "bob", "@operator the disk is full")
    whole(page, "@operator the disk is full")
    expect(page.locator("#attention")).to_contain_text("the disk is full")
    hub.say(ann, "bob", "said aside")
    expect(chip).to_contain_text("ann and bob (25)")
    assert violations(page) == []
    chip.click()
    expect(page.locator("#mutes")).to_be_hidden()
    whole(page, "said aside")


# --- pinned -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1280, 720), (390, 844)])
def test_a_lane_is_pinned_beside_the_flow_and_its_composer_aims_there(
    hub: HubProcess, console: Open, size: tuple[int, int]
) -> None:
    _, _, eve = fill(hub, 6)
    page = console(hub, viewport={"width": size[0], "height": size[1]})
    whole(page, "news 5")
    row(page, "plan 5").locator(".route").click()
    page.locator("#only-bar").get_by_role("button", name="Pin beside").click()
    page.locator("#flow").focus()
    page.keyboard.press("Escape")
    pinned = page.locator("#pinned")
    expect(pinned.locator("#pinned-title")).to_have_text("#plans")
    newest = pinned.locator(".message .content").last
    expect(newest).to_have_text("plan 5")
    expect(newest).to_be_in_viewport()
    expect(row(page, "news 5")).to_be_in_viewport()  # the flow goes on beside it
    assert {*pinned.locator(".message .content").all_inner_texts()} == {f"plan {n}" for n in range(6)}
    pinned.locator("textarea").fill("only into plans")
    assert is_within(page, "#pinned textarea")
    page.reload()
    expect(pinned.locator("textarea")).to_have_value("only into plans")
    expect(pinned.get_by_role("button", name="Send beside the flow")).to_be_enabled()  # the line is open again
    pinned.locator("textarea").press("Enter")
    expect(pinned.locator(".message .content").last).to_have_text("only into plans")
    expect(pinned.locator(".message .content").last).to_be_in_viewport()
    got = hub.receive(eve, timeout=5.0)["messages"]
    assert [one["recipient"] for one in got if one["content"] == "only into plans"] == ["#plans"]
    assert violations(page) == []
    pinned.locator(".unpin").click()
    expect(pinned).to_be_hidden()
    page.reload()
    whole(page, "only into plans")
    expect(pinned).to_be_hidden()


def test_a_thread_is_pinned_and_what_is_said_there_answers_in_it(hub: HubProcess, console: Open) -> None:
    ann, bob, _ = fill(hub)
    asked = hub.post("/send", token=ann, to="all", content="which port?").body
    hub.receive(bob, timeout=5.0)
    answer = hub.post("/send", token=bob, to="all", content="8765", reply_to=asked["seq"]).body
    page = console(hub)
    whole(page, "8765")
    row(page, "8765").click()
    page.keyboard.press("v")
    page.locator("#thread-bar").get_by_role("button", name="Pin beside").click()
    page.keyboard.press("Escape")
    pinned = page.locator("#pinned")
    expect(pinned.locator("#pinned-title")).to_have_text("thread: which port?")
    expect(pinned.locator(".message .content")).to_have_text(["which port?", "8765"])
    pinned.locator("textarea").fill("take another")
    pinned.locator("textarea").press("Enter")
    expect(pinned.locator(".message .content")).to_have_text(["which port?", "8765", "take another"])
    got = [one for one in hub.get("/export").body["messages"] if one["content"] == "take another"]
    assert [(one["recipient"], one["reply_to"]) for one in got] == [("all", answer["seq"])]
    pinned.locator("textarea").fill("/stop")
    pinned.locator("textarea").press("Enter")
    expect(pinned).to_contain_text("Commands go into the composer under the flow")


def test_an_observer_reads_what_is_pinned_and_says_nothing(console: Open) -> None:
    with running_hub("--operator-token", "op-secret", "--observer-token", OBSERVER) as hub:
        hub.say(hub.register("ann"), "#plans", "a plan")
        page = console(hub)
        enter(page, OBSERVER)
        whole(page, "a plan")
        row(page, "a plan").locator(".route").click()
        page.locator("#only-bar").get_by_role("button", name="Pin beside").click()
        expect(page.locator("#pinned .message .content")).to_have_text("a plan")
        expect(page.locator("#pinned textarea")).to_be_hidden()


def test_a_pinned_thread_speaks_to_whom_it_said_though_another_speaks_meanwhile(hub: HubProcess, console: Open) -> None:
    api, web = hub.register("api"), hub.register("web")
    first = hub.say(api, "web", "shall I drop it?")
    hub.receive(web)
    asked = hub.post("/send", token=web, to="api", content="ask the operator", reply_to=first["seq"]).body["seq"]
    hub.receive(api)
    seq = hub.post("/send", token=api, to="web", content="I do", reply_to=asked).body["seq"]
    hub.receive(web)
    page = console(hub)
    whole(page, "I do")
    page.evaluate("(id) => { location.hash = `#t-${id}`; }", first["message_id"])
    page.locator("#thread-bar, #only-bar").get_by_role("button", name="Pin beside").first.click()
    field = page.locator("#pinned textarea")
    expect(field).to_have_attribute("placeholder", "Say something to api")
    field.fill("no, do not drop it")
    hub.post("/send", token=web, to="api", content="me too", reply_to=seq)
    expect(page.locator("#pinned .message .content").last).to_have_text("me too")
    assert [one["content"] for one in hub.receive(api)["messages"]] == ["me too"]
    field.press("Enter")
    assert [one["content"] for one in hub.receive(api, timeout=5.0)["messages"]] == ["no, do not drop it"]
