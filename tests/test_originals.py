"""The original's clients against our hub: its watcher, bridge and connector of both generations, and its dashboards.

Nothing here is simulated: their programs, unchanged, over real sockets to a hub process. CAUCUS_TEST_HUB=original runs
the same tests against the original's own hub; what it is known to get wrong there is marked `defect`, with the number
of the defect in section 16 of the wire contract.
"""

import json
import re
import shlex
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from originals_support import (
    ON_ORIGINAL,
    QUIET_S,
    VERSIONS,
    WELL_BEFORE_THE_POLL_ENDS_S,
    Console,
    Hub,
    Json,
    Peer,
    Refused,
    Table,
    Watch,
    free_port,
    require_originals,
    until,
)

FIELD = {"key": "k", "label": "Which?", "type": "text"}
MESSAGE_KEYS = {"id", "sender", "recipient", "content", "kind", "ts", "seq", "origin"}
FORM_KEYS = {"id", "title", "asker", "to", "fields", "status", "answers", "ts", "seq"}
FIELD_KEYS = {"key", "label", "type", "options", "required", "allow_other"}
PEER_KEYS = {
    *("name", "state", "listening", "paused", "status", "status_age", "last_seen_age", "uptime", "msg_count"),
    *("quiet", "status_stale"),
}
HEALTH_KEYS = {"uptime", "peer_count", "msg_per_min", "queue_depth", "mem_rss_mb"}
FLOOR_KEYS = {"scope", "holder", "reason", "hands", "since"}
OPERATOR, OBSERVER = "operator-secret", "observer-secret"


def defect(number: int | str, *, always: bool = True) -> pytest.MarkDecorator:
    """Mark what the original's own hub gets wrong (section 16), so that the tests can be checked against it."""
    return pytest.mark.xfail(ON_ORIGINAL, reason=f"the original's defect {number}", strict=always)


def includes(whole: Json, part: Json) -> bool:
    """Whether a reply says all of `part`; a hub may say more. Shows both where it does not."""
    assert whole == whole | part
    return True


both = pytest.mark.parametrize("version", VERSIONS)
only_5 = pytest.mark.parametrize("version", ["5.1.0"])


# -- fixtures -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def originals() -> None:
    require_originals()


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    with Table(tmp_path) as table:
        yield table


@pytest.fixture
def hub(table: Table) -> Hub:
    return table.start_hub()


def unlimited(console: Console) -> None:
    """Raise the speech rate beyond what a test can spend."""
    console.send({"set_rate": {"refill_rate": 1000, "capacity": 1000}})
    console.wait("rate")


# -- caucus-watch ---------------------------------------------------------------------------------------------------


@both
def test_watcher_prints_a_message_acknowledges_it_and_exits(table: Table, hub: Hub, version: str) -> None:
    a, b = hub.register("a"), hub.register("b")
    tap = table.tap(hub)
    watcher = table.watch(version, tap.url, f"--token={b.token}")
    hub.until_listening("b")
    assert a.say("b", "hi\n  there — ✓")["delivered_to"] == ["b"]
    assert watcher.finish() == (0, "[caucus] msg a -> b: hi\n  there — ✓\n")
    polled, acked = tap.requests()  # both on the one connection that a watcher has
    assert polled.startswith("GET /receive?timeout=25.0")
    assert acked == "POST /ack"
    assert len(tap.connections()) == 1
    assert hub.call("GET", "/peek", bearer=b.token).body["pending"] == 0
    assert b.receive() == []


@both
def test_watcher_prints_a_burst_in_order_whoever_spoke(table: Table, hub: Hub, version: str) -> None:
    a, b, console = hub.register("a"), hub.register("b"), table.operate(hub)
    a.say("b", "one")
    a.say("all", "two")
    b.post("/channels/join", channel="#x")
    a.say("#x", "three")
    console.send({"say": "four", "to": "b"})
    console.notice("four")
    console.send({"command": "interrupt", "to": "b"})
    console.notice("interrupt")
    code, out = table.watch(version, hub.url, f"--token={b.token}").finish()
    assert (code, out.splitlines()) == (
        0,
        [
            "[caucus] msg a -> b: one",
            "[caucus] msg a -> all: two",
            "[caucus] msg a -> #x: three",
            "[caucus] msg human -> b: four",
            "[caucus] msg human -> b: interrupt",
        ],
    )
    assert b.receive() == []


@both
def test_watcher_stays_through_quiet_polls(table: Table, hub: Hub, version: str) -> None:
    a, b = hub.register("a"), hub.register("b")
    tap = table.tap(hub)
    watcher = table.watch(version, tap.url, f"--token={b.token}", "--timeout", "0.3")
    until(lambda: len(tap.requests()) >= 3, "the third poll")
    a.say("b", "late")
    assert watcher.finish() == (0, "[caucus] msg a -> b: late\n")
    polls = [line for line in tap.requests() if "/receive" in line]
    assert len(set(polls)) == 1, "one process, one lease or none"
    assert ("lease=" in polls[0]) is (version == "5.1.0")


@both
def test_watcher_learns_of_a_stop_in_mid_poll(table: Table, hub: Hub, version: str) -> None:
    b = hub.register("b")
    watcher = table.watch_peer(version, b)
    hub.done("/control", {"action": "stop"})
    code, out = watcher.finish(WELL_BEFORE_THE_POLL_ENDS_S)
    assert code == 0
    assert out.startswith("[caucus] STOP")
    assert out.count("\n") == 1


@both
def test_watcher_started_in_a_stopped_room_stops(table: Table, hub: Hub, version: str) -> None:
    b = hub.register("b")
    hub.done("/control", {"action": "stop"})
    code, out = table.watch(version, hub.url, f"--token={b.token}").finish()
    assert (code, out.startswith("[caucus] STOP")) == (0, True)


@both
@defect(2)
def test_a_stop_that_was_reset_stops_no_watcher(table: Table, hub: Hub, version: str) -> None:
    a, b = hub.register("a"), hub.register("b")
    hub.done("/control", {"action": "stop"})
    hub.done("/control", {"action": "reset"})
    watcher = table.watch_peer(version, b)
    a.say("b", "we go on")
    assert watcher.finish() == (0, "[caucus] msg a -> b: we go on\n")


@both
def test_watcher_ends_at_an_unknown_token(table: Table, hub: Hub, version: str) -> None:
    code, out = table.watch(version, hub.url, "--token=nobody").finish()
    assert code == 1
    assert out.startswith("[caucus] SESSION EXPIRED") if version == "5.1.0" else not out


@both
@defect(4)
def test_a_kicked_watcher_learns_it_at_once(table: Table, hub: Hub, version: str) -> None:
    b, console = hub.register("b"), table.operate(hub)
    watcher = table.watch_peer(version, b)
    console.send({"kick": "b"})
    assert watcher.finish(WELL_BEFORE_THE_POLL_ENDS_S)[0] == 1


@both
def test_watcher_reads_its_token_from_a_file_or_the_environment(
    table: Table, hub: Hub, version: str, tmp_path: Path
) -> None:
    a, b = hub.register("a"), hub.register("b")
    a.say("b", "by file")
    file = tmp_path / "token"
    file.write_text(b.token + "\n")
    assert table.watch(version, hub.url, "--token-file", str(file)).finish() == (0, "[caucus] msg a -> b: by file\n")
    a.say("b", "by environment")
    assert table.watch(version, hub.url, CAUCUS_TOKEN=b.token).finish() == (0, "[caucus] msg a -> b: by environment\n")


def ticket_for(hub: Hub, name: str) -> str:
    """Join over /mcp, which is what hands out tickets, and ask for the watcher's command."""
    headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}

    def rpc(method: str, params: Json, **extra: int) -> Json:
        body = {"jsonrpc": "2.0", "method": method, "params": params, **extra}
        request = urllib.request.Request(f"{hub.url}/mcp", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=15) as answer:
            headers.setdefault("Mcp-Session-Id", answer.headers["Mcp-Session-Id"])
            text = answer.read().decode()
        lines = [line[5:] for line in text.splitlines() if line.startswith("data:")] or [text or "{}"]
        found = json.loads(lines[-1])
        assert isinstance(found, dict)
        return found

    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": name, "version": "0"}}
    rpc("initialize", hello, id=1)
    rpc("notifications/initialized", {})
    rpc("tools/call", {"name": "setup", "arguments": {}}, id=4)  # ours must be set up first, the original knows no such
    rpc("tools/call", {"name": "join", "arguments": {}}, id=2)
    command = rpc("tools/call", {"name": "watch_command", "arguments": {}}, id=3)["result"]["structuredContent"][
        "command"
    ]
    return str(command).partition("--ticket")[2].strip(" =")


