"""A real browser for tests: Debian's chromium at a live hub; fixtures, and what several files ask of the page."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hubs import HubProcess, eventually, running_hub

OPERATOR, OBSERVER = "op-secret", "watch-secret"
GUARDED = ("--operator-token", OPERATOR, "--observer-token", OBSERVER)
# The first is the same engine without windows and menus, which cost more than half of what opening a page takes.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
LINE_LOST = r"WebSocket connection to .* failed"  # chromium's own words, while a hub is away
TELL_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`CSP ${event.effectiveDirective} ${event.blockedURI} ${event.sample}`));
"""
LATE_MS = int(os.environ.get("CAUCUS_LATE_PAGE", "0"))  # finds tests that look before the page has drawn, or been told
LATE = """
{
  const [draw, Line, late] = [requestAnimationFrame.bind(window), WebSocket, (run) => setTimeout(run, MS)];
  window.requestAnimationFrame = (run) => late(() => draw(run));
  window.WebSocket = class extends Line {
    send(data) { late(() => this.readyState === Line.OPEN && super.send(data)); }
    set onmessage(hear) { super.onmessage = (event) => late(() => hear(event)); }
    set onclose(hear) { super.onclose = (event) => late(() => hear(event)); }
  };
}
""".replace("MS", str(LATE_MS))
CHOICE = {"key": "pick", "label": "Which?", "type": "radio", "options": ["now", "later"], "required": True}
MANY = {"key": "many", "label": "All that apply", "type": "checkbox", "options": ["x", "y"], "allow_other": True}
USAGE = {"model": "claude", "turns": 12, "input_tokens": 45_000, "output_tokens": 3_123, "cost_usd": 0.312}
LONG = {"key": "why", "label": "Why?", "type": "textarea"}

Page = Any
Open = Callable[..., Page]  # (hub, expected=pattern of console lines, **context options)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Give one browser for all tests. A machine without is loud about it, and in CI it is a failure."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        how = f"no chromium for the browser tests: apt-get install --no-install-recommends {BROWSERS[0]}"
        if os.environ.get("CI"):
            pytest.fail(how)
        pytest.skip(how)
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
    with playwright.sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=path, args=[*FLAGS])
        yield one
        one.close()


@pytest.fixture
def console(browser: Any) -> Iterator[Open]:
    """Open consoles; whatever they complain of, CSP violations included, fails the test."""
    contexts: list[Any] = []
    faults: list[str] = []

    def open_page(hub: HubProcess, expected: str | None = None, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        context.add_init_script(TELL_VIOLATIONS + (LATE if LATE_MS else ""))
        page = context.new_page()

        def complain(kind: str, text: str) -> None:
            if re.search(f"{LINE_LOST}|ERR_CONNECTION_REFUSED", text) and hub.process.poll() is not None:
                return  # the test is over
            if expected is None or not re.search(expected, text):
                faults.append(f"{kind}: {text}")

        def hear(message: Any) -> None:
            if message.type in ("error", "warning"):
                complain(message.type, message.text)

        def see(request: Any) -> None:
            if not request.url.startswith((hub.url, "blob:")):
                complain("foreign request", request.url)

        page.on("console", hear)
        page.on("pageerror", lambda error: complain("page error", str(error)))
        page.on("request", see)
        page.on("dialog", lambda dialog: (complain("dialog", dialog.message), dialog.dismiss()))
        page.goto(hub.url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def hub() -> Iterator[HubProcess]:
    """Give a hub whose console asks for nothing."""
    with running_hub("--loops", "hold") as process:  # as it is by itself: nothing is said of it
        yield process


@pytest.fixture
def guarded() -> Iterator[HubProcess]:
    """Give a hub whose console asks for a token."""
    with running_hub(*GUARDED) as process:
        yield process


def mode(hub: HubProcess, token: str) -> str:
    """Ask the hub itself for the room's mode."""
    return str(hub.receive(token)["mode"])


def heard(hub: HubProcess, token: str) -> list[str]:
    """Give what a peer receives now."""
    return [message["content"] for message in hub.receive(token, timeout=5.0)["messages"]]


def peer(page: Page, name: str) -> Any:
    """Find a peer's line, and its details below."""
    return page.locator(f'.peer[data-peer="{name}"]')


def opened(page: Page, name: str) -> Any:
    """Find a peer, and open its details: the controls of it are there."""
    one = peer(page, name)
    if one.get_attribute("data-open") != "true":
        one.locator(".peer-line").click()
    return one


def row(page: Page, text: str) -> Any:
    """Find the row of the flow that says exactly this."""
    return page.locator("#flow .message").filter(
        has=page.locator(".content", has_text=re.compile(f"^{re.escape(text)}$"))
    )


def resized(page: Page, *sizes: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Give a page one size after the other, which takes a tenth of what opening it takes."""
    for width, height in sizes:
        page.set_viewport_size({"width": width, "height": height})
        yield width, height


def lay(page: Page, pattern: str, answer: Callable[[Any], Any]) -> None:
    """Have requests of the page answered otherwise, from the next one on: its browser tells it of that when it can."""
    page.route(pattern, lambda route: answer(route))  # noqa: PLW0108  # playwright marks its handlers
    page.route("**/ping", lambda route: route.fulfill(status=204))
    eventually(lambda: page.evaluate("fetch('/ping').then(({ status }) => status)") == 204, "a request that is taken")
    page.unroute("**/ping")


def drawn(page: Page) -> None:
    """Wait until what was done is drawn: a page draws once a frame."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def violations(page: Page) -> list[str]:
    """Ask axe-core what bars anybody, once nothing moves; give each violation with the nodes it is about."""
    base = pytest.importorskip("axe_playwright_python.base", reason="pip install -e '.[dev]'")
    if not page.evaluate("'axe' in window"):
        page.evaluate(base.AXE_SCRIPT)  # half a megabyte, a third of what a look costs
    page.evaluate("Promise.allSettled(document.getAnimations().map(({ finished }) => finished)).then(() => null)")
    found = page.evaluate("axe.run({ resultTypes: ['violations'] }).then((found) => found.violations)")
    return [f"{one['id']} ({one['impact']}): {[node['html'][:160] for node in one['nodes']][:3]}" for one in found]


def violations_by_theme(page: Page) -> dict[str, list[str]]:
    """Ask axe-core in both themes; give those in which something bars anybody."""
    found = {}
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        found[theme] = violations(page)
    return {theme: told for theme, told in found.items() if told}


def agree(page: Page) -> None:
    """Say yes in the confirm dialog."""
    page.locator("#confirm-yes").click()
    page.locator("#confirm").wait_for(state="hidden")


def ask(hub: HubProcess, token: str, *fields: dict[str, Any], title: str = "Deploy now?", to: str = "all") -> str:
    """Ask the operator; give the form's id."""
    answer = hub.post("/ask", token=token, to=to, title=title, fields=[*fields])
    assert answer.status == 200, answer.text
    return str(answer.body["form_id"])


def enter(page: Page, token: str) -> None:
    """Type a token into the prompt."""
    page.locator("#token-input").fill(token)
    page.locator("#token-form button[type=submit]").click()
