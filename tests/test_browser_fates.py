"""The truth about every message, in a real browser: ticks, threads, who owes whom, words said once, house rules."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
from browsers import LINE_LOST, OBSERVER, Open, Page, enter, heard, peer, resized, row, violations
from hubs import HubProcess, eventually, running_hub

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
expect = playwright.expect
expect.set_options(timeout=20_000)

PHONE, SMALL = {"width": 390, "height": 844}, {"width": 1024, "height": 768}


def ask(hub: HubProcess, token: str, to: str, content: str) -> int:
    """Say what expects an answer; give its seq."""
    return int(hub.post("/send", token=token, to=to, content=content, expects_answer=True).body["seq"])


def answer(hub: HubProcess, token: str, seq: int, content: str, **more: Any) -> int:
    """Answer a message, once it was fetched; give the answer's seq."""
    hub.receive(token)
    sent = hub.post("/send", token=token, content=content, reply_to=seq, **more)
    assert sent.status == 200, sent.text
    return int(sent.body["seq"])


def tick(page: Page, text: str) -> Any:
    """Find the mark of the message that says exactly this."""
    return row(page, text).locator(".tick")


def shown(page: Page) -> list[str]:
    """Give the words of all messages that are shown, the hub's own aside."""
    return list(page.locator('#flow .message:not([data-origin="hub"]) .content').all_text_contents())


def log_of(hub: HubProcess) -> list[Any]:
    """Give the operator's words as the room has them."""
    with hub.console() as fresh:
        return [message for message in fresh.snapshot["log"] if message["origin"] == "operator"]


def owed(hub: HubProcess) -> list[int]:
    """Give the seqs of what has no answer."""
    with hub.console() as fresh:
        return [debt["seq"] for debt in fresh.snapshot["owed"]]


# --- ticks ---


def test_every_message_has_a_tick_that_goes_forward_and_tells_each_recipient(hub: HubProcess, console: Open) -> None:
    api, web = hub.register("api"), hub.register("web")
    hub.register("ops")
    page = console(hub)
    seq = hub.say(api, "all", "is the build green?")["seq"]
    one = tick(page, "is the build green?")
    expect(one).to_have_text("0 of 2 have it")
    hub.receive(web)
    expect(one).to_have_text("1 of 2 have it")
    one.hover()
    fates = page.locator("#fates")
    expect(fates.locator(".fate").first).to_contain_text("ops")
    expect(fates.locator(".fate").first).to_contain_text("queued: waits in its mailbox for")
    expect(fates.locator(".fate").last).to_contain_text("webfetched: its process has it, seen")
    page.mouse.move(5, 5)
    expect(fates).to_be_hidden()
    hub.post("/ack", token=web, seq=seq)
    hub.say(web, "api", "one moment")
    answer(hub, web, seq, "it is")
    expect(tick(page, "it is")).to_have_text("0 of 2 have it")  # the survey that tells so tells of the answer, too
    page.locator("#flow").focus()
    page.keyboard.press("Enter")  # to the newest message
    while page.locator(".message:focus .content").inner_text() != "is the build green?":
        page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(fates.locator(".fate").last).to_contain_text("answered: it has answered")
    page.keyboard.press("Escape")
    expect(fates).to_be_hidden()
    with hub.console() as operator:
        operator.send(kick="ops")
    expect(one).to_have_text("1 of 2 lost it")
    expect(tick(page, "one moment")).to_have_text("queued")


def test_a_fetched_message_is_acknowledged_only_when_its_agent_calls(hub: HubProcess, console: Open) -> None:
    api, web = hub.register("api"), hub.register("web")
    page = console(hub)
    seq = hub.say(api, "web", "hello")["seq"]
    hub.receive(web)
    expect(tick(page, "hello")).to_have_text("fetched")
    hub.post("/ack", token=web, seq=seq)
    hub.post("/status", token=web, status="reading")
    expect(tick(page, "hello")).to_have_text("acknowledged")


def test_of_many_recipients_the_hub_is_asked_by_an_observer_too(guarded: HubProcess, console: Open) -> None:
    tokens = [guarded.register(f"peer-{n:02}") for n in range(20)]
    guarded.say(tokens[0], "all", "good morning")
    guarded.receive(tokens[5])
    page = console(guarded, viewport=PHONE)
    enter(page, OBSERVER)
    tick(page, "good morning").click()
    fates = page.locator("#fates .fate")
    expect(fates).to_have_count(19)
    expect(fates.last).to_contain_text("peer-05")
    expect(page.locator("#fates h2")).to_have_text("1 of 19 have it")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


COUNT_TICKS = """
window.ticked = [];
new MutationObserver((all) => {
  for (const one of all) {
    const tick = (one.target.nodeType === 1 ? one.target : one.target.parentElement)?.closest?.(".tick");
    if (tick) window.ticked.push([performance.now(), tick.closest(".message")?.dataset.id]);
  }
}).observe(document.getElementById("flow"), { subtree: true, childList: true, characterData: true, attributes: true });
"""