@only_5
def test_watcher_redeems_a_ticket_once(table: Table, version: str) -> None:
    port = free_port()
    hub = table.start_hub("--public-url", f"http://localhost:{port}", port=port)
    ticket = ticket_for(hub, "b")
    hub.register("a").say("b", "by ticket")
    assert table.watch(version, hub.url, f"--ticket={ticket}").finish() == (0, "[caucus] msg a -> b: by ticket\n")
    code, out = table.watch(version, hub.url, f"--ticket={ticket}").finish()
    assert (code, out.startswith("[caucus] TICKET REJECTED")) == (1, True)


@only_5
def test_watcher_says_that_its_ticket_is_no_good(table: Table, hub: Hub, version: str) -> None:
    code, out = table.watch(version, hub.url, "--ticket=no-such-ticket").finish()
    assert (code, out.startswith("[caucus] TICKET REJECTED")) == (1, True)


@only_5
def test_a_newer_watcher_displaces_the_older(table: Table, hub: Hub, version: str) -> None:
    a, b = hub.register("a"), hub.register("b")
    older = table.watch_peer(version, b)
    newer = table.watch(version, hub.url, f"--token={b.token}")
    code, out = older.finish(WELL_BEFORE_THE_POLL_ENDS_S)
    assert (code, out.startswith("[caucus] DISPLACED")) == (2, True)
    hub.until_listening("b")
    a.say("b", "to the newer")
    assert newer.finish() == (0, "[caucus] msg a -> b: to the newer\n")


def test_a_watcher_of_the_old_release_takes_the_slot_back(table: Table, hub: Hub) -> None:
    a, b = hub.register("a"), hub.register("b")
    old = table.watch_peer("1.3.0", b)
    new = table.watch("5.1.0", hub.url, f"--token={b.token}")  # the old one knows no 409: it comes back
    code, out = new.finish()
    assert (code, out.startswith("[caucus] DISPLACED")) == (2, True)
    hub.until_listening("b")
    a.say("b", "to the old")
    assert old.finish() == (0, "[caucus] msg a -> b: to the old\n")


def test_two_old_watchers_of_one_token_share_without_loss_or_repeat(table: Table, hub: Hub) -> None:
    a, b = hub.register("a"), hub.register("b")
    pair = [table.watch_peer("1.3.0", b), table.watch("1.3.0", hub.url, f"--token={b.token}")]
    a.say("b", "once")
    until(lambda: not all(watcher.is_running() for watcher in pair), "either watcher to end")
    hub.until_listening("b")  # the other, which takes the slot whenever it has lost it
    assert hub.call("GET", "/peek", bearer=b.token).body["pending"] == 0
    assert sorted(watcher.close() for watcher in pair) == ["", "[caucus] msg a -> b: once\n"]


@both
@defect(1, always=False)  # it loses the message unless its one-second slice happens to end first
def test_a_killed_watcher_swallows_nothing(table: Table, hub: Hub, version: str) -> None:
    a, b = hub.register("a"), hub.register("b")
    for turn in range(2):
        watcher = table.watch_peer(version, b)
        watcher.close()  # SIGKILL in mid-poll
        assert a.say("b", f"after kill {turn}")["delivered_to"] == ["b"]
        heir = table.watch(version, hub.url, f"--token={b.token}")
        assert heir.finish() == (0, f"[caucus] msg a -> b: after kill {turn}\n")
    assert b.receive() == []


@both
@defect(1)
def test_what_a_frozen_watcher_never_read_comes_again_after_its_death(table: Table, hub: Hub, version: str) -> None:
    a, b = hub.register("a"), hub.register("b")
    frozen = table.watch_peer(version, b)
    frozen.process.send_signal(signal.SIGSTOP)
    assert a.say("b", "into the ice")["delivered_to"] == ["b"]  # lies in the socket of a process that never reads it
    hub.until_deaf("b")
    assert frozen.close() == ""
    heir = table.watch(version, hub.url, f"--token={b.token}")
    assert heir.finish() == (0, "[caucus] msg a -> b: into the ice\n")
    assert b.receive() == []


@only_5
@defect(1)
def test_what_a_frozen_watcher_never_read_goes_to_the_one_that_takes_its_slot(
    table: Table, hub: Hub, version: str
) -> None:
    a, b = hub.register("a"), hub.register("b")
    frozen = table.watch_peer(version, b)
    frozen.process.send_signal(signal.SIGSTOP)
    a.say("b", "into the ice")
    hub.until_deaf("b")
    heir = table.watch(
        version, hub.url, f"--token={b.token}"
    )  # another lease, and the frozen one has acknowledged nothing
    assert heir.finish(WELL_BEFORE_THE_POLL_ENDS_S) == (0, "[caucus] msg a -> b: into the ice\n")


@both
def test_a_watcher_that_was_only_asleep_prints_what_came_meanwhile_once(table: Table, hub: Hub, version: str) -> None:
    a, b = hub.register("a"), hub.register("b")
    sleeper = table.watch_peer(version, b)
    sleeper.process.send_signal(signal.SIGSTOP)
    a.say("b", "good morning")
    sleeper.process.send_signal(signal.SIGCONT)
    assert sleeper.finish() == (0, "[caucus] msg a -> b: good morning\n")
    assert b.receive() == []


@both
def test_a_paused_room_holds_chatter_and_lets_the_operator_through(table: Table, hub: Hub, version: str) -> None:
    a, b, console = hub.register("a"), hub.register("b"), table.operate(hub)
    console.send({"action": "pause"})
    console.wait("mode", lambda f: f["mode"] == "paused")
    a.say("b", "held")
    watcher = table.watch(version, hub.url, f"--token={b.token}")
    hub.until_listening("b")
    console.send({"say": "still here?", "to": "b"})
    assert watcher.finish() == (0, "[caucus] msg human -> b: still here?\n")
    watcher = table.watch(version, hub.url, f"--token={b.token}")
    hub.until_listening("b")
    console.send({"action": "resume"})
    assert watcher.finish(WELL_BEFORE_THE_POLL_ENDS_S) == (0, "[caucus] msg a -> b: held\n")


@both
def test_a_paused_peers_watcher_wakes_when_it_is_resumed(table: Table, hub: Hub, version: str) -> None:
    a, b, console = hub.register("a"), hub.register("b"), table.operate(hub)
    console.send({"pause_peer": "b"})
    console.wait("peers", lambda f: any(p["name"] == "b" and p["paused"] for p in f["peers"]))
    watcher = table.watch_peer(version, b)
    a.say("b", "held")
    assert hub.ping("b")["listening"], "its poll stays parked"
    console.send({"resume_peer": "b"})
    assert watcher.finish(WELL_BEFORE_THE_POLL_ENDS_S) == (0, "[caucus] msg a -> b: held\n")


@both
def test_watcher_outlives_its_hub_and_learns_that_it_is_unknown_to_the_next(table: Table, version: str) -> None:
    first = table.start_hub()
    watcher = table.watch_peer(version, first.register("b"))
    first.kill()
    table.start_hub(port=first.port)
    assert watcher.finish()[0] == 1


@both
@defect(5)
def test_a_parked_watcher_does_not_delay_the_hubs_end(table: Table, version: str) -> None:
    hub = table.start_hub()
    watcher = table.watch_peer(version, hub.register("b"))
    hub.process.send_signal(signal.SIGTERM)
    until(lambda: hub.process.poll() is not None, "the hub's end", 3.0)
    assert watcher.is_running(), "it tries again until a hub is back"


