"""The tap on the shoulder, over real sockets where it speaks, by a clock of the test's own where it waits."""

from __future__ import annotations

import base64
import hmac
import json
import re
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from queue import Queue
from typing import Any

import nursery
import pytest
from fakes import FakeClock, RecordingRoom, question
from hubs import ROOT, START, HubProcess, running_hub
from loops import detector
from posts import Post

import caucus
from caucus import (
    GRANT_TTL_S,
    GRANTS_MAX,
    LOOK_GRACE_S,
    MOMENTS_MAX,
    NOTIFY_AGAIN_MAX_S,
    NOTIFY_AGAIN_S,
    NOTIFY_AGE_S,
    NOTIFY_DELAY_S,
    NOTIFY_EVERY_S,
    NOTIFY_TEST_S,
    NOTIFY_TIMEOUT_S,
    NOTIFY_TRIES,
    OPERATOR,
    ROOM_QUIET_S,
    Attempt,
    Grants,
    Invalid,
    Manner,
    Need,
    Notifier,
    Poster,
    Push,
    Throttled,
    UnknownTicket,
    Verdict,
    push_of,
    target_of,
)

KEYS = ("--operator-token", "op-secret", "--observer-token", "watch-secret", "--agent-key", "agent-secret")
ASKING = Manner(expects_answer=True)
SECRET_WORDS = "drop the production database"


@pytest.fixture
def post() -> Iterator[Post]:
    """Give a server."""
    one = Post()
    yield one
    one.close()


# --- how it is sent ------------------------------------------------------------------------------------------------


def a_push(*needs: Need, is_worded: bool = False, links: Any = ()) -> Push:
    """Word a push of these needs, or of one form."""
    room = RecordingRoom(FakeClock())
    some = needs or (Need("form", "form 1", 1_700_000_000.25, "api", words=SECRET_WORDS),)
    return push_of(some, room, 1_700_000_123.5, "https://caucus.example", is_worded, links)


class Wire:
    """A poster outside a hub; its timers ring when the test says so."""

    def __init__(self, url: str, secret: str = "") -> None:
        self.calls: Queue[Callable[[], None]] = Queue()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.verdicts: list[Verdict] = []
        self._poster = Poster(
            target_of(url), secret, self.calls.put, lambda after, then: self.timers.append((after, then))
        )

    def send(self, push: Push | None = None) -> None:
        """Post, and go on."""
        self._poster.post(push or a_push(), self.verdicts.append)

    def post(self, push: Push | None = None) -> Verdict:
        """Post, and wait for what comes of it."""
        self.send(push)
        self.calls.get(timeout=10)()
        return self.verdicts[-1]


def test_a_webhook_gets_the_documented_object(post: Post) -> None:
    assert Wire(post.url).post() == Verdict()
    taken = post.next()
    assert taken.line == "POST /hook HTTP/1.1"
    assert taken.headers["content-type"] == "application/json"
    assert taken.headers["user-agent"] == f"caucus/{caucus.__version__}"
    assert "caucus-signature" not in taken.headers
    assert taken.json == {
        "version": 1,
        "title": "Caucus: api asks you to decide",
        "text": "api asks you to decide",
        "priority": 4,
        "room": taken.json["room"],
        "ts": 1_700_000_123.5,
        "click": "https://caucus.example",
        "count": 1,
        "needs": [{"kind": "form", "who": "api", "since": 1_700_000_000.2, "text": "api asks you to decide"}],
        "actions": [],
    }


def test_ntfy_gets_its_own_format_at_its_root(post: Post) -> None:
    links = [("pause", "https://caucus.example/act", "T1"), ("stop", "https://caucus.example/act", "T2")]
    wire = Wire(f"ntfy+http://127.0.0.1:{post.port}/my_topic-1")
    assert wire.post(a_push(links=links)) == Verdict()
    taken = post.next()
    assert taken.line == "POST / HTTP/1.1"
    assert taken.json == {
        "topic": "my_topic-1",
        "title": "Caucus: api asks you to decide",
        "message": "api asks you to decide",
        "priority": 4,
        "tags": ["ballot_box_with_check"],
        "click": "https://caucus.example",
        "actions": [
            {"action": "http", "label": "Pause", "method": "POST", "url": "https://caucus.example/act", "clear": True,
             "headers": {"Authorization": "Bearer T1"}},
            {"action": "http", "label": "Stop", "method": "POST", "url": "https://caucus.example/act", "clear": True,
             "headers": {"Authorization": "Bearer T2"}},
        ],
    }  # fmt: skip


def test_a_link_of_a_webhook_has_its_token_and_its_end() -> None:
    told = caucus.webhook_body(a_push(links=[("stop", "https://caucus.example/act", "T2")]))
    assert told["actions"] == [
        {"action": "stop", "url": "https://caucus.example/act?token=T2", "expires": 1_700_000_124 + int(GRANT_TTL_S)}
    ]


