"""What the original gets wrong and this hub promises: one test for each defect in section 16 of the wire contract.

The number in a docstring is the defect's.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from subprocess import TimeoutExpired
from typing import Any

import pytest
from hubs import DEADLINE_S, ROOT, HubProcess, eventually, running_hub
from polls import contents, got, park, reap, receive_request, refused, retune
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from wires import Raw, WatchProcess

import caucus

OPERATOR, KEY = "operator-secret", "agent-key"
WELL_BEFORE_THE_POLL_ENDS_S = 5.0  # polls here wait for 20 s
FIELD = {"key": "k", "label": "Which?", "type": "text"}
RADIO = {"key": "r", "label": "One?", "type": "radio", "options": ["a", "b"]}
UNPAIRED = "\ud800"


@pytest.fixture(scope="module")
def open_hub(road: tuple[str, ...]) -> Iterator[HubProcess]:
    with running_hub(*road) as hub:
        yield hub


@pytest.fixture
def hub(open_hub: HubProcess) -> Iterator[HubProcess]:
    """Give a hub without secrets; its room is empty and running."""
    yield open_hub
    open_hub.post("/control", action="reset")
    open_hub.clear()


@pytest.fixture
def fast(hub: HubProcess) -> Iterator[HubProcess]:
    """Give the open hub with a speech rate that no test can exceed."""
    retune(hub)
    yield hub
    retune(hub, 2, 10)


@pytest.fixture(scope="module")
def guarded(road: tuple[str, ...]) -> Iterator[HubProcess]:
    """Give a hub with an operator token and an agent key."""
    with running_hub(*road, "--operator-token", OPERATOR, "--agent-key", KEY) as hub:
        yield hub


@pytest.fixture
def hasty() -> Iterator[HubProcess]:
    """Give a hub that reaps after half a second."""
    with running_hub("--client-ttl", "0.5") as hub:
        yield hub


def reset(raw: Raw) -> None:
    """Close with a reset, as the kernel does for a process that crashed with data unread."""
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


def hang_up(raw: Raw, how: str) -> None:
    if how == "reset":
        reset(raw)
    elif how == "half close":
        raw.end_sending()
    else:
        raw.close()


# --- 1: no message is lost to a poller that is gone ---


@pytest.mark.parametrize("how", ["close", "reset", "half close"])
@pytest.mark.parametrize("header", ["X-Plain: yes", "Connection: close"])  # parked with us, or with Tornado
@pytest.mark.parametrize("lease", ["", "theirs"])
def test_a_message_sent_right_after_a_poller_died_waits_for_the_next(
    fast: HubProcess, how: str, header: str, lease: str
) -> None:
    """Defect 1."""
    a, b = fast.register("a"), fast.register("b")
    for n in range(10):  # it is a race; each round may go another way
        theirs, ours = (f"{lease} {n}" if lease else "", f"next {n}" if lease else "")
        with park(fast, "b", b, header, lease=theirs) as dead:
            hang_up(dead, how)
            fast.say(a, "b", str(n))
            batch = fast.receive(b, 20, lease=ours)
            assert contents(batch) == [str(n)]
            assert fast.receive(b, lease=ours)["messages"] == []
        if lease:
            fast.post("/ack", token=b, seq=batch["messages"][0]["seq"])


def test_a_message_that_a_dead_poller_left_unread_comes_again_at_once(hub: HubProcess) -> None:
    """Defect 1, a moment later: the answer was on its way already; the next poll is parked and is woken."""
    a, b = hub.register("a"), hub.register("b")
    with park(hub, "b", b) as dead, Raw(hub.port) as waiting:
        hub.say(a, "b", "unread")
        assert dead.is_answered(DEADLINE_S)
        waiting.send(receive_request(b))
        eventually(lambda: hub.is_listening("b"), "the next poll parked")
        reset(dead)
        assert contents(got(waiting).body) == ["unread"]
    assert hub.receive(b)["messages"] == []


def test_who_read_an_answer_before_a_reset_does_not_get_it_again_once_it_says_so(hub: HubProcess) -> None:
    """The hub takes back what a reset may have lost; an acknowledgement tells that it was not."""
    a, b = hub.register("a"), hub.register("b")
    with park(hub, "b", b, lease="mine") as line:
        hub.say(a, "b", "read")
        batch = got(line).body
        reset(line)
        eventually(lambda: hub.get("/peek", b).body["pending"] == 1, "the message taken back")
    hub.post("/ack", token=b, seq=batch["messages"][0]["seq"])
    assert hub.get("/peek", b).body["pending"] == 0
    assert hub.receive(b, lease="mine")["messages"] == []


def test_a_frozen_bridge_swallows_nothing_when_another_takes_its_place_and_it_dies(hub: HubProcess) -> None:
    """Defect 1: a bridge acknowledges with its next poll; what it was answered and never read is not acknowledged."""
    a, b = hub.register("a"), hub.register("b")
    with park(hub, "b", b, lease="bridge", ack_seq=0) as frozen, Raw(hub.port) as watch:
        hub.say(a, "b", "unread")
        assert frozen.is_answered(DEADLINE_S)
        watch.send(receive_request(b, lease="watch"))
        eventually(lambda: watch.is_answered(0.0) or hub.is_listening("b"), "the watch in its place")
        reset(frozen)
        hub.say(a, "b", "marker")  # ends a poll that got nothing
        heard = contents(got(watch).body)
        if len(heard) < 2:
            heard += contents(hub.receive(b, 5, lease="watch"))
        assert sorted(heard) == ["marker", "unread"]


def test_a_message_that_was_read_does_not_come_again(hub: HubProcess) -> None:
    """Defect 1, the other way round: a clean end after the answer was read is no loss."""
    a, b = hub.register("a"), hub.register("b")
    for how in ("close", "half close"):
        with park(hub, "b", b) as poll:
            hub.say(a, "b", how)
            assert contents(got(poll).body) == [how]
            hang_up(poll, how)
            hub.say(a, "b", "marker")
            assert contents(hub.receive(b, 20)) == ["marker"]


@pytest.mark.parametrize("how", ["close", "half close", "reset"])
@pytest.mark.parametrize("header", ["X-Plain: yes", "Connection: close"])  # parked with us, or with Tornado
@pytest.mark.parametrize("lease", ["", "theirs"])
def test_who_says_what_it_has_gets_the_rest_again_however_the_one_before_it_died(
    hub: HubProcess, how: str, header: str, lease: str
) -> None:
    """A reader that died after it had read and before it acted: its heir's `ack_seq` says that nothing was handled."""
    a, b = hub.register("a"), hub.register("b")
    with park(hub, "b", b, header, lease=lease, ack_seq=0) as line:
        hub.say(a, "b", "read, and lost")
        seq = got(line).body["messages"][0]["seq"]
        hang_up(line, how)
    heir = lease and "heir"
    assert contents(hub.receive(b, ack_seq=0, lease=heir)) == ["read, and lost"]
    if lease:  # the same process asks again: it has it
        assert hub.receive(b, ack_seq=0, lease=heir)["messages"] == []
    assert hub.receive(b, ack_seq=seq, lease=heir)["messages"] == []
    hub.say(a, "b", "next")
    assert contents(hub.receive(b, ack_seq=seq, lease=heir)) == ["next"]