# -- caucus-bridge --------------------------------------------------------------------------------------------------


@both
def test_bridge_may_look_but_not_speak_before_it_joins(table: Table, hub: Hub, version: str) -> None:
    hub.register("a")
    b = table.bridge(version, hub, "b")
    who = b.tool("whoami")
    assert (who["default_project"], who["joined_as"], who["joined"]) == ("b", None, False)
    if version == "1.3.0":
        assert b.tool("say", content="x", to="all")["error"] == "setup_required"
        ready = b.tool("setup")
        assert (ready["ready"], ready["default_project"]) == (True, "b")
        served = hub.call("GET", "/protocol").body
        assert (ready["protocol_version"], ready["protocol"]) == (served["version"], served["text"])
    assert b.tool("list_peers") == {"peers": ["a"]}
    assert b.tool("list_channels") == {"channels": {}}
    assert b.tool("list_forms") == {"forms": []}
    assert b.tool("ping", peer="a")["state"] == "live"
    assert b.floor("status") == {"floors": {}}
    calls: list[tuple[str, Json]] = [
        ("say", {"content": "x", "to": "all"}),
        ("listen", {"timeout": 0.1}),
        ("set_status", {"status": "x"}),
        ("join_channel", {"channel": "#x"}),
        ("leave_channel", {"channel": "#x"}),
        ("set_channel_topic", {"channel": "#x", "topic": "t"}),
        ("ask_operator", {"title": "t", "fields": [FIELD]}),
        ("watch_command", {}),
    ]
    if version == "5.1.0":
        calls += [("peek", {}), ("decisions", {})]
    assert {name: b.tool(name, **arguments).get("error") for name, arguments in calls} == {
        name: "not_joined" for name, _ in calls
    }
    assert b.floor("take", reason="r")["error"] == "not_joined"
    assert b.tool("leave") == {"left": True, "project": None}


@both
def test_bridge_joins_confirms_and_leaves(table: Table, hub: Hub, version: str) -> None:
    held = hub.register("taken")
    held.post("/channels/join", channel="#x")
    b = table.bridge(version, hub, "b")
    joined = b.join()
    assert (joined["project"], joined["hub"], joined["protocol_stale"]) == ("b", hub.url, False)
    assert joined["protocol_version"] == hub.call("GET", "/protocol").body["version"]
    assert joined["channels"] == {"#x": {"topic": None, "members": ["taken"]}}
    assert b.tool("join")["project"] == "b"  # again, with its token
    assert b.tool("whoami")["joined_as"] == "b"
    assert b.tool("list_peers") == {"peers": ["b", "taken"]}
    if version == "5.1.0":
        assert b.tool("join", project="other")["error"] == "already_joined"
        forced = b.tool("join", force_protocol=True)
        assert forced["protocol"] == hub.call("GET", "/protocol").body["text"]
    else:
        assert b.tool("join", project="other")["project"] == "other"  # it brings the token of its former name
        assert "other" in b.tool("list_peers")["peers"]
    assert b.tool("leave")["left"] is True
    refused = b.tool("join", project="taken")
    assert (refused["error"], refused["project"]) == ("name_in_use", "taken")
    assert refused["note"]
    assert b.tool("join", project="hub")["error"] == "hub_unreachable"  # their word for any other refusal
    assert b.tool("join", project="b2")["joined"] is True
    assert b.tool("leave") == {"left": True, "project": "b2"}
    assert "b2" not in b.tool("list_peers")["peers"]


@both
def test_the_bridges_watch_command_works_as_it_is_handed_out(table: Table, hub: Hub, version: str) -> None:
    a, b = hub.register("a"), table.bridge(version, hub, "b")
    joined = b.join()
    handed = b.tool("watch_command")
    assert handed["background"] is True
    if version == "5.1.0":
        assert joined["watch"].startswith("caucus-watch ")
    name, hub_flag, url, *rest = shlex.split(handed["command"])
    assert (name, hub_flag, url) == ("caucus-watch", "--hub", hub.url)
    watcher = table.watch(version, url, *rest)
    hub.until_listening("b")
    a.say("b", "wake up")
    assert watcher.finish() == (0, "[caucus] msg a -> b: wake up\n")
    assert b.tool("listen", timeout=QUIET_S)["messages"] == []


@both
def test_bridge_says_and_is_told_who_heard(table: Table, hub: Hub, version: str) -> None:
    a, b = hub.register("a"), table.bridge(version, hub, "b")
    b.join()
    sent = b.tool("say", content="to you", to="a")
    assert set(sent) >= {"message_id", "delivered_to", "missed", "warning", "hint"}
    assert (sent["delivered_to"], sent["missed"], sent["warning"]) == (["a"], [], None)
    assert sent["hint"] is None, "it is busy, and has called a moment ago"
    got = a.receive()
    assert [(m["id"], m["sender"], m["origin"]) for m in got] == [(sent["message_id"], "b", "agent")]
    missed = b.tool("say", content="x", to="ghost")
    assert (missed["delivered_to"], missed["missed"]) == ([], ["ghost"])
    unheard = b.tool("say", content="x", to="#empty")
    assert (unheard["delivered_to"], unheard["warning"]) == ([], "no_recipients")
    assert unheard["hint"]
    assert b.tool("list_channels")["channels"]["#empty"]["members"] == ["b"], "who speaks in a channel is in it"
    assert b.tool("say", content="to all", to="all")["delivered_to"] == ["a"]
    assert b.tool("say", content="", to="a")["error"] == "hub_unreachable"  # 422
    assert b.tool("say", content="x" * 8193, to="a")["error"] == "hub_unreachable"
    assert b.tool("say", content="x" * 8192, to="a")["delivered_to"] == ["a"]
    hub.done("/floor", {"token": a.token, "action": "take", "scope": "all", "reason": "listen"})
    locked = b.tool("say", content="x", to="all")
    assert {k: locked[k] for k in ("error", "held_by", "scope", "reason")} == {
        "error": "floor_held",
        "held_by": "a",
        "scope": "all",
        "reason": "listen",
    }
    assert locked["hint"]
    hub.done("/floor", {"token": a.token, "action": "drop"})
    for _ in range(40):
        if "error" in (limited := b.tool("say", content="x", to="a")):
            break
    assert limited["error"] == "rate_limited"
    assert 0 < limited["retry_after"] < 3
    hub.done("/control", {"action": "stop"})
    assert b.tool("say", content="x", to="a")["stopped"] is True


@both
def test_bridge_pings_and_tells_its_status(table: Table, hub: Hub, version: str) -> None:
    hub.register("a")
    b = table.bridge(version, hub, "b")
    b.join()
    assert set(b.tool("ping", peer="a")) >= {
        *("peer", "state", "present", "last_seen_age", "listening", "status", "status_age"),
    }
    absent = b.tool("ping", peer="ghost")
    assert (absent["state"], absent["present"]) == ("absent", False)
    assert b.tool("ping", peer="")["error"] == "hub_unreachable"  # 422
    assert b.tool("set_status", status="  busy ") == {"status": "busy"}
    assert b.tool("ping", peer="b")["status"] == "busy"
    shown = table.operate(hub).wait("snapshot")["peers"]
    assert [p["status"] for p in shown if p["name"] == "b"] == ["busy"]
    assert b.tool("set_status", status="x" * 281)["error"] == "hub_unreachable"
    assert b.tool("set_status", status="") == {"status": None}
    assert b.tool("ping", peer="b")["status"] is None


@both
def test_bridge_keeps_channels(table: Table, hub: Hub, version: str) -> None:
    a, b = hub.register("a"), table.bridge(version, hub, "b")
    b.join()
    a.post("/channels/join", channel="#other")
    assert b.tool("join_channel", channel="#x") == {"joined": True, "channel": "#x"}
    assert b.tool("set_channel_topic", channel="#x", topic=" plans ") == {"channel": "#x", "topic": "plans"}
    assert b.tool("list_channels")["channels"]["#x"] == {"topic": "plans", "members": ["b"]}
    assert b.tool("join_channel", channel="x")["error"] == "invalid_channel"
    assert b.tool("leave_channel", channel="x")["error"] == "invalid_channel"
    assert b.tool("set_channel_topic", channel="#other", topic="t")["error"] == "not_a_member"
    assert b.tool("leave_channel", channel="#x") == {"left": True, "channel": "#x"}
    assert "#x" not in b.tool("list_channels")["channels"]