def test_the_signature_is_what_the_manuals_snippet_verifies(post: Post) -> None:
    manual = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    snippet = re.search(r"```python\n(import hmac.*?)```", manual, re.DOTALL)
    assert snippet is not None, "the manual has a snippet"
    scope: dict[str, Any] = {}
    exec(snippet[1], scope)
    is_genuine = scope["is_genuine"]
    Wire(post.url, "s3cret").post()
    taken = post.next()
    header = taken.headers["caucus-signature"]
    assert header.startswith("t=1700000123,v1=")
    now = 1_700_000_130
    assert is_genuine(b"s3cret", header, taken.body, now)
    assert not is_genuine(b"other", header, taken.body, now)
    assert not is_genuine(b"s3cret", header, taken.body + b" ", now)
    assert not is_genuine(b"s3cret", header.replace("t=1700000123", "t=1700000124"), taken.body, now)
    assert not is_genuine(b"s3cret", header, taken.body, now + 3600), "too old: somebody plays it again"
    whole = hmac.new(b"s3cret", b"1700000123." + taken.body, sha256).hexdigest()
    assert header == f"t=1700000123,v1={whole}"


def test_user_and_password_of_the_url_go_into_a_header_and_nowhere_else(post: Post) -> None:
    Wire(f"http://:tk%5Fx@127.0.0.1:{post.port}/hook?a=b").post()
    taken = post.next()
    assert taken.line == "POST /hook?a=b HTTP/1.1"
    assert taken.headers["authorization"] == f"Basic {base64.b64encode(b':tk_x').decode()}"
    assert "tk" not in taken.headers["host"]


@pytest.mark.parametrize(
    ("order", "verdict"),
    [
        ("500 Oops", Verdict("it answered 500")),
        ("599 What", Verdict("it answered 599")),
        ("429 Slow\r\nRetry-After: 120", Verdict("it answered 429", wait_s=120.0)),
        ("503 Busy\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT", Verdict("it answered 503")),
        ("404 Not Found", Verdict("it answered 404", is_final=True)),
        ("200 OK", Verdict()),
        ("204 No Content", Verdict()),
    ],
)
def test_the_status_decides_what_comes_of_it(post: Post, order: str, verdict: Verdict) -> None:
    post.orders = [order]
    assert Wire(post.url).post() == verdict


def test_a_redirect_is_not_followed_whatever_it_points_to(post: Post) -> None:
    other = Post()
    post.orders = [f"307 Moved\r\nLocation: {other.url}"]
    verdict = Wire(post.url, "s3cret").post()
    assert (verdict.is_final, verdict.fault) == (
        True, "it answered 307, has moved, and is not followed: give --notify the new URL"
    )  # fmt: skip
    other.close()
    assert other.taken == []


@pytest.mark.parametrize("order", ["close", "nonsense"])
def test_a_server_that_hangs_up_or_speaks_no_http_is_tried_again(post: Post, order: str) -> None:
    post.orders = [order]
    verdict = Wire(post.url).post()
    assert verdict.fault.startswith("it cannot be reached: ")
    assert not verdict.is_final


def test_nobody_there_is_a_fault_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert Wire(f"http://127.0.0.1:{port}/").post().fault == "it cannot be reached: Connection refused"


def test_a_server_that_never_answers_is_given_up_in_time_and_its_connection_closed(post: Post) -> None:
    post.orders = ["never"]
    wire = Wire(post.url)
    wire.send()
    post.next()
    [(after, ring)] = wire.timers
    assert after == NOTIFY_TIMEOUT_S
    ring()
    assert wire.verdicts == [Verdict("it has not answered within 10 s")]
    assert post.gone.get(timeout=5), "the connection is closed"
    wire.calls.get(timeout=5)()
    assert len(wire.verdicts) == 1, "told once"


def test_a_body_that_drips_keeps_nobody_waiting(post: Post) -> None:
    post.orders = ["drip"]
    assert Wire(post.url).post() == Verdict()
    assert post.gone.get(timeout=5)


def test_what_was_over_before_it_was_connected_is_not_sent(post: Post) -> None:
    attempt = Attempt(target_of(post.url), b"{}", {}, lambda verdict: None)
    attempt.end(Verdict("late"))
    attempt.run(lambda call: pytest.fail("it is over"))
    assert post.taken == []


