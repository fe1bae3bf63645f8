"""Budgets in a real browser: the table, the text, the card of who has spent one, raise and end; observers look on."""

from __future__ import annotations

from typing import Any

import pytest
from browsers import OBSERVER, OPERATOR, Open, Page, agree, enter, heard, peer
from hubs import HubProcess, KeptHub, running_hub

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect
expect.set_options(timeout=20_000)


def need(page: Page) -> Any:
    """Find what the strip says of budgets."""
    return page.locator('#attention > .needs > .need[data-kind="budget"]')


def line(page: Page, key: str) -> Any:
    """Find a row of the table."""
    return page.locator(f'#budgets tr[data-key="{key}"]')


def order(page: Page) -> Any:
    """Find what became of the newest order."""
    return page.locator("#orders > .order")


def spend(hub: HubProcess, count: int = 5) -> tuple[str, str]:
    """Have api say so much to web; give both tokens."""
    api, web = hub.register("api"), hub.register("web")
    for n in range(count):
        hub.say(api, "web", f"n{n}")
    return api, web


def test_an_agent_that_is_held_has_a_card_and_a_raise_lets_it_go_on(console: Open) -> None:
    with running_hub("--budget", "api: 5 messages, 50k tokens; web: $1") as hub:
        page = console(hub)
        api, web = spend(hub, 4)
        expect(need(page)).to_contain_text("api has used 80 % of its budget of 5 messages.")
        hub.say(api, "web", "the fifth")
        hub.say(api, "web", "the sixth")
        expect(need(page)).to_contain_text("api has spent its budget of 5 messages, and is paused. 1 of its")
        words = "Budget spent: 6 of 5 messages; 1 of its messages wait"
        expect(peer(page, "api").locator(".budget")).to_have_text(words)
        assert "the sixth" not in heard(hub, web)
        need(page).get_by_role("button", name="Raise or end").click()
        expect(line(page, "api messages").locator(".budget-double")).to_be_focused()
        expect(line(page, "api tokens")).to_contain_text("unknown, of 50,000 tokens: it reports no usage")
        expect(line(page, "api tokens").locator("meter")).to_be_hidden()
        expect(line(page, "web dollars")).to_contain_text("unknown, of $1.00")
        line(page, "api messages").locator("input").fill("9")
        line(page, "api messages").locator(".budget-raise").click()
        expect(line(page, "api messages")).to_contain_text("6 of 9 messages")
        expect(page.locator("#budgets-text")).to_have_value("api: 9 messages, 50k tokens; web: $1")
        assert "the sixth" in heard(hub, web)
        page.keyboard.press("Escape")
        expect(need(page)).to_have_count(0)
        expect(order(page)).to_contain_text("it goes on; what waited is delivered")


def test_an_agent_that_is_ended_is_gone_and_what_it_said_arrives(console: Open) -> None:
    with running_hub("--budget", "*: 2 messages") as hub:
        page = console(hub)
        _, web = spend(hub, 3)
        need(page).get_by_role("button", name="Raise or end").click()
        line(page, "api messages").locator(".budget-end").click()
        expect(page.locator("#confirm-text")).to_contain_text("the budget is still spent")
        agree(page)
        expect(peer(page, "api")).to_have_count(0)
        expect(need(page)).to_have_count(0)
        assert heard(hub, web)[-1] == "n2"


def test_the_rooms_budget_pauses_the_room_until_it_is_doubled(console: Open) -> None:
    with running_hub("--budget", "room: 3 messages/h") as hub:
        page = console(hub)
        _, web = spend(hub, 4)
        expect(page.locator("#mode")).to_have_text("Paused")
        expect(need(page)).to_contain_text("The room has spent its budget of 3 messages an hour, and is paused.")
        page.keyboard.press("Shift+P")
        expect(order(page)).to_contain_text("raise it, or take it away, and the room runs")
        need(page).get_by_role("button", name="Raise or stop").click()
        line(page, "room messages/h").locator(".budget-double").click()
        expect(page.locator("#mode")).to_have_text("Running")
        assert heard(hub, web)[-1] == "n3"


def test_budgets_are_set_as_text_and_a_fault_keeps_what_was_typed(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    page.locator("#budgets-open").click()
    expect(page.locator("#budgets .empty")).to_be_visible()
    page.locator("#budgets-text").fill("room: 5 massages")
    page.get_by_role("button", name="Save the budgets").click()
    expect(page.locator("#budgets [role=status]")).to_contain_text("this is wrong at character 9, at 'massages'")
    expect(page.locator("#budgets-text")).to_have_value("room: 5 massages")
    page.locator("#budgets-text").fill("room: 5000 messages\n*: 10 wakes")
    page.get_by_role("button", name="Save the budgets").click()
    expect(page.locator("#budgets-text")).to_have_value("room: 5k messages; *: 10 wakes")
    expect(line(page, "room messages")).to_contain_text("0 of 5,000 messages")
    page.locator("#budgets-text").fill("")
    page.get_by_role("button", name="Save the budgets").click()
    expect(page.locator("#budgets .empty")).to_be_visible()


def test_an_observer_sees_all_and_changes_nothing(console: Open) -> None:
    with running_hub("--operator-token", OPERATOR, "--observer-token", OBSERVER, "--budget", "*: 2 messages") as hub:
        page = console(hub)
        enter(page, OBSERVER)
        spend(hub, 2)
        expect(need(page)).to_contain_text("api has spent its budget")
        need(page).get_by_role("button", name="Show").click()
        expect(line(page, "api messages")).to_contain_text("2 of 2 messages")
        expect(page.locator("#budgets .budget-acts")).to_have_count(0)
        expect(page.get_by_role("button", name="Save the budgets")).to_be_hidden()


def test_the_past_shows_the_budgets_of_then(console: Open, tmp_path: Any) -> None:
    kept = KeptHub(tmp_path / "room.journal", "--budget", "*: 2 messages")
    try:
        page = console(kept.hub)
        spend(kept.hub, 2)
        expect(need(page)).to_contain_text("api has spent its budget")
        page.keyboard.press("b")
        expect(page.locator("#past-banner")).to_be_visible()
        page.locator("#budgets-open").click()
        expect(line(page, "api messages")).to_contain_text("2 of 2 messages")
        expect(page.locator("#budgets .budget-acts")).to_have_count(0)
    finally:
        kept.hub.stop()
