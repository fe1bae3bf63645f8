"""The operator's hands, in a real browser: what is typed goes where it is seen to go, and nothing that was begun is lost."""

from __future__ import annotations

from typing import Any

import pytest
from browsers import CHOICE, LONG, Open, Page, agree, ask, heard, peer, row
from hubs import HubProcess, eventually

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect
expect.set_options(timeout=8_000)

INSIDE = """(node) => {
  const box = node.getBoundingClientRect();
  const at = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
  return box.width > 0 && box.top >= 0 && box.left >= 0 && box.bottom <= innerHeight && box.right <= innerWidth
    && (node === at || node.contains(at));
}"""


def inside(page: Page, selector: str) -> bool:
    """Whether an element lies whole in the window, with nothing over its middle."""
    return bool(page.locator(selector).first.evaluate(INSIDE))


def words(page: Page) -> Any:
    """Find the field of the composer."""
    return page.locator("#composer textarea")


# --- whom it is for ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768), (390, 844)], ids=str)
def test_a_name_at_the_head_aims_the_message_before_it_is_sent(
    hub: HubProcess, console: Open, size: tuple[int, int]
) -> None:
    payments, web = hub.register("payments"), hub.register("web")
    page = console(hub, viewport={"width": size[0], "height": size[1]})
    expect(page.locator("#target option")).to_have_count(3)
    words(page).press_sequentially("@payments please stop")
    expect(page.locator(".aim-line")).to_contain_text("This goes to payments only")
    assert inside(page, ".aim-line bdi")
    expect(page.locator("#composer")).to_have_attribute("data-audience", "direct")
    words(page).press("Enter")
    expect(row(page, "@payments please stop")).to_have_attribute("data-audience", "direct")
    expect(page.locator(".aim-line")).to_be_hidden()
    expect(page.locator("#target")).to_have_value("all")
    assert heard(hub, payments) == ["@payments please stop"]
    assert hub.receive(web, timeout=0)["messages"] == []


def test_a_channel_at_the_head_aims_too(hub: HubProcess, console: Open) -> None:
    api, web = hub.register("api"), hub.register("web")
    hub.say(api, "#plans", "hello")
    page = console(hub)
    expect(page.locator("#target option")).to_have_count(4)
    words(page).fill("#plans: what now?")
    expect(page.locator(".aim-line")).to_contain_text("This goes to #plans only")
    words(page).press("Enter")
    assert heard(hub, api) == ["#plans: what now?"]
    assert hub.receive(web, timeout=0)["messages"] == []


def test_an_unknown_name_is_said_and_nothing_is_sent(hub: HubProcess, console: Open) -> None:
    web = hub.register("web")
    page = console(hub)
    expect(page.locator("#target option")).to_have_count(2)
    words(page).fill("@payments please stop")
    expect(page.locator(".aim-line")).to_contain_text("There is no peer @payments.")
    words(page).press("Enter")
    expect(page.locator(".composer-hint")).to_contain_text("Nothing was sent")
    expect(words(page)).to_have_value("@payments please stop")
    assert hub.receive(web, timeout=0)["messages"] == []
    page.locator(".aim-plain").click()  # it is meant as it stands
    expect(words(page)).to_be_focused()
    words(page).press("Enter")
    assert heard(hub, web) == ["@payments please stop"]


def test_a_slash_offers_every_command(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    words(page).press_sequentially("/")
    expect(page.locator("#offers .offer")).to_have_count(12)
    for _ in range(11):
        words(page).press("ArrowDown")
    expect(page.locator("#offers .offer").last).to_have_attribute("aria-selected", "true")
    expect(page.locator("#offers .offer").last).to_contain_text("/help")
    assert inside(page, "#offers .offer:last-child")


def test_the_enter_that_ends_a_word_of_an_input_method_sends_nothing(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    expect(page.locator("#say")).to_be_enabled()
    words(page).fill("nihongo")
    for told in ({"isComposing": True}, {"keyCode": 229}):
        words(page).evaluate(
            """(field, told) => field.dispatchEvent(new KeyboardEvent("keydown",
              { key: "Enter", code: "Enter", bubbles: true, cancelable: true, ...told }))""",
            told,
        )
    expect(words(page)).to_have_value("nihongo")
    expect(page.locator("#flow .message")).to_have_count(0)


# --- brakes -----------------------------------------------------------------------------------------------------------


def test_no_letter_nor_blank_that_is_typed_blindly_rules_the_room(hub: HubProcess, console: Open) -> None:
    api = hub.register("api")
    ask(hub, api, CHOICE)
    page = console(hub)
    expect(page.locator(".form")).to_have_count(1)
    page.locator(".form input").first.check()
    page.locator(".submit-form").click()
    expect(page.locator("#forms-title")).to_be_focused()
    hub.post("/floor", token=api, action="take")
    ask(hub, api, {**CHOICE, "required": False}, title="And this?")
    expect(page.locator(".form")).to_have_count(1)
    for text in ("please hold the release", "no, not now ", "abcdefghijklmnopqrstuvwxyz "):
        page.keyboard.type(text, delay=5)
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        page.evaluate("document.activeElement.blur()")
    if page.locator("body[data-past]").count():
        page.keyboard.press("b")
    expect(page.locator("#mode")).to_have_text("Running")
    expect(page.locator("#target")).to_have_value("all")
    expect(page.locator(".form")).to_have_count(1)
    expect(page.locator(".form input:checked")).to_have_count(1)
    expect(page.locator(".form input:checked")).to_have_value("")  # no answer, as it was
    expect(page.locator("#orders-all .order")).to_have_count(1)  # the answer to the first form


def test_a_pause_can_be_undone_where_it_is_told(hub: HubProcess, console: Open) -> None:
    hub.register("web")
    page = console(hub)
    expect(page.locator("#pause")).to_be_enabled()
    page.keyboard.press("Shift+P")
    expect(page.locator(".toast")).to_contain_text("The room is paused.")
    assert inside(page, ".toast-undo")
    page.locator(".toast-undo").click()
    expect(page.locator("#mode")).to_have_text("Running")
    expect(page.locator(".toast-undo")).to_have_count(0)
    peer(page, "web").locator(".hold").click()
    expect(page.locator(".toast")).to_contain_text("web is paused.")
    page.locator(".toast-undo").click()
    expect(peer(page, "web").locator(".hold")).to_have_attribute("data-does", "pause")
    page.keyboard.press("Shift+P")
    expect(page.locator(".toast-undo")).to_have_count(1)
    page.keyboard.press("Shift+R")  # resumes a paused room
    expect(page.locator("#mode")).to_have_text("Running")
    expect(page.locator(".toast-undo")).to_have_count(0)  # there is nothing to undo any more
    page.keyboard.press("Shift+S")
    agree(page)
    expect(page.locator("#mode")).to_contain_text("Stopped")
