"""The operator's hands, in a real browser: what is typed goes where it is seen to go; nothing begun is lost."""

from __future__ import annotations

from typing import Any

import pytest
from browsers import CHOICE, LONG, Open, Page, agree, ask, heard, opened, peer, resized, row, violations
from hubs import HubProcess, eventually

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect
expect.set_options(timeout=20_000)

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


def test_a_name_at_the_head_aims_the_message_before_it_is_sent(hub: HubProcess, console: Open) -> None:
    payments, web = hub.register("payments"), hub.register("web")
    page = console(hub)
    expect(page.locator("#target option")).to_have_count(3)
    for width, _ in resized(page, (1440, 900), (1024, 768), (390, 844)):
        said = f"@payments please stop at {width}"
        words(page).press_sequentially(said)
        expect(page.locator(".aim-line")).to_contain_text("This goes to payments only")
        assert inside(page, ".aim-line bdi")
        expect(page.locator("#composer")).to_have_attribute("data-audience", "direct")
        words(page).press("Enter")
        expect(row(page, said)).to_have_attribute("data-audience", "direct")
        expect(page.locator(".aim-line")).to_be_hidden()
        expect(page.locator("#target")).to_have_value("all")
        assert heard(hub, payments) == [said]
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


def test_several_names_are_one_message_with_one_receipt(hub: HubProcess, console: Open) -> None:
    api, web, db = hub.register("api"), hub.register("web"), hub.register("db")
    page = console(hub)
    expect(page.locator("#target option")).to_have_count(4)
    words(page).fill("@api @web please stop")
    expect(page.locator(".aim-line")).to_contain_text("This goes to api and web only")
    page.locator("#asks").check()
    words(page).press("Enter")
    expect(page.locator(".composer-hint")).to_contain_text("A question goes to one peer")
    page.locator("#asks").uncheck()
    words(page).press("Enter")
    expect(row(page, "@api @web please stop")).to_have_count(1)
    expect(row(page, "@api @web please stop").locator(".route")).to_contain_text("api, web")
    expect(page.locator("#orders > .order")).to_contain_text("0 of 2 agents reached, not yet api and web")
    assert [heard(hub, token) for token in (api, web)] == [["@api @web please stop"]] * 2
    expect(page.locator("#orders > .order")).to_contain_text("2 of 2 agents reached")
    assert hub.receive(db, timeout=0)["messages"] == []
    page.locator("#search").fill("to:web")
    expect(page.locator(".hits")).to_have_text("1 found")


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
    opened(page, "web").locator(".hold").click()
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


# --- forms ------------------------------------------------------------------------------------------------------------

MANY_OR_OWN = {"key": "m", "label": "All that apply", "type": "checkbox", "options": ["x", "y"], "allow_other": True}


def test_a_form_that_is_half_filled_in_survives_a_reload(hub: HubProcess, console: Open) -> None:
    api = hub.register("api")
    ask(hub, api, CHOICE, MANY_OR_OWN, LONG)
    ask(hub, api, LONG, title="Another?")
    page = console(hub)
    form = page.locator(".form").first
    form.get_by_label("later").check()
    form.locator(".form-next").click()
    form.get_by_label("y", exact=True).check()
    form.locator(".other-text").fill("z")
    form.locator(".form-next").click()
    form.locator("textarea:visible").fill("because\nit is la")
    page.locator(".form").nth(1).locator(".reject-open").click()
    page.locator(".form").nth(1).locator(".reason").fill("not n")
    page.reload()
    expect(form.locator(".step-count")).to_have_text("Question 3 of 3")
    expect(form.locator("textarea:visible")).to_have_value("because\nit is la")
    expect(page.locator(".form").nth(1).locator(".reason")).to_have_value("not n")
    form.locator(".form-next").click()
    expect(form.locator(".recap dd")).to_have_text(["later", "y, z", "because\nit is la"])
    assert "because" in page.evaluate("sessionStorage.getItem('caucus.half-done')")
    form.locator(".submit-form").click()
    expect(page.locator(".form")).to_have_count(1)
    page.locator(".form .form-back").click()
    page.reload()
    expect(page.locator(".form textarea:visible")).to_be_visible()
    assert "because" not in page.evaluate("sessionStorage.getItem('caucus.half-done')")