def test_at_fifty_messages_a_second_ticks_change_with_the_survey_only(hub: HubProcess, console: Open) -> None:
    hub.unthrottle()
    api, web = hub.register("api"), hub.register("web")
    page = console(hub, viewport={"width": 1280, "height": 900})
    hub.say(api, "all", "the first")
    expect(tick(page, "the first")).to_be_visible()
    page.evaluate(COUNT_TICKS)
    begin, count = time.monotonic(), 0
    while time.monotonic() < begin + 6:
        hub.say((api, web)[count % 2], "all", f"message {count}")
        count += 1
        if count % 10 == 0:
            hub.receive(web)
        time.sleep(max(0.0, begin + count / 50 - time.monotonic()))
    changes = page.evaluate("window.ticked")
    assert changes, "ticks do change"
    bursts = 1 + sum(later - earlier > 300 for (earlier, _), (later, _) in itertools.pairwise(changes))
    assert bursts <= 6, "6 s hold four surveys, and one may come in two frames"
    a_message = max(sum(one == name for _, one in changes) for _, name in changes)
    assert a_message <= 12, "a tick that changes is its text, its icon and its state, once a survey"


def test_a_tick_changes_in_place_and_what_is_marked_stays_marked(hub: HubProcess, console: Open) -> None:
    api, web = hub.register("api"), hub.register("web")
    page = console(hub)
    hub.say(api, "web", "mark these words")
    expect(tick(page, "mark these words")).to_have_text("queued")
    row(page, "mark these words").locator(".content").select_text()
    row(page, "mark these words").evaluate("(node) => { node.isTheSame = true; }")
    hub.receive(web)
    expect(tick(page, "mark these words")).to_have_text("fetched")
    assert row(page, "mark these words").evaluate("(node) => node.isTheSame")
    assert page.evaluate("getSelection().toString()") == "mark these words"


# --- threads ---


def thread(hub: HubProcess) -> int:
    """Make a thread of three among other words; give the seq of its first."""
    api, web, ops = (hub.register(name) for name in ("api", "web", "ops"))
    seq = int(hub.say(api, "all", "which port?")["seq"])
    hub.say(ops, "all", "an aside")
    first = answer(hub, web, seq, "8080")
    answer(hub, api, first, "thanks")
    return seq


def test_an_answer_quotes_what_it_answers_and_leads_there(hub: HubProcess, console: Open) -> None:
    hub.unthrottle()
    seq = thread(hub)
    ops = hub.register("ops2")
    for n in range(60):
        hub.say(ops, "#noise", f"line {n} of {n * n}")
    with hub.console() as operator:
        operator.send(say="I take 8081", to="all", reply_to=seq)
        operator.next("message", where=lambda frame: frame["message"]["content"] == "I take 8081")
    page = console(hub)
    quote = row(page, "I take 8081").locator(".quote")
    expect(quote).to_have_text("apiwhich port?")
    quote.click()
    expect(page.locator(".message:focus .content")).to_have_text("which port?")
    page.keyboard.press("l")
    page.keyboard.press("k")
    page.keyboard.press("p")
    expect(page.locator(".message:focus .content")).to_have_text("which port?")


def test_a_thread_stands_alone_at_an_address_and_escape_leads_back(hub: HubProcess, console: Open) -> None:
    thread(hub)
    page = console(hub)
    expect(row(page, "thanks")).to_be_visible()
    page.locator("#flow").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("v")
    expect(row(page, "an aside")).to_have_count(0)
    assert shown(page) == ["which port?", "8080", "thanks"]
    address = page.url
    assert "#t-" in address
    expect(page.locator("#thread-bar")).to_contain_text("thread of 3 messages that begins with api: which port?")
    page.keyboard.press("Escape")
    expect(page.locator("#thread-bar")).to_be_hidden()
    assert shown(page) == ["which port?", "an aside", "8080", "thanks"]
    assert "#" not in page.url
    page.go_back()
    expect(page.locator("#thread-bar")).to_be_hidden()
    expect(row(page, "an aside")).to_be_visible()
    row(page, "thanks").focus()
    page.keyboard.press("v")
    expect(page.locator("#thread-bar")).to_be_visible()
    page.go_back()
    expect(page.locator("#thread-bar")).to_be_hidden()
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator("#thread-bar")).to_be_visible()
    assert shown(page) == ["which port?", "8080", "thanks"]


