"""The chair in a hard hour: what is looked for is in sight, and what has to be done takes few keys, at each size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from browsers import Open, Page, peer, resized, violations
from hard_hour import FLOODER, NAMES, NEEDLE, SILENT, Hour, hard_hour
from hubs import eventually

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect

DESK, LAPTOP, SMALL, PHONE, ZOOMED = (1440, 900), (1280, 720), (1024, 768), (390, 844), (720, 450)  # the last: at 200 %
SIZES = [DESK, LAPTOP, SMALL, PHONE, ZOOMED]
FEW = [LAPTOP, PHONE, ZOOMED]  # where one more tells nothing
IN_SIGHT = """(node) => {
  const { left, top, right, bottom } = node.getBoundingClientRect();
  const on = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
  const isIn = left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight;
  return isIn && (node.contains(on) || Boolean(on?.contains(node)));
}"""


@pytest.fixture(scope="module")
def hour() -> Iterator[Hour]:
    """Give the hour; each test looks at it, and leaves it as it is but for what it says."""
    with hard_hour() as one:
        yield one


def sit(console: Open, hour: Hour, size: tuple[int, int], **options: Any) -> Page:
    """Open the console in a window of that size, and wait until it has all."""
    page = console(hour.hub, viewport={"width": size[0], "height": size[1]}, **options)
    expect(page.locator("#mode")).to_have_text("Running")
    expect(page.locator("#attention .need").first).to_be_visible()
    return page


def is_in_sight(found: Any) -> bool:
    """Whether all of it is in the window, and nothing lies over its middle."""
    return bool(found.first.evaluate(IN_SIGHT))


def press(page: Page, *keys: str) -> int:
    """Press keys; count them."""
    for key in keys:
        page.keyboard.press(key)
    return len(keys)


def is_paused(hour: Hour) -> bool:
    """Whether the hub holds the flooder's mailbox."""
    with hour.hub.console() as operator:
        return bool(next(one for one in operator.snapshot["peers"] if one["name"] == FLOODER)["paused"])


def test_who_waits_for_the_chair_is_read_without_a_key(hour: Hour, console: Open) -> None:
    page = sit(console, hour, DESK)
    count, first = page.locator("#attention .needs-count"), page.locator("#attention > .needs > .need").first
    for size in resized(page, *SIZES):
        expect(count).to_have_text(re.compile(r"^[3-9]$"))
        for found in (count, first):
            eventually(lambda found=found: is_in_sight(found), f"it at {size}")
        expect(first).to_contain_text(FLOODER)


def test_who_has_gone_silent_is_a_need(hour: Hour, console: Open) -> None:
    page = sit(console, hour, DESK)
    line = page.locator("#needs-all .need").filter(has_text=re.compile(rf"{SILENT}|peers have gone silent"))
    for _ in resized(page, *FEW):
        page.locator(".needs-open").click()
        expect(line.first).to_be_visible()
        press(page, "Escape")
        expect(line.first).to_be_hidden()


@pytest.mark.parametrize("size", FEW, ids=str)
def test_a_message_of_an_hour_ago_is_found_by_its_words(hour: Hour, console: Open, size: tuple[int, int]) -> None:
    page = sit(console, hour, size)
    press(page, "/")
    page.keyboard.type("payments 409")
    press(page, "Enter")
    found = page.locator("#flow .message .content").filter(has_text=NEEDLE)
    expect(found).to_be_visible(timeout=5_000)
    eventually(lambda: is_in_sight(found), "it is in the window")


@pytest.mark.parametrize("size", [SMALL, PHONE], ids=str)
def test_the_flooder_is_paused_with_three_keys(hour: Hour, console: Open, size: tuple[int, int]) -> None:
    page = sit(console, hour, size)
    assert press(page, "n", "Enter") <= 3
    eventually(lambda: is_paused(hour), "it is paused")
    with hour.hub.console() as operator:
        operator.send(resume_peer=FLOODER)
    eventually(lambda: not is_paused(hour), "as it was")


@pytest.mark.parametrize("size", [LAPTOP, SMALL], ids=str)
def test_what_happened_meanwhile_is_one_glance(hour: Hour, console: Open, size: tuple[int, int]) -> None:
    page = sit(console, hour, size)
    page.mouse.move(300, 300)
    page.evaluate("() => { const now = Date.now; Date.now = () => now() + 1_200_000; }")
    page.wait_for_function("document.title")
    hour.hub.say(hour.tokens["web"], "#plans", "what was said meanwhile")
    page.wait_for_timeout(1_200)  # the page's own tick notes that nobody is here
    page.mouse.move(320, 310)
    card = page.locator("#happened")
    expect(card).to_be_visible()
    expect(card).to_contain_text("#plans")
    assert is_in_sight(card)


def test_the_palette_stands_in_the_middle_and_takes_one_anywhere(hour: Hour, console: Open) -> None:
    page = sit(console, hour, DESK)
    for width, _ in resized(page, *FEW):
        press(page, "Control+k")
        box = page.locator("#palette").bounding_box()
        assert abs(box["x"] - (width - box["x"] - box["width"])) <= 2
        page.keyboard.type("#release")
        press(page, "Enter")
        expect(page.locator("#palette")).to_be_hidden()


def test_peers_are_in_sight_beside_the_conversation(hour: Hour, console: Open) -> None:
    page = sit(console, hour, DESK)
    lines = [peer(page, name).locator(".peer-line") for name in NAMES]
    for size in resized(page, DESK, LAPTOP, SMALL):
        least = 6 if size == SMALL else 8
        eventually(lambda least=least: sum(map(is_in_sight, lines)) >= least, f"{least} peers at {size}")


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (SMALL, "dark"), (PHONE, "light")], ids=str)
def test_axe_finds_nothing_in_the_hard_hour(hour: Hour, console: Open, size: tuple[int, int], scheme: str) -> None:
    page = sit(console, hour, size, color_scheme=scheme)
    assert violations(page) == []