def test_a_form_that_is_answered_elsewhere_stays_under_the_hand_and_says_so(hub: HubProcess, console: Open) -> None:
    api = hub.register("api")
    first = ask(hub, api, CHOICE, LONG, title="First?")
    ask(hub, api, CHOICE, title="Second?")
    page = console(hub)
    form = page.locator(".form").first
    form.get_by_label("later").check()
    form.locator(".form-next").hover()
    form.get_by_label("later").focus()
    place = page.locator(".form").nth(1).evaluate("(one) => one.getBoundingClientRect().top")
    with hub.console() as other:
        other.send(answer={"id": first, "answers": {"pick": "now"}})
        expect(form.locator(".gone-line")).to_contain_text("Answered by the operator on another console: Which?: now")
    assert inside(page, ".gone-line")
    expect(form.locator(".gone-line")).to_be_focused()
    assert form.locator(".form-body").evaluate("(one) => one.inert")
    expect(page.locator(".form").nth(1)).to_contain_text("Second?")
    assert page.locator(".form").nth(1).evaluate("(one) => one.getBoundingClientRect().top") >= place
    expect(form.get_by_label("later")).to_be_checked()  # what was entered is still to be seen
    expect(page.locator("#forms-count")).to_have_text("1 waiting")
    form.locator(".gone-dismiss").click()
    expect(page.locator(".form")).to_have_count(1)
    expect(page.locator("#forms-title")).to_be_focused()


def test_a_form_that_is_answered_elsewhere_goes_when_the_hand_has_left_it(hub: HubProcess, console: Open) -> None:
    api = hub.register("api")
    first = ask(hub, api, CHOICE, title="First?")
    page = console(hub)
    page.locator(".form").first.hover()
    page.clock.install()
    with hub.console() as other:
        other.send(cancel_form=first, reason="no need")
        expect(page.locator(".gone-line")).to_contain_text("Rejected by the operator on another console: no need")
    page.clock.run_for(20_000)
    expect(page.locator(".gone-line")).to_be_visible()  # there is a hand on it
    page.mouse.move(5, 5)
    page.clock.run_for(20_000)
    expect(page.locator(".form")).to_have_count(0)


# --- search -----------------------------------------------------------------------------------------------------------

TABLE = "| file | lines |\n|:--|--:|\n| `lexer.py` | 120 |"


def fast(hub: HubProcess) -> None:
    """Let peers speak as fast as they like."""
    hub.unthrottle()


def test_search_takes_words_phrases_names_and_what_is_in_it(hub: HubProcess, console: Open) -> None:
    fast(hub)
    api, web = hub.register("api"), hub.register("web")
    hub.say(api, "#plans", "payments answer with 409 since noon")
    hub.say(web, "all", "a 409 of nobody, see [the docs](https://docs.example/409) now")
    hub.say(web, "api", "look at `retry` please")
    hub.say(api, "all", TABLE)
    page = console(hub)
    expect(page.locator("#flow .message .content")).not_to_have_count(0)
    for line, found in {
        "409 payments": "1 found",
        '"the docs now"': "1 found",
        '"lexer.py 120"': "1 found",
        "from:web": "2 found",
        "in:plans": "1 found",
        "with:api has:code": "2 found",
        "has:code in:direct": "1 found",
        "409 -payments": "1 found",
        "from:nobody": "nowhere",
        "has:cats": "has: takes code, link, table, list, not cats",
    }.items():
        page.locator("#search").fill(line)
        expect(page.locator(".hits")).to_have_text(found)
    page.locator("#search").fill('"the docs now"')
    page.locator("#search").press("Enter")
    expect(page.locator("#flow .hit mark")).to_have_text(["the", "docs", "now"])
    page.locator("#search").fill("409 payments")
    page.locator("#search").press("Enter")
    expect(page.locator("#flow .hit mark")).to_have_text(["payments", "409"])
    assert inside(page, "#flow .hit .content")


def test_what_is_looked_for_lives_in_the_address(hub: HubProcess, console: Open) -> None:
    api = hub.register("api")
    hub.say(api, "all", "payments answer with 409")
    hub.say(api, "all", "something else")
    page = console(hub)
    expect(row(page, "something else")).to_be_visible()
    page.locator("#search").fill('"with 409" from:api')
    expect(page).to_have_url(f"{hub.url}/#q=%22with%20409%22%20from%3Aapi")
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator("#search")).to_have_value('"with 409" from:api')
    expect(other.locator(".hits")).to_have_text("1 found")
    page.locator("#search").fill("")
    expect(page).to_have_url(f"{hub.url}/")
    page.evaluate("location.hash = '#q=else'")
    expect(page.locator("#search")).to_have_value("else")
    expect(page.locator(".hits")).to_have_text("1 found")


