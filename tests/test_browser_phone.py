"""On a phone, and in one line: marks of titles and labels are drawn, targets are large, nothing scrolls sideways."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from browsers import GUARDED, OBSERVER, OPERATOR, Open, Page, ask, enter, opened
from hubs import HubProcess, running_hub

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install -e '.[dev]'")
expect = playwright.expect
expect.set_options(timeout=8_000)

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
TITLE = "Merge `main` into *release*? See [the plan](https://plans.example/7)"
LABEL = "Run `npm ci` **first**?"
OPTION = "`--force`, see https://npm.example/ci"
FIELDS = (
    {"key": "pick", "label": LABEL, "type": "radio", "options": [OPTION, "[no](javascript:alert(1))"]},
    {"key": "why", "label": "_Why_?", "type": "text"},
)


def violations(page: Page) -> list[str]:
    """Ask axe-core."""
    found = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [f"{one['id']}: {[node['html'][:160] for node in one['nodes']][:3]}" for one in found]


def at_work(hub: HubProcess) -> str:
    """Make a room in which marks stand wherever a peer can write a line; give the token of who wrote them."""
    api, data = hub.register("api"), hub.register("data")
    hub.post("/channels/join", token=api, channel="#plans")
    hub.post("/channels/topic", token=api, channel="#plans", topic="all of `v2`, *today*")
    hub.post("/floor", token=data, action="take", scope="all", reason="I move `users` to [the new table](https://t.example)")
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
    expect(page.locator("#attention .need[data-kind=form]").first).to_have_attribute("title", re.compile(re.escape("Merge `main`")))
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
