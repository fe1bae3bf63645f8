"""What is in sight at common sizes: peers beside the conversation, lanes, names; nothing covers or moves words."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from browsers import CHOICE, LONG, MANY, USAGE, Open, Page, ask, drawn, opened, peer, resized, row, violations
from hubs import HubProcess, eventually, running_hub

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect
expect.set_options(timeout=20_000)

Size = tuple[int, int]
DESK, LAPTOP, SMALL, PHONE, ZOOMED = (1440, 900), (1280, 720), (1024, 768), (390, 844), (720, 450)  # the last: at 200 %
HIGH_DPI = (1920, 1080)
NAMES = [
    *("api", "data", "docs-writer", "gateway-team", "mobile", "ops", "payments", "release-captain", "reviewer"),
    *("search-index", "security", "web"),
]
LINE = "the build is green and I go on with the migration of the table, and with its tests"
GOES_ON = "it goes on with a line that is long enough to reach the right end of the row, where tools may come up, twice"
TABLE = "| step | time | cost |\n|---|--:|---|\n| migrate | 1 200 000 ms | 12 000 000 $ |\n| two words | 3 | 1 $ |"

# How many of these are whole in the window: not cut by a box that scrolls, and under nothing else.
WHOLE = """(all) => all.filter((node) => {
  const box = node.getBoundingClientRect();
  const isOut = box.top < 0 || box.left < 0 || box.bottom > innerHeight || box.right > innerWidth;
  if (isOut || box.width === 0) return false;
  for (let outer = node.parentElement; outer; outer = outer.parentElement) {
    const around = outer.getBoundingClientRect();
    const clips = getComputedStyle(outer).overflowY !== "visible";
    if (clips && (box.top < around.top - 1 || box.bottom > around.bottom + 1)) return false;
  }
  const on = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
  return node.contains(on) || Boolean(on?.contains(node));
}).length"""


def settle(hub: HubProcess, names: list[str]) -> dict[str, str]:
    """Make a room at work: every second peer reports what it costs, forms and mentions wait, a table is shown."""
    with hub.console() as operator:
        operator.send(set_rate={"refill_rate": 1e5, "capacity": 1e5})
        operator.next("rate")
    tokens = {name: hub.register(name) for name in names}
    for at, token in enumerate(tokens.values()):
        usage = {"usage": {**USAGE, "cost_usd": 0.31 + at}} if at % 2 == 0 else {}
        hub.post("/status", token=token, status=f"reading part {at} of the diff, then writing its tests", **usage)
    for n, one in enumerate(itertools.islice(itertools.cycle(tokens.values()), 21)):
        hub.say(one, ("all", "#plans", "#release")[n % 3], f"{n}: {LINE}")
    hub.say(tokens[names[0]], "all", TABLE)
    hub.say(tokens[names[0]], "all", GOES_ON)
    ask(hub, tokens[names[1]], CHOICE, MANY, LONG)
    for name in names[2:5]:
        hub.say(tokens[name], "all", "@operator may I go on?")
    return tokens


@pytest.fixture(scope="module")
def twelve() -> Iterator[HubProcess]:
    """Give a hub with twelve peers at work; the tests only look at it."""
    with running_hub("--loops", "hold") as hub:
        settle(hub, NAMES)
        yield hub


@pytest.fixture(scope="module")
def eight() -> Iterator[HubProcess]:
    """Give a hub with eight peers at work; the tests only look at it."""
    with running_hub("--loops", "hold") as hub:
        settle(hub, NAMES[:8])
        yield hub


def look(console: Open, hub: HubProcess, size: Size, **options: Any) -> Page:
    """Open a console of this size, and wait until the room is on it."""
    page = console(hub, viewport={"width": size[0], "height": size[1]}, **options)
    expect(page.locator(".message .content", has_text="may I go on?").first).to_be_attached()
    expect(page.locator(".form")).to_have_count(1)
    return page


def in_sight(page: Page, selector: str) -> int:
    """Count what is whole in the window."""
    return int(page.locator(selector).evaluate_all(WHOLE))


def box(page: Page, selector: str) -> dict[str, float]:
    """Give where something is."""
    found = page.locator(selector).first.bounding_box()
    assert found is not None, selector
    return dict(found)


# --- peers ------------------------------------------------------------------------------------------------------------


def test_peers_are_in_sight_beside_the_conversation(twelve: HubProcess, console: Open) -> None:
    page = look(console, twelve, DESK, reduced_motion="reduce")
    expect(page.locator(".peer .cost").first).to_have_text("$0.31")
    peers, themes = {DESK: 12, LAPTOP: 8, SMALL: 6}, {DESK: "dark", LAPTOP: "light", SMALL: "dark"}
    for size in resized(page, *peers):
        page.emulate_media(color_scheme=themes[size])
        eventually(lambda size=size: in_sight(page, ".peer-line") >= peers[size], f"{peers[size]} peers")
        eventually(lambda: in_sight(page, "#flow .message .content") >= 5, f"the conversation at {size}")
        heights = page.locator(".peer").evaluate_all("(all) => all.map((one) => one.getBoundingClientRect().height)")
        assert set(map(round, heights)) == {28}
        assert violations(page) == []


def test_eight_peers_are_all_in_sight_on_a_laptop(eight: HubProcess, console: Open) -> None:
    page = look(console, eight, DESK)
    for size in resized(page, DESK, LAPTOP):
        eventually(lambda: in_sight(page, ".peer-line") == 8, f"eight at {size}")


def test_at_200_percent_peers_and_messages_are_one_click_away(twelve: HubProcess, console: Open) -> None:
    page = look(console, twelve, ZOOMED)
    expect(page.locator("#new-below")).to_be_hidden()
    assert in_sight(page, "#flow .message .content") >= 3
    page.locator('[data-goto="health"]').click()
    assert in_sight(page, ".peer-line") >= 6
    assert violations(page) == []


def test_on_a_phone_all_peers_are_in_sight(twelve: HubProcess, console: Open) -> None:
    page = look(console, twelve, PHONE)
    page.locator('[data-goto="health"]').click()
    assert in_sight(page, ".peer-line") == 12
    assert in_sight(page, ".figure") >= 2


def test_a_line_names_its_peer_whether_it_lives_hears_and_what_it_costs(twelve: HubProcess, console: Open) -> None:
    page = look(console, twelve, DESK)
    line = peer(page, "api").locator(".peer-line")
    spilt = "(all) => all.filter((n) => n.scrollWidth > n.clientWidth).length"
    for size in resized(page, DESK, SMALL, PHONE):
        if size == PHONE:
            page.locator('[data-goto="health"]').click()
        for part in (".name", ".wake", ".cost", ".state"):
            place = f'.peer[data-peer="api"] .peer-line {part}'
            eventually(lambda place=place: in_sight(page, place) == 1, f"{part} at {size}")
        expect(line).to_have_accessible_name(re.compile(r"^api reading part 0.*\$0\.31.* live$"))
        expect(line).to_have_attribute("title", re.compile("reading part 0 of the diff, then writing its tests"))
        assert page.locator(".peer-line").evaluate_all(spilt) == 0


def test_enter_opens_a_peer_and_arrows_go_from_line_to_line(twelve: HubProcess, console: Open) -> None:
    page = look(console, twelve, DESK)
    page.keyboard.press("g")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    expect(peer(page, "data").locator(".peer-line")).to_be_focused()
    expect(peer(page, "data").locator(".kick")).to_be_hidden()
    page.keyboard.press("Enter")
    expect(peer(page, "data").locator(".peer-line")).to_have_attribute("aria-expanded", "true")
    for part in (".status", ".ears", ".here", ".write", ".hold", ".kick"):
        expect(peer(page, "data").locator(part)).to_be_in_viewport()
    expect(peer(page, "data").locator(".mail")).to_contain_text("waiting")
    assert in_sight(page, ".peer-line") >= 8  # the others stay
    assert violations(page) == []
    page.keyboard.press("Enter")
    expect(peer(page, "data").locator(".kick")).to_be_hidden()


def test_marks_on_a_line_say_what_is_amiss(hub: HubProcess, console: Open) -> None:
    api, web = hub.register("api"), hub.register("web")
    hub.say(web, "api", "hello")
    page = console(hub, viewport={"width": 1280, "height": 720})
    opened(page, "api").locator(".hold").click()
    expect(peer(page, "api").locator(".held")).to_be_visible()
    peer(page, "api").locator(".peer-line").click()
    for mark, words in ((".held", "You hold its mailbox"), (".mail", "In its mailbox: 1 waiting")):
        assert in_sight(page, f'.peer[data-peer="api"] {mark}') == 1
        expect(peer(page, "api").locator(mark)).to_have_attribute("title", re.compile(words))
    hub.receive(api)
    expect(peer(page, "web").locator(".held")).to_be_hidden()


def test_a_cost_that_is_known_squeezes_no_figure(twelve: HubProcess, console: Open) -> None:
    page = look(console, twelve, DESK)
    for size in resized(page, DESK, LAPTOP, SMALL, HIGH_DPI, PHONE):
        if size == PHONE:
            page.locator('[data-goto="health"]').click()
        expect(page.locator('[data-figure="usage"] .figure-value')).to_contain_text("$")
        rate = box(page, '[data-figure="rate"] .figure-value')
        assert rate["width"] > 80, size
        assert rate["height"] < 50, size


# --- the picture ------------------------------------------------------------------------------------------------------


def test_no_lane_is_out_of_sight_and_no_name_is_cut_off(twelve: HubProcess, console: Open) -> None:
    page = look(console, twelve, DESK)
    lanes = page.locator("#lanes")
    for size in resized(page, DESK, LAPTOP, SMALL):
        expect(lanes).to_have_attribute("data-lanes", "16")  # twelve, the operator, everyone, two channels
        expect(lanes).to_have_attribute("data-spread", "rail" if size == SMALL else "upright")
        assert page.locator(".lanes-scroller").evaluate("(one) => one.scrollWidth - one.clientWidth") <= 0
    assert box(page, "#lanes")["width"] <= 90
    assert box(page, "#flow")["width"] >= 600


def test_a_rail_tells_a_lane_by_its_title_and_a_message_beside_it(twelve: HubProcess, console: Open) -> None:
    page = look(console, twelve, SMALL)
    expect(page.locator("#lanes")).to_have_attribute("data-spread", "rail")
    rail = box(page, ".lanes-scroller")
    page.mouse.move(rail["x"] + 14, rail["y"] + 3)
    expect(page.locator(".lanes-scroller")).to_have_attribute("title", "operator")
    for y in range(20, int(rail["height"]), 4):
        page.mouse.move(rail["x"] + 40, rail["y"] + y)
        if page.locator(".lanes-tip").is_visible():
            break
    expect(page.locator(".lanes-tip-text")).to_be_in_viewport(ratio=1)
    assert box(page, ".lanes-tip")["width"] > 200
    assert violations(page) == []


# --- nothing covers words, nothing moves them -------------------------------------------------------------------------

TOUCHES = """([tools, row]) => {
  const over = tools.getBoundingClientRect();
  const walker = document.createTreeWalker(row.querySelector(".content"), NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  while (walker.nextNode()) {
    range.selectNodeContents(walker.currentNode);
    for (const box of range.getClientRects()) {
      const isBeside = box.right <= over.left || box.left >= over.right;
      const isLevel = box.bottom > over.top + 2 && box.top < over.bottom - 2;
      if (!isBeside && isLevel) return walker.currentNode.data.slice(0, 40);
    }
  }
  return "";
}"""


@pytest.mark.parametrize("size", [HIGH_DPI, SMALL, PHONE], ids=str)
def test_tools_that_come_up_cover_no_words(twelve: HubProcess, console: Open, size: Size) -> None:
    page = look(console, twelve, size)
    rows = page.locator("#flow .message")
    expect(page.locator("#flow .tick:visible").first).to_be_visible()
    seen = 0
    for at in range(rows.count()):
        one = rows.nth(at)
        if one.evaluate_all(WHOLE) == 0:
            continue
        one.hover(position={"x": 200, "y": 8})
        tools = page.locator(".row-tools")
        expect(tools).to_be_visible()
        content = one.element_handle()
        assert page.evaluate(TOUCHES, [tools.element_handle(), content]) == "", size
        seen += 1
    assert seen >= 3


def test_tools_of_a_row_without_a_heading_open_from_one_dot(twelve: HubProcess, console: Open) -> None:
    page = look(console, twelve, SMALL)
    one = row(page, GOES_ON)
    one.hover()
    expect(one.locator(".row-reply")).to_be_hidden()
    one.locator(".row-more").hover()
    expect(one.locator(".row-reply")).to_be_visible()
    page.mouse.move(5, 5)
    one.locator(".row-more").evaluate("(node) => node.closest('.message').focus()")
    page.keyboard.press("Tab")
    expect(one.locator(".row-more")).to_be_focused()
    expect(one.locator(".row-reply")).to_be_visible()


def test_under_a_finger_tools_have_a_line_of_their_own(twelve: HubProcess, console: Open) -> None:
    page = look(console, twelve, PHONE, has_touch=True, is_mobile=True)
    one = row(page, GOES_ON)
    one.locator(".content").tap()
    expect(one.locator(".row-reply")).to_be_visible()
    assert page.evaluate(TOUCHES, [page.locator(".row-tools").element_handle(), one.element_handle()]) == ""
    assert one.locator(".row-reply").bounding_box()["height"] >= 36


def test_a_search_moves_nothing_down(twelve: HubProcess, console: Open) -> None:
    page = look(console, twelve, DESK)
    for _ in resized(page, DESK, SMALL, ZOOMED, (320, 568)):
        before = [box(page, part) for part in ("#flow", "#composer")]
        page.locator("#search").fill("the build")
        expect(page.locator(".hits")).to_have_text("21 found")
        assert [box(page, part) for part in ("#flow", "#composer")] == before
        assert page.locator(".tools-row").evaluate("(one) => one.scrollWidth - one.clientWidth") <= 0
        for control in ("#search", 'button[aria-label^="Previous place"]', 'button[aria-label^="Next place"]'):
            assert in_sight(page, f"#flow-tools {control}") == 1, control
        page.locator("#search").fill("")
        expect(page.locator(".hits")).to_be_hidden()


def test_what_opens_above_the_flow_moves_no_row_that_is_read(twelve: HubProcess, console: Open) -> None:
    page = look(console, twelve, SMALL)
    page.locator("#flow").evaluate("(flow) => { flow.scrollTop = 200; }")
    middle = f"document.elementFromPoint(300, {box(page, '#flow')['y'] + 250}).closest('.message')"
    eventually(lambda: page.evaluate(f"{middle} !== null"), "a row in the middle")
    page.evaluate(f"window.read = {middle}")
    before = page.evaluate("read.getBoundingClientRect().top")
    for is_open in (True, False):
        page.locator('[aria-controls="flow-filters"]').click()
        expect(page.locator("#flow-filters")).to_be_visible(visible=is_open)
        drawn(page)
        assert abs(page.evaluate("read.getBoundingClientRect().top") - before) < 2


def test_numbers_in_tables_do_not_wrap(twelve: HubProcess, console: Open) -> None:
    page = look(console, twelve, DESK)
    cells = page.locator(".md-table td.md-number")
    for _ in resized(page, DESK, PHONE):
        expect(cells).to_have_text(["1 200 000 ms", "12 000 000 $", "3", "1 $"])
        heights = cells.evaluate_all("(all) => all.map((cell) => cell.clientHeight)")
        assert max(heights) < 40


LONGEST_LINE = """(node) => {
  const text = document.createTreeWalker(node, NodeFilter.SHOW_TEXT).nextNode();
  const range = document.createRange();
  let [line, count, most] = [null, 0, 0];
  for (let at = 0; at < text.length; at += 1) {
    range.setStart(text, at);
    range.setEnd(text, at + 1);
    const top = Math.round(range.getBoundingClientRect().top);
    if (top !== line) [line, count] = [top, 0];
    count += text.data[at] === " " && count === 0 ? 0 : 1;
    most = Math.max(most, count);
  }
  return most;
}"""


def test_a_column_to_read_is_at_most_90_characters_wide_and_uses_its_room(hub: HubProcess, console: Open) -> None:
    hub.say(hub.register("api"), "all", f"{LINE}, " * 8)
    page = console(hub, viewport={"width": 1920, "height": 1080})
    for view in ("Both", "Transcript"):
        page.get_by_role("button", name=view).click()
        assert 70 <= page.locator("#flow .content").last.evaluate(LONGEST_LINE) <= 91  # the blank at the end is one


# --- density and long forms -------------------------------------------------------------------------------------------


def test_compact_shows_more_and_is_kept(twelve: HubProcess, console: Open) -> None:
    page = look(console, twelve, LAPTOP, color_scheme="dark")
    before = in_sight(page, "#flow .message .content")
    page.keyboard.press(",")
    page.get_by_label("Density").select_option("Compact")
    page.locator("#settings-close").click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-density", "compact")
    expect(page.locator(".message .content", has_text="may I go on?").first).to_be_attached()
    assert in_sight(page, "#flow .message .content") > before
    assert in_sight(page, ".peer-line") == 12
    heights = page.locator(".peer-line").evaluate_all("(all) => all.map((one) => one.getBoundingClientRect().height)")
    assert min(heights) >= 24
    assert violations(page) == []


@pytest.mark.parametrize("size", [DESK, SMALL], ids=str)
def test_a_long_form_opens_in_the_width_of_the_flow(hub: HubProcess, console: Open, size: Size) -> None:
    api = hub.register("api")
    ask(hub, api, {**CHOICE, "options": [f"{n}: {LINE}, {LINE}" for n in range(4)]}, title="Which way?")
    page = console(hub, viewport={"width": size[0], "height": size[1]})
    hub.say(api, "all", "the last word")
    form = page.locator(".form")
    expect(form).to_be_visible()
    assert form.bounding_box()["width"] < 330
    page.keyboard.press("f")
    expect(form).to_have_attribute("data-wide", "true")
    wide, flow = form.bounding_box(), box(page, ".centre")
    assert wide["width"] > flow["width"] * 0.9
    assert flow["x"] <= wide["x"]
    assert wide["x"] + wide["width"] <= flow["x"] + flow["width"]
    assert in_sight(page, ".form .submit-form") == 1
    assert in_sight(page, "#composer textarea") == 1
    assert in_sight(page, "#pause") == 1
    assert violations(page) == []
    page.keyboard.press("Escape")
    assert form.bounding_box()["width"] < 330
    form.locator(".widen").click()
    form.get_by_label(f"2: {LINE}, {LINE}").check()
    form.locator(".submit-form").click()
    expect(form).to_have_count(0)


def test_a_short_form_stays_beside_the_flow(hub: HubProcess, console: Open) -> None:
    ask(hub, hub.register("api"), CHOICE)
    page = console(hub)
    expect(page.locator(".form")).to_be_visible()
    page.keyboard.press("f")
    expect(page.locator(".widen")).to_have_count(0)
    assert page.locator(".form").bounding_box()["width"] < 330