def test_filters_search_and_place_survive_a_reload(hub: HubProcess, console: Open) -> None:
    fast(hub)
    api, web = hub.register("api"), hub.register("web")
    for n in range(60):
        hub.say(api if n % 2 else web, "all", f"line {n}\nof two")
    page = console(hub)
    expect(row(page, "line 59\nof two")).to_be_in_viewport()
    page.locator("#flow-tools").get_by_role("button", name="Filter").click()
    page.get_by_label("By or to whom").select_option("=api")
    page.locator("#search").fill("line")
    expect(page.locator(".hits")).to_have_text("30 found")
    page.locator("#flow").evaluate("(flow) => { flow.scrollTop = 500; }")
    expect(page.locator("#new-below")).to_be_visible()
    top = """() => { const flow = document.querySelector("#flow").getBoundingClientRect();
      const boxOf = (one) => one.getBoundingClientRect();
      const row = [...document.querySelectorAll("#flow .message")].find((one) => boxOf(one).bottom > flow.top + 1);
      return [row.dataset.seq, Math.round(boxOf(row).top - flow.top)]; }"""
    seq, y = page.evaluate(top)
    page.reload()
    expect(page.locator(".hits")).to_have_text("30 found")
    expect(page.locator("#search")).to_have_value("line")
    expect(page.locator("#flow-tools").get_by_role("button", name="Filter (1)")).to_be_visible()
    eventually(lambda: page.evaluate(top)[0] == seq, "the place is there again")
    assert abs(page.evaluate(top)[1] - y) <= 4
    page.locator("#search").fill("")  # the filter holds on
    expect(page.locator("#flow .message[data-origin=agent]").first).to_be_visible()
    senders = page.locator("#flow .message .who .name").evaluate_all("(all) => all.map((one) => one.textContent)")
    assert set(senders) == {"api"}


# --- the palette ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)], ids=str)
def test_the_palette_reaches_peers_channels_commands_needs_and_settings(
    hub: HubProcess, console: Open, size: tuple[int, int]
) -> None:
    api = hub.register("api")
    hub.register("flooder")
    hub.say(api, "#plans", "hello")
    ask(hub, api, LONG, title="Ship it?")
    page = console(hub, viewport={"width": size[0], "height": size[1]})
    expect(page.locator(".form")).to_have_count(1)
    words(page).fill("half a sen")
    field, offers = page.locator("#palette-field"), page.locator("#palette-list .offer")

    def choose(text: str, first: str) -> None:
        page.keyboard.press("Control+k")
        expect(field).to_be_focused()
        page.keyboard.type(text)
        expect(offers.first).to_contain_text(first)
        assert inside(page, "#palette-list .offer")
        page.keyboard.press("Enter")
        expect(page.locator("#palette")).to_be_hidden()

    choose("ship", "Ship it?")
    expect(page.locator(".form textarea:visible")).to_be_focused()
    choose("pause flo", "/pause flooder")
    expect(peer(page, "flooder").locator(".hold")).to_have_attribute("data-does", "resume")
    choose("#plans write", "#plans")
    expect(page.locator("#target")).to_have_value("#plans")
    expect(words(page)).to_be_focused()
    expect(words(page)).to_have_value("half a sen")
    choose("in utc", "Times in UTC")
    expect(page.locator("#pref-utc")).to_be_focused()
    page.keyboard.press("Escape")
    choose("with:api", "with:api")
    expect(page.locator("#search")).to_have_value("with:api")
    choose("/rate", "/rate")
    expect(words(page)).to_have_value("/rate ")
    page.keyboard.press("Control+k")
    assert violations(page) == []
    page.keyboard.type("zzz")
    expect(page.locator(".palette-count")).to_have_text("Nothing here has these words.")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(page.locator("#palette")).to_be_hidden()
    expect(words(page)).to_be_focused()  # where the hands were


def test_letters_that_follow_a_key_blindly_choose_no_other_target(hub: HubProcess, console: Open) -> None:
    hub.register("set")
    page = console(hub)
    expect(page.locator("#target option")).to_have_count(2)
    page.locator("#peers-title").focus()
    page.keyboard.type("please hold", delay=10)
    expect(page.locator("#target")).to_have_value("all")
