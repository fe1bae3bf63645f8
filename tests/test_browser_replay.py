"""The past in a real browser: the slider, marks, playing, Live; and the record as a page that no hub serves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import (
    CHOICE,
    GUARDED,
    OBSERVER,
    OPERATOR,
    TELL_VIOLATIONS,
    Open,
    Page,
    ask,
    enter,
    lay,
    peer,
    row,
    violations,
)
from hubs import HubProcess
from test_journal import journal, kept_hub

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect
PHONE = {"width": 390, "height": 844}

HOSTILE = "</script><img src=x onerror=alert(1)> \u2028 <!--"


def tell(hub: HubProcess, token: str | None = None) -> str:
    """Have something happen in the room; give the token of who stays."""
    api, web = hub.register("api"), hub.register("web")
    hub.post("/channels/join", token=web, channel="#plans")
    hub.post("/status", token=api, status="reading the diff")
    hub.say(api, "all", "**first** of all")
    with hub.console(token) as operator:
        operator.send(action="pause")
        operator.next("mode")
        hub.say(web, "#plans", "said while paused")
        operator.send(action="resume")
        operator.next("mode")
        form = ask(hub, api, CHOICE)
        hub.post("/floor", token=web, action="take", scope="#plans", reason="merging")
        operator.send(answer={"id": form, "answers": {"pick": "now"}})
        operator.next("form_resolved")
        operator.send(kick="web")
        operator.message(content="web was kicked by the operator")
    hub.say(api, "all", HOSTILE)
    hub.say(api, "all", "the last word")
    return api


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """Give a hub with a journal in which something has happened; the tests only look at it."""
    with kept_hub(tmp_path_factory.mktemp("kept") / "room.journal") as one:
        tell(one.hub)
        yield one.hub


def look_back(page: Page) -> None:
    """Open the replay, and wait until the past is there."""
    expect(page.locator("body[data-known]")).to_be_attached()
    page.keyboard.press("b")
    expect(page.locator("#past-banner")).to_contain_text("Read-only")


def go_to_mark(page: Page, words: str) -> None:
    """Go back from mark to mark, until one says this."""
    for _ in range(30):
        if page.locator(".time-words").inner_text() == words:
            return
        before = page.locator("#timeline").get_attribute("data-at")
        page.keyboard.press("[")
        expect(page.locator("#timeline")).not_to_have_attribute("data-at", before)
    raise AssertionError(words)


def address_of(page: Page) -> str:
    """Give the address of the moment that is shown, once the page has it."""
    shown = page.evaluate("new Date(Number(document.getElementById('timeline').dataset.at)).toISOString()")
    expect(page).to_have_url(re.compile(f"#at={re.escape(shown)}$"))
    return str(page.url)


def drag(page: Page, share: float) -> None:
    """Put the slider to a place, as a hand does."""
    box = page.locator("#timeline input").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.98, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()


def test_the_slider_goes_to_the_beginning_and_back_and_live_is_the_present(kept: HubProcess, console: Open) -> None:
    page = console(kept)
    look_back(page)
    expect(row(page, "the last word")).to_be_visible()
    drag(page, 0.002)
    expect(page.locator("#flow")).not_to_contain_text("said while paused")
    page.locator("#timeline input").press("End")
    expect(row(page, "the last word")).to_be_visible()
    page.locator("#timeline input").press("Home")
    expect(row(page, "the last word")).to_have_count(0)
    page.locator(".live").click()
    expect(page.locator("#past-banner")).to_be_hidden()
    expect(page.locator("#timeline")).to_be_hidden()
    expect(row(page, "the last word")).to_be_visible()
    expect(page.locator("#composer textarea")).to_be_visible()
    assert page.url == f"{kept.url}/"


def test_at_its_marks_the_room_is_as_it_was(kept: HubProcess, console: Open) -> None:
    page = console(kept)
    look_back(page)
    expect(peer(page, "web")).to_have_count(0)
    expect(peer(page, "api")).to_contain_text("reading the diff")
    expect(page.locator(".settled-title:visible")).to_have_text("Deploy now?")
    go_to_mark(page, "api asks the operator: Deploy now?")
    expect(page.locator("#forms-then .form-title")).to_have_text("Deploy now?")
    expect(page.locator("#forms-then button")).to_have_count(0)
    expect(page.locator(".settled-title:visible")).to_have_count(0)
    expect(peer(page, "web")).to_be_visible()
    go_to_mark(page, "control: paused")
    expect(page.locator("#mode")).to_have_attribute("data-mode", "paused")
    expect(page.locator("#forms-then .form")).to_have_count(0)
    expect(page.locator("#flow .message strong").first).to_have_text("first")
    expect(page.locator("#flow")).not_to_contain_text("said while paused")
    page.keyboard.press("]")
    expect(page.locator("#mode")).to_have_attribute("data-mode", "running")
    expect(page.locator("#flow")).to_contain_text("said while paused")
    expect(page.locator("#channels")).to_contain_text("#plans")
    assert page.locator(".time-marks span").count() >= 4


def test_nothing_can_be_done_in_the_past_and_nothing_that_was_typed_is_lost(kept: HubProcess, console: Open) -> None:
    page = console(kept)
    page.locator("#composer textarea").fill("half a sen")
    page.locator("#flow-title").click()
    look_back(page)
    for gone in ("#composer", ".brake-buttons button", ".card-buttons", "#attention .need-help", ".retune"):
        expect(page.locator(f"{gone}:visible")).to_have_count(0)
    for key in ("Shift+P", "Shift+S", "m"):
        page.keyboard.press(key)
    expect(page.locator("#confirm")).to_be_hidden()
    assert kept.get("/peers").status == 200
    page.keyboard.press("b")
    expect(page.locator("#mode")).to_have_attribute("data-mode", "running")
    expect(page.locator("#composer textarea")).to_have_value("half a sen")
    expect(page.locator(".brake-buttons button:visible")).to_have_count(4)
    page.locator("#composer textarea").fill("")


def test_time_goes_on_when_it_is_played_and_holds_at_the_end(kept: HubProcess, console: Open) -> None:
    page = console(kept)
    look_back(page)
    page.locator("#timeline input").press("Home")
    page.locator('[data-speed="60"]').click()
    page.keyboard.press(".")
    expect(row(page, "the last word")).to_be_visible()
    expect(page.locator(".time-play")).to_have_attribute("aria-label", "Play (.)")
    page.locator('[data-speed="1"]').click()
    end = int(page.locator("#timeline").get_attribute("data-at"))
    page.clock.install()
    page.clock.pause_at(page.evaluate("Date.now() + 1_000"))  # the room's whole time may be some ms
    page.locator(".time-play").click()  # at its end it begins again
    page.clock.run_for(20)
    expect(page.locator(".time-play")).to_have_attribute("aria-label", "Hold (.)")
    assert int(page.locator("#timeline").get_attribute("data-at")) < end
    page.clock.run_for(60_000)
    expect(page.locator(".time-play")).to_have_attribute("aria-label", "Play (.)")


def test_a_moment_has_an_address_and_live_tells_what_came_meanwhile(tmp_path: Path, console: Open) -> None:
    with kept_hub(tmp_path / "room.journal") as one:
        api = tell(one.hub)
        page = console(one.hub)
        look_back(page)
        go_to_mark(page, "control: paused")
        address = address_of(page)
        assert re.fullmatch(rf"{one.hub.url}/#at=\d{{4}}-\d\d-\d\dT[\d:.]+Z", address)
        one.hub.say(api, "all", "meanwhile")
        expect(page.locator(".live-news")).to_have_text("1 new")
        expect(page.locator("#flow")).not_to_contain_text("meanwhile")
        page.keyboard.press("b")
        expect(row(page, "meanwhile")).to_be_visible()
        other = page.context.new_page()
        other.goto(address)
        expect(other.locator("#past-banner")).to_contain_text("Read-only")
        expect(other.locator("#mode")).to_have_attribute("data-mode", "paused")
        expect(other.locator(".live-news")).to_have_text("")
        other.goto(f"{one.hub.url}/#at=1999-01-01T00:00:00Z")  # before there was anything
        expect(other.locator("#past-banner")).to_contain_text("Read-only")


def test_observers_look_back_with_their_token_and_searches_go_on(tmp_path: Path, console: Open) -> None:
    with kept_hub(tmp_path / "room.journal", *GUARDED) as one:
        tell(one.hub, OPERATOR)
        page = console(one.hub)
        enter(page, OBSERVER)
        look_back(page)
        page.locator("#search").fill("while paused")
        expect(page.locator(".hits")).to_have_text("1 found")
        page.locator("#search").press("Enter")
        expect(page.locator("#flow mark")).to_have_text("while paused")


def test_a_hub_without_a_journal_says_why_there_is_no_past(hub: HubProcess, console: Open) -> None:
    page = console(hub, expected="404")
    expect(page.locator("body[data-known]")).to_be_attached()
    page.locator("#replay-open").click()
    expect(page.locator("#past-banner")).to_contain_text("this hub has no journal: start it with --journal")
    assert violations(page) == []
    page.locator(".live").click()
    expect(page.locator("#past-banner")).to_be_hidden()
    page.locator('[data-export="record"]').click()
    expect(page.locator(".toast")).to_contain_text("this hub has no journal")


@pytest.mark.parametrize(("size", "theme"), [({"width": 1280, "height": 800}, "dark"), (PHONE, "light")])
def test_the_past_bars_nobody(kept: HubProcess, console: Open, theme: str, size: dict[str, int]) -> None:
    page = console(kept, color_scheme=theme, viewport=size)
    look_back(page)
    go_to_mark(page, "api asks the operator: Deploy now?")
    assert violations(page) == []
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= size["width"]
    for node in page.locator(".time-row > :visible").all():
        box = node.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size["width"]


# --- from the past nothing can be done ---

RULING = """() => {
  for (const id of ["rate-refill", "rate-burst"]) document.getElementById(id).value = "7";
  const panels = ["attention", "brakes", "composer", "orders", "forms", "forms-then", "roster", "channels", "floors"];
  const roots = [...panels, "health", "rate-dialog", "rules"].map((id) => document.getElementById(id));
  for (const button of roots.flatMap((root) => [...root.querySelectorAll("button:not(.reply-show)")])) button.click();
  document.getElementById("rate-form").requestSubmit();
  document.getElementById("confirm").close("yes");
}"""


def sent_by(page: Page) -> list[str]:
    """Load the page again; collect what it sends to the hub from now on."""
    frames: list[str] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: frames.append(frame)))  # noqa: PLW0108  # playwright marks its handlers
    page.reload()
    expect(page.locator("body[data-known]")).to_be_attached()
    return frames


@pytest.mark.parametrize("state", ["shown", "loading", "none"])
def test_no_control_and_no_key_of_the_past_reaches_the_hub(tmp_path: Path, console: Open, state: str) -> None:
    with kept_hub(tmp_path / "room.journal") as one:
        api = one.hub.register("api")
        for n in range(4):
            ask(one.hub, api, CHOICE, title=f"Deploy {n}?")
        held: list[Any] = []
        page = console(one.hub, expected="Failed to load resource")
        frames = sent_by(page)
        page.locator("#composer textarea").fill("half a sen")
        page.locator("#flow-title").click()
        page.locator(".needs-more").click()
        expect(page.locator("#needs-all")).to_be_visible()
        if state == "loading":
            lay(page, "**/replay*", held.append)
        if state == "none":
            lay(page, "**/replay*", lambda route: route.abort())
        page.keyboard.press("b")
        expect(page.locator(f'body[data-past="{state}"]')).to_be_attached()
        del frames[:]
        expect(page.locator("#needs-all")).to_be_hidden()
        for key in ("n", "Enter", "Shift+P", "m", "a", "w", "r"):
            page.keyboard.press(key)
        assert page.evaluate("document.activeElement.closest('#attention, #composer, #orders, #needs-all')") is None
        expect(page.locator(".toast").last).to_have_text("This is the past: go Live first (b).")
        expect(page.locator(".brake-buttons button, .card-buttons button, .retune:visible")).to_have_count(0)
        expect(page.locator("#forms-then .form-title")).to_have_count(4)
        page.evaluate(RULING)
        page.wait_for_timeout(300)  # a frame that leaves takes less
        assert frames == []
        expect(page.locator("dialog[open]")).to_have_count(0)
        page.keyboard.press("b")
        expect(page.locator("#composer textarea")).to_have_value("half a sen")
        page.keyboard.press("n")
        assert page.evaluate("document.activeElement.closest('#attention') !== null")
        for route in held:
            route.abort()


def test_in_the_past_settings_tell_the_rules_of_then_and_change_none(tmp_path: Path, console: Open) -> None:
    with kept_hub(tmp_path / "room.journal") as one:
        api = one.hub.register("api")
        with one.hub.console() as operator:
            operator.send(rules="Be **brief**.")
            operator.next("rules")
        one.hub.say(api, "all", "a word")
        page = console(one.hub)
        look_back(page)
        page.keyboard.press(",")
        expect(page.locator("#rules-then")).to_contain_text("Be **brief**.")
        expect(page.locator("#rules-then")).to_contain_text("Version 1")
        expect(page.locator("#rules-text, .rules-buttons button, .rules-rate").locator("visible=true")).to_have_count(0)
        page.locator("#settings-close").click()
        page.keyboard.press("b")
        page.keyboard.press(",")
        expect(page.locator("#rules-text")).to_have_value("Be **brief**.")
        expect(page.locator("#rules-then")).to_be_hidden()


def test_a_link_to_a_moment_waits_for_the_token(tmp_path: Path, console: Open) -> None:
    with kept_hub(tmp_path / "room.journal", *GUARDED) as one:
        tell(one.hub, OPERATOR)
        page = console(one.hub)
        enter(page, OPERATOR)
        look_back(page)
        go_to_mark(page, "control: paused")
        address = address_of(page)
        other = console(one.hub)
        other.goto("about:blank")
        other.goto(address)
        enter(other, OPERATOR)
        expect(other.locator("#past-banner")).to_contain_text("Read-only")
        expect(other.locator("#mode")).to_have_attribute("data-mode", "paused")


def test_keys_work_while_the_slider_has_the_focus(kept: HubProcess, console: Open) -> None:
    page = console(kept)
    look_back(page)
    page.locator("#timeline input").press("End")
    before = page.locator("#timeline").get_attribute("data-at")
    page.locator("#timeline input").press("[")
    expect(page.locator("#timeline")).not_to_have_attribute("data-at", before)
    mark = page.locator("#timeline").get_attribute("data-at")
    page.locator("#timeline input").press(".")
    expect(page.locator("#timeline")).not_to_have_attribute("data-at", mark)
    page.locator("#timeline input").press("b")
    expect(page.locator("#past-banner")).to_be_hidden()


def test_a_time_in_the_past_moves_the_slider_and_none_is_later_than_the_record(kept: HubProcess, console: Open) -> None:
    page = console(kept)
    look_back(page)
    end = int(page.locator("#timeline").get_attribute("data-at") or 0)
    page.locator("#timeline input").press("Home")
    page.locator("#flow-title").click()
    page.keyboard.press("d")
    page.locator("#when").fill("now")
    page.locator("#when").press("Enter")
    expect(page.locator("#timeline")).to_have_attribute("data-at", str(end))
    for later in ("2031-01-01T00:00:00Z", "+012031-01-01T00:00:00Z"):
        page.evaluate(f"location.hash = '#at={later}'")
        expect(page).to_have_url(re.compile(f"#at={later}".replace("+", "[+]")))
        expect(page.locator("#timeline")).to_have_attribute("data-at", str(end))
        expect(page.locator("#past-banner")).to_contain_text("Read-only")
    page.evaluate("location.hash = '#at=garbage'")
    expect(page.locator(".toast").last).to_contain_text("The link names no moment")
    page.evaluate("location.hash = '#seq=1e0'")
    expect(page.locator(".toast").last).to_contain_text("names no message")


def test_a_message_is_shown_in_its_moment_and_the_address_follows_the_slider(
    kept: HubProcess, console: Open
) -> None:
    page = console(kept)
    page.evaluate("location.hash = '#seq=1'")
    look_back(page)
    page.locator("#timeline input").press("Home")
    expect(row(page, "the last word")).to_have_count(0)
    address_of(page)
    page.evaluate("location.hash = '#seq=4'")
    expect(row(page, "the last word")).to_have_count(0)
    expect(page.locator('#flow .message[data-seq="4"]')).to_be_focused()
    address_of(page)
    page.evaluate("location.hash = '#seq=999'")
    expect(page.locator(".toast").last).to_contain_text("The record does not have message 999")
    page.keyboard.press("b")
    expect(page).to_have_url(f"{kept.url}/#seq=1")  # as it was


def test_a_replay_that_lost_its_hub_goes_on_with_it(tmp_path: Path, console: Open) -> None:
    with kept_hub(tmp_path / "room.journal") as one:
        tell(one.hub)
        page = console(one.hub, expected="WebSocket connection|ERR_|Failed to load resource")
        expect(page.locator("body[data-known]")).to_be_attached()
        one.kill()
        expect(page.locator("#connection")).to_have_text("Disconnected")
        page.keyboard.press("b")
        expect(page.locator("#past-banner")).to_contain_text("No replay: the hub is out of reach.")
        expect(page.locator(".live-news")).to_contain_text("no line to the hub")
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("#past-banner")).to_contain_text("No replay: the hub is out of reach.")
        one.restart()
        expect(page.locator("#past-banner")).to_contain_text("Read-only", timeout=20_000)
        expect(page.get_by_role("button", name="Try again")).to_be_hidden()


@pytest.mark.parametrize(("width", "height", "theme"), [(320, 480, "light"), (640, 400, "dark")])
def test_on_the_lowest_pages_lines_of_the_past_stay(
    kept: HubProcess, console: Open, width: int, height: int, theme: str
) -> None:
    page = console(kept, viewport={"width": width, "height": height}, color_scheme=theme)
    look_back(page)
    assert seen_of_flow(page) >= 118
    page.keyboard.press("d")
    assert seen_of_flow(page) >= 118
    page.keyboard.press("Escape")
    page.locator('[data-speed="1"]').hover()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def seen_of_flow(page: Page) -> float:
    """Tell how many px of the conversation are in the window."""
    return float(page.evaluate("""() => {
      const [flow, centre] = ["#flow", ".centre"].map((one) => document.querySelector(one).getBoundingClientRect());
      return Math.min(flow.bottom, centre.bottom) - Math.max(flow.top, centre.top);
    }"""))


# --- as a page ---


@pytest.fixture
def file(browser: Any) -> Iterator[Callable[..., Page]]:
    """Open pages from disk, without any network; whatever they complain of or ask for fails the test."""
    contexts, faults = list[Any](), list[str]()

    def open_file(path: Path, place: str = "", **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "offline": True, **options})
        contexts.append(context)
        context.add_init_script(TELL_VIOLATIONS)
        page = context.new_page()
        page.on("console", lambda one: faults.append(one.text) if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda one: one.url.startswith(("file:", "data:", "blob:")) or faults.append(one.url))
        page.goto(f"{path.as_uri()}{place}")
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture(scope="module")
def exported(kept: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the record as a page, as the hub serves it."""
    path = tmp_path_factory.mktemp("away") / "caucus-record.html"
    path.write_text(kept.request("GET", "/record").text, encoding="utf-8")
    return path