@both
def test_bridge_takes_queues_for_and_passes_the_stick(table: Table, hub: Hub, version: str) -> None:
    a, b, console = hub.register("a"), table.bridge(version, hub, "b"), table.operate(hub)
    unlimited(console)
    b.join()
    assert b.floor("take", reason="mine") == {"ok": True, "scope": "all", "holder": "b", "reason": "mine"}
    floors = b.floor("status")["floors"]
    assert set(floors["all"]) >= FLOOR_KEYS
    assert (floors["all"]["holder"], floors["all"]["hands"]) == ("b", [])
    a.post("/floor", action="raise")
    assert b.floor("pass") == {"ok": True, "scope": "all", "passed_to": "a"}
    queued = {"ok": False, "error": "floor_held", "scope": "all", "held_by": "a", "reason": "mine", "position": 1}
    assert includes(b.floor("take", reason="again"), queued)
    assert b.floor("raise") == {"ok": True, "scope": "all", "position": 1}
    assert includes(b.floor("pass"), {"ok": False, "error": "not_holder", "scope": "all", "held_by": "a"})
    assert b.floor("drop")["error"] == "not_holder"
    a.post("/floor", action="pass")
    assert b.floor("drop") == {"ok": True, "scope": "all", "released": True}
    assert includes(b.floor("drop"), {"ok": False, "error": "no_floor", "scope": "all"})
    assert b.floor("raise")["error"] == "no_floor"
    assert b.floor("take", scope="#nowhere")["error"] == "not_a_member"
    if version == "5.1.0":
        assert b.tool("floor", action="juggle")["error"] == "invalid_action"
    heard = b.tool("listen", timeout=1)["messages"]
    assert heard
    assert {(m["sender"], m["kind"], m["origin"]) for m in heard} == {("hub", "system", "hub")}
    assert "mine" in heard[0]["content"]


@both
def test_bridge_asks_the_operator_and_hears_the_answer(table: Table, hub: Hub, version: str) -> None:
    b, console = table.bridge(version, hub, "b"), table.operate(hub)
    b.join()
    fields = [
        {"key": "way", "label": "Which way?", "type": "radio", "options": ["left", "right"]},
        {"key": "why", "label": "Why?", "type": "textarea"},
    ]
    asked = b.tool("ask_operator", title="Fork", fields=fields)
    assert asked["to"] == "all"
    (form,) = b.tool("list_forms")["forms"]
    assert set(form) >= FORM_KEYS
    assert (form["id"], form["title"], form["asker"], form["status"]) == (asked["form_id"], "Fork", "b", "pending")
    assert all(set(field) >= FIELD_KEYS for field in form["fields"])
    console.send({"answer": {"id": asked["form_id"], "answers": {"way": "left", "why": "shorter"}}})
    (answer,) = b.tool("listen", timeout=5)["messages"]
    assert (answer["sender"], answer["kind"], answer["origin"]) == ("human", "answer", "operator")
    assert answer["meta"] == {
        "form_id": asked["form_id"],
        "title": "Fork",
        "status": "answered",
        "asker": "b",
        "to": "all",
        "answers": {"way": "left", "why": "shorter"},
    }
    assert all(word in answer["content"] for word in ("Fork", "Which way?", "left", "shorter"))
    assert b.tool("list_forms") == {"forms": []}
    if version == "5.1.0":
        (decision,) = b.tool("decisions")["decisions"]
        assert set(decision) >= {"ts", "asker", "title", "status", "answer_summary"}
        assert (decision["asker"], decision["title"], decision["status"]) == ("b", "Fork", "answered")
    empty_choice = {"key": "k", "label": "l", "type": "radio", "options": []}
    invalid = b.tool("ask_operator", title="t", fields=[empty_choice])
    assert invalid["error"] == "invalid_form"
    assert invalid["detail"]
    assert b.tool("ask_operator", title="t", fields=[FIELD], to="a")["error"] == "invalid_form"
    hub.done("/control", {"action": "stop"})
    assert b.tool("ask_operator", title="t", fields=[FIELD])["stopped"] is True


@both
def test_bridge_hears_each_message_once(table: Table, hub: Hub, version: str) -> None:
    a, b, console = hub.register("a"), table.bridge(version, hub, "b"), table.operate(hub)
    b.join()
    waiting = b.start("listen", timeout=20)
    hub.until_listening("b")
    a.say("b", "one")
    heard = b.result(waiting)
    assert (heard["mode"], heard["stop"]) == ("running", False)
    (message,) = heard["messages"]
    if version == "1.3.0":
        assert set(message) >= MESSAGE_KEYS
    else:
        assert message == {"sender": "a", "recipient": "b", "content": "one"}  # without what speaks for itself
    console.send({"say": "two", "to": "b"})
    (message,) = b.tool("listen", timeout=5)["messages"]  # acknowledges the first
    assert (message["content"], message["origin"]) == ("two", "operator")
    assert b.tool("listen", timeout=QUIET_S) == {"messages": [], "mode": "running", "stop": False}
    hub.done("/control", {"action": "pause"})
    a.say("b", "held")
    assert b.tool("listen", timeout=QUIET_S) == {"messages": [], "mode": "paused", "stop": False}
    hub.done("/control", {"action": "stop"})
    stopped = b.tool("listen", timeout=20)
    assert (stopped["mode"], stopped["stop"]) == ("stopped", True)
    hub.done("/control", {"action": "reset"})
    after = b.tool("listen", timeout=5)
    assert [m["content"] for m in after["messages"]] == ["held"]
    assert after["stop"] is False or ON_ORIGINAL  # section 16, 2


@both
def test_what_a_bridge_has_heard_its_watcher_does_not_repeat(table: Table, hub: Hub, version: str) -> None:
    a, b = hub.register("a"), table.bridge(version, hub, "b")
    b.join()
    for text in ("one", "two"):  # the second listen acknowledges the first message, and nothing the second
        a.say("b", text)
        assert [m["content"] for m in b.tool("listen", timeout=5)["messages"]] == [text]
    token_file = Path(b.tool("watch_command")["command"].split()[-1])
    watcher = table.watch_peer(version, Peer(hub, "b", token_file.read_text().strip()))
    a.say("b", "three")
    assert watcher.finish() == (0, "[caucus] msg a -> b: three\n")


@both
def test_bridge_hears_what_a_pause_held_back_once_though_the_operator_overtook_it(
    table: Table, hub: Hub, version: str
) -> None:
    a, b, console = hub.register("a"), table.bridge(version, hub, "b"), table.operate(hub)
    b.join()
    console.send({"action": "pause"})
    console.wait("mode")
    a.say("b", "held")
    console.send({"say": "overtaking", "to": "b"})  # a higher seq, delivered first
    assert [m["content"] for m in b.tool("listen", timeout=5)["messages"]] == ["overtaking"]
    console.send({"action": "resume"})
    assert [m["content"] for m in b.tool("listen", timeout=5)["messages"]] == ["held"]
    assert b.tool("listen", timeout=QUIET_S)["messages"] == []


@only_5
def test_bridge_yields_to_a_watcher_and_takes_the_slot_back(table: Table, hub: Hub, version: str) -> None:
    b = table.bridge(version, hub, "b")
    b.join()
    token_file = Path(b.tool("watch_command")["command"].split()[-1])
    waiting = b.start("listen", timeout=20)
    hub.until_listening("b")
    watcher = table.watch_peer(version, Peer(hub, "b", token_file.read_text().strip()))
    assert b.result(waiting)["error"] == "already_listening"
    b.tool("listen", timeout=QUIET_S)  # with a fresh lease
    code, out = watcher.finish(WELL_BEFORE_THE_POLL_ENDS_S)
    assert (code, out.startswith("[caucus] DISPLACED")) == (2, True)