@pytest.mark.parametrize("how", ["half close", "close"])
def test_a_reader_that_ends_its_half_before_the_answer_gets_it_with_its_next_poll(hub: HubProcess, how: str) -> None:
    a, b = hub.register("a"), hub.register("b")
    hub.say(a, "b", "on its way")
    with Raw(hub.port) as line:
        line.send(receive_request(b, ack_seq=0))
        hang_up(line, how)
        line.close()
    assert contents(hub.receive(b, 5, ack_seq=0)) == ["on its way"]


def test_who_never_says_more_than_that_it_has_nothing_gets_the_same_three_times(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    hub.say(a, "b", "again")
    heard = []
    for _ in range(caucus.REPLAYS_MAX + 2):
        with Raw(hub.port) as line:
            heard.append(contents(got(line.send(receive_request(b, timeout=0, ack_seq=0))).body))
    assert heard == [["again"]] * (caucus.REPLAYS_MAX + 1) + [[]]


@pytest.mark.parametrize("lease", ["", "theirs"])
def test_a_peer_has_one_answer_in_flight_and_who_polls_elsewhere_gets_what_was_not_taken(
    hub: HubProcess, lease: str
) -> None:
    """Thirty unread polls of one peer cost 2.45 GB."""
    a, b = hub.register("a"), hub.register("b")
    sent = [f"{n} " + "\N{SNOWMAN}" * 8000 for n in range(40)]
    with hub.console() as console:
        console.send(set_rate={"refill_rate": 1e6, "capacity": 1e6})
        console.send(heartbeat="a")
        console.next("heartbeat_result")
    for text in sent:
        hub.say(a, "b", text)
    stuck = []
    for n in range(5):
        line = Raw(hub.port)
        line.send(receive_request(b, timeout=0, lease=lease and f"{lease} {n}"))
        assert line.is_answered(DEADLINE_S)
        stuck.append(line)
    heard: list[str] = []
    while len(heard) < len(sent):
        batch = hub.receive(b, 5, lease=lease and "mine")
        heard += contents(batch)
        hub.post("/ack", token=b, seq=batch["messages"][-1]["seq"])
    assert heard == sent
    for line in stuck:
        with line, contextlib.suppress(ConnectionError):
            while line.socket.recv(1 << 20):
                pass


def test_a_killed_watcher_swallows_nothing(hub: HubProcess) -> None:
    """Defect 1, with a process."""
    a, b = hub.register("a"), hub.register("b")
    watcher = WatchProcess(hub.url, f"--token={b}")
    eventually(lambda: hub.is_listening("b"), "the watcher listening")
    watcher.signal(signal.SIGKILL)
    hub.say(a, "b", "after the kill")
    watcher.end()
    ended = WatchProcess(hub.url, f"--token={b}").end()
    assert (ended.code, ended.out) == (0, "[caucus] msg a -> b: after the kill\n")


def test_a_frozen_watcher_swallows_nothing(hub: HubProcess) -> None:
    """Defect 1, with a process that holds its poll and never reads the answer."""
    a, b = hub.register("a"), hub.register("b")
    frozen = WatchProcess(hub.url, f"--token={b}")
    eventually(lambda: hub.is_listening("b"), "the watcher listening")
    frozen.signal(signal.SIGSTOP)
    hub.say(a, "b", "while it was frozen")
    ended = WatchProcess(hub.url, f"--token={b}").end()  # takes the place
    assert (ended.code, ended.out) == (0, "[caucus] msg a -> b: while it was frozen\n")
    frozen.kill()


# --- 2: no stale stop ---


def test_a_stop_that_was_reset_stops_nobody(hub: HubProcess) -> None:
    """Defect 2."""
    a, b = hub.register("a"), hub.register("b")
    hub.post("/control", action="stop")
    hub.post("/control", action="reset")
    hub.say(a, "b", "we go on")
    batch = hub.receive(b)
    assert (contents(batch), batch["mode"]) == (["we go on"], "running")


# --- 4: who is sent away learns it at once ---


def test_a_vanished_client_of_mcp_is_reaped_like_all_others_and_its_stick_is_free(hasty: HubProcess) -> None:
    """3."""
    headers = {"Accept": "application/json"}

    def rpc(method: str, **params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = hasty.request("POST", "/mcp", json=body, headers=headers)
        headers.setdefault("Mcp-Session-Id", answer.headers.get("Mcp-Session-Id", ""))
        return answer.body["result"]

    rpc("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo={"name": "web", "version": "1"})
    rpc("tools/call", name="setup", arguments={})
    assert rpc("tools/call", name="join", arguments={"project": "web"})["structuredContent"]["joined"]
    assert rpc("tools/call", name="take_floor", arguments={"reason": "forever"})["structuredContent"]["ok"]
    reap(hasty, "web")  # though its session is still there
    assert hasty.get("/floor").body["floors"] == {}
    assert rpc("tools/call", name="whoami", arguments={})["structuredContent"]["project"] == "web"


@pytest.mark.parametrize("how", ["kick", "leave"])
def test_who_is_sent_away_learns_it_in_mid_poll(hub: HubProcess, how: str) -> None:
    """Defect 4."""
    a = hub.register("a")
    with park(hub, "a", a) as poll, hub.console() as console:
        started = time.monotonic()
        if how == "kick":
            console.send(kick="a")
        else:
            hub.post("/leave", token=a)
        refused(got(poll), 401, "unknown_token")
        assert time.monotonic() - started < WELL_BEFORE_THE_POLL_ENDS_S


# --- 5: the end of the hub waits for nobody ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_hub_ends_at_once_and_answers_those_who_wait(number: signal.Signals) -> None:
    """Defect 5."""
    hub = HubProcess()
    tokens = [hub.register(name) for name in ("a", "b")]
    polls = [park(hub, "a", tokens[0]), park(hub, "b", tokens[1], "Connection: close")]
    started = time.monotonic()
    hub.process.send_signal(number)
    for poll in polls:
        with poll:
            answer = got(poll)
            assert (answer.status, answer.body) == (200, {"messages": [], "mode": "running"})
    hub.process.wait(DEADLINE_S)
    code, log = hub.stop()
    assert time.monotonic() - started < WELL_BEFORE_THE_POLL_ENDS_S
    assert code == 0, log
    assert "Traceback" not in log


def test_more_signals_on_the_way_down_change_nothing() -> None:
    """Defect 5: an impatient user presses Ctrl-C more than once."""
    hub = HubProcess()
    with park(hub, "a", hub.register("a")):
        while hub.process.returncode is None:
            hub.process.send_signal(signal.SIGINT)
            hub.process.send_signal(signal.SIGTERM)
            with suppress(TimeoutExpired):
                hub.process.wait(0.002)
    code, log = hub.stop()
    assert (code, "Traceback" in log, "KeyboardInterrupt" in log) == (0, False, False), log


# --- 6: no 500 ---


def test_no_request_makes_the_hub_fail(hub: HubProcess) -> None:
    """Defect 6: the polite refusal of each is in test_http.py."""
    a = hub.register("a")
    bearer = {"Authorization": f"Bearer {a}"}
    json_type = {"Content-Type": "application/json"}
    queries = ("timeout=nan", "timeout=-nan", "timeout=inf&ack_seq=nan", "ack_seq=1e999", "lease=%ED%A0%80&timeout=0")
    statuses = [hub.request("GET", f"/receive?{query}", headers=bearer).status for query in queries]
    for path in {path for method, path in caucus.ROUTES if method == "POST"} - {"/leave"}:
        for value in ("NaN", "Infinity", "-Infinity", '"\\ud800"', '"\\udfff\\ud800"', "1e999", "[]", "null"):
            for key in ("content", "to", "project", "seq", "status", "channel", "fields", "action", "ticket"):
                body = f'{{"token":"{a}","{key}":{value}}}'
                statuses.append(hub.request("POST", path, content=body, headers=json_type).status)
    for path in ("/export", "/control", "/receive", "/peek", "/decisions", "/peers"):
        header = {"Authorization": "Bearer é→".encode()}
        statuses.append(hub.request("GET", path, headers=header).status)
    assert max(statuses) < 500


def test_the_65th_channel_is_refused_politely(fast: HubProcess) -> None:
    """Defect 6: and the 64 others are kept."""
    a = fast.register("a")
    for n in range(64):
        assert fast.post("/channels/join", token=a, channel=f"#{n}").status == 200
    refused(fast.post("/channels/join", token=a, channel="#64"), 422, "too_many_channels")
    assert len(fast.get("/channels").body["channels"]) == 64
    assert fast.post("/channels/join", token=a, channel="#0").status == 200  # is in it already


# --- 7: no poison ---


def test_a_lone_surrogate_from_the_console_poisons_nothing(hub: HubProcess) -> None:
    """Defect 7."""
    a, b = hub.register("a"), hub.register("b")
    form_id = hub.post("/ask", token=a, title="t", fields=[FIELD]).body["form_id"]
    hub.say(a, "b", "before")
    with hub.console() as console:
        for frame in (
            {"say": UNPAIRED, "to": "b"},
            {"say": "x", "to": UNPAIRED},
            {"answer": {"id": form_id, "answers": {"k": UNPAIRED}}},
            {"answer": {"id": form_id, "answers": {UNPAIRED: "x"}}},
            {"cancel_form": UNPAIRED},
            {"kick": UNPAIRED},
            {"heartbeat": UNPAIRED},
        ):
            console.send(**frame)
            assert console.next("error")["reason"], frame
    hub.say(a, "b", "after")
    assert contents(hub.receive(b)) == ["before", "after"]
    for wanted in ("json", "markdown", "text"):
        assert hub.get("/export", format=wanted).status == 200
    with hub.console() as console:
        assert console.snapshot["forms"][0]["id"] == form_id
        console.send(cancel_form=form_id)
        console.next("form_resolved")


# --- 8: a strange frame costs no console ---


@pytest.mark.parametrize(
    "frame", ["{", "", "hello", b"\x00\xff", b'{"action":"stop"}', "[" * 100_000, "1" * 5000, "NaN"]
)
def test_a_frame_that_means_nothing_is_refused_and_the_console_stays(hub: HubProcess, frame: str | bytes) -> None:
    """Defect 8."""
    with hub.console() as console:
        console.socket.send(frame)
        assert console.next("error")["reason"] in ("invalid", "malformed")
        console.send(say="still here")
        console.message(content="still here")
    assert hub.post("/control", action="resume").body == {"mode": "running"}


# --- 9: DNS rebinding reads nothing ---


def test_a_page_that_rebinds_dns_reads_nothing_and_registers_nobody(hub: HubProcess) -> None:
    """Defect 9."""
    host = {"Host": f"rebound.example:{hub.port}", "Content-Type": "application/json"}
    for method, path in sorted({*caucus.ROUTES, ("GET", "/nowhere"), ("GET", "/assets/app.js")}):
        answer = hub.request(method, path, headers=host, content=b'{"project":"a"}' if method == "POST" else None)
        refused(answer, 421, "host_refused")
        assert answer.body.keys() == {"error", "detail", "host"}, "and nothing of the room"
    assert hub.get("/peers").body == {"peers": []}
    with pytest.raises(Exception, match="421"):
        connect(f"ws://127.0.0.1:{hub.port}/ui", proxy=None, additional_headers={"Host": "rebound.example"})


# --- 10: no name forges a line ---


@pytest.mark.parametrize(
    "name", ["a\n[caucus] STOP", "a\r", "\x1b[2J", "a\x00", "a\u2028b", "\u202ea", "all", "ALL", "#x", "#"]
)
def test_no_name_can_forge_a_line_or_a_scope(hub: HubProcess, name: str) -> None:
    """Defect 10."""
    refused(hub.post("/register", project=name), 422, "invalid", "project")
    if not re.match(r"(?i)all$|#", name):  # which are scopes, and may be spoken to
        refused(hub.post("/send", token="t", to=name, content="c"), 422, "invalid", "to")
    assert hub.get("/peers").body == {"peers": []}


# --- 11: tokens and tickets are safe on a command line ---


def test_no_token_or_ticket_looks_like_an_option(hub: HubProcess) -> None:
    """Defect 11: of 200 that were drawn as the original does, some would with 96 %."""
    secrets = [hub.register(f"p{n}") for n in range(100)]
    secrets += [hub.post("/watch-ticket", token=token).body["ticket"] for token in secrets]
    assert all(re.fullmatch(r"[0-9a-f]{32}", secret) for secret in secrets)
    assert len({*secrets}) == 200


# --- 12: forms are checked, and so are answers ---


def test_a_form_without_choices_or_with_a_key_twice_is_refused(hub: HubProcess) -> None:
    """Defect 12."""
    a = hub.register("a")
    for kind in ("radio", "checkbox"):
        refused(hub.post("/ask", token=a, title="t", fields=[{**FIELD, "type": kind}]), 422, "invalid_form", "k")
    refused(hub.post("/ask", token=a, title="t", fields=[FIELD, RADIO, FIELD]), 422, "invalid_form", "fields")
    refused(hub.post("/ask", token=a, title="t", fields=[{**RADIO, "options": ["a", "a"]}]), 422, "invalid", "options")


def test_a_required_answer_is_required(hub: HubProcess) -> None:
    """Defect 12."""
    a = hub.register("a")
    fields = [{**FIELD, "required": True}, RADIO]
    form_id = hub.post("/ask", token=a, title="t", fields=fields).body["form_id"]
    with hub.console() as console:
        bad: list[Any] = [{}, {"r": "a"}, {"k": " "}, {"k": []}, {"k": "v", "r": "c"}, {"k": "v", "x": "y"}, None, "v"]
        for answers in bad:
            console.send(answer={"id": form_id, "answers": answers})
            assert console.next("error")["reason"] == "invalid_form", answers
        assert hub.get("/forms").body["forms"][0]["id"] == form_id
        console.send(answer={"id": form_id, "answers": {"k": "v"}})
        assert console.next("form_resolved")["answers"] == {"k": "v"}
    assert len(hub.receive(a)["messages"]) == 1


# --- 13: the operator sees who will read the answer ---


def test_a_form_says_whom_its_answer_goes_to_where_the_console_looks(hub: HubProcess) -> None:
    """Defect 13; test_browser.py sees it on the page."""
    a = hub.register("a")
    with hub.console() as console:
        form_id = hub.post("/ask", token=a, title="t", fields=[FIELD], to="#x").body["form_id"]
        assert console.next("form")["form"]["to"] == "#x"
        page = (ROOT / "ui" / "forms.js").read_text()
        assert "form.to" in page
        assert "form.audience" not in page
        console.send(cancel_form=form_id)
        console.next("form_resolved")


# --- 14: a private lane's stick stays in its lane ---


def test_nobody_outside_a_channel_can_queue_for_its_stick(hub: HubProcess) -> None:
    """Defect 14."""
    a, b = hub.register("a"), hub.register("b")
    hub.post("/channels/join", token=a, channel="#x")
    hub.post("/floor", token=a, action="take", scope="#x")
    for action in ("raise", "take"):
        body = hub.post("/floor", token=b, action=action, scope="#x").body
        assert (body["ok"], body["error"]) == (False, "not_a_member")
    assert hub.get("/floor").body["floors"]["#x"]["hands"] == []
    assert hub.post("/floor", token=a, action="pass", scope="#x").body["released"] is True


# --- 15 and 16: acknowledgements ---


def test_an_acknowledgement_that_revives_its_peer_counts_before_the_replay(hasty: HubProcess) -> None:
    """Defect 15."""
    a, b = hasty.register("a"), hasty.register("b")
    hasty.say(b, "a", "acknowledged")
    seq = hasty.receive(a, lease="one")["messages"][0]["seq"]
    reap(hasty, "a")
    hasty.say(b, "a", "new")
    assert contents(hasty.receive(a, lease="one", ack_seq=seq)) == ["new"]


@pytest.mark.parametrize("successor", ["one", "two"])
def test_an_acknowledgement_beyond_anything_does_not_disable_the_replay(hub: HubProcess, successor: str) -> None:
    """Defect 16: as a bridge sends it that outlived the hub whose messages it counted."""
    a, b = hub.register("a"), hub.register("b")
    hub.post("/ack", token=b, seq=10**9)
    with park(hub, "b", b, lease="one", ack_seq=10**9) as dead:
        hub.say(a, "b", "of the new hub")
        assert dead.is_answered(DEADLINE_S)
        reset(dead)  # it dies before it reads that
        assert contents(hub.receive(b, 20, lease=successor, ack_seq=10**9)) == ["of the new hub"]


# --- 17: the key guards all reads ---


def test_the_floor_of_a_keyed_hub_is_for_those_who_belong(guarded: HubProcess) -> None:
    """Defect 17."""
    a = guarded.register("a", bearer=KEY)
    guarded.post("/floor", token=a, action="take", reason="a secret plan")
    answer = guarded.get("/floor")
    refused(answer, 401, "credential_required")
    assert "secret plan" not in answer.text
    for who in (KEY, OPERATOR, a):
        assert guarded.get("/floor", who).body["floors"]["all"]["reason"] == "a secret plan"
    guarded.clear()


# --- 18: displaced is displaced ---


def test_a_displaced_listener_stays_out_however_many_came_after_it(hub: HubProcess) -> None:
    """Defect 18."""
    a = hub.register("a")
    leases = [f"lease {n}" for n in range(40)]
    for lease in leases:
        assert hub.receive(a, lease=lease)["messages"] == []
    for lease in leases[:-1]:
        refused(hub.get("/receive", a, timeout=0, lease=lease), 409, "already_listening")
    assert hub.receive(a, lease=leases[-1])["messages"] == []


# --- 19 and 21: who gets in, and who stays ---


def test_silent_sockets_do_not_lock_the_operator_out(guarded: HubProcess) -> None:
    """Defect 19: the oldest silent one goes, and the operator gets in, twice."""
    url = f"ws://127.0.0.1:{guarded.port}/ui"
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(url, proxy=None)) for _ in range(40)]
        for _ in range(2):
            with guarded.console(OPERATOR) as console:
                assert console.welcome["role"] == "operator"
        with pytest.raises(ConnectionClosed) as ended:
            silent[0].recv(timeout=DEADLINE_S)
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 1013


def test_a_console_that_reads_survives_a_burst_of_its_own_commands(hub: HubProcess) -> None:
    """Defect 21."""
    with hub.console() as console:
        for n in range(520):
            console.send(say=f"burst {n}")
        for n in range(520):
            assert console.message(origin="operator")["content"] == f"burst {n}"
        console.send(heartbeat="nobody")
        assert console.next("heartbeat_result")["result"]["state"] == "absent"


# --- 20: a command is the operator's word ---


@pytest.mark.parametrize("verb", ["interrupt", "reset"])
def test_a_command_says_that_it_is_the_operators(hub: HubProcess, verb: str) -> None:
    """Defect 20."""
    a = hub.register("a")
    with hub.console() as console:
        console.send(command=verb, to="a")
        message = console.message(content=verb)
    received = hub.receive(a)["messages"][0]
    assert received == message
    assert (received["origin"], received["sender"], received["kind"]) == ("operator", "human", "control")


# --- 22: a limit is no stop ---


def test_no_limit_on_speaking_or_asking_looks_like_a_stopped_room(fast: HubProcess) -> None:
    """Defect 22: clients end the exchange at a 409 of /send or /ask."""
    a = fast.register("a")
    for n in range(64):
        fast.post("/channels/join", token=a, channel=f"#{n}")
    refused(fast.post("/send", token=a, to="#64", content="c"), 422, "too_many_channels")
    refused(fast.post("/ask", token=a, to="#64", title="t", fields=[FIELD]), 422, "too_many_channels")
    ids = [fast.post("/ask", token=a, title="t", fields=[FIELD]).body["form_id"] for _ in range(256)]
    refused(fast.post("/ask", token=a, title="t", fields=[FIELD]), 422, "too_many_forms")
    with fast.console() as console:
        for form_id in ids:
            console.send(cancel_form=form_id)
        for _ in ids:
            console.next("form_resolved")
    retune(fast, 2, 10)
    statuses = {fast.post("/send", token=a, to="a", content="c").status for _ in range(20)}
    assert statuses == {200, 429}


# --- 23: who waits is there ---


@pytest.mark.parametrize("header", ["X-Plain: yes", "Connection: close"])
def test_a_peer_that_waits_in_a_poll_is_not_reaped(hasty: HubProcess, header: str) -> None:
    """Defect 23: seen when one that came later and is silent is reaped."""
    a = hasty.register("a")
    with park(hasty, "a", a, header) as poll:
        for name in ("later", "latest"):
            hasty.register(name)
            reap(hasty, name)
        seen = hasty.get("/ping", peer="a").body
        assert (seen["state"], seen["listening"], seen["last_seen_age"]) == ("live", True, 0.0)
        hasty.say(a, "a", "c")
        assert contents(got(poll).body) == ["c"]