def test_a_record_opens_from_disk_with_its_search_its_picture_and_the_replay(
    exported: Path, file: Callable[..., Page]
) -> None:
    page = file(exported)
    expect(page.locator("#past-banner")).to_contain_text("Record: the room as it was")
    expect(row(page, "the last word")).to_be_visible()
    expect(page.locator("#flow .content").filter(has_text="onerror")).to_contain_text("</script><img src=x")
    expect(page.locator("#lanes")).to_have_attribute("data-lanes", "5")  # the operator, two peers, everyone, #plans
    page.locator("#search").fill("said while")
    expect(page.locator(".hits")).to_have_text("1 found")
    page.locator("#search").fill("")
    page.locator("#flow-title").click()
    go_to_mark(page, "control: paused")
    expect(page.locator("#mode")).to_have_attribute("data-mode", "paused")
    expect(page.locator("#flow")).not_to_contain_text("the last word")
    page.keyboard.press("b")  # there is no present
    expect(page.locator("#past-banner")).to_be_visible()
    for gone in (".live", "#composer", "#connection", ".export", "#attention"):
        expect(page.locator(f"{gone}:visible")).to_have_count(0)
    address = address_of(page)
    again = file(exported, "#" + address.partition("#")[2])
    expect(again.locator("#mode")).to_have_attribute("data-mode", "paused")
    for key in (",", "n", "Shift+P"):
        page.keyboard.press(key)
    expect(page.locator("dialog[open]")).to_have_count(0)
    page.locator("#search").fill("zzz")
    expect(page.locator(".hits")).to_have_text("nowhere")
    expect(page.locator("#beyond")).to_be_hidden()  # there is nobody to ask
    page.locator("#flow-title").click()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()