@both
def test_what_a_bridge_was_shown_is_acknowledged_once_its_agent_has_called_again(
    table: Table, hub: Hub, version: str
) -> None:
    a, b = hub.register("a"), table.bridge(version, hub, "b")
    b.join()
    seq = a.say("b", "hello")["seq"]
    state = lambda: hub.call("GET", f"/receipt?seq={seq}", bearer=a.token).body["who"]["b"]  # noqa: E731
    assert state() == "queued"
    b.tool("listen", timeout=5)
    assert state() == "fetched"
    b.tool("listen", timeout=1)
    b.tool("say", content="I have it", to="a")
    assert state() == "acknowledged"


@only_5
def test_bridge_peeks_and_reads_sections(table: Table, hub: Hub, version: str) -> None:
    a, b = hub.register("a"), table.bridge(version, hub, "b")
    b.join()
    assert includes(b.tool("peek"), {"pending": 0, "last": None})
    a.say("b", "x" * 200)
    peeked = b.tool("peek")
    assert peeked["pending"] == 1
    assert peeked["last"] == {
        "sender": "a",
        "preview": "x" * 120 + " [+80 chars]",
        "preview_truncated": True,
        "content_chars": 200,
    }
    assert len(b.tool("listen", timeout=5)["messages"]) == 1, "peeking drains nothing"
    served = hub.call("GET", "/protocol").body
    for name in ("channels", "formatting", "listening-fallbacks", "operator-forms", "talking-stick"):
        assert name in served["sections"], "its tools name these sections"
        section = b.tool("protocol_section", name=name)
        assert (section["section"], section["version"]) == (name, served["version"])
        assert section["text"]
    unknown = {"error": "unknown_section", "requested": "nonsense", "sections": served["sections"]}
    assert includes(b.tool("protocol_section", name="nonsense"), unknown)


@both
def test_a_kicked_bridge_finds_its_way_back(table: Table, hub: Hub, version: str) -> None:
    b, console = table.bridge(version, hub, "b"), table.operate(hub)
    b.join()
    console.send({"kick": "b"})
    console.wait("peers", lambda f: not f["peers"])
    status = b.tool("set_status", status="here")
    if version == "5.1.0":  # registered again with the dead token, silently
        assert status["status"] == "here"
        assert status["watch"].startswith("caucus-watch ")
        mark = console.mark()
        console.send({"kick": "b"})
        console.wait("peers", lambda f: not f["peers"], after=mark)
        assert b.tool("set_status", status="again")["error"] == "session_expired"  # at most once a minute
    else:
        assert status["error"] == "hub_unreachable"
    assert b.tool("join")["joined"] is True
    assert b.tool("set_status", status="back") == {"status": "back"}


@both
def test_bridge_gets_through_the_loss_of_its_hub(table: Table, version: str) -> None:
    first = table.start_hub()
    b = table.bridge(version, first, "b")
    b.join()
    first.kill()
    assert b.tool("say", content="x", to="all")["error"] == "hub_unreachable"
    second = table.start_hub(port=first.port)
    assert b.tool("join")["joined"] is True
    second.register("a")
    assert b.tool("say", content="hello", to="a")["delivered_to"] == ["a"]


@only_5
def test_bridge_shows_its_agent_key(table: Table, version: str) -> None:
    hub = table.start_hub("--agent-key", "sesame")
    keyed = table.bridge(version, hub, "b", CAUCUS_AGENT_KEY="sesame")
    assert keyed.join()["project"] == "b"
    assert keyed.tool("list_peers") == {"peers": ["b"]}
    assert table.bridge(version, hub, "c").tool("join")["error"] == "hub_unreachable"
    old = table.bridge("1.3.0", hub, "d")
    old.tool("setup")
    assert old.tool("join")["error"] == "hub_unreachable"


# -- HubConnector ---------------------------------------------------------------------------------------------------


@both
def test_connector_does_all_that_it_can(table: Table, hub: Hub, version: str) -> None:
    a, c, console = hub.register("a"), table.connector(version, hub), table.operate(hub)
    unlimited(console)
    served = hub.call("GET", "/protocol").body
    protocol = c.call("fetch_protocol")
    assert (protocol["version"], protocol["text"]) == (served["version"], served["text"])
    stale = c.call("register", "bot", None)
    assert (stale["project"], stale["protocol_stale"], stale["protocol_text"]) == ("bot", True, served["text"])
    token = stale["token"]
    fresh = c.call("register", "bot", served["version"], token)
    assert (fresh["token"], fresh["protocol_stale"], fresh["protocol_text"]) == (token, False, None)
    assert c.call("peers") == ["a", "bot"]
    assert {k: v for k, v in c.call("send", token, "a", "hi").items() if k in ("ok", "delivered_to")} == {
        "ok": True,
        "delivered_to": ["a"],
    }
    assert a.contents() == ["hi"]
    a.say("bot", "ho")
    inbound = c.call("receive", token, 5)
    assert (inbound["mode"], inbound["stop"]) == ("running", False)
    (message,) = inbound["messages"]
    assert set(message) >= MESSAGE_KEYS
    assert c.call("ack", token, message["seq"]) is None
    ok = True if version == "1.3.0" else "ok"
    assert c.call("join_channel", token, "#x") == ok
    assert c.call("set_channel_topic", token, "#x", "plans") == ok
    assert c.call("channels") == {"#x": {"topic": "plans", "members": ["bot"]}}
    assert c.call("leave_channel", token, "#x") == ok
    assert c.call("take_floor", token, "all", "mine") == {"ok": True, "scope": "all", "holder": "bot", "reason": "mine"}
    assert c.call("floors")["all"]["holder"] == "bot"
    a.post("/floor", action="raise")
    assert c.call("pass_floor", token, "all") == {"ok": True, "scope": "all", "passed_to": "a"}
    assert c.call("raise_hand", token, "all") == {"ok": True, "scope": "all", "position": 1}
    assert c.call("lower_hand", token, "all") == {"ok": True, "scope": "all"}
    assert c.call("drop_floor", token, "all")["error"] == "not_holder"
    a.post("/floor", action="drop")
    asked = c.call("ask_operator", token, "all", "Fork", [FIELD])
    assert asked["to"] == "all"
    assert [form["id"] for form in c.call("list_forms")] == [asked["form_id"]]
    console.send({"cancel_form": asked["form_id"], "reason": "later"})
    answer = until(
        lambda: [m for m in c.call("receive", token, 5)["messages"] if m["kind"] == "answer"], "the form's end"
    )[0]
    assert answer["meta"] == {
        "form_id": asked["form_id"],
        "title": "Fork",
        "status": "cancelled",
        "answers": None,
        "asker": "bot",
        "to": "all",
        "reason": "later",  # ours
    }
    if version == "5.1.0":
        assert includes(c.call("peek", token), {"pending": 0, "last": None})
        assert c.call("ping", "a")["state"] == "live"
        assert c.call("set_status", token, " busy ") == {"status": "busy"}
        assert [d["status"] for d in c.call("decisions", token)] == ["cancelled"]
        assert c.call("fetch_protocol_section", "channels")["section"] == "channels"
    assert c.call("leave", token) is None
    assert c.call("peers") == ["a"]


