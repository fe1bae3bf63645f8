"""The console reads the whole record, in a real browser: older pages, search beyond the page, times, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browsers import OBSERVER, OPERATOR, Open, enter, lay, violations
from fakes import FakeClock, RecordingRoom
from hubs import HubProcess, KeptHub, eventually, running_hub

import caucus
from caucus import LOG_NOTICES_MAX

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect

SAID = 5_000
FEWER, SLOWER_S = 1_100, 140.0  # where all of it is read: twice what a page has, and two days as well
MARKED = 1_502  # it has a word in bold
BEGAN = 1_700_000_000.0  # of the fake clock
STEP_S = 30.0  # between two messages: none are folded, and some two days pass
LONG_MS = 20_000
DAY_MS = 60_000  # to load a day of some hundred messages, on a machine with other work


def keep(path: Path, count: int = SAID, step_s: float = STEP_S) -> None:
    """Write a journal in which much was said."""
    kept, clock = caucus.Journal(str(path)), FakeClock()
    room = RecordingRoom(clock)
    room.listeners.append(kept.hear)
    room.set_rate(1e6, 1e6)
    ann, bob = room.join("ann"), room.join("bob")
    for n in range(1, count + 1):
        word = " albatross price_cents" if n in (77, 78, 1_500) else " **bold**" if n == MARKED else ""
        room.say(ann if n % 2 else bob, caucus.ALL, f"message {n}{word}" + f" words{n % 7}" * (n * 7 % 40))
        clock.advance(step_s)
        if n % 500 == 0:
            kept._is_due = True
            assert kept.commit()
    kept._is_due = True
    assert kept.commit()
    kept.close()


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a journal of some thousand messages; each hub has a copy."""
    path = tmp_path_factory.mktemp("record") / "journal"
    keep(path)
    return path


@pytest.fixture
def shorter(tmp_path: Path) -> Iterator[HubProcess]:
    """Give a hub with fewer messages in the same time."""
    keep(tmp_path / "journal", FEWER, SLOWER_S)
    with running_hub("--journal", str(tmp_path / "journal")) as process:
        indexed(process)
        yield process


def copied(journal: Path, place: Path) -> Path:
    with closing(caucus.connect(str(journal))) as base:
        base.execute("VACUUM INTO ?", (str(place / "journal"),))
    return place / "journal"


@pytest.fixture
def recorded(journal: Path, tmp_path: Path) -> Iterator[HubProcess]:
    with running_hub("--journal", str(copied(journal, tmp_path))) as process:
        indexed(process)
        yield process


def indexed(hub: HubProcess, bearer: str | None = None) -> None:
    """Wait until the record's index is made."""
    eventually(lambda: hub.get("/history", bearer, q="albatross").status == 200, "an index")


def said(page: Any, n: int) -> Any:
    """Find the row of a message."""
    return page.locator(f'#flow .message[data-seq="{n}"]')


def top_row(page: Any) -> tuple[int, float]:
    """Give the first message that is in the window, and where it stands."""
    look = """() => {
      const edge = document.getElementById("flow").getBoundingClientRect().top;
      const all = [...document.querySelectorAll("#flow .message:not([data-seq='0'])")];
      const one = all.find((row) => row.getBoundingClientRect().bottom > edge + 1);
      return one && [Number(one.dataset.seq), one.getBoundingClientRect().top];
    }"""
    seq, y = eventually(lambda: page.evaluate(look), "a message")  # for a moment there may be only the edge
    return int(seq), float(y)


WATCH_JUMPS = """(steps) => new Promise((resolve) => {
  const flow = document.getElementById("flow");
  const edge = flow.getBoundingClientRect().top;
  const said = () => [...flow.querySelectorAll(".message:not([data-seq='0'])")];
  const tops = () => new Map(said().map((row) => [row.dataset.seq, row.getBoundingClientRect().top]));
  const isSeen = (y) => y > edge - 400 && y < edge + flow.clientHeight;
  let worst = 0, most = 0, step = 0;
  const turn = () => {
    const before = tops();
    const by = flow.scrollTop;
    flow.scrollTop = by - 400;
    const moved = by - flow.scrollTop;  // less at the very top
    flow.dispatchEvent(new Event("scroll"));
    requestAnimationFrame(() => setTimeout(() => {
      const after = tops();
      for (const [seq, y] of after) {
        if (before.has(seq) && isSeen(y)) worst = Math.max(worst, Math.abs(y - before.get(seq) - moved));
      }
      most = Math.max(most, flow.querySelectorAll("*").length);
      step += 1;
      if (step < steps) turn(); else resolve({ worst, most });
    }, 10));
  };
  turn();
})"""