def test_a_thread_folds_and_what_is_looked_for_unfolds_it(hub: HubProcess, console: Open) -> None:
    seq = thread(hub)
    page = console(hub)
    fold = row(page, "which port?").locator(".thread-fold")
    expect(fold).to_have_text("2 answers")
    fold.click()
    expect(fold).to_have_text("2 answers folded")
    expect(fold).to_be_focused()
    assert shown(page) == ["which port?", "an aside"]
    hub.receive(token := hub.register("late"))
    hub.say(token, "all", "I am late")
    with hub.console() as operator:
        operator.send(say="use 8081", to="all", reply_to=seq, client_id="c")
        operator.next("said")
    expect(fold).to_have_text("3 answers folded")
    assert shown(page) == ["which port?", "an aside", "I am late"]
    row(page, "which port?").focus()
    page.keyboard.press("e")
    assert shown(page) == ["which port?", "an aside", "8080", "thanks", "I am late", "use 8081"]


def test_text_in_a_quote_stays_text(hub: HubProcess, console: Open) -> None:
    api, web = hub.register("api"), hub.register("web")
    seq = hub.say(api, "web", "<img src=x onerror=alert(1)> \u202egnp")["seq"]
    answer(hub, web, seq, "no")
    page = console(hub)
    expect(row(page, "no").locator(".quoted")).to_have_text("<img src=x onerror=alert(1)> gnp")
    assert page.locator("main img").count() == 0


# --- who owes whom ---


def test_who_owes_whom_is_listed_oldest_first_and_leads_to_the_message(hub: HubProcess, console: Open) -> None:
    api, web = hub.register("api"), hub.register("web")
    first = ask(hub, web, "api", "which port?")
    ask(hub, api, "all", "who has the key?")
    page = console(hub)
    page.locator(".needs-owed").click()
    lines = page.locator(".owe")
    expect(lines).to_have_count(2)
    expect(lines.first).to_contain_text("api owes web")
    expect(lines.last).to_contain_text("anybody owes api")
    expect(lines.first.locator(".owe-words")).to_have_text("which port?")
    lines.first.locator(".owe-words").click()
    expect(page.locator("#needs-all")).to_be_hidden()
    expect(page.locator(".message.revealed .content")).to_have_text("which port?")
    expect(row(page, "which port?").locator(".asks")).to_have_text("expects an answer")
    hub.receive(api)
    answer(hub, api, first, "8080")
    expect(row(page, "which port?").locator(".asks")).to_have_text("expected an answer")
    expect(page.locator(".needs-owed")).to_contain_text("1")


def test_a_nudge_is_a_word_to_who_owes_and_settling_ends_it(hub: HubProcess, console: Open) -> None:
    api, web = hub.register("api"), hub.register("web")
    seq = ask(hub, web, "api", "which port?")
    hub.receive(api)
    page = console(hub)
    page.locator(".needs-owed").click()
    page.get_by_role("button", name="Nudge").click()
    expect(page.locator("#orders .order").first).to_contain_text("Answer to api")
    [nudge] = hub.receive(api, timeout=5.0)["messages"]
    assert (nudge["sender"], nudge["reply_to"], nudge["origin"]) == ("human", seq, "operator")
    assert "web" not in nudge["content"], "the operator's voice carries no peer's name"
    assert "which port?" not in nudge["content"], "nor its words"
    again = page.get_by_role("button", name="Nudge")
    expect(again).to_have_attribute("aria-disabled", "true")
    expect(page.locator(".owe")).to_contain_text("nudged")
    again.dispatch_event("click")
    assert owed(hub) == [seq]
    page.get_by_role("button", name="Settle").click()
    expect(page.locator(".needs-owed")).to_be_hidden()
    page.mouse.move(5, 600)
    expect(page.locator("#needs-all")).to_be_hidden()
    assert owed(hub) == []
    assert hub.receive(api)["messages"] == [], "a second nudge in a breath says nothing"
    [settled] = hub.receive(web)["messages"]
    assert (settled["reply_to"], settled["outcome"]) == (seq, "settled")


def test_a_question_to_the_operator_is_answered_from_needs_you(hub: HubProcess, console: Open) -> None:
    web = hub.register("web")
    seq = ask(hub, web, "human", "may I drop the table?")
    page = console(hub)
    need = page.locator('#attention > .needs .need[data-kind="question"]')
    expect(need).to_contain_text("web asks you: may I drop the table?")
    expect(page.locator('.need[data-kind="mention"]')).to_have_count(0)
    need.get_by_role("button", name="Answer").click()
    expect(page.locator(".reply-line")).to_contain_text("Answer to web: may I drop the table?")
    expect(page.locator("#target")).to_have_value("web")
    expect(page.locator("#composer textarea")).to_be_focused()
    page.keyboard.type("you may")
    page.keyboard.press("Enter")
    expect(page.locator(".reply-line")).to_be_hidden()
    expect(need).to_have_count(0)
    [message] = hub.receive(web, timeout=5.0)["messages"]
    assert (message["content"], message["reply_to"], message["quote"]) == ("you may", seq, "may I drop the table?")