@pytest.mark.parametrize(("size", "theme"), [({"width": 1280, "height": 800}, "dark"), (PHONE, "light")])
def test_a_record_bars_nobody(exported: Path, file: Callable[..., Page], theme: str, size: dict[str, int]) -> None:
    page = file(exported, color_scheme=theme, viewport=size)
    expect(row(page, "the last word")).to_be_visible()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_the_console_saves_the_record_and_it_opens(
    kept: HubProcess, console: Open, file: Callable[..., Page], tmp_path: Path
) -> None:
    page = console(kept)
    expect(page.locator("body[data-known]")).to_be_attached()
    with page.expect_download() as download:
        page.locator('[data-export="record"]').click()
    assert download.value.suggested_filename == "caucus-record.html"
    download.value.save_as(tmp_path / "saved.html")
    expect(row(file(tmp_path / "saved.html"), "the last word")).to_be_visible()


def test_a_record_of_one_channel_shows_that_channel_alone(tmp_path: Path, file: Callable[..., Page]) -> None:
    with kept_hub(tmp_path / "room.journal") as one:
        tell(one.hub)
    out = tmp_path / "plans.html"
    assert journal("export", tmp_path / "room.journal", "--html", out, "--channel", "#plans").returncode == 0
    text = out.read_text(encoding="utf-8")
    for other in ("the last word", "first", "Deploy now?", "reading the diff", '"api"'):
        assert other not in text.partition('id="record">')[2].partition("</script>")[0]
    page = file(out)
    expect(page.locator("#past-banner")).to_contain_text("Record of #plans")
    expect(row(page, "said while paused")).to_be_visible()
    expect(page.locator(".peer")).to_have_count(0)  # who was in it was kicked
    page.keyboard.press("[")
    expect(page.locator("#mode")).to_have_attribute("data-mode", "running")