@both
def test_connector_is_refused_as_it_expects(table: Table, hub: Hub, version: str) -> None:
    a, c = hub.register("a"), table.connector(version, hub)
    token = c.call("register", "bot", 1000)["token"]

    def refusal(method: str, *arguments: Any) -> tuple[str, int | None]:
        with pytest.raises(Refused) as caught:
            c.call(method, *arguments)
        return caught.value.kind, caught.value.status

    assert refusal("register", "bot", 1000) == ("NameInUseError", None)
    assert refusal("register", "human", 1000) == ("HTTPStatusError", 422)
    assert refusal("send", "nobody", "a", "x") == ("HTTPStatusError", 401)
    assert refusal("send", token, "a", "") == ("HTTPStatusError", 422)
    assert refusal("receive", "nobody", 1) == ("HTTPStatusError", 401)
    assert refusal("ask_operator", token, "a", "t", [FIELD]) == ("HTTPStatusError", 422)
    assert refusal("ask_operator", token, "all", "t", []) == ("HTTPStatusError", 422)
    assert refusal("take_floor", "nobody", "all", "r") == ("HTTPStatusError", 401)
    assert c.call("ack", "nobody", 1) is None
    if version == "1.3.0":
        assert refusal("join_channel", token, "x") == ("HTTPStatusError", 422)
        assert c.call("join_channel", "nobody", "#x") is False
        assert c.call("set_channel_topic", token, "#other", "t") is False
    else:
        assert c.call("join_channel", token, "x") == "rejected"
        assert c.call("join_channel", "nobody", "#x") == "session_expired"
        assert c.call("set_channel_topic", token, "#other", "t") == "rejected"
        assert c.call("fetch_protocol_section", "nonsense")["error"] == "unknown_section"
        assert refusal("set_status", token, "x" * 281) == ("HTTPStatusError", 422)
        unheard = c.call("send", token, "#empty", "x")
        assert (unheard["warning"], bool(unheard["hint"])) == ("no_recipients", True)
        assert c.call("send", token, "ghost", "x")["missed"] == ["ghost"]
    a.post("/floor", action="take", reason="listen")
    locked = c.call("send", token, "all", "x")
    assert (locked["ok"], locked["floor_held"], locked["floor_holder"]) == (False, True, "a")
    assert (locked["floor_reason"], locked["floor_scope"]) == ("listen", "all")
    for _ in range(40):
        if not (limited := c.call("send", token, "a", "x"))["ok"]:
            break
    assert limited["rate_limited"] is True
    assert 0 < limited["retry_after"] < 3
    hub.done("/control", {"action": "stop"})
    assert c.call("send", token, "a", "x")["stopped"] is True
    stopped = c.call("receive", token, 20)
    assert (stopped["messages"], stopped["mode"], stopped["stop"]) == ([], "stopped", True)


@both
def test_a_bot_that_never_acknowledges_sees_each_message_once(table: Table, hub: Hub, version: str) -> None:
    a, c = hub.register("a"), table.connector(version, hub)
    token = c.call("register", "bot", 1000)["token"]
    seen: list[str] = []
    for turn in range(4):
        poll = c.start("receive", token, 20)  # neither lease nor ack_seq
        hub.until_listening("bot")
        speak = c.start("send", token, "a", f"meanwhile {turn}")  # on a second connection of its pool
        assert [m["content"] for m in a.receive(10)] == [f"meanwhile {turn}"]
        a.say("bot", f"turn {turn}")
        seen += [m["content"] for m in c.result(poll)["messages"]]
        assert c.result(speak)["ok"] is True
        seen += [m["content"] for m in c.call("receive", token, QUIET_S)["messages"]]
    assert seen == [f"turn {turn}" for turn in range(4)]
    polls = 0
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        assert c.call("receive", token, 0.5)["messages"] == []
        polls += 1
    assert polls <= 3, "an empty poll lasts until its deadline: the loop of such a bot does not spin"


@both
def test_a_bot_that_no_longer_acknowledges_sees_a_message_a_few_times_at_most(
    table: Table, hub: Hub, version: str
) -> None:
    a, c = hub.register("a"), table.connector(version, hub)
    token = c.call("register", "bot", 1000)["token"]
    a.say("bot", "first")
    (first,) = c.call("receive", token, 5)["messages"]
    c.call("ack", token, first["seq"])
    seen: list[str] = []
    turns = 6
    for turn in range(turns):
        a.say("bot", f"turn {turn}")
        seen += [m["content"] for m in c.call("receive", token, 5)["messages"]]
        seen += Peer(hub, "bot", token).contents()  # as with curl: a connection for each poll
    assert list(dict.fromkeys(seen)) == [f"turn {turn}" for turn in range(turns)]
    # It acknowledged once, so it might have been killed: three times it gets again what it owes, then no more.
    assert [seen.count(f"turn {turn}") for turn in range(3, turns)] == [1] * (turns - 3)


@both
def test_a_bot_that_acknowledges_as_it_polls_misses_nothing(table: Table, hub: Hub, version: str) -> None:
    a, c = hub.register("a"), table.connector(version, hub)
    token = c.call("register", "bot", 1000)["token"]
    options: Json = {"lease": "one-bot"} if version == "5.1.0" else {}
    seen: list[str] = []
    last = None
    for turn in range(6):
        a.say("bot", f"turn {turn}")
        inbound = c.call("receive", token, 5, ack_seq=last, **options)
        seen += [m["content"] for m in inbound["messages"]]
        last = max(m["seq"] for m in inbound["messages"])
    assert seen == [f"turn {turn}" for turn in range(6)]
    assert c.call("receive", token, QUIET_S, ack_seq=last, **options)["messages"] == []


@only_5
def test_connector_is_told_that_another_took_its_slot(table: Table, hub: Hub, version: str) -> None:
    a, c = hub.register("a"), table.connector(version, hub)
    token = c.call("register", "bot", 1000)["token"]
    older = c.start("receive", token, 20, lease="older")
    hub.until_listening("bot")
    newer = c.start("receive", token, 20, lease="newer")
    assert c.result(older)["already_listening"] is True
    a.say("bot", "to the newer")
    assert [m["content"] for m in c.result(newer)["messages"]] == ["to the newer"]
    assert c.call("receive", token, 5, lease="older")["already_listening"] is True, "the displaced stays refused"
    assert c.call("receive", token, QUIET_S, lease="newer")["already_listening"] is False


@both
def test_connector_gets_the_operators_commands(table: Table, hub: Hub, version: str) -> None:
    c, console = table.connector(version, hub), table.operate(hub)
    token = c.call("register", "bot", 1000)["token"]
    for command in ("interrupt", "reset"):
        poll = c.start("receive", token, 20)
        hub.until_listening("bot")
        console.send({"command": command, "to": "bot"})
        inbound = c.result(poll)
        assert (inbound["messages"], inbound["stop"]) == ([], False)
        if version == "5.1.0":
            assert inbound["commands"] == [command]


def test_an_idle_peer_is_reaped_and_comes_back_to_its_messages(table: Table) -> None:
    hub = table.start_hub("--client-ttl", "1")
    console = table.operate(hub)
    bots = {version: table.connector(version, hub) for version in VERSIONS}
    tokens = {version: bot.call("register", version, 1000)["token"] for version, bot in bots.items()}
    console.wait("peers", lambda f: [p["state"] for p in f["peers"]] == ["reaped", "reaped"], within=25.0)
    for version, bot in bots.items():
        assert version not in bot.call("peers")
        console.send({"say": "are you there?", "to": version})
        inbound = bot.call("receive", tokens[version], 5)
        assert [m["content"] for m in inbound["messages"]] == ["are you there?"]
        assert bot.call("register", version, 1000, tokens[version])["token"] == tokens[version]


@only_5
def test_connector_shows_its_agent_key(table: Table, version: str) -> None:
    hub = table.start_hub("--agent-key", "sesame")
    keyed = table.connector(version, hub, agent_key="sesame")
    token = keyed.call("register", "bot", 1000)["token"]
    assert keyed.call("peers") == ["bot"]
    assert keyed.call("send", token, "ghost", "x")["ok"] is True
    with pytest.raises(Refused) as caught:
        table.connector(version, hub).call("register", "other", 1000)
    assert caught.value.status == 401


# -- a conversation -------------------------------------------------------------------------------------------------