def test_an_observer_sees_who_owes_and_can_do_nothing_about_it(guarded: HubProcess, console: Open) -> None:
    web, _ = guarded.register("web"), guarded.register("api")
    ask(guarded, web, "api", "which port?")
    page = console(guarded)
    enter(page, OBSERVER)
    page.locator(".needs-owed").click()
    expect(page.locator(".owe")).to_contain_text("api owes web")
    expect(page.locator(".owe-acts button")).to_have_count(0)


def test_filters_show_what_nobody_fetched_and_what_has_no_answer(hub: HubProcess, console: Open) -> None:
    api, web = hub.register("api"), hub.register("web")
    hub.say(api, "web", "fetched")
    hub.receive(web)
    seq = ask(hub, api, "web", "unfetched and unanswered")
    page = console(hub)
    expect(tick(page, "fetched")).to_have_text("fetched")
    page.locator("#flow-tools button", has_text="Filter").click()
    fate = page.get_by_label("What became of it")
    fate.select_option("Not fetched")
    expect(row(page, "fetched")).to_have_count(0)
    assert shown(page) == ["unfetched and unanswered"]
    hub.say(api, "web", "one more")
    expect(row(page, "one more")).to_be_visible()
    hub.receive(web)
    expect(page.locator("#flow .message")).to_have_count(0)
    fate.select_option("Unanswered")
    expect(row(page, "unfetched and unanswered")).to_be_visible()
    answer(hub, web, seq, "yes")
    expect(page.locator("#flow .message")).to_have_count(0)
    page.locator("#flow-filters button", has_text="Clear").click()
    expect(row(page, "fetched")).to_be_visible()


# --- the composer ---


def test_a_message_is_answered_by_key_and_by_button_and_the_answer_can_be_dropped(
    hub: HubProcess, console: Open
) -> None:
    api = hub.register("api")
    seq = hub.say(api, "#x", "shall I?")["seq"]
    page = console(hub)
    expect(row(page, "shall I?")).to_be_visible()
    page.locator("#flow").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("r")
    expect(page.locator("#target")).to_have_value("#x")
    expect(page.locator(".reply-line")).to_contain_text("shall I?")
    page.keyboard.press("Escape")
    expect(page.locator(".reply-line")).to_be_hidden()
    expect(page.locator("#composer textarea")).to_be_focused()
    row(page, "shall I?").hover()
    page.locator(".row-reply").click()
    page.keyboard.type("do it")
    page.reload()  # a draft survives, and what it answers with it
    expect(page.locator(".reply-line")).to_contain_text("shall I?")
    page.locator("#asks").check()
    page.locator("#say").click()
    expect(page.locator("#asks")).not_to_be_checked()
    [message] = hub.receive(api, timeout=5.0)["messages"]
    assert (message["content"], message["reply_to"], message["expects_answer"]) == ("do it", seq, True)
    page.locator(".needs-owed").click()
    expect(page.locator(".owe")).to_contain_text("owes you")


def test_what_was_refused_comes_back_with_what_it_answers(hub: HubProcess, console: Open) -> None:
    api = hub.register("api")
    hub.say(api, "human", "hello")
    page = console(hub)
    expect(row(page, "hello")).to_be_visible()
    row(page, "hello").hover()
    page.locator(".row-reply").click()
    with hub.console() as operator:
        page.keyboard.type("are you there?")
        operator.send(kick="api")
        expect(peer(page, "api")).to_have_count(0)
    page.locator("#say").click()
    expect(page.locator(".toast")).to_contain_text("api")
    expect(page.locator("#composer textarea")).to_have_value("are you there?")
    expect(page.locator(".reply-line")).to_contain_text("hello")


def cut(page: Page, when: str) -> dict[str, bool]:
    """Lay a line that breaks once at the first words: `before` the hub has them, or `after`, with its answer lost.

    Give what tells whether it has.
    """
    state = {"is_cut": False}

    def lay(line: Any) -> None:
        hub = line.connect_to_server()
        dead = {"is": False}

        def send(data: Any) -> None:
            if dead["is"]:
                return
            if state["is_cut"] or '"say"' not in str(data):
                hub.send(data)
                return
            state["is_cut"] = dead["is"] = True
            if when == "after":
                hub.send(data)
            line.close(code=1012)

        line.on_message(send)
        hub.on_message(lambda data: None if dead["is"] else line.send(data))

    page.route_web_socket("**/ui?changes=1", lay)
    return state


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_said_into_a_breaking_line_is_in_the_room_once(hub: HubProcess, console: Open, when: str) -> None:
    api = hub.register("api")
    page = console(hub, expected=LINE_LOST)
    line = cut(page, when)
    page.reload()
    expect(page.locator("#connection")).to_have_text("Connected")
    page.locator("#composer textarea").fill("only once")
    page.keyboard.press("Enter")
    expect(row(page, "only once")).to_have_count(1)
    expect(page.locator("#orders .order").first).to_have_attribute("data-state", "partly")
    assert line["is_cut"]
    expect(page.locator("#connection")).to_have_text("Connected")
    assert [message["content"] for message in log_of(hub)] == ["only once"]
    assert heard(hub, api) == ["only once"]
    eventually(lambda: page.evaluate("sessionStorage.getItem('caucus.outbox')") == "[]", "the outbox is empty")
    page.locator("#composer textarea").fill("and this")
    page.keyboard.press("Enter")
    expect(row(page, "and this")).to_have_count(1)
    assert [message["content"] for message in log_of(hub)] == ["only once", "and this"]


