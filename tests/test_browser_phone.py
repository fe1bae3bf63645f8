"""On a phone, and in one line: marks of titles and labels are drawn, targets are large, nothing scrolls sideways."""

from __future__ import annotations

import re
from typing import Any

import pytest
from browsers import OPERATOR, Open, Page, ask, enter, opened, violations, violations_by_theme
from hubs import HubProcess

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect
expect.set_options(timeout=20_000)

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
TITLE = "Merge `main` into *release*? See [the plan](https://plans.example/7)"
LABEL = "Run `npm ci` **first**?"
REASON = "I move `users` to [the new table](https://t.example)"
OPTION = "`--force`, see https://npm.example/ci"
FIELDS = (
    {"key": "pick", "label": LABEL, "type": "radio", "options": [OPTION, "[no](javascript:alert(1))"]},
    {"key": "why", "label": "_Why_?", "type": "text"},
)


# Controls in sight that a finger would miss: neither they nor their label take a touch 36 px high and wide. A link
# within a text is as high as its line.
SMALL = """() => {
  const controls = 'button, a[href], input, select, textarea, summary, [role=button]';
  const inText = '.content, .need-text, .topic, .form, .status';
  const boxOf = (node) => (node.labels?.[0] ?? node).getBoundingClientRect();
  const isLarge = (box) => box.width >= 36 && box.height >= 36;
  const takes = (node, dx, dy) => {
    const box = node.getBoundingClientRect();
    const on = document.elementFromPoint(box.left + box.width / 2 + dx, box.top + box.height / 2 + dy);
    return on === null || node.contains(on);
  };
  const isInSight = (node) => node.checkVisibility({ visibilityProperty: true })
    && node.getBoundingClientRect().width > 1 && takes(node, 0, 0);
  const isHit = (node) => [[0, -17], [0, 17], [-15, 0], [15, 0]].every(([dx, dy]) => takes(node, dx, dy));
  const isGood = (node) => isLarge(node.getBoundingClientRect()) || isLarge(boxOf(node)) || isHit(node);
  const wrong = (node) => isInSight(node) && !isGood(node);
  return [...document.querySelectorAll(controls)].filter((node) => !(node.localName === 'a' && node.closest(inText)))
    .filter(wrong).map((node) => `${node.localName}#${node.id}.${node.className} ${node.textContent}`);
}"""
# A field in which a phone zooms, and what goes on beyond the right edge.
TINY = """() => [...document.querySelectorAll('input, select, textarea')]
  .filter((node) => node.checkVisibility() && !['radio', 'checkbox', 'range'].includes(node.type))
  .filter((node) => parseFloat(getComputedStyle(node).fontSize) < 16).map((node) => node.id || node.className)"""
SIDEWAYS = """() => [document.documentElement, ...document.querySelectorAll('body *')]
  .filter((node) => node.scrollWidth > node.clientWidth + 1)
  .filter((node) => node === document.documentElement || ['auto', 'scroll'].includes(getComputedStyle(node).overflowX))
  .map((node) => `${node.localName}#${node.id}.${node.className}`)"""
IN_SIGHT = """(node) => {
  const [box, clip] = [node.getBoundingClientRect(), node.closest('p').getBoundingClientRect()];
  return box.left >= 0 && box.right <= innerWidth && box.top >= clip.top - 1 && box.bottom <= clip.bottom + 1;
}"""


def fits(page: Page) -> None:
    """See that a finger can use what is in sight, and that nothing is beyond the edge."""
    small: list[str] = []
    for _ in range(20):  # what moves in, as a dialog does, is in its place by then
        if not (small := page.evaluate(SMALL)):
            break
        page.evaluate("() => new Promise(requestAnimationFrame)")
    assert small == []
    assert page.evaluate(TINY) == []
    assert page.evaluate(SIDEWAYS) == []


def at_work(hub: HubProcess) -> str:
    """Make a room in which marks stand wherever a peer can write a line; give the token of who wrote them."""
    api, data = hub.register("api"), hub.register("data")
    hub.post("/channels/join", token=api, channel="#plans")
    hub.post("/channels/topic", token=api, channel="#plans", topic="all of `v2`, *today*")
    hub.post("/floor", token=data, action="take", scope="all", reason=REASON)
    hub.post("/status", token=api, status="reads `hub.py`")
    ask(hub, api, *FIELDS, title=TITLE)
    question = "@operator may I run `make all`? See *now* https://run.example/3"
    assert hub.post("/send", token=data, to="all", content=question, expects_answer=True).status == 200
    return api


# --- marks in one line ------------------------------------------------------------------------------------------------