def test_scrolling_up_reads_the_record_to_its_first_message_and_nothing_jumps(
    shorter: HubProcess, console: Open
) -> None:
    page = console(shorter)
    expect(said(page, FEWER)).to_be_visible()
    assert page.locator(".record-edge").count() == 0  # far above
    nodes = 0
    for _ in range(400):
        found = page.evaluate(WATCH_JUMPS, 40)
        assert found["worst"] < 1.5, top_row(page)
        nodes = max(nodes, found["most"])
        if said(page, 1).count() and page.evaluate("document.getElementById('flow').scrollTop") == 0:
            break
    expect(said(page, 1)).to_be_in_viewport()
    expect(page.locator(".record-edge")).to_contain_text("The first message of this room")
    assert nodes < 2_500
    assert page.locator("#flow li").count() < 100


def test_a_page_that_arrives_leaves_the_row_at_the_top_where_it_is(recorded: HubProcess, console: Open) -> None:
    """Slowly: the page comes while the reader looks."""
    page = console(recorded)
    expect(said(page, SAID)).to_be_visible()
    asked: list[Any] = []
    lay(page, "**/history?*", asked.append)
    page.locator("#flow").focus()
    page.evaluate("document.getElementById('flow').scrollTop = 0")
    expect(page.locator(".record-edge")).to_contain_text("Reading older messages")
    eventually(lambda: page.wait_for_timeout(10) or asked, "a question")
    seq, before = top_row(page)
    asked.pop().continue_()
    eventually(lambda: page.evaluate("document.getElementById('flow').scrollTop > 5000"), "the page")
    assert abs(said(page, seq).evaluate("(row) => row.getBoundingClientRect().top") - before) < 1
    page.unroute("**/history?*")
    for route in asked:
        route.continue_()


def test_what_could_not_be_read_says_so_and_is_read_again(recorded: HubProcess, console: Open) -> None:
    page = console(recorded, expected="Failed to load resource")
    expect(said(page, SAID)).to_be_visible()
    lay(page, "**/history?*", lambda route: route.abort())
    page.locator("#flow").focus()
    page.keyboard.press("Home")
    page.evaluate("document.getElementById('flow').scrollTop = 0")
    edge = page.locator(".record-edge")
    expect(edge).to_contain_text("Older messages could not be read: the hub is out of reach.")
    page.unroute("**/history?*")
    edge.get_by_role("button", name="Try again").click()
    expect(page.locator(".record-edge")).to_have_count(0)  # far above now


def test_without_a_journal_it_says_how_far_memory_reaches(hub: HubProcess, console: Open) -> None:
    hub.unthrottle()
    seats = [hub.register(name) for name in ("ann", "bob")]
    for n in range(1_100):
        hub.say(seats[n % 2], "all", f"message {n}")
    page = console(hub)
    expect(said(page, 1_100)).to_be_visible()
    page.wait_for_timeout(200)
    for _ in range(80):
        page.evaluate("document.getElementById('flow').scrollTop = 0")
        page.wait_for_timeout(50)
        if "oldest" in page.evaluate("document.querySelector('.record-edge')?.textContent ?? ''"):
            break
    expect(page.locator(".record-edge")).to_contain_text("without a journal it keeps the last thousand in memory")
    expect(said(page, 101)).to_be_in_viewport()
    page.goto("about:blank")
    page.goto(f"{hub.url}/#seq=3")
    expect(page.locator(".toast")).to_contain_text("The record does not have message 3: it reaches back to message 101")


