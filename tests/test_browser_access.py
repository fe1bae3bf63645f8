"""The console is everyone's page: axe-core finds nothing that bars anybody, in both themes, on a phone, in dialogs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browsers import (
    CHOICE,
    GUARDED,
    LINE_LOST,
    LONG,
    MANY,
    OBSERVER,
    USAGE,
    Open,
    Page,
    ask,
    enter,
    violations,
    violations_by_theme,
)
from hubs import HubProcess, running_hub

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect
expect.set_options(timeout=20_000)

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def lively() -> Iterator[HubProcess]:
    """Give a guarded hub where much goes on; the tests only look at it."""
    with running_hub("--observer-token", OBSERVER, "--operator-token", GUARDED[1]) as hub:
        api, web, ops = (hub.register(name) for name in ("api", "web", "ops"))
        hub.post("/status", token=api, status="reading the diff", usage=USAGE)
        hub.say(api, "all", "# Plan\n\n1. **look** at `code`\n2. [see](https://example.org)")
        hub.say(api, "all", "| a | b |\n|---|---|\n| 1 | 2 |\n\n> quoted")
        hub.say(web, "#plans", "@operator may I?\n\n```py\nprint(1)\n```")
        hub.say(web, "ops", "only for you")
        hub.post("/channels/topic", token=web, channel="#plans", topic="the parser")
        hub.post("/floor", token=ops, action="take", reason="merging")
        ask(hub, api, CHOICE, MANY, LONG)
        with hub.console(GUARDED[1]) as operator:
            operator.send(say="good morning", to="all")
            operator.send(pause_peer="ops")
            operator.next("peers")
        yield hub


def open_as(console: Open, hub: HubProcess, token: str, **options: Any) -> Page:
    """Open the page with a token."""
    page = console(hub, **options)
    enter(page, token)
    expect(page.locator("#token-dialog")).to_be_hidden()
    expect(page.locator(".form")).to_have_count(1)
    return page


def test_the_whole_page_bars_nobody(lively: HubProcess, console: Open) -> None:
    page = open_as(console, lively, GUARDED[1], reduced_motion="reduce")
    assert violations_by_theme(page) == {}
    page.locator(".form-next").click()  # a complaint
    page.locator("#composer textarea").press_sequentially("/")
    assert violations_by_theme(page) == {}
    page.locator("#composer textarea").fill("")
    for key, dialog in {"?": "#help", ",": "#settings", "Shift+S": "#confirm"}.items():
        page.locator("#flow-title").click()
        page.keyboard.press(key)
        expect(page.locator(dialog)).to_be_visible()
        assert violations_by_theme(page) == {}, dialog
        page.keyboard.press("Escape")
    page.locator(".retune").click()
    assert violations_by_theme(page) == {}


def test_no_tab_of_a_phone_bars_anybody(lively: HubProcess, console: Open) -> None:
    page = open_as(console, lively, GUARDED[1], reduced_motion="reduce", viewport=PHONE)
    for tab in ("flow", "health", "channels", "forms"):
        page.locator(f'[data-goto="{tab}"]').click()
        assert violations_by_theme(page) == {}, tab


def test_neither_the_token_prompt_nor_an_observer_s_page_bars_anybody(lively: HubProcess, console: Open) -> None:
    page = console(lively)
    expect(page.locator("#token-dialog")).to_be_visible()
    assert violations(page) == []
    enter(page, "wrong")
    expect(page.locator("#token-refused")).to_be_visible()
    assert violations(page) == []
    enter(page, OBSERVER)
    expect(page.locator(".form")).to_have_count(1)
    assert violations(page) == []


def test_a_page_without_a_line_bars_nobody(console: Open) -> None:
    with running_hub() as hub:
        api = hub.register("api")
        hub.say(api, "all", "hello")
        page = console(hub, expected=LINE_LOST)
        expect(page.locator("#flow .message")).not_to_have_count(0)
    expect(page.locator("#banner")).to_be_visible()
    assert violations(page) == []
    page.close()


def test_the_landmarks_have_names_and_live_regions_do_not_shout(lively: HubProcess, console: Open) -> None:
    page = open_as(console, lively, OBSERVER)
    for name in ("Waits for the operator", "Health", "Flow", "Forms", "Talking sticks", "Channels"):
        expect(page.get_by_role("region", name=name, exact=True)).to_have_count(1)
    loud = page.locator("[aria-live=assertive], [role=alert]:not(:empty)")
    expect(loud).to_have_count(0)
    expect(page.locator("#flow")).to_have_attribute("aria-live", "off")  # each message would be a shout


def test_who_asks_for_less_motion_gets_none(lively: HubProcess, console: Open) -> None:
    page = open_as(console, lively, OBSERVER, reduced_motion="reduce")
    moving = "document.getAnimations().length"
    assert page.evaluate(moving) == 0
    last = "(all) => all.map((node) => getComputedStyle(node).transitionDuration)"
    assert set(page.locator("button:visible").evaluate_all(last)) == {"0s"}