def test_a_supervised_conversation(table: Table, hub: Hub) -> None:
    old, new = hub.register("old"), hub.register("new")
    b, c, console = table.bridge("1.3.0", hub, "b"), table.bridge("5.1.0", hub, "c"), table.operate(hub)
    b.join()
    c.join()
    watchers: dict[str, Watch] = {}

    def both_watch() -> None:
        for name, version, peer in (("old", "1.3.0", old), ("new", "5.1.0", new)):
            watchers[name] = table.watch(version, hub.url, f"--token={peer.token}")
        hub.until_listening("old")
        hub.until_listening("new")

    def both_print(*lines: str) -> None:
        expected = "".join(f"[caucus] msg {line}\n" for line in lines)
        ends = {name: watcher.finish(WELL_BEFORE_THE_POLL_ENDS_S) for name, watcher in watchers.items()}
        assert ends == {"old": (0, expected), "new": (0, expected)}

    both_watch()
    assert sorted(b.tool("say", content="Shall we?", to="all")["delivered_to"]) == ["c", "new", "old"]
    both_print("b -> all: Shall we?")
    assert console.notice("Shall we?")["sender"] == "b"
    assert [m["content"] for m in c.tool("listen", timeout=5)["messages"]] == ["Shall we?"]

    console.send({"action": "pause"})
    console.wait("mode", lambda f: f["mode"] == "paused")
    both_watch()
    assert sorted(c.tool("say", content="held back", to="all")["delivered_to"]) == ["b", "new", "old"]
    console.send({"say": "One moment, please.", "to": "all"})  # reaches them through the pause
    both_print("human -> all: One moment, please.")
    for bridge in (b, c):
        (spoken,) = bridge.tool("listen", timeout=5)["messages"]
        assert (spoken["sender"], spoken["origin"], spoken["content"]) == ("human", "operator", "One moment, please.")
    both_watch()
    console.send({"action": "resume"})
    both_print("c -> all: held back")
    assert [m["content"] for m in b.tool("listen", timeout=5)["messages"]] == ["held back"]

    both_watch()
    asked = b.tool("ask_operator", title="Merge?", fields=[FIELD])
    form = console.wait("form", lambda f: f["form"]["id"] == asked["form_id"])["form"]
    console.send({"answer": {"id": form["id"], "answers": {"k": "yes"}}})
    for watcher in watchers.values():
        code, out = watcher.finish(WELL_BEFORE_THE_POLL_ENDS_S)
        assert (code, out.startswith("[caucus] msg human -> all: "), "yes" in out) == (0, True, True)
    for bridge in (b, c):
        (answer,) = bridge.tool("listen", timeout=5)["messages"]
        assert answer["meta"]["answers"] == {"k": "yes"}

    both_watch()
    console.send({"action": "stop"})
    for watcher in watchers.values():
        code, out = watcher.finish(WELL_BEFORE_THE_POLL_ENDS_S)
        assert (code, out.startswith("[caucus] STOP")) == (0, True)
    for bridge in (b, c):
        assert bridge.tool("say", content="one more thing", to="all")["stopped"] is True
        assert bridge.tool("listen", timeout=5)["stop"] is True

    mark = console.mark()
    console.send({"action": "reset"})
    console.wait("mode", lambda f: f["mode"] == "running", after=mark)
    assert [new.contents(), old.contents()] == [[], []] or ON_ORIGINAL  # section 16, 2
    both_watch()
    b.tool("say", content="And on.", to="all")
    both_print("b -> all: And on.")


# -- the dashboards' socket -------------------------------------------------------------------------------------------


def assert_snapshot(frame: Json) -> None:
    """Hold a snapshot against section 10.2."""
    assert set(frame) >= {
        *("type", "mode", "peers", "channels", "floors", "forms", "log", "health", "rate", "quiet_after", "agents"),
    }
    assert set(frame["health"]) >= HEALTH_KEYS
    assert set(frame["rate"]) >= {"refill_rate", "capacity"}
    assert all(set(peer) >= PEER_KEYS for peer in frame["peers"])
    assert all(set(message) >= MESSAGE_KEYS for message in frame["log"])


@pytest.mark.parametrize("opening", [None, {"auth_probe": True}, {"auth": "left over from another hub"}])
def test_without_tokens_every_dashboard_is_the_operators(table: Table, hub: Hub, opening: Json | None) -> None:
    console = table.open_console(hub)
    if opening is not None:  # 5.1.0 opens so; 1.3.0 waits in silence unless it has a token
        console.send(opening)
    assert_snapshot(console.wait("snapshot"))
    assert console.frames[0] == {"type": "auth_ok", "role": "operator", "auth": False}
    assert console.frames[1]["type"] == "snapshot"
    console.send({"action": "pause"})
    console.wait("mode")
    assert sum(f["type"] in ("auth_ok", "snapshot") for f in console.frames) == 2


@pytest.mark.parametrize("probes", [False, True], ids=["1.3.0", "5.1.0"])
@pytest.mark.parametrize(("secret", "role"), [(OPERATOR, "operator"), (OBSERVER, "observer")])
def test_with_tokens_a_dashboard_gets_its_role(table: Table, probes: bool, secret: str, role: str) -> None:
    hub = table.start_hub("--operator-token", OPERATOR, "--observer-token", OBSERVER)
    a = hub.register("a")
    console = table.open_console(hub)
    if probes:
        console.send({"auth_probe": True})
        assert console.wait("auth_required") == {"type": "auth_required"}
    console.send({"auth": secret})
    snapshot = console.wait("snapshot")
    assert_snapshot(snapshot)
    answers = [f for f in console.frames if f["type"] not in ("auth_required", "health")]
    assert answers[0] == {"type": "auth_ok", "role": role, "auth": True}
    console.send({"pause_peer": "a"})
    if role == "operator":
        console.wait("peers", lambda f: any(p["paused"] for p in f["peers"]))
        return
    assert includes(console.wait("error"), {"reason": "forbidden", "command": "pause_peer"})
    for command in ({"action": "stop"}, {"say": "x"}, {"heartbeat": "a"}, {"kick": "a"}, {"cancel_form": "x"}):
        mark = console.mark()
        console.send(command)
        assert console.wait("error", after=mark)["command"] == next(iter(command))
    a.say("a", "still running")
    console.notice("still running")  # an observer sees all


def test_a_wrong_token_ends_the_dashboards_socket(table: Table) -> None:
    hub = table.start_hub("--operator-token", OPERATOR)
    console = table.open_console(hub)
    console.send({"auth": "guess"})
    assert console.wait("auth_error") == {"type": "auth_error"}
    assert console.closed() == 1008
    garbled = table.open_console(hub)
    garbled.send_raw("not JSON")
    assert garbled.closed() == 1008
    assert [f["type"] for f in garbled.frames if f["type"] != "auth_error"] == []


def test_a_foreign_page_gets_no_console(table: Table, hub: Hub) -> None:
    console = table.open_console(hub, origin="http://evil.example")
    assert console.closed() == 1008
    assert console.frames == []


def test_the_dashboard_is_told_of_all_that_happens(table: Table, hub: Hub) -> None:
    console = table.operate(hub)
    a = hub.register("a")
    peers = console.wait("peers", lambda f: [p["name"] for p in f["peers"]] == ["a"])
    assert set(peers) >= {"type", "peers"}
    assert set(peers["peers"][0]) >= PEER_KEYS
    assert (peers["peers"][0]["state"], peers["peers"][0]["paused"]) == ("live", False)
    joined = console.notice("a")
    assert {k: joined[k] for k in ("sender", "kind", "origin", "seq")} == {
        "sender": "hub",
        "kind": "system",
        "origin": "hub",
        "seq": 0,
    }

    b = hub.register("b")
    sent = a.say("b", "psst")
    told = console.wait("message", lambda f: f["message"]["content"] == "psst")
    assert set(told) == {"type", "message"}
    assert set(told["message"]) >= MESSAGE_KEYS
    assert told["message"] == {**b.receive(5)[0]}, "the same message, byte for byte"
    assert told["message"]["id"] == sent["message_id"]
    assert told["message"]["seq"] > 0

    a.post("/channels/join", channel="#x")
    a.post("/channels/topic", channel="#x", topic="plans")
    channels = console.wait("channels", lambda f: f["channels"].get("#x", {}).get("topic"))
    assert set(channels["channels"]) == {"#x"}
    assert channels["channels"]["#x"].items() >= {"topic": "plans", "members": ["a"]}.items()

    a.post("/floor", action="take", reason="mine")
    floors = console.wait("floor", lambda f: f["floors"])["floors"]
    assert set(floors["all"]) >= FLOOR_KEYS
    assert (floors["all"]["holder"], floors["all"]["reason"], floors["all"]["hands"]) == ("a", "mine", [])
    b.post("/floor", action="raise")
    console.wait("floor", lambda f: f["floors"].get("all", {}).get("hands") == ["b"])

    asked = a.post("/ask", to="#x", title="Fork", fields=[FIELD])
    form = console.wait("form")["form"]
    assert set(form) >= FORM_KEYS
    assert form["fields"] == [{**FIELD, "options": [], "required": False, "allow_other": False}]
    assert (form["id"], form["to"], form["status"], form["answers"]) == (asked["form_id"], "#x", "pending", None)

    a.post("/status", status="thinking")
    health = console.wait("health", lambda f: any(p["status"] == "thinking" for p in f["peers"]))
    assert set(health) >= {"type", "health", "peers"}
    assert set(health["health"]) >= HEALTH_KEYS
    assert health["health"]["peer_count"] == 2

    mark = console.mark()
    a.post("/leave")
    console.wait("peers", lambda f: [p["name"] for p in f["peers"]] == ["b"], after=mark)
    console.wait("channels", lambda f: f["channels"] == {}, after=mark)
    console.wait("floor", lambda f: f["floors"].get("all", {}).get("holder") == "b", after=mark)

    late = table.operate(hub).wait("snapshot")
    assert_snapshot(late)
    assert [p["name"] for p in late["peers"]] == ["b"]
    assert late["floors"]["all"]["holder"] == "b"
    assert late["forms"] == []  # withdrawn with its asker
    assert "psst" in [m["content"] for m in late["log"]]