# --- house rules ---


def test_house_rules_are_edited_counted_and_who_has_read_them_is_shown(hub: HubProcess, console: Open) -> None:
    api, _ = hub.register("api"), hub.register("web")
    page = console(hub)
    expect(peer(page, "web")).to_be_visible()
    page.keyboard.press(",")
    field, save = page.locator("#rules-text"), page.get_by_role("button", name="Save the rules")
    expect(page.locator("#rules .count")).to_have_text("None were set yet")
    expect(save).to_be_disabled()
    field.fill("x" * 4001)
    expect(page.locator("#rules-count")).to_have_text("4,001 of 4,000 characters")
    expect(save).to_be_disabled()
    field.fill("Tests before commits.")
    save.click()
    expect(page.locator("#rules .count")).to_have_text("Version 1")
    expect(page.locator("#rules-readers")).to_have_text("Not read yet by api and web.")
    hub.get("/protocol", token=api)
    expect(page.locator("#rules-readers")).to_have_text("Version 1 was read by api. Not read yet by web.")
    expect(page.locator("#rules-belong")).to_contain_text("A rule that the hub can hold")
    field.fill("Mine.")
    with hub.console() as operator:
        operator.send(rules="Theirs.")
        expect(page.locator("#rules [role=status].refusal")).to_contain_text("Version 2 was set while you wrote")
        expect(field).to_have_value("Mine.")
    page.get_by_role("button", name="Take back").click()
    expect(field).to_have_value("Theirs.")
    expect(page.locator("#rules-readers")).to_have_text("Still at version 1: api. Not read yet by web.")


def test_an_observer_reads_the_house_rules_only(guarded: HubProcess, console: Open) -> None:
    with guarded.console("op-secret") as operator:
        operator.send(rules="Tests first.")
        operator.next("rules")
    page = console(guarded)
    enter(page, OBSERVER)
    expect(page.locator("#token-dialog")).to_be_hidden()
    page.locator("#settings-open").click()
    expect(page.locator("#rules-text")).to_have_value("Tests first.")
    assert page.locator("#rules-text").get_attribute("readonly") is not None
    expect(page.get_by_role("button", name="Save the rules")).to_have_count(0)


# --- everyone's page ---


@pytest.mark.parametrize(("size", "theme"), [(PHONE, "light"), (SMALL, "dark")], ids=["phone-light", "1024-dark"])
def test_fates_threads_debts_and_rules_bar_nobody(
    hub: HubProcess, console: Open, theme: str, size: dict[str, int]
) -> None:
    thread(hub)
    ask(hub, hub.register("asker"), "api", "which port, **really**? " * 8)
    page = console(hub, color_scheme=theme, viewport=size, reduced_motion="reduce")
    expect(tick(page, "thanks")).to_be_visible()

    def check(where: str) -> None:
        assert violations(page) == [], where
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], where

    check("ticks and quotes")
    tick(page, "thanks").click()
    expect(page.locator("#fates")).to_be_visible()
    check("who has it")
    page.keyboard.press("Escape")
    page.locator(".needs-owed").click()
    check("who owes whom")
    page.keyboard.press("Escape")
    row(page, "thanks").focus()
    page.keyboard.press("v")
    expect(page.locator("#thread-bar")).to_be_visible()
    page.keyboard.press("r")
    expect(page.locator(".reply-line")).to_be_visible()
    check("a thread and an answer")
    page.locator("#settings-open").click()
    check("house rules")


# --- another room ---