def test_marks_are_drawn_wherever_a_peer_writes_a_line(hub: HubProcess, console: Open) -> None:
    at_work(hub)
    page = console(hub)
    form = page.locator(".form")
    expect(form.locator(".form-title code")).to_have_text("main")
    expect(form.locator(".form-title em")).to_have_text("release")
    link = form.locator(".form-title a")
    expect(link).to_have_attribute("href", "https://plans.example/7")
    expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
    expect(form.locator(".form-title .md-goal")).to_have_text("(plans.example)")
    expect(form.locator("legend code")).to_have_text("npm ci")
    expect(form.locator("legend strong")).to_have_text("first")
    expect(form.locator(".choice code")).to_have_text("--force")
    expect(form.locator(".choice .md-dead")).to_have_text("no (javascript:alert(1))")
    expect(form.locator("form")).to_have_attribute("aria-label", TITLE)
    expect(page.locator(".topic code", has_text="v2")).to_be_attached()
    expect(page.locator(".floor .topic a")).to_have_attribute("href", "https://t.example/")
    expect(page.locator(".peer .does code")).to_have_text("hub.py")
    opened(page, "api")
    expect(page.locator(".peer .status code")).to_have_text("hub.py")
    expect(page.locator("#attention .need-text code", has_text="main")).to_be_visible()
    tip = re.compile(re.escape("Merge `main`"))
    expect(page.locator("#attention .need[data-kind=form]").first).to_have_attribute("title", tip)
    expect(page.locator('#flow .message[data-origin="hub"] code', has_text="main").first).to_be_attached()
    assert violations(page) == []


def test_what_is_answered_is_what_was_offered_and_links_within_buttons_are_none(hub: HubProcess, console: Open) -> None:
    api = at_work(hub)
    page = console(hub)
    form = page.locator(".form")
    form.locator(".choice", has_text="--force").locator("input").check()
    form.locator(".form-next").click()
    expect(form.locator("label em")).to_have_text("Why")
    form.locator("input[name=why]").fill("`safe`")
    form.locator(".form-next").click()
    expect(form.locator("dt code")).to_have_text("npm ci")
    form.locator(".submit-form").click()
    expect(page.locator(".settled-title code")).to_have_text("main")
    expect(page.locator(".settled .facts code", has_text="--force")).to_be_visible()
    told = next(one for one in hub.receive(api, timeout=5.0)["messages"] if one["kind"] == "answer")
    assert OPTION in str(told)
    page.locator(".needs-owed").click()
    expect(page.locator(".owe-words code")).to_have_text("make all")
    assert page.locator("button a").count() == 0


# --- a link for a colleague -------------------------------------------------------------------------------------------


def operator_at(console: Open, hub: HubProcess, **options: Any) -> Page:
    """Open a console, and come in as the operator."""
    page = console(hub, **options)
    enter(page, OPERATOR)
    expect(page.locator("#connection")).to_have_text("Connected")
    return page


def link_of(page: Page) -> str:
    """Make a link for a colleague; give it."""
    if not page.locator("#settings").is_visible():
        page.locator("#settings-open").click()
    page.locator(".share-make").click()
    expect(page.locator("#share-link")).to_have_value(re.compile(r"/#token=[0-9a-f]{32}$"))
    return str(page.locator("#share-link").input_value())


def test_a_colleague_looks_on_by_a_link_until_it_is_revoked(guarded: HubProcess, console: Open) -> None:
    at_work(guarded)
    page = operator_at(console, guarded)
    link = link_of(page)
    assert link.startswith(f"{guarded.url}/#token=")
    expect(page.locator(".share-made .facts")).to_contain_text("this machine")
    expect(page.locator(".shares li")).to_contain_text("nobody looks through it now")
    assert violations(page) == []
    page.locator(".share-copy").click()
    expect(page.locator(".toast")).to_contain_text(re.compile("Copied the link|does not let"))
    asked: list[str] = []
    guest = console(guarded)
    guest.on("request", lambda request: asked.append(request.url))
    guest.on("websocket", lambda line: asked.append(line.url))
    guest.goto(link)
    expect(guest.locator("#connection")).to_have_text("Connected, observing")
    assert guest.url == f"{guarded.url}/"
    token = link.partition("#token=")[2]
    assert asked
    assert [one for one in asked if token in one] == []
    expect(guest.locator(".form-title code")).to_have_text("main")
    guest.keyboard.press(",")
    expect(guest.locator("#settings")).to_be_visible()
    expect(guest.locator("#share")).to_be_hidden()
    expect(page.locator(".shares li")).to_contain_text("1 looks through it now")
    guest.reload()
    expect(guest.locator("#connection")).to_have_text("Connected, observing")  # the tab keeps it
    page.locator(".share-revoke").click()
    expect(guest.locator("#token-refused")).to_contain_text("Your link was revoked")
    expect(guest.locator(".form")).to_have_count(0)  # nothing of the room stays
    expect(guest.locator("#flow .message")).to_have_count(0)
    expect(page.locator(".shares li")).to_have_count(0)
    expect(page.locator(".share-made")).to_be_hidden()
    guest.goto("about:blank")
    guest.goto(link)
    expect(guest.locator("#token-dialog")).to_be_visible()