def test_a_search_goes_through_all_of_the_record(recorded: HubProcess, console: Open) -> None:
    page = console(recorded, expected="Failed to load resource")
    expect(said(page, SAID)).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("albatross")
    beyond = page.locator("#beyond")
    expect(beyond).to_contain_text("3 found in", timeout=LONG_MS)
    expect(beyond.get_by_role("status")).to_have_text(re.compile(r"3 found in the words of 4,\d\d\d older messages\."))
    hits = beyond.locator(".record-hit")
    expect(hits).to_have_count(3)
    expect(hits.first.locator("mark")).to_have_text("albatross")
    expect(hits.first).to_contain_text("message 1500")
    expect(page.locator(".hits")).to_have_text("none on this page")
    page.keyboard.press("Enter")
    expect(said(page, 1_500)).to_be_in_viewport(timeout=LONG_MS)
    hits.nth(1).focus()
    page.keyboard.press("Enter")
    expect(said(page, 78)).to_be_in_viewport(timeout=LONG_MS)
    expect(said(page, 78)).to_be_focused()
    expect(said(page, 78).locator("mark")).to_have_text("albatross")
    page.locator("#search").fill('"albatross')
    expect(beyond).to_contain_text("a quote is not closed", timeout=LONG_MS)
    page.locator("#search").fill("nowhereword")
    expect(beyond).to_contain_text("Nothing found in", timeout=LONG_MS)
    page.locator("#search").fill("")
    expect(beyond).to_be_hidden()


def test_one_goes_to_a_time_and_back_to_now(recorded: HubProcess, console: Open) -> None:
    page = console(recorded, timezone_id="UTC")
    expect(said(page, SAID)).to_be_visible()
    page.keyboard.press("d")
    expect(page.locator("#when")).to_be_focused()
    page.keyboard.type("some day")
    page.keyboard.press("Enter")
    expect(page.locator("#when-refused")).to_contain_text("is understood")
    aim = datetime.fromtimestamp(BEGAN + 1_999 * STEP_S, UTC).strftime("%Y-%m-%d %H:%M:%S")
    page.locator("#when").fill(f"{aim}Z")
    page.keyboard.press("Enter")
    expect(said(page, 2_000)).to_be_in_viewport(timeout=LONG_MS)
    hole = page.locator(".record-edge")
    page.evaluate("document.getElementById('flow').scrollTop += 3000")
    expect(said(page, 2_000)).to_have_count(0)
    page.keyboard.press("l")
    expect(said(page, SAID)).to_be_in_viewport()
    expect(hole).to_have_count(0)


def test_from_the_past_one_scrolls_down_into_the_present(recorded: HubProcess, console: Open) -> None:
    page = console(recorded)
    expect(said(page, SAID)).to_be_visible()
    page.evaluate("location.hash = '#seq=4400'")
    expect(said(page, 4_400)).to_be_in_viewport(timeout=LONG_MS)
    seen: list[int] = []
    for _ in range(400):
        seen.append(top_row(page)[0])
        page.evaluate("document.getElementById('flow').scrollTop += 500")
        page.wait_for_timeout(20)
        if said(page, SAID).count():
            break
    assert seen == sorted(seen)
    assert max(b - a for a, b in pairwise(seen)) < 60, seen
    expect(page.locator(".record-edge")).to_have_count(0)


def test_the_past_is_shown_with_its_markdown_as_the_present_is(recorded: HubProcess, console: Open) -> None:
    page = console(recorded)
    page.goto("about:blank")
    page.goto(f"{recorded.url}/#seq={MARKED}")
    row = said(page, MARKED)
    expect(row.locator(".content.md strong")).to_have_text("bold", timeout=LONG_MS)
    row.hover()
    row.locator(".row-source").click()
    expect(row.locator(".content")).to_contain_text("**bold**")


def test_a_link_opens_a_fresh_page_at_its_message(recorded: HubProcess, console: Open) -> None:
    page = console(recorded, permissions=["clipboard-read", "clipboard-write"])
    for n in (1, 640, SAID - 499, SAID - 250, SAID):
        page.goto("about:blank")
        page.goto(f"{recorded.url}/#seq={n}")
        expect(said(page, n)).to_be_in_viewport(timeout=LONG_MS)
    page.goto("about:blank")
    page.goto(f"{recorded.url}/#seq=640")
    said(page, 640).hover()
    said(page, 640).get_by_role("button", name="Copy a link to this message").click()
    assert page.evaluate("navigator.clipboard.readText()") == f"{recorded.url}/#seq=640"
    page.evaluate("location.hash = '#seq=999999'")
    expect(page.locator(".toast").last).to_contain_text("Message 999,999 has not been said: the newest is 5,000")
    page.evaluate("location.hash = '#seq=no'")
    expect(page.locator(".toast").last).to_contain_text("names no message")