def test_nothing_meant_for_one_room_goes_into_another(console: Open) -> None:
    """An answer went to whatever the new room had under that number, and unconfirmed words with it."""
    with running_hub() as hub:
        port = hub.port
        asked = ask(hub, hub.register("api"), "all", "may I drop the table?")
        page = console(hub, expected=LINE_LOST)
        row(page, "may I drop the table?").hover()
        page.locator(".row-reply").click()
        page.keyboard.type("yes, do it")
        expect(page.locator(".reply-line")).to_be_visible()
    with running_hub("--port", str(port)) as hub:
        web = hub.register("web")
        api = hub.register("api")
        while hub.say(web, "all", "delete the database?")["seq"] < asked:
            pass
        expect(page.locator("#connection")).to_have_text("Connected", timeout=30_000)
        expect(page.locator(".marker")).to_contain_text("new room")
        expect(page.locator(".reply-line")).to_be_hidden()
        expect(page.locator(".composer-hint")).to_contain_text("This is a new room")
        expect(page.locator("#composer textarea")).to_have_value("yes, do it")
        page.locator("#composer textarea").fill("")
        page.evaluate(
            """(seq) => {
              const frame = { say: "unconfirmed", to: "all", reply_to: seq, client_id: "c".repeat(32) };
              const waiting = [{ at: Date.now(), room: "another", isTyped: true, frame }];
              sessionStorage.setItem("caucus.outbox", JSON.stringify(waiting));
            }""",
            asked,
        )
        page.reload()
        expect(page.locator("#composer textarea")).to_have_value("unconfirmed")
        assert log_of(hub) == []
        page.locator("#say").click()
        expect(row(page, "unconfirmed")).to_be_visible()
        [said] = [one for one in hub.receive(api)["messages"] if one["origin"] == "operator"]
        assert said.get("reply_to") is None
        assert said["content"] == "unconfirmed"


def test_answering_one_who_has_left_announces_no_broadcast(hub: HubProcess, console: Open) -> None:
    ghost, web = hub.register("ghost"), hub.register("web")
    hub.say(ghost, "human", "a secret")
    page = console(hub)
    hub.post("/leave", token=ghost)
    expect(peer(page, "ghost")).to_have_count(0)
    row(page, "a secret").focus()
    page.keyboard.press("r")
    expect(page.locator("#target")).to_have_value("ghost")
    expect(page.locator("#composer textarea")).to_have_attribute("placeholder", "ghost is gone: choose where this goes")
    expect(page.locator(".composer-hint")).to_have_text("ghost is gone: choose where this goes")
    page.keyboard.type("for your eyes only")
    page.keyboard.press("Enter")
    expect(page.locator("#composer textarea")).to_have_value("for your eyes only")
    assert heard(hub, web) == []


# --- the box that tells who has it ---


def test_of_many_recipients_the_open_box_follows_and_is_whole_in_the_window(hub: HubProcess, console: Open) -> None:
    tokens = [hub.register(f"peer-{n:02}") for n in range(20)]
    page = console(hub, viewport={"width": 1280, "height": 600})
    for n in range(12):
        hub.say(tokens[n % 2], "#x" if n % 3 else "all", f"line {n} of all")
    hub.say(tokens[0], "all", "good morning")
    expect(tick(page, "good morning")).to_have_text("0 of 19 have it")
    tick(page, "good morning").click()
    fates = page.locator("#fates .fate")
    expect(fates).to_have_count(19)
    expect(page.locator(".fates-of")).to_contain_text("of peer-00: good morning")
    box, brakes = page.locator("#fates").bounding_box(), page.locator(".top").bounding_box()
    assert box["y"] >= brakes["y"] + brakes["height"], "Pause and Stop stay free"
    assert box["y"] + box["height"] <= 600
    hub.receive(tokens[7])
    expect(page.locator("#fates h2")).to_have_text("1 of 19 have it")
    expect(fates.last).to_contain_text("peer-07fetched: its process has it, seen")


def test_the_box_stays_while_rows_pass_under_a_still_pointer(hub: HubProcess, console: Open) -> None:
    hub.unthrottle()
    api, web = hub.register("api"), hub.register("web")
    page = console(hub)
    for n in range(30):
        hub.say((api, web)[n % 2], "all", f"line {n}")
    expect(tick(page, "line 29")).to_have_text("queued")
    page.evaluate(
        """() => {
          window.toggled = [];
          const box = document.getElementById("fates");
          box.addEventListener("toggle", (event) => window.toggled.push(event.newState));
        }"""
    )
    place = tick(page, "line 26").bounding_box()
    page.mouse.move(place["x"] + 5, place["y"] + 5)
    expect(page.locator("#fates")).to_be_visible()
    for n in range(8):
        hub.say((api, web)[n % 2], "all", f"later {n}")
        expect(row(page, f"later {n}")).to_be_visible()
        page.wait_for_timeout(350)
    assert page.evaluate("window.toggled") == ["open"]
    page.mouse.move(300, 5)
    expect(page.locator("#fates")).to_be_hidden()
    tick(page, "later 5").click()
    title = page.locator(".fates-of").inner_text()
    other = tick(page, "later 2").bounding_box()
    page.mouse.move(other["x"] + 5, other["y"] + 5)
    page.mouse.move(other["x"] + 8, other["y"] + 5)
    page.wait_for_timeout(600)
    assert page.locator(".fates-of").inner_text() == title, "what was opened by hand stays"


# --- who owes whom, under the hand ---