def test_a_link_leaves_the_token_alone_that_the_browser_remembers(guarded: HubProcess, console: Open) -> None:
    page = console(guarded)
    page.locator("#token-remember").check()
    enter(page, OPERATOR)
    expect(page.locator("#connection")).to_have_text("Connected")
    link = link_of(page)
    other = page.context.new_page()
    other.goto(link)
    expect(other.locator("#connection")).to_have_text("Connected, observing")
    page.locator(".share-revoke").click()
    expect(other.locator("#connection")).to_have_text("Connected")  # it comes back as who it is besides
    page.reload()
    expect(page.locator("#connection")).to_have_text("Connected")


def test_a_hub_without_a_token_says_that_a_link_could_keep_nothing(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    page.locator("#settings-open").click()
    expect(page.locator("#share-what")).to_contain_text("whoever reaches its address is the operator")
    expect(page.locator(".share-make")).to_be_hidden()
    assert violations(page) == []


# --- a phone ----------------------------------------------------------------------------------------------------------


def test_a_need_has_its_text_on_a_phone(guarded: HubProcess, console: Open) -> None:
    api = guarded.register("api")
    ask(guarded, api, FIELDS[1], title="May I deploy the release to all?")
    page = operator_at(console, guarded, **PHONE)
    need = page.locator("#attention .needs .need-text").first
    expect(need).to_have_text("May I deploy the release to all?")
    assert need.evaluate(IN_SIGHT)
    page.locator(".needs-open").tap()
    expect(page.locator("#needs-all .need-means").first).to_be_visible()
    assert violations(page) == []


def test_a_finger_finds_every_control_and_nothing_scrolls_sideways(guarded: HubProcess, console: Open) -> None:
    at_work(guarded)
    page = console(guarded, reduced_motion="reduce", **PHONE)
    expect(page.locator("#token-input")).to_be_visible()
    fits(page)
    enter(page, OPERATOR)
    expect(page.locator("#flow .message .content", has_text="make all")).to_be_attached()
    fits(page)
    page.locator(".needs-open").tap()
    expect(page.locator("#needs-all")).to_be_visible()
    fits(page)
    page.keyboard.press("Escape")
    for tab in ("health", "channels", "forms"):
        page.locator(f"[data-goto={tab}]").tap()
        if tab == "health":
            page.locator(".peer-line").first.tap()
        fits(page)
        assert violations_by_theme(page) == {}
    page.locator(".form-next").tap()
    fits(page)
    page.locator(".reject-open").tap()
    fits(page)
    page.locator("#settings-open").tap()
    page.locator(".share-make").tap()
    expect(page.locator("#share-link")).to_be_visible()
    for at in range(0, 2_400, 600):
        page.locator("#settings").evaluate("(node, at) => node.scrollTo(0, at)", at)
        fits(page)
    page.locator("#settings-close").tap()
    page.locator("[data-goto=flow]").tap()
    page.locator("#flow-tools button", has_text="Filter").tap()
    fits(page)
    assert violations_by_theme(page) == {}


def test_a_mouse_has_lines_as_low_as_before(hub: HubProcess, console: Open) -> None:
    hub.register("api")
    page = console(hub)
    expect(page.locator(".peer")).to_have_count(1)
    assert page.locator(".peer").evaluate("(node) => Math.round(node.getBoundingClientRect().height)") == 28


def test_a_phones_bar_has_the_colour_of_the_theme(hub: HubProcess, console: Open) -> None:
    page = console(hub, **PHONE)
    tints = "() => [...document.querySelectorAll('meta[name=theme-color]')].map((one) => one.content)"
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")
    assert page.evaluate(tints) == ["#ffffff", "#191d22"]
    page.locator("#theme").tap()
    assert page.evaluate(tints) == ["#ffffff", "#ffffff"]
    page.locator("#theme").tap()
    assert page.evaluate(tints) == ["#191d22", "#191d22"]
    loaded = page.evaluate("() => fetch(document.querySelector('link[rel=manifest]').href).then((one) => one.json())")
    assert loaded["start_url"] == "/"