def test_reading_the_past_changes_nothing_of_the_present(recorded: HubProcess, console: Open) -> None:
    page = console(recorded)
    expect(said(page, SAID)).to_be_visible()
    before = page.locator("#flow-count").text_content(), page.locator("#attention").text_content()
    page.evaluate("location.hash = '#seq=900'")
    expect(said(page, 900)).to_be_in_viewport(timeout=LONG_MS)
    carl = recorded.register("carl")
    recorded.say(carl, "#carl", "said meanwhile")  # to nobody: full mailboxes would lose more, and say so
    expect(page.locator("#new-below")).to_contain_text("new below")
    expect(said(page, 900)).to_be_in_viewport()
    assert page.locator("#attention").text_content() == before[1]
    page.locator("#new-below").click()
    expect(page.locator("#flow .message").last).to_contain_text("said meanwhile")


def test_observers_read_it_with_their_token_which_is_in_no_address(
    journal: Path, tmp_path: Path, console: Open
) -> None:
    flags = ("--operator-token", OPERATOR, "--observer-token", OBSERVER)
    with running_hub("--journal", str(copied(journal, tmp_path)), *flags) as hub:
        indexed(hub, OBSERVER)
        page = console(hub)
        addresses: list[str] = []
        page.on("request", lambda request: addresses.append(request.url))
        page.evaluate("location.hash = '#seq=640'")
        enter(page, OBSERVER)
        expect(said(page, 640)).to_be_in_viewport(timeout=LONG_MS)
        assert [one for one in addresses if "/history?" in one]
        assert not [one for one in addresses if OBSERVER in one]


def test_a_hub_that_restarts_meanwhile_is_read_on(journal: Path, tmp_path: Path, console: Open) -> None:
    copied(journal, tmp_path)
    kept = KeptHub(tmp_path / "journal")
    try:
        page = console(kept.hub, expected="WebSocket connection|ERR_|Failed to load resource")
        page.evaluate("location.hash = '#seq=2000'")
        expect(said(page, 2_000)).to_be_in_viewport(timeout=LONG_MS)
        kept.kill()
        expect(page.locator("#connection")).to_have_text("Disconnected", timeout=LONG_MS)
        place = top_row(page)
        page.evaluate("location.hash = '#seq=300'")  # told when the room is there again
        page.evaluate("location.hash = '#seq=2000'")
        expect(said(page, 2_000)).to_be_in_viewport()
        kept.restart()
        expect(page.locator("#connection")).to_have_text("Connected", timeout=LONG_MS)
        assert top_row(page)[0] == place[0]
        for _ in range(40):
            page.evaluate("document.getElementById('flow').scrollTop -= 500")
            page.wait_for_timeout(20)
        assert top_row(page)[0] < 1_950
        page.evaluate("location.hash = '#seq=100'")
        expect(said(page, 100)).to_be_in_viewport(timeout=LONG_MS)
    finally:
        kept.hub.stop()


def test_words_are_not_pushed_out_of_the_log_by_notices(tmp_path: Path, console: Open) -> None:
    with running_hub("--journal", str(tmp_path / "journal")) as hub:
        ann = hub.register("ann")
        for n in range(1, 7):
            hub.say(ann, "all", f"albatross {n}")
        for n in range(320):
            assert hub.post("/leave", token=hub.register(f"visitor{n}")).status == 200
        page = console(hub)
        expect(page.locator("#flow .message").last).to_contain_text("left")
        with hub.console() as seen:
            seqs = [message["seq"] for message in seen.snapshot["log"]]
        assert {*seqs} == {*range(7)}
        assert seqs.count(0) <= LOG_NOTICES_MAX
        page.evaluate("location.hash = '#seq=3'")
        expect(said(page, 3)).to_be_in_viewport(timeout=LONG_MS)
        page.evaluate("location.hash = '#seq=7'")
        expect(page.locator(".toast").last).to_contain_text("Message 7 has not been said: the newest is 6")
        page.keyboard.press("l")
        page.keyboard.press("d")
        page.locator("#when").fill("1h ago")
        page.locator("#when").press("Enter")
        expect(said(page, 1)).to_be_focused(timeout=LONG_MS)


def test_live_gives_back_the_place_where_the_reader_was(recorded: HubProcess, console: Open) -> None:
    page = console(recorded)
    page.evaluate("location.hash = '#seq=697'")
    expect(said(page, 697)).to_be_in_viewport(timeout=LONG_MS)
    before = top_row(page)
    page.keyboard.press("b")
    expect(page.locator("#past-banner")).to_contain_text("Read-only", timeout=LONG_MS)
    expect(said(page, 697)).to_have_count(0)
    page.keyboard.press("b")
    expect(said(page, 697)).to_be_in_viewport()
    after = top_row(page)
    assert (after[0], round(after[1])) == (before[0], round(before[1]))
    assert page.url.endswith("#seq=697")