def test_a_slow_double_click_settles_one_question(hub: HubProcess, console: Open) -> None:
    hub.unthrottle()
    api, web = hub.register("api"), hub.register("web")
    seqs = [ask(hub, web, "api", f"question {n}") for n in range(4)]
    page = console(hub)
    page.locator(".needs-owed").click()
    expect(page.locator(".owed-title")).to_be_focused()
    expect(page.get_by_role("heading", name="Needs you", exact=True)).to_have_count(1)
    settle = page.locator(".owe").first.get_by_role("button", name="Settle").bounding_box()
    page.mouse.move(settle["x"] + 8, settle["y"] + 8)
    page.mouse.down()
    page.mouse.up()
    expect(page.locator(".owe[data-done]")).to_have_count(1)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_timeout(300)
    assert owed(hub) == seqs[1:]
    page.mouse.move(5, 600)
    expect(page.locator(".owe")).to_have_count(3)
    page.locator(".owe").first.get_by_role("button", name="Settle").focus()
    page.keyboard.press("Enter")
    expect(page.locator(f'.owe[data-seq="{seqs[2]}"]').get_by_role("button", name="Settle")).to_be_focused()
    eventually(lambda: owed(hub) == seqs[2:], "one more is settled")
    hub.receive(api)


def test_of_many_questions_the_oldest_are_drawn_and_the_others_at_a_press(hub: HubProcess, console: Open) -> None:
    hub.unthrottle()
    askers = [hub.register(f"asker-{n}") for n in range(4)]
    hub.register("web")
    seqs = [ask(hub, askers[n % 4], "web", f"question {n}") for n in range(50)]
    page = console(hub)
    page.locator(".needs-owed").click()
    expect(page.locator(".owe")).to_have_count(40)
    expect(page.locator(".owe").first).to_have_attribute("data-seq", str(seqs[0]))
    page.evaluate(
        """() => {
          window.redrawn = 0;
          const count = (all) => { window.redrawn += all.length; };
          new MutationObserver(count).observe(document.querySelector(".owed"), { subtree: true, childList: true });
        }"""
    )
    for n in range(30):
        hub.say(askers[n % 4], "#noise", f"line {n}")
    expect(row(page, "line 29")).to_be_attached()
    assert page.evaluate("window.redrawn") <= 40 * 4, "ages count on once a second, and frames of the hub draw nothing"
    page.locator(".owed-more").click()
    expect(page.locator(".owe")).to_have_count(50)
    expect(page.locator(".owed-more")).to_be_hidden()


def test_a_question_older_than_the_page_is_answered(hub: HubProcess, console: Open) -> None:
    hub.unthrottle()
    web = hub.register("web")
    seq = ask(hub, web, "human", "which region?")
    for n in range(520):
        hub.say(web, "#noise", f"filler {n}")
    page = console(hub)
    page.locator('#attention > .needs .need[data-kind="question"]').get_by_role("button", name="Answer").click()
    expect(page.locator(".reply-line")).to_contain_text("Answer to web: which region?")
    page.keyboard.type("eu-1")
    page.keyboard.press("Enter")
    eventually(lambda: owed(hub) == [], "it is answered")
    assert hub.receive(web)["messages"][-1]["reply_to"] == seq


def test_an_observer_is_not_told_to_owe(guarded: HubProcess, console: Open) -> None:
    ask(guarded, guarded.register("web"), "human", "which port?")
    page = console(guarded)
    enter(page, OBSERVER)
    expect(page.locator("#attention .need")).to_contain_text("asks the operator")
    page.locator(".needs-owed").click()
    expect(page.locator(".owe")).to_contain_text("the operator owes web")


# --- threads, search and filters ---


def test_a_folded_thread_shows_what_is_looked_for(hub: HubProcess, console: Open) -> None:
    seq = thread(hub)
    api, web = hub.register("api2"), hub.register("web2")
    ask(hub, api, "web2", "one question")
    hub.receive(web)
    page = console(hub)
    row(page, "which port?").locator(".thread-fold").click()
    expect(row(page, "8080")).to_have_count(0)
    page.locator("#search").fill("808")
    expect(row(page, "8080")).to_be_visible()
    expect(page.locator(".hits")).to_have_text("1 found")
    page.locator("#search").fill("")
    expect(row(page, "8080")).to_have_count(0)
    with hub.console() as operator:
        operator.send(say="and now?", to="web2", reply_to=seq, expects_answer=True, client_id="c")
        operator.next("said")
    expect(page.locator(".needs-owed")).to_contain_text("2")
    page.locator("#flow-tools button", has_text="Filter").click()
    page.get_by_label("What became of it").select_option("Unanswered")
    expect(row(page, "and now?")).to_be_visible()


