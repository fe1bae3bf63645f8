"""The stage in a real browser: agents are started, watched and ended by keyboard; observers; a hub without one."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from browsers import OBSERVER, OPERATOR, Open, Page, enter, violations
from hubs import HubProcess, running_hub

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect
expect.set_options(timeout=20_000)
pytestmark = pytest.mark.skipif(os.name == "nt", reason="what stands in for a model is a program of Unix")

MIND = r"""
import os, sys, time
said = sys.stdin.read()
sys.stderr.write("\x1b[31mred\x1b[0m \x1b]0;a title\x07hot\x1b[2K\n10%\r<b>100%</b>\n")
sys.stderr.flush()
while not os.path.exists("go"):
    time.sleep(0.02)
print("It is done.")
"""


def staged(folder: Path, *flags: str) -> Any:
    """Start a hub whose stage has one who thinks until a file is there, and one that is not installed."""
    (folder / "mind.py").write_text(MIND, encoding="utf-8")
    command = json.dumps(f"{sys.executable} mind.py")
    (folder / "stage.toml").write_text(
        f'[meeting]\ntitle = "T"\n[agents.ann]\nkind = "exec"\ncommand = {command}\nturns = 20\n'
        '[agents.lost]\nkind = "exec"\ncommand = "no-such-program-here"\n',
        encoding="utf-8",
    )
    return running_hub("--stage", str(folder / "stage.toml"), *flags)


def card(page: Page, name: str) -> Any:
    """Find an agent's card."""
    return page.locator(f'.staged[data-agent="{name}"]')


def act(page: Page, name: str, verb: str) -> Any:
    """Find a control of it."""
    return card(page, name).locator(f'[data-verb="{verb}"]')


def palette(page: Page, words: str) -> None:
    """Do something by the palette."""
    page.keyboard.press("Control+K")
    page.locator("#palette-field").fill(words)
    page.keyboard.press("Enter")


def test_an_agent_is_started_watched_and_ended_by_keyboard(console: Open, tmp_path: Path) -> None:
    with staged(tmp_path) as hub:
        page = console(hub, r"404 \(Not Found\)", color_scheme="dark")  # there is no past without a journal
        state = card(page, "ann").locator(".stage-state")
        expect(state).to_have_text("not started")
        expect(card(page, "ann")).to_contain_text("exec · at most 20 turns, 900 s a turn, 2 restarts")
        expect(act(page, "ann", "end")).to_have_attribute("aria-label", "End ann: not now, it does not run")
        act(page, "ann", "end").focus()
        page.keyboard.press("Enter")  # does nothing, and the focus stays
        expect(page.locator("#confirm")).to_be_hidden()
        palette(page, "start lost")
        why = "there is no program 'no-such-program-here': install it, or give its path"
        expect(card(page, "lost").locator(".stage-why")).to_have_text(why)
        expect(card(page, "lost").locator(".stage-state")).to_have_text(re.compile(r"failed, exit code 2, \d+ s ago"))
        expect(page.locator('#attention .need[data-kind="stage"]')).to_contain_text(f"lost does not run: {why}")
        palette(page, "start ann")
        expect(state).to_have_text(re.compile("seated|waiting"))
        hub.say(hub.register("api"), "ann", "Begin.")
        expect(state).to_have_text(re.compile(r"thinking for \d s"))
        palette(page, "stage: ann")
        expect(act(page, "ann", "end")).to_be_focused()
        for _ in range(3):
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        lines = card(page, "ann").locator(".stage-lines")
        expect(lines).to_contain_text(re.compile(r": red hot\n.*: <b>100%</b>\n?$"))
        expect(card(page, "ann").locator(".stage-runs")).to_contain_text(f"Runs{sys.executable} mind.pyIn{tmp_path}May")
        assert violations(page) == []
        page.keyboard.press("b")  # in the past there is no stage
        expect(page.locator("#stage")).to_be_hidden()
        page.keyboard.press("b")
        (tmp_path / "go").touch()
        expect(state).to_have_text(re.compile(r"waiting for \d s"))
        expect(card(page, "ann")).to_contain_text("exec · 1 message · 1 turn · at most")
        page.set_viewport_size({"width": 320, "height": 700})
        page.emulate_media(color_scheme="light")
        palette(page, "stage: ann")
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        assert violations(page) == []
        page.keyboard.press("Enter")  # on End
        expect(page.locator("#confirm-title")).to_have_text("End ann?")
        page.locator("#confirm-yes").press("Enter")
        expect(state).to_have_text(re.compile(r"ended, exit code 0, \d s ago"))
        expect(lines).to_contain_text("ann has left")  # what came since was asked for
        expect(act(page, "ann", "start")).to_have_attribute("aria-disabled", "false")


def test_an_observer_sees_the_agents_and_rules_none(console: Open, tmp_path: Path) -> None:
    with staged(tmp_path, "--operator-token", OPERATOR, "--observer-token", OBSERVER) as hub:
        page = console(hub)
        enter(page, OBSERVER)
        expect(card(page, "ann").locator(".stage-state")).to_have_text("not started")
        expect(page.locator(".staged button")).to_have_count(0)
        page.keyboard.press("Control+K")
        page.locator("#palette-field").fill("lost")
        expect(page.locator(".palette-list .offer-name")).to_have_text(["Stage: lost"])


def test_where_there_is_no_stage_the_page_says_why_in_a_line(hub: HubProcess, console: Open) -> None:
    page = console(hub)
    words = "Off: start the hub with --stage FILE, a meeting's file: then its agents can be started from here."
    expect(page.locator("#stage")).to_have_text(words)