def test_what_was_being_opened_when_one_looked_back_is_opened_in_the_present(
    recorded: HubProcess, console: Open
) -> None:
    page = console(recorded)
    expect(said(page, SAID)).to_be_visible()
    held: list[Any] = []
    lay(page, "**/history?around*", held.append)
    page.evaluate("location.hash = '#seq=697'")
    expect(page.locator("#record-note")).to_contain_text("Opening message 697")
    page.keyboard.press("b")
    expect(page.locator("#past-banner")).to_contain_text("Read-only", timeout=LONG_MS)
    expect(page.locator("#record-note")).to_be_hidden()
    with page.expect_response("**/history?around*"):
        held.pop().continue_()
    page.unroute("**/history?around*")
    expect(said(page, 697)).to_have_count(0)
    page.keyboard.press("b")
    expect(said(page, 697)).to_be_in_viewport(timeout=LONG_MS)


def test_in_the_past_hits_and_times_of_the_record_open_in_their_own_moment(
    shorter: HubProcess, console: Open
) -> None:
    page = console(shorter, timezone_id="UTC")
    expect(said(page, FEWER)).to_be_visible()
    page.keyboard.press("b")
    expect(page.locator("#past-banner")).to_contain_text("Read-only", timeout=DAY_MS)
    page.locator("#search").fill("albatross")
    hit = page.locator(".record-hit").first
    expect(hit).to_contain_text("message 78", timeout=DAY_MS)
    hit.click()
    expect(said(page, 78)).to_be_focused(timeout=DAY_MS)
    expect(page.locator("#past-banner")).to_contain_text("Wed, Nov 15, 2023, 01:13:00. Read-only")
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    page.locator("#when").fill("2023-11-16 10:00")
    page.locator("#when").press("Enter")
    expect(page.locator("#past-banner")).to_contain_text("Thu, Nov 16, 2023, 10:00:00. Read-only", timeout=DAY_MS)
    page.locator("#flow").evaluate("(flow) => { flow.scrollTop = 0; }")
    edge = page.locator(".record-edge")
    expect(edge).to_contain_text("More was said before.")
    first = int(page.locator('#flow .message:not([data-seq="0"])').first.get_attribute("data-seq"))
    edge.get_by_role("button").click()
    expect(said(page, first - 1)).to_be_visible(timeout=DAY_MS)
    expect(said(page, first)).to_have_count(0)


def test_hits_show_what_was_found_wherever_it_stands(tmp_path: Path, console: Open) -> None:
    with running_hub("--journal", str(tmp_path / "journal")) as hub:
        hub.unthrottle()
        ann, bob = hub.register("ann"), hub.register("bob")
        hub.say(ann, "all", "l\n" * 3_900 + "albatross")
        hub.say(bob, "all", "\u0130" * 400 + " albatross")
        for n in range(3, 800):
            hub.say((ann, bob)[n % 2], "all", f"message {n}")
        indexed(hub)
        page = console(hub)
        expect(said(page, 799)).to_be_visible()
        page.locator("#search").fill("albatross")
        marks = page.locator(".record-hit mark")
        expect(marks).to_have_text(["albatross", "albatross"], timeout=LONG_MS)
        page.locator(".record-hit").last.click()
        expect(said(page, 1).locator("mark")).to_be_in_viewport(timeout=LONG_MS)
        page.locator("#toggle, .tools-row button[aria-controls='flow-filters']").click()
        expect(page.locator(".shown")).to_contain_text(", with a gap")
        with page.expect_download() as download:
            page.locator('[data-save="text"]').click()
        text = Path(download.value.path()).read_text(encoding="utf-8")
        assert re.search(r"^--- Messages after \d+ and before \d+ are missing here", text, re.MULTILINE)


def test_what_waits_for_an_answer_is_shown_from_the_record(tmp_path: Path, console: Open) -> None:
    with running_hub("--journal", str(tmp_path / "journal")) as hub:
        hub.unthrottle()
        ann, bob = hub.register("ann"), hub.register("bob")
        asked = hub.post("/send", token=ann, to="bob", content="which port?", expects_answer=True)
        assert asked.status == 200
        for n in range(2, 560):
            hub.say((ann, bob)[n % 2], "all", f"message {n}")
        page = console(hub)
        expect(said(page, 559)).to_be_visible()
        page.locator(".needs-owed").click()
        page.locator(".owe-words").click()
        expect(said(page, 1)).to_be_focused(timeout=LONG_MS)