def test_the_dashboards_commands_take_effect(table: Table, hub: Hub) -> None:
    console = table.operate(hub)
    a, b = hub.register("a"), hub.register("b")

    for action, mode in (("pause", "paused"), ("resume", "running"), ("stop", "stopped"), ("reset", "running")):
        mark = console.mark()
        console.send({"action": action})
        assert console.wait("mode", after=mark) == {"type": "mode", "mode": mode}
        console.notice(f"control: {mode}", after=mark)
        if action == "stop":
            assert [m["content"] for m in a.receive(5)] == ["stop"]

    console.send({"say": "dear all"})
    assert console.notice("dear all")["recipient"] == "all"
    console.send({"say": "dear one", "to": "a"})
    spoken = console.notice("dear one")
    assert (spoken["sender"], spoken["origin"], spoken["kind"], spoken["recipient"]) == (
        *("human", "operator", "message", "a"),
    )
    assert a.contents(5) == ["dear all", "dear one"] or ON_ORIGINAL  # section 16, 2: there, the old stop comes first

    console.send({"heartbeat": "a"})
    assert console.wait("heartbeat_result")["result"]["state"] == "live"
    mark = console.mark()
    console.send({"heartbeat": "ghost"})
    assert console.wait("heartbeat_result", after=mark)["result"] == {
        "peer": "ghost",
        "state": "absent",
        "present": False,
    }

    console.send({"pause_peer": "a"})
    console.wait("peers", lambda f: {p["name"]: p["paused"] for p in f["peers"]} == {"a": True, "b": False})
    mark = console.mark()
    console.send({"resume_peer": "a"})
    console.wait("peers", lambda f: not any(p["paused"] for p in f["peers"]), after=mark)

    a.post("/channels/join", channel="#x")
    console.wait("channels", lambda f: "#x" in f["channels"])
    mark = console.mark()
    console.send({"close_channel": "#x"})
    console.wait("channels", lambda f: f["channels"] == {}, after=mark)

    a.post("/floor", action="take", reason="mine")
    console.wait("floor", lambda f: f["floors"])
    mark = console.mark()
    console.send({"floor": {"action": "clear", "scope": "all"}})
    console.wait("floor", lambda f: f["floors"] == {}, after=mark)

    first, second = (a.post("/ask", title=title, fields=[FIELD])["form_id"] for title in ("One", "Two"))
    console.send({"answer": {"id": first, "answers": {"k": "yes"}}})
    assert console.wait("form_resolved", lambda f: f["id"] == first) == {
        "type": "form_resolved",
        "id": first,
        "status": "answered",
        "answers": {"k": "yes"},
    }
    console.send({"cancel_form": second, "reason": "no longer"})
    resolved = console.wait("form_resolved", lambda f: f["id"] == second)
    assert (resolved["status"], resolved.get("answers")) == ("cancelled", None)
    mark = console.mark()
    console.send({"answer": {"id": first, "answers": {"k": "no"}}})  # settled once: nothing happens

    console.send({"set_rate": {"refill_rate": 3, "capacity": 12}})
    assert console.wait("rate", after=mark)["rate"] == {"refill_rate": 3.0, "capacity": 12.0}
    assert not [f for f in console.frames[mark:] if f["type"] == "form_resolved"]
    mark = console.mark()
    for nonsense in (
        {"refill_rate": 0, "capacity": 5},
        {"refill_rate": 1, "capacity": 0.5},
        {"peer": "a"},
        "fast",
        None,
    ):
        console.send({"set_rate": nonsense})
    console.send({"command": "interrupt", "to": "b"})
    command = console.wait("message", lambda f: f["message"]["kind"] == "control", after=mark)["message"]
    assert (command["content"], command["recipient"], command["sender"]) == ("interrupt", "b", "human")
    assert command["origin"] == "operator" or ON_ORIGINAL  # section 16, 20
    assert not [f for f in console.frames[mark:] if f["type"] == "rate"]

    mark = console.mark()
    console.send({"kick": "b"})
    console.wait("peers", lambda f: [p["name"] for p in f["peers"]] == ["a"], after=mark)
    assert hub.call("POST", "/send", {"token": b.token, "to": "a", "content": "x"}).status == 401

    mark = console.mark()
    hub.call("POST", "/register", {"project": "a", "protocol_version": 1})  # contested
    console.wait("message", lambda f: re.search(r"\ba\b", f["message"]["content"]), after=mark)

    console.send({"action": "pause", "say": "which one?"})  # several commands in one frame: the first in their order
    console.wait("mode", lambda f: f["mode"] == "paused", after=mark)
    console.send({"heartbeat": "a", "action": "resume"})
    console.send({"say": "done"})
    console.notice("done", after=mark)
    assert not [f for f in console.frames[mark:] if f.get("mode") == "running"]
    assert "which one?" not in json.dumps(console.frames)


def test_frames_that_mean_nothing_do_nothing(table: Table, hub: Hub) -> None:
    console = table.operate(hub)
    mark = console.mark()
    nothing: list[object] = [{}, [], [1], 7, None, "text", {"nonsense": 1}, {"action": "bogus"}, {"action": []}]
    nothing += [{"say": None}, {"kick": "ghost"}, {"kick": 7}, {"answer": 1}, {"answer": {"id": "x"}}, {"floor": "x"}]
    nothing += [{"floor": {"action": "clear", "scope": 7}}, {"command": "x"}, {"pause_peer": {}}, {"heartbeat": []}]
    for frame in nothing:
        console.send(frame)
    console.send({"heartbeat": "ghost"})
    console.wait("heartbeat_result", after=mark)
    assert console.close_code is None
    assert not [
        f for f in console.frames[mark:] if f["type"] in ("mode", "peers", "channels", "floor", "form_resolved")
    ]


def test_what_the_operator_says_is_turned_into_text(table: Table, hub: Hub) -> None:
    console = table.operate(hub)
    hub.register("a")
    console.send({"say": 42, "to": "a"})  # section 10.3: values are str()-ed
    assert console.notice("42")["content"] == "42"


@defect(8)
@pytest.mark.parametrize("frame", ["not JSON", b"\x00\xff"], ids=["text", "binary"])
def test_a_frame_that_is_not_json_does_not_end_the_console(table: Table, hub: Hub, frame: str | bytes) -> None:
    console = table.operate(hub)
    console.send_raw(frame)
    console.send({"heartbeat": "ghost"})
    console.wait("heartbeat_result")


@defect(21)
def test_a_console_that_reads_may_send_a_long_burst(table: Table, hub: Hub) -> None:
    console = table.operate(hub)
    hub.register("a")
    for number in range(520):
        console.send({"say": f"line {number}", "to": "a"})
    console.notice("line 519")
    assert console.close_code is None