def test_a_thread_gives_search_and_filters_back(hub: HubProcess, console: Open) -> None:
    thread(hub)
    page = console(hub)
    page.locator("#flow-tools button", has_text="Filter").click()
    page.get_by_label("By or to whom").select_option("web")
    page.locator("#search").fill("808")
    expect(page.locator(".hits")).to_have_text("1 found")
    filtered = shown(page)
    row(page, "8080").focus()
    page.keyboard.press("v")
    expect(page.locator("#thread-bar")).to_be_visible()
    expect(page.locator("#search")).to_have_value("808")
    expect(page.locator("#flow mark")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.get_by_label("By or to whom")).to_have_value("=web")
    assert shown(page) == filtered
    expect(page.locator("#flow mark")).to_have_count(1)
    row(page, "8080").focus()
    page.keyboard.press("v")
    page.locator("#flow-filters button", has_text="Clear").click()
    expect(page.locator("#thread-bar")).to_be_hidden()
    assert shown(page) == ["which port?", "an aside", "8080", "thanks"]
    row(page, "an aside").focus()
    page.keyboard.press("v")
    expect(page.locator("#thread-bar")).to_be_hidden()
    expect(page.locator(".toast")).to_contain_text("in no thread")


def test_what_turns_words_is_not_in_the_bar_and_the_answer_line(hub: HubProcess, console: Open) -> None:
    api, web = hub.register("api"), hub.register("web")
    seq = hub.say(api, "all", "pay \u202e001\u202c \u2066now\u2069")["seq"]
    answer(hub, web, seq, "done")
    page = console(hub)
    row(page, "done").focus()
    page.keyboard.press("v")
    expect(page.locator(".thread-bar-text")).to_have_text(
        "Only the thread of 2 messages that begins with api: pay 001 now"
    )
    page.locator("#flow .message").first.focus()
    page.keyboard.press("r")
    expect(page.locator(".reply-words")).to_have_text("pay 001 now")


def test_a_thread_without_its_beginning_says_so(hub: HubProcess, console: Open) -> None:
    hub.unthrottle()
    api, web = hub.register("api"), hub.register("web")
    seq = hub.say(api, "all", "long ago")["seq"]
    for n in range(510):
        hub.say(api, "#noise", f"filler {n}")
    for text in ("late", "later"):
        answer(hub, web, seq, text)
    page = console(hub)
    row(page, "later").focus()
    page.keyboard.press("v")
    expect(page.locator("#thread-bar")).to_contain_text("whose beginning is not on this page")


# --- drafts, and small windows ---


def test_expects_an_answer_and_a_draft_of_rules_survive_a_reload(hub: HubProcess, console: Open) -> None:
    for n in range(7):
        hub.register(f"peer-{n}")
    page = console(hub)
    page.locator("#composer textarea").fill("is it done?")
    page.locator("#asks").check()
    page.keyboard.press("Escape")
    page.locator("#settings-open").click()
    page.locator("#rules-text").fill("Tests first.")
    page.reload()
    expect(page.locator("#asks")).to_be_checked()
    page.locator("#settings-open").click()
    expect(page.locator("#rules-text")).to_have_value("Tests first.")
    page.get_by_role("button", name="Save the rules").click()
    expect(page.locator("#rules .count")).to_have_text("Version 1")
    expect(page.locator("#rules-readers")).to_contain_text("peer-6")
    page.reload()
    page.locator("#settings-open").click()
    expect(page.get_by_role("button", name="Save the rules")).to_be_disabled()


def test_in_a_low_window_what_is_said_keeps_its_room(hub: HubProcess, console: Open) -> None:
    api = hub.register("api")
    hub.say(api, "all", "hello")
    hub.say(api, "human", "to you")
    page = console(hub)
    expect(row(page, "hello")).to_be_attached()
    for width, height in resized(page, (640, 400), (512, 384), (320, 640), (1280, 400)):
        assert page.locator("#flow").evaluate("(node) => node.clientHeight") >= 0.37 * height
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for name in ("no such #channel", "nor another " * 12, "nor a third " * 12, "x"):
            page.evaluate("(text) => import('/assets/dom.js').then((dom) => dom.toast(text, 'refused'))", name)
        for control in ("#pause", "#stop", "#say"):
            assert page.locator(control).evaluate(
                """(node) => { const at = node.getBoundingClientRect();
              return node.contains(document.elementFromPoint((at.left + at.right) / 2, (at.top + at.bottom) / 2)); }"""
            ), control


def test_the_tools_of_a_row_of_one_line_are_whole_and_a_tick_can_be_touched(hub: HubProcess, console: Open) -> None:
    api, _ = hub.register("api"), hub.register("web")
    for n in range(3):
        hub.say(api, "web", f"go {n}")
    page = console(hub)
    row(page, "go 1").hover()
    row(page, "go 1").locator(".row-more").hover()
    for edge in ("top + 2", "bottom - 2"):
        assert page.locator(".row-reply").evaluate(
            f"""(node) => {{
              const at = node.getBoundingClientRect();
              return node.contains(document.elementFromPoint((at.left + at.right) / 2, at.{edge}));
            }}"""
        ), edge
    page.set_viewport_size(PHONE)
    expect(tick(page, "go 2")).to_be_visible()
    box = tick(page, "go 2").bounding_box()
    assert min(box["width"], box["height"]) >= 36