def test_a_hole_in_the_log_is_read_from_the_record(tmp_path: Path, console: Open) -> None:
    kept = KeptHub(tmp_path / "journal")
    try:
        kept.hub.unthrottle()
        ann, bob = kept.hub.register("ann"), kept.hub.register("bob")
        for n in range(1, 41):
            kept.hub.say((ann, bob)[n % 2], "all", f"message {n}")
        page = console(kept.hub, expected="WebSocket connection|ERR_|Failed to load resource")
        expect(said(page, 40)).to_be_visible()
        kept.kill()
        with running_hub("--journal", str(tmp_path / "journal")) as other:  # the page does not know of it
            for n in range(41, 701):
                other.say((ann, bob)[n % 2], "all", f"message {n}")
        kept.restart()
        expect(said(page, 700)).to_be_visible(timeout=LONG_MS)
        page.evaluate("location.hash = '#seq=39'")
        marker = page.locator("#flow .marker").filter(has_text="Messages are missing here")
        marker.get_by_role("button", name="Read them from the record").click()
        expect(said(page, 41)).to_be_focused(timeout=LONG_MS)
        expect(said(page, 40)).to_be_visible()
        expect(marker).to_have_count(0)
        page.evaluate("location.hash = '#seq=120'")
        expect(said(page, 120)).to_be_in_viewport(timeout=LONG_MS)
        page.keyboard.press("l")
        expect(said(page, 700)).to_be_visible()
    finally:
        kept.hub.stop()


@pytest.mark.parametrize(("width", "height"), [(320, 480), (640, 400)])
def test_on_the_lowest_pages_hits_fold_and_what_was_chosen_is_seen(
    recorded: HubProcess, console: Open, width: int, height: int
) -> None:
    page = console(recorded, viewport={"width": width, "height": height})
    expect(said(page, SAID)).to_be_visible()
    page.keyboard.press("d")
    assert seen_of_flow(page) >= 118
    page.keyboard.press("Escape")
    page.locator("#search").fill("albatross")
    expect(page.locator("#beyond")).to_contain_text("3 found", timeout=LONG_MS)
    assert seen_of_flow(page) >= 118
    page.get_by_role("button", name="Show them").click()
    page.locator(".record-hit").nth(1).click()
    expect(said(page, 78)).to_be_in_viewport(timeout=LONG_MS)
    expect(page.locator(".record-hit").first).to_be_hidden()
    assert seen_of_flow(page) >= 118
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def seen_of_flow(page: Any) -> float:
    """Tell how many px of the conversation are in the window."""
    return float(page.evaluate("""() => {
      const [flow, centre] = ["#flow", ".centre"].map((one) => document.querySelector(one).getBoundingClientRect());
      return Math.min(flow.bottom, centre.bottom) - Math.max(flow.top, centre.top);
    }"""))


@pytest.mark.parametrize(("scheme", "width"), [("light", 375), ("dark", 1280)])
def test_the_past_bars_nobody_and_fits_a_phone(recorded: HubProcess, console: Open, scheme: str, width: int) -> None:
    page = console(recorded, "Failed to load|ERR_", viewport={"width": width, "height": 720}, color_scheme=scheme)
    page.evaluate("location.hash = '#seq=3'")
    expect(said(page, 3)).to_be_in_viewport(timeout=LONG_MS)
    page.evaluate("document.getElementById('flow').scrollTop = 0")
    expect(page.locator(".record-edge").first).to_be_visible()
    page.keyboard.press("d")
    page.locator("#search").fill("albatross")
    expect(page.locator(".record-hit")).to_have_count(3, timeout=LONG_MS)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("#flow").evaluate("(flow) => flow.clientHeight") > 60
    page.locator("#when").fill("some day")
    page.locator("#when").press("Enter")
    lay(page, "**/history?*", lambda route: route.abort())
    page.evaluate("location.hash = '#seq=2222'")
    expect(page.locator("#record-note")).to_contain_text("could not be opened: the hub is out of reach.")
    assert violations(page) == []
    page.unroute("**/history?*")
    page.locator("#record-note").get_by_role("button", name="Try again").click()
    expect(said(page, 2_222)).to_be_in_viewport(timeout=LONG_MS)
    expect(page.locator("#record-note")).to_be_hidden()