# --- where it is sent ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://ntfy.sh/abc", (True, "ntfy.sh", 443, "/", "abc")),
        ("http://ntfy.sh/abc/", (False, "ntfy.sh", 80, "/", "abc")),
        ("ntfy+https://push.example:8443/t-1", (True, "push.example", 8443, "/", "t-1")),
        ("https://hook.example", (True, "hook.example", 443, "/", "")),
        ("http://[::1]:8080/a/b?c=d", (False, "::1", 8080, "/a/b?c=d", "")),
    ],
)
def test_a_url_is_read(url: str, seen: tuple[Any, ...]) -> None:
    target = target_of(url)
    assert (target.is_tls, target.host, target.port, target.path, target.topic) == seen


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ntfy.sh/topic", "that is no http or https URL: give a webhook"),
        ("ftp://example.org/x", "that is no http or https URL"),
        ("file:///etc/passwd", "that is no http or https URL"),
        ("ntfy+ftp://example.org/x", "that is no http or https URL"),
        ("https://", "that is no http or https URL"),
        ("https://ntfy.sh", "name one ntfy topic"),
        ("https://ntfy.sh/a/b", "name one ntfy topic"),
        ("https://ntfy.sh/a?x=y", "name one ntfy topic"),
        ("https://example.org:99999/", "Port out of range"),
        ("https://example.org:0/", "leave out port 0"),
        ("https://example.org/#part", "leave out the part after #"),
        ("https://exa mple.org/", "printable ASCII"),
        ("https://example.org/\r\nX: y", "printable ASCII"),
        ("https://exämple.org/", "printable ASCII"),
        ("https://example.org/" + "x" * 1100, "at most 1024"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused_with_what_would(url: str, words: str) -> None:
    with pytest.raises(Invalid, match=re.escape(words)) as refused:
        target_of(url)
    assert "https://ntfy.sh/LONG-RANDOM-NAME" in refused.value.detail


def test_the_place_that_people_are_told_has_no_topic_and_no_password() -> None:
    assert target_of("https://u:p@ntfy.sh/topic").place == "ntfy.sh (ntfy)"
    assert target_of("https://hook.example/secret").place == "hook.example (webhook)"


def hub_says(*words: str) -> tuple[int, str, str]:
    """Run the hub's command line to its end; give code, stdout and stderr."""
    argv = [sys.executable, START, "hub", "--port", "0", "--no-browser", *words]
    done = nursery.run(argv, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--notify", "gopher://x"), "--notify: that is no http or https URL"),
        (("--notify-content",), "--notify-content: needs --notify URL, too"),
        (("--notify-secret", "s"), "--notify-secret: needs --notify URL, too"),
        (("--notify-test",), "--notify-test: needs --notify URL, too"),
        (("--notify", "https://ntfy.sh/t", "--notify-secret", "s"), "--notify-secret: ntfy checks no signature"),
        (("--notify", "https://h.example/", "--notify-click", "javascript:x"), "--notify-click: that is no http"),
        (("--quiet-stop", "-1"), "--quiet-stop: '-1' is not a positive number"),
        (("--quiet-stop", "99999"), "--quiet-stop: a number of minutes, 0 to 10080, is required"),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_2_and_names_the_option(words: tuple[str, ...], says: str) -> None:
    code, _, err = hub_says(*words)
    assert code == 2
    assert says in err


def test_a_test_of_the_command_line_says_at_once_whether_it_works(post: Post) -> None:
    post.orders = ["200 OK", "403 Forbidden"]
    taken = "caucus: 127.0.0.1 (webhook): it took the test push\n"
    assert hub_says("--notify", post.url, "--notify-test") == (0, taken, "")
    assert post.next().json["needs"][0]["kind"] == "test"
    code, _, err = hub_says("--notify", post.url, "--notify-test")
    assert (code, err) == (3, "caucus: 127.0.0.1 (webhook): it answered 403\n")


# --- what it says --------------------------------------------------------------------------------------------------


def test_words_of_agents_are_sent_only_if_that_is_wished() -> None:
    for body in (caucus.ntfy_body(a_push(), "t"), caucus.webhook_body(a_push())):
        assert SECRET_WORDS not in json.dumps(body)
    for body in (caucus.ntfy_body(a_push(is_worded=True), "t"), caucus.webhook_body(a_push(is_worded=True))):
        assert SECRET_WORDS in json.dumps(body)


def test_several_needs_are_one_digest_the_most_urgent_first() -> None:
    needs = [Need("mention", f"mention {n}", 1.0, f"p{n}") for n in range(6)] + [Need("journal", "journal", 0.0)]
    push = a_push(*needs)
    assert push.title == "Caucus: 7 things need you"
    assert push.priority == 5
    assert push.text.splitlines() == [
        "The hub cannot write its journal: agents are refused",
        *[f"p{n} writes to you" for n in range(4)],
        "and 2 more",
    ]


def test_a_push_of_the_longest_words_fits_what_ntfy_takes() -> None:
    needs = [Need("form", f"form {n}", 1.0, "𝒳" * 64, words="𝒳" * 4000) for n in range(300)]
    body = caucus.ntfy_body(a_push(*needs, is_worded=True), "t")
    assert len(str(body["message"]).encode()) <= 4096
    assert len(json.dumps(caucus.webhook_body(a_push(*needs, is_worded=True)), ensure_ascii=False).encode()) < 32_768


def test_an_odd_name_cannot_pass_for_the_hubs_words() -> None:
    assert a_push(Need("form", "form 1", 1.0, "all is well; nobody")).text == '"all is well; nobody" asks you to decide'


def test_every_kind_of_need_is_in_the_manual_and_no_other() -> None:
    manual = (ROOT / "docs/api.md").read_text(encoding="utf-8").partition("## Pushes")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([\w-]+)` \| \d \|", manual, re.MULTILINE) == [*caucus.NEEDS]
    for kind, (priority, _, _) in caucus.NEEDS.items():
        assert f"| `{kind}` | {priority} |" in manual


# --- when it is sent -----------------------------------------------------------------------------------------------


class Desk:
    """A notifier beside a room, with a clock and timers that the test moves, and pushes that it answers."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.room = RecordingRoom(self.clock)
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.pushed: list[list[str]] = []  # kinds
        self.then: list[Callable[[Verdict], None]] = []
        self.is_looking = False
        self.answer: Verdict | None = Verdict()  # at once; None: later
        later = lambda after, then: self.timers.append((self.clock.mono() + after, then))  # noqa: E731
        compose = lambda needs: push_of(needs, self.room, self.clock.wall(), "", False, ())  # noqa: E731
        self.notifier = Notifier(self.room, self.clock, later, compose, self._post)
        self.notifier.is_looked_at = lambda: self.is_looking
        self.room.listeners.append(self._hear)
        self.api, self.web = self.room.join("api"), self.room.join("web")
        self.api.is_listening = self.web.is_listening = True

    def _hear(self, event: caucus.Event) -> None:
        if type(event) in caucus.NEWS_OF_NEEDS:
            self.notifier.on_event(event)

    def _post(self, push: Push, then: Callable[[Verdict], None]) -> None:
        self.pushed.append([need.kind for need in push.needs])
        if self.answer is None:
            self.then.append(then)
        else:
            then(self.answer)

    def wait(self, seconds: float) -> None:
        """Let time pass; timers ring on the way."""
        end, tick = self.clock.mono() + seconds, self.clock.mono() + caucus.SWEEP_S
        while tick < end:  # as the hub's clock does
            self.timers.append((tick, self.notifier.look))
            tick += caucus.SWEEP_S
        while due := [one for one in self.timers if one[0] <= end]:
            first = min(due, key=lambda one: one[0])
            self.timers.remove(first)
            self.clock.advance(max(0.0, first[0] - self.clock.mono()))
            first[1]()
        self.clock.advance(end - self.clock.mono())
        self.notifier.look()

    def leave(self, idle_s: float = 0.0) -> None:
        """Take the console from the foreground."""
        self.is_looking = False
        self.notifier.leave(idle_s)

    @property
    def figures(self) -> dict[str, Any]:
        """Give what Health shows."""
        return self.notifier.to_json()


@pytest.fixture
def desk() -> Desk:
    """Give one, settled."""
    one = Desk()
    one.wait(1)
    assert one.pushed == []
    return one


def test_a_form_is_pushed_after_a_moment_and_once(desk: Desk) -> None:
    desk.room.ask(desk.api, question())
    desk.wait(NOTIFY_DELAY_S - 0.1)
    assert desk.pushed == []
    desk.wait(0.2)
    assert desk.pushed == [["form"]]
    desk.wait(10_000)
    assert desk.pushed == [["form"]]
    assert (desk.figures["sent"], desk.figures["waiting"]) == (1, 0)


def test_what_comes_together_is_one_push_and_what_is_settled_at_once_is_none(desk: Desk) -> None:
    one = desk.room.ask(desk.api, question())
    desk.room.ask(desk.web, question())
    desk.room.say(desk.web, OPERATOR, "look")
    desk.wait(NOTIFY_DELAY_S / 2)
    desk.room.cancel(one.id)
    desk.wait(NOTIFY_DELAY_S)
    assert desk.pushed == [["form"]], "and his words have answered the mention no less than the form"


def test_there_is_at_most_one_push_a_minute_and_then_a_digest(desk: Desk) -> None:
    desk.room.ask(desk.api, question())
    desk.wait(5)
    for n in range(3):
        desk.room.ask(desk.web, question(title=f"Question {n}?"))
    desk.wait(NOTIFY_EVERY_S - 10)
    assert desk.pushed == [["form"]]
    assert desk.figures["waiting"] == 3
    desk.wait(10)
    assert desk.pushed == [["form"], ["form"] * 3]


def test_what_was_settled_meanwhile_is_not_in_the_digest(desk: Desk) -> None:
    desk.room.ask(desk.api, question())
    desk.wait(5)
    settled = desk.room.ask(desk.web, question())
    desk.room.say(desk.web, OPERATOR, "a port, please", ASKING)
    desk.wait(5)
    desk.room.cancel(settled.id)
    desk.wait(NOTIFY_EVERY_S)
    assert desk.pushed == [["form"], ["question"]]


def test_nothing_is_pushed_while_the_operator_looks(desk: Desk) -> None:
    desk.is_looking = True
    desk.room.ask(desk.api, question())
    desk.wait(1000)
    assert desk.pushed == []
    desk.leave()
    desk.wait(1000)
    assert desk.pushed == [], "he has seen it"
    desk.room.ask(desk.api, question())
    desk.wait(NOTIFY_DELAY_S)
    assert desk.pushed == [["form"]]


def test_after_he_has_left_the_page_a_push_waits_whether_he_comes_back(desk: Desk) -> None:
    desk.is_looking = True
    desk.leave()
    desk.room.ask(desk.api, question())
    desk.wait(LOOK_GRACE_S - 1)
    assert desk.pushed == []
    desk.is_looking = True
    desk.wait(100)
    assert desk.pushed == []
    desk.leave()
    desk.room.ask(desk.api, question())
    desk.wait(LOOK_GRACE_S)
    assert desk.pushed == [["form"]]


def test_what_came_while_the_page_was_open_and_nobody_sat_there_is_pushed(desk: Desk) -> None:
    desk.is_looking = True
    desk.room.ask(desk.api, question(title="Seen?"))
    desk.wait(10)
    desk.wait(200)
    desk.room.say(desk.api, OPERATOR, "unseen")
    desk.wait(100)
    desk.leave(idle_s=300)
    desk.wait(LOOK_GRACE_S)
    assert desk.pushed == [["mention"]]


@pytest.mark.parametrize("seconds", [0, 3])
def test_a_message_to_the_operator_is_a_mention_and_his_words_end_it(desk: Desk, seconds: float) -> None:
    desk.room.say(desk.api, OPERATOR, "hello")
    desk.room.say(desk.web, "api", "not for him")
    desk.wait(seconds)
    desk.room.operator_say("api", "hello")
    desk.wait(100)
    assert desk.pushed == ([["mention"]] if seconds else [])


def test_mentions_are_kept_in_a_bounded_number(desk: Desk) -> None:
    desk.room.set_rate(1000, 1000)
    for n in range(MOMENTS_MAX + 5):
        desk.room.say(desk.api, OPERATOR, f"hello {n}")
    desk.wait(NOTIFY_DELAY_S)
    assert [len(kinds) for kinds in desk.pushed] == [MOMENTS_MAX]


def test_a_permission_prompt_a_stuck_stick_and_the_journal_are_needs(desk: Desk) -> None:
    desk.room.set_prompts("api", True)
    desk.room.ask_permission(desk.api, "Bash", "rm -rf /")
    desk.wait(NOTIFY_DELAY_S)
    desk.room.use_floor(desk.api, "take", "all", None)
    desk.room.use_floor(desk.web, "raise", "all", None)
    desk.wait(caucus.STUCK_S + 20)
    desk.room.is_kept = False
    desk.wait(NOTIFY_EVERY_S + 1)
    assert desk.pushed == [["permission"], ["stick"], ["journal"]]


def test_a_held_lane_and_a_spent_budget_are_needs_until_they_are_ruled_on(desk: Desk) -> None:
    room = desk.room
    room.detector = detector()
    room.set_rate(1e6, 1e6)
    room.set_budgets(caucus.budgets_of("web: 1 messages"))
    for at in range(20):
        desk.wait(1)
        room.say(desk.api, "web", ("Thank you!", "Thanks a lot!")[at % 2])
    assert room.loops["api ↔ web"].state == caucus.HELD
    desk.wait(NOTIFY_EVERY_S)
    room.say(desk.web, "all", "done")
    desk.wait(NOTIFY_EVERY_S + NOTIFY_DELAY_S)
    assert desk.pushed == [["hold"], ["budget"]]
    room.say(desk.web, "all", "done again")
    room.raise_budget("web", "messages", 5)
    room.rule("api ↔ web", "run")
    desk.wait(10 * NOTIFY_EVERY_S)
    assert len(desk.pushed) == 2


def test_all_agents_gone_is_told_once_and_again_after_somebody_came(desk: Desk) -> None:
    desk.room.leave(desk.room.tokens["api"])
    desk.wait(100)
    assert desk.pushed == []
    desk.room.leave(desk.room.tokens["web"])
    desk.wait(100)
    assert desk.pushed == [["agents-gone"]]
    late = desk.room.join("late")
    late.is_listening = True
    desk.wait(100)
    desk.room.leave(desk.room.tokens["late"])
    desk.wait(100)
    assert desk.pushed == [["agents-gone"]] * 2


@pytest.mark.parametrize("cause", ["kicked", "stopped", "came back"])
def test_an_empty_room_is_no_news_where_the_operator_made_it_so_or_it_is_filled_again(desk: Desk, cause: str) -> None:
    if cause == "stopped":
        desk.room.set_mode("stop")
    for name in ("api", "web"):
        desk.room.kick(name) if cause == "kicked" else desk.room.leave(desk.room.tokens[name])
    if cause == "came back":
        desk.room.join("api")
    desk.wait(100)
    assert desk.pushed == []


def test_a_quiet_room_is_told_of_with_what_it_has_come_to(desk: Desk) -> None:
    desk.room.say(desk.api, "web", "which port?", ASKING)
    desk.room.fetch(desk.web)
    desk.wait(ROOM_QUIET_S + 20)
    assert desk.pushed == [["died"]]
    desk.room.say(desk.web, "api", "8765", Manner(reply_to=desk.room.last_seq))
    desk.room.fetch(desk.api)
    desk.wait(ROOM_QUIET_S + 20)
    assert desk.pushed == [["died"], ["converged"]]
    desk.wait(10_000)
    assert len(desk.pushed) == 2


def test_a_push_of_a_room_that_died_names_who_owes_whom(desk: Desk) -> None:
    desk.room.say(desk.api, "web", SECRET_WORDS, ASKING)
    desk.clock.advance(ROOM_QUIET_S)
    [need] = caucus._quiet_needs(desk.room)
    assert need.text == "The room is quiet, and something is unsettled: web owes api an answer, for 10 min"


def test_a_room_that_stopped_by_itself_says_so(desk: Desk) -> None:
    desk.room.say(desk.api, "web", "bye")
    desk.room.set_quiet_stop(5)
    desk.clock.advance(300)
    desk.room.sweep()
    desk.wait(NOTIFY_DELAY_S)
    assert desk.pushed == [["quiet-stop"]]
    desk.room.set_mode("reset")
    desk.wait(100)
    assert desk.pushed == [["quiet-stop"]]


# --- what fails ---


def test_what_fails_is_tried_again_ever_more_slowly_and_then_given_up(desk: Desk, expect_warning: Any) -> None:
    expect_warning(r"notify: .*: it answered 500")
    desk.answer = Verdict("it answered 500")
    desk.room.ask(desk.api, question())
    desk.wait(NOTIFY_DELAY_S)
    assert (len(desk.pushed), desk.figures["fault"]) == (1, "it answered 500")
    for tries in range(1, NOTIFY_TRIES):
        pause = min(NOTIFY_AGAIN_S * 2 ** (tries - 1), NOTIFY_AGAIN_MAX_S)
        desk.wait(pause - 1)
        assert len(desk.pushed) == tries
        desk.wait(1)
        assert len(desk.pushed) == tries + 1
    desk.wait(100_000)
    assert len(desk.pushed) == NOTIFY_TRIES
    assert (desk.figures["given_up"], desk.figures["waiting"]) == (1, 0)


def test_a_retry_has_what_came_meanwhile_and_not_what_was_settled(desk: Desk, expect_warning: Any) -> None:
    expect_warning(r"notify: .*: it answered 500")
    desk.answer = Verdict("it answered 500")
    settled = desk.room.ask(desk.api, question())
    desk.wait(NOTIFY_DELAY_S)
    desk.room.cancel(settled.id)
    desk.room.say(desk.web, OPERATOR, "a port?", ASKING)
    desk.answer = Verdict()
    desk.wait(NOTIFY_AGAIN_S)
    assert desk.pushed == [["form"], ["question"]]
    assert (desk.figures["fault"], desk.figures["sent"]) == (None, 1)


def test_a_retry_waits_as_long_as_the_other_side_asks(desk: Desk, expect_warning: Any) -> None:
    expect_warning(r"notify: .*: it answered 429")
    desk.answer = Verdict("it answered 429", wait_s=120)
    desk.room.ask(desk.api, question())
    desk.wait(NOTIFY_DELAY_S)
    desk.answer = Verdict()
    desk.wait(119)
    assert len(desk.pushed) == 1
    desk.wait(1)
    assert len(desk.pushed) == 2


def test_a_side_that_asks_for_too_long_is_not_waited_for(desk: Desk, expect_warning: Any) -> None:
    expect_warning(r"notify: .*: it answered 429")
    desk.answer = Verdict("it answered 429", wait_s=NOTIFY_AGE_S * 10)
    desk.room.ask(desk.api, question())
    desk.wait(NOTIFY_DELAY_S)
    desk.answer = Verdict()
    desk.room.ask(desk.web, question())
    desk.wait(NOTIFY_AGE_S)
    assert len(desk.pushed) == 2, "what came later has its own age"


def test_what_would_be_refused_again_is_not_sent_again(desk: Desk, expect_warning: Any) -> None:
    expect_warning(r"notify: .*: it answered 404")
    desk.answer = Verdict("it answered 404", is_final=True)
    desk.room.ask(desk.api, question())
    desk.wait(10_000)
    assert (len(desk.pushed), desk.figures["given_up"]) == (1, 1)
    desk.room.ask(desk.api, question())
    desk.wait(NOTIFY_DELAY_S)
    assert len(desk.pushed) == 2, "a new need is worth a new attempt"


def test_one_push_at_a_time_is_on_its_way(desk: Desk) -> None:
    desk.answer = None
    desk.room.ask(desk.api, question())
    desk.wait(NOTIFY_DELAY_S)
    desk.room.ask(desk.web, question())
    desk.wait(1000)
    assert len(desk.pushed) == 1
    desk.then[0](Verdict())
    desk.wait(NOTIFY_EVERY_S)
    assert desk.pushed == [["form"], ["form"]]


def test_a_test_goes_at_once_whoever_looks_but_not_again_and_again(desk: Desk) -> None:
    desk.is_looking = True
    desk.notifier.test()
    assert desk.pushed == [["test"]]
    with pytest.raises(Throttled):
        desk.notifier.test()
    desk.wait(NOTIFY_TEST_S)
    desk.notifier.test()
    assert len(desk.pushed) == 2


# --- links that act ------------------------------------------------------------------------------------------------


class Caller:
    """Where a request comes from."""

    def source(self) -> str:
        """Give its address."""
        return "10.0.0.1"


class Door:
    """Grants and their routes, outside a hub."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.room = RecordingRoom(self.clock)
        self.grants = Grants(self.clock)
        polls = caucus.Polls(self.room, self.clock, lambda when, then: None)
        self.gate = caucus.Gate(caucus.Settings(operator_token="x"), self.room, polls, self.clock)

    def links(self) -> dict[str, str]:
        """Make a link for each act: verb -> token."""
        return {verb: token for verb, _, token in self.grants.links("https://caucus.example")}

    def look(self, token: str) -> str:
        """GET."""
        head = caucus.Head({}, "GET", "/act", f"token={token}")
        return self.grants.get_act(self.gate, caucus.Request(head, b"", Caller())).body.decode()  # type: ignore[arg-type]

    def act(self, token: str, is_form: bool = False) -> Any:
        """POST."""
        headers = {} if is_form else {"Authorization": f"Bearer {token}"}
        body = f"token={token}".encode() if is_form else b""
        head = caucus.Head(headers, "POST", "/act")
        return self.grants.post_act(self.gate, caucus.Request(head, body, Caller()))  # type: ignore[arg-type]


@pytest.mark.parametrize("is_form", [False, True])
def test_a_link_acts_once(is_form: bool) -> None:
    door = Door()
    links = door.links()
    reply = door.act(links["pause"], is_form)
    assert (reply.status, door.room.mode) == (200, "paused")
    with pytest.raises(UnknownTicket):
        door.act(links["pause"], is_form)
    door.act(links["stop"], is_form)
    assert door.room.mode == "stopped"


def test_to_read_a_link_does_nothing_however_often() -> None:
    door = Door()
    token = door.links()["stop"]
    pages = {door.look(token) for _ in range(5)}
    assert door.room.mode == "running"
    assert "<button>Stop the room</button>" in pages.pop()
    assert pages == set()
    door.act(token, is_form=True)
    assert door.room.mode == "stopped"
    with pytest.raises(UnknownTicket):
        door.look(token)


def test_a_link_has_an_end() -> None:
    door = Door()
    token = door.links()["stop"]
    door.clock.advance(GRANT_TTL_S + 0.1)
    with pytest.raises(UnknownTicket):
        door.act(token)
    assert door.room.mode == "running"


def test_a_late_pause_does_not_undo_a_stop() -> None:
    door = Door()
    token = door.links()["pause"]
    door.room.set_mode("stop")
    door.act(token)
    assert door.room.mode == "stopped"


def test_links_are_bounded_kept_as_hashes_and_unlike() -> None:
    door = Door()
    first = door.links()["stop"]
    tokens = [token for _ in range(GRANTS_MAX // 2) for token in door.links().values()]
    assert len(door.grants._kept) == GRANTS_MAX
    assert len(set(tokens)) == len(tokens)
    assert all(len(token) >= 32 for token in tokens)
    assert not set(tokens) & {part for one in door.grants._kept for part in one if isinstance(part, str)}
    with pytest.raises(UnknownTicket):
        door.act(first)


@pytest.mark.parametrize("token", ["", "x" * 32, "../..", "é", "x" * 10_000])
def test_a_guess_is_refused_who_guesses_on_is_slowed_but_a_right_one_is_not(token: str, expect_warning: Any) -> None:
    expect_warning("guesses credentials")
    door = Door()
    right = door.links()["stop"]
    refusals = []
    for _ in range(int(caucus.GUESS_BURST) + 5):
        with pytest.raises((UnknownTicket, Throttled)) as refused:
            door.act(token, is_form=True)
        refusals.append(refused.type)
    assert refusals[0] is UnknownTicket
    assert refusals[-1] is Throttled
    assert door.gate.wrong_credentials == len(refusals)
    door.act(right)
    assert door.room.mode == "stopped"


# --- a hub -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(post: Post) -> Iterator[HubProcess]:
    """Give a hub that posts."""
    with running_hub("--notify", post.url, "--notify-secret", "s3cret") as process:
        yield process


def test_a_hub_posts_what_needs_the_operator_and_tells_consoles_of_it(hub: HubProcess, post: Post) -> None:
    api = hub.register("api")
    hub.post("/ask", token=api, to="all", title=SECRET_WORDS, fields=[{"key": "k", "label": "L", "type": "text"}])
    taken = post.next()
    assert [one["kind"] for one in taken.json["needs"]] == ["form"]
    assert taken.json["needs"][0]["who"] == "api"
    assert taken.json["click"] == hub.url
    assert taken.json["actions"] == [], "nobody beyond this machine reaches it"
    assert "caucus-signature" in taken.headers
    assert SECRET_WORDS.encode() not in taken.body
    with hub.console() as console:
        figures = console.next("health", where=lambda frame: frame["health"]["notify"]["sent"] == 1)["health"]["notify"]
    assert figures.keys() == {"place", "sent", "sent_ts", "waiting", "given_up", "fault"}
    assert (figures["place"], figures["waiting"], figures["fault"]) == ("127.0.0.1 (webhook)", 0, None)


def test_a_hub_with_a_url_of_its_own_variable_and_content_tells_the_words(post: Post) -> None:
    with running_hub("--notify-content", env={"CAUCUS_NOTIFY": post.url}) as hub:
        api = hub.register("api")
        hub.say(api, "human", SECRET_WORDS)
        assert post.next().json["needs"][0]["words"] == SECRET_WORDS


def test_a_failure_is_in_health_and_holds_nobody_up(post: Post) -> None:
    post.orders = ["500 Oops"]
    with running_hub("--notify", post.url) as hub, hub.console() as console:
        hub.say(hub.register("api"), "human", "hello")
        failed = console.next("health", where=lambda frame: frame["health"]["notify"]["fault"])
        assert failed["health"]["notify"]["fault"] == "it answered 500"
        assert hub.get("/version").status == 200


def test_a_hub_ends_at_once_while_a_push_is_on_its_way(post: Post) -> None:
    post.orders = ["never"]
    with running_hub("--notify", post.url) as hub:
        hub.say(hub.register("api"), "human", "hello")
        post.next()


def test_a_console_in_the_foreground_keeps_pushes_back_an_observers_does_not(post: Post) -> None:
    with running_hub(*KEYS, "--notify", post.url) as hub:
        api = hub.register("api", bearer="agent-secret")
        with hub.console("op-secret") as operator, hub.console("watch-secret") as observer:
            operator.send(looking=True)
            operator.send(heartbeat="api")
            operator.next("heartbeat_result")  # so that it was read
            hub.say(api, "human", "seen")
            operator.next("health", where=lambda frame: frame["health"]["notify"]["waiting"] == 1)
            observer.send(looking=True)
            operator.send(notify_test=True)
            assert post.next().json["needs"][0]["kind"] == "test", "and no mention before it"
            observer.send(notify_test=True)
            assert observer.next("error")["reason"] == "forbidden"
            operator.send(looking="perhaps")
            assert operator.next("error")["field"] == "looking"
            operator.send(looking=False, idle=-1)
            assert operator.next("error")["field"] == "idle"


def console_of(room: RecordingRoom, clock: FakeClock) -> tuple[caucus.Consoles, Callable[[], caucus.Console]]:
    """Give consoles outside a hub, and what opens one."""

    class Silent:
        def push(self, wire: bytes) -> int:
            return 0

        def close(self, code: int | None = None, reason: str | None = None) -> None: ...

    polls = caucus.Polls(room, clock, lambda when, then: None)
    consoles = caucus.Consoles(caucus.Gate(caucus.Settings(), room, polls, clock), lambda after, then: None, lambda: 0)
    return consoles, lambda: consoles.open(Silent(), caucus.Head({}), "")


def test_the_last_console_that_leaves_the_foreground_is_told_once() -> None:
    clock = FakeClock()
    consoles, opened = console_of(RecordingRoom(clock), clock)
    left: list[float] = []
    consoles.on_left = left.append
    one, other = opened(), opened()
    for console in (one, one, other):
        consoles.on_frame(console, '{"looking": true}')
    assert consoles.looking == 2
    consoles.on_frame(one, '{"looking": false, "idle": 7}')
    consoles.on_frame(one, '{"looking": false, "idle": 7}')
    assert (consoles.looking, left) == (1, [])
    consoles.on_frame(other, '{"looking": false, "idle": 300}')
    assert (consoles.looking, left) == (0, [300.0])


def test_a_console_that_goes_without_a_word_looks_no_more() -> None:
    clock = FakeClock()
    consoles, opened = console_of(RecordingRoom(clock), clock)
    left: list[float] = []
    consoles.on_left = left.append
    one = opened()
    consoles.on_frame(one, '{"looking": true}')
    consoles.closed(one)
    assert (consoles.looking, left) == (0, [caucus.UNHEARD_S])


def test_a_hub_that_others_reach_offers_links_that_work_without_any_key(post: Post) -> None:
    with running_hub(*KEYS, "--notify", post.url, "--public-url", "https://caucus.example") as hub:
        hub.say(hub.register("api", bearer="agent-secret"), "human", "hello")
        pushed = post.next().json
        assert pushed["click"] == "https://caucus.example"
        links = {one["action"]: one["url"] for one in pushed["actions"]}
        assert links.keys() == {"pause", "stop"}
        assert all(url.startswith("https://caucus.example/act?token=") for url in links.values())
        tokens = {verb: url.rpartition("=")[2] for verb, url in links.items()}
        seen = hub.request("GET", "/act", params={"token": tokens["pause"]})
        assert (seen.status, seen.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "script" not in seen.headers["content-security-policy"]
        assert seen.headers["cache-control"] == "no-store"
        form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "https://evil.example"}
        body = f"token={tokens['pause']}"
        refused = hub.request("POST", "/act", content=body, headers=form)
        assert (refused.status, refused.body["error"]) == (403, "origin_refused")
        done = hub.request("POST", "/act", content=body, headers={**form, "Origin": "https://caucus.example"})
        assert (done.status, "The room is paused." in done.text) == (200, True)
        assert hub.request("POST", "/act", content=body).body["error"] == "unknown_ticket"
        with ThreadPoolExecutor(8) as pool:
            press = lambda _: hub.post("/act", bearer=tokens["stop"]).status  # noqa: E731
            assert sorted(pool.map(press, range(8))) == [200] + [404] * 7, "one of those who press at once"
        assert hub.post("/act").status == 404
        with hub.console("op-secret") as console:
            assert console.snapshot["mode"] == "stopped"


def test_a_failing_journal_is_told_of(post: Post, tmp_path: Path) -> None:
    path = tmp_path / "room.journal"
    hub = HubProcess("--notify", post.url, "--journal", str(path))
    try:
        api = hub.register("api")
        path.unlink()
        hub.post("/status", token=api, status="busy")
        assert [one["kind"] for one in post.next().json["needs"]] == ["journal"]
    finally:
        hub.stop()


def test_a_hub_that_posts_nowhere_says_so() -> None:
    with running_hub() as hub, hub.console() as console:
        assert console.snapshot["health"]["notify"] is None
        console.send(notify_test=True)
        assert console.next("error")["reason"] == "invalid"


def test_a_room_is_stopped_by_the_hub_when_nobody_has_spoken(post: Post) -> None:
    flags = ("--quiet-stop", "0.01", "--client-ttl", "4", "--notify", post.url)
    with running_hub(*flags) as hub, hub.console() as console:
        assert console.snapshot["quiet_stop"] == 0.01
        hub.say(hub.register("api"), "all", "hello")
        why = "nobody has spoken for 0.01 minutes: the room stops, as the operator has set it"
        assert console.message(sender="hub", content=why)["seq"] == 0
        assert console.next("mode")["mode"] == "stopped"
        assert post.next().json["needs"][0]["kind"] == "quiet-stop"
        console.send(quiet_stop=0)
        assert console.next("quiet_stop")["minutes"] == 0
        console.send(quiet_stop="never")
        assert console.next("error")["field"] == "quiet_stop"
