"""The room outlives its hub: kill -9 and restarts of real processes, damaged files, a full disk, and what mends them.

CAUCUS_TORTURE=N runs the torture of kills and the one of flipped bytes N times as long (about 300 are hours).
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import nursery
import pytest
from agents import agent
from fakes import FakeClock, RecordingRoom, question, replayed, state_of
from hubs import ROADS, START, HubProcess, KeptHub, eventually
from long_journal import long_journal
from originals_support import VERSIONS, Connector, Refused, require_originals
from test_bridge import BridgeProcess, bridge_at
from wires import WatchProcess

import caucus
from caucus import Client, Invalid, Journal, Refusal, Room, Unreachable

SCALE = int(os.environ.get("CAUCUS_TORTURE", "1"))
PROGRAM = (sys.executable, "-W", "error", START)


@contextmanager
def kept_hub(path: Path, *flags: str) -> Iterator[KeptHub]:
    """Run a hub with a journal; the last of its lives must end in order."""
    kept = KeptHub(path, *flags)
    try:
        yield kept
    finally:
        code, log = kept.hub.stop()
    assert code == 0, log
    assert "Traceback" not in log, log


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Name a journal that is not there yet."""
    return tmp_path / "state" / "room.journal"


def journal(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `caucus journal`."""
    argv = [*PROGRAM, "journal", *map(str, words)]
    return nursery.run(argv)


# --- a restart is the same room ---


@pytest.mark.parametrize("road", ROADS)
def test_a_killed_hub_comes_back_as_the_same_room(place: Path, road: str) -> None:
    with kept_hub(place, *ROADS[road]) as kept:
        hub = kept.hub
        ann, bob, eve = (hub.register(name) for name in ("ann", "bob", "eve"))
        hub.post("/channels/join", token=ann, channel="#x")
        hub.post("/channels/topic", token=ann, channel="#x", topic="plans")
        hub.post("/status", token=ann, status="on the parser")
        for n in range(3):
            hub.say(ann, "bob", f"word {n}")
        hub.post("/floor", token=ann, action="take", scope="all", reason="merging")
        hub.post("/floor", token=bob, action="raise", scope="all")
        *_, second, third = hub.receive(bob, lease="one")["messages"]
        hub.get("/receive", bob, timeout=0, lease="one", ack_seq=second["seq"])
        form = hub.post("/ask", token=eve, to="all", title="Deploy?",
                        fields=[{"key": "why", "label": "Why", "type": "text"}]).body["form_id"]
        with hub.console() as console:
            console.send(pause_peer="eve")
            console.send(set_rate={"refill_rate": 50, "capacity": 70})
            console.send(heartbeat="eve")
            console.next("heartbeat_result")
        hub.post("/leave", token=hub.register("gone"))
        with hub.console() as console:
            before = console.snapshot
        hub = kept.kill_and_restart()
        with hub.console() as console:
            after = console.snapshot
        for key in ("mode", "channels", "floors", "forms", "decisions", "rate"):
            assert after[key] == before[key], key
        kept_of_peer = ("name", "state", "paused", "status", "msg_count", "char_count")
        assert [[row[key] for key in kept_of_peer] for row in after["peers"]] == [
            [row[key] for key in kept_of_peer] for row in before["peers"]
        ]
        assert after["log"][:-1] == before["log"]
        assert after["log"][-1]["content"] == "the hub restarted; nothing was lost"
        assert [m["content"] for m in hub.receive(bob, lease="one")["messages"]] == [third["content"]]
        assert hub.say(ann, "bob", "later")["delivered_to"] == ["bob"]
        assert hub.receive(bob, lease="one")["messages"][-1]["seq"] > third["seq"]
        assert hub.get("/forms").body["forms"][0]["id"] == form


def test_a_stop_stays_a_stop(place: Path) -> None:
    with kept_hub(place) as kept:
        ann = kept.hub.register("ann")
        assert kept.hub.post("/control", action="stop").body == {"mode": "stopped"}
        hub = kept.kill_and_restart()
        answer = hub.receive(ann)
        assert (answer["mode"], answer["messages"][0]["content"]) == ("stopped", "stop")
        assert hub.post("/send", token=ann, to="all", content="hello?").body["error"] == "stopped"


def test_what_was_said_under_a_client_id_is_not_said_again_after_a_kill(place: Path) -> None:
    with kept_hub(place) as kept:
        ann, bob = kept.hub.register("ann"), kept.hub.register("bob")
        said = {"token": ann, "to": "bob", "content": "which port?", "expects_answer": True, "client_id": "one"}
        first = kept.hub.post("/send", **said).body
        hub = kept.kill_and_restart()
        again = hub.post("/send", **said).body
        assert (again["message_id"], again["repeated"]) == (first["message_id"], True)
        batch = hub.receive(bob)
        assert [m["content"] for m in batch["messages"]] == ["which port?"]
        assert [one["seq"] for one in batch["owes"]] == [first["seq"]]
        hub.post("/send", token=bob, content="8765", reply_to=first["seq"])
        hub = kept.kill_and_restart()
        assert hub.get("/receipt", ann, seq=first["seq"]).body["who"] == {"bob": "answered"}
        assert hub.get("/peek", bob).body["owes"] == []


def test_how_a_token_ended_outlives_the_hub(place: Path) -> None:
    with kept_hub(place) as kept:
        ann = kept.hub.register("ann")
        with kept.hub.console() as console:
            console.send(kick="ann")
            console.message(content="ann was kicked by the operator")
        answer = kept.kill_and_restart().get("/receive", ann, timeout=0)
        assert (answer.status, answer.body["why"]) == (401, "was kicked by the operator")


def test_an_answer_of_the_operator_is_there_after_a_kill(place: Path) -> None:
    with kept_hub(place) as kept:
        ann = kept.hub.register("ann")
        fields = [{"key": "why", "label": "Why", "type": "text"}]
        form = kept.hub.post("/ask", token=ann, to="all", title="Deploy?", fields=fields).body["form_id"]
        with kept.hub.console() as console:
            console.send(answer={"id": form, "answers": {"why": "because"}})
            console.next("form_resolved")
        hub = kept.kill_and_restart()
        assert hub.get("/decisions", ann).body["decisions"][0]["answer_summary"] == "Why: because"
        assert hub.receive(ann)["messages"][-1]["kind"] == "answer"


def test_time_down_is_nobodys_silence(place: Path) -> None:
    with kept_hub(place, "--client-ttl", "1.5") as kept:
        ann = kept.hub.register("ann")
        kept.kill()
        time.sleep(2.0)  # longer than the room waits for a silent peer: that is what is tested
        hub = kept.restart()
        assert hub.get("/ping", peer="ann").body["state"] == "live"
        eventually(lambda: hub.get("/ping", peer="ann").body["state"] == "reaped", "a sweep")
        assert hub.get("/peek", ann).status == 200


def test_an_orderly_end_leaves_one_file_and_the_next_hub_goes_on(place: Path) -> None:
    with kept_hub(place) as kept:
        ann = kept.hub.register("ann")
        assert kept.hub.stop()[0] == 0
        assert {one.name for one in place.parent.iterdir()} <= {place.name, f"{place.name}.lock"}
        assert (place.stat().st_mode & 0o777, place.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert kept.restart().get("/peek", ann).status == 200


@pytest.mark.parametrize("own", [{}, {"Caucus-Seat": "a-secret-of-this-agent"}], ids=["", "with a secret"])
def test_a_session_over_mcp_goes_on_with_its_seat(place: Path, own: dict[str, str]) -> None:
    with kept_hub(place) as kept:
        headers = {"Accept": "application/json, text/event-stream", **own}

        def rpc(method: str, session: dict[str, str], **params: Any) -> Any:
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            return kept.hub.http.post("/mcp", json=body, headers={**headers, **session})

        begun = rpc("initialize", {}, protocolVersion="2025-06-18", capabilities={}, clientInfo={"name": "x"})
        session = {"Mcp-Session-Id": begun.headers["Mcp-Session-Id"], "Mcp-Protocol-Version": "2025-06-18"}
        for tool, given in (("setup", {}), ("join", {"project": "api"})):
            assert rpc("tools/call", session, name=tool, arguments=given).json()["result"]["isError"] is False
        web = kept.hub.register("web")
        kept.hub.say(web, "api", "still there?")
        kept.kill_and_restart()
        told = rpc("tools/call", session, name="whoami", arguments={}).json()["result"]["content"][0]["text"]
        assert json.loads(told)["project"] == "api"
        heard = rpc("tools/call", session, name="listen", arguments={"timeout": 0}).json()
        assert "still there?" in heard["result"]["content"][0]["text"]
        rpc("tools/call", session, name="say", arguments={"to": "web", "content": "yes"})
        assert kept.hub.receive(web)["messages"][0]["content"] == "yes"


# --- our own programs live through it ---


def test_a_watch_a_bridge_and_an_agent_live_through_a_kill(place: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} -c \"print('heard')\""
    with contextlib.ExitStack() as end:
        kept = end.enter_context(kept_hub(place))
        web = kept.hub.register("web")
        watch = WatchProcess(kept.hub.url, "--token", kept.hub.register("api"), "--follow", "--json")
        end.callback(watch.end)
        end.callback(watch.process.terminate)
        bridge = end.enter_context(bridge_at(kept.hub.url, tmp_path))
        bridge.join("desk")
        running = end.enter_context(agent(kept.hub.url, "--project", "bot", "--exec", command))
        listening = bridge.tool("listen", timeout=20)
        bridge.send(listening)
        for name in ("api", "desk", "bot"):
            eventually(lambda name=name: kept.hub.is_listening(name), f"{name} listening")
        kept.hub.say(web, "api", "before")
        kept.kill()
        time.sleep(0.5)  # long enough that each has found it gone
        hub = kept.restart()
        for name in ("api", "desk", "bot"):
            eventually(lambda name=name: hub.is_listening(name), f"{name} back")
            hub.say(web, name, f"after, {name}")
        told = json.dumps(bridge.answer(listening)["result"])
        assert "after, desk" in told
        assert "joined again" not in told
        assert [m["content"] for m in hub.receive(web, timeout=8)["messages"]] == ["heard"]
        assert watch.process.stdout is not None
        said = iter(lambda: json.loads(watch.process.stdout.readline())["message"]["content"], "after, api")
        assert {*said} == {"before"}  # twice, if its acknowledgement was not kept yet: better that than never
        assert "joined again" not in running.errors


# --- one hub a file, and files that are none ---


def test_a_second_hub_on_a_file_is_refused_and_told_whose_it_is(place: Path) -> None:
    with kept_hub(place) as kept:
        argv = [*PROGRAM, "hub", "--port", "0", "--no-browser", "--journal", str(place)]
        second = nursery.run(argv)
        assert (second.returncode, second.stdout) == (2, "")
        assert f"process {kept.hub.process.pid}" in second.stderr


def test_the_usual_place_is_named_after_the_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caucus.os, "environ", {**os.environ, "XDG_STATE_HOME": str(tmp_path)})
    monkeypatch.setattr(caucus.sys, "platform", "linux")
    assert caucus.journal_of("yes", 9000) == str(tmp_path / "caucus" / "hub-9000.journal")
    assert [caucus.journal_of(word, 9000) for word in ("", "no", "0", "off")] == [""] * 4
    assert caucus.journal_of("here.db", 0) == "here.db"
    with pytest.raises(Invalid, match="port 0"):
        caucus.journal_of("1", 0)


def other_database(path: Path) -> None:
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE mine(x)")
    base.close()


def newer_journal(path: Path) -> None:
    a_journal(path, 3)
    base = sqlite3.connect(path)
    base.execute(f"PRAGMA user_version = {caucus._SCHEMA + 1}")
    base.close()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.write_text("# Notes\n" * 99), "damaged"),
        (other_database, "another program's"),
        (newer_journal, "newer Caucus"),
    ],
    ids=["text", "another database", "a newer journal"],
)
def test_a_file_that_is_no_journal_of_ours_is_refused_and_left_alone(
    place: Path, make: Callable[[Path], None], told: str
) -> None:
    place.parent.mkdir(mode=0o700)
    make(place)
    before = place.read_bytes()
    argv = [*PROGRAM, "hub", "--port", "0", "--no-browser", "--journal", str(place)]
    done = nursery.run(argv)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert place.read_bytes() == before


def refusal_of(place: Path | bytes) -> str:
    """Start a hub on a file that it must refuse; give what it says."""
    argv = [*PROGRAM, "hub", "--port", "0", "--no-browser", "--journal", os.fsdecode(place)]
    done = nursery.run(argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def files_in(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Read all files of a folder but the locks, and their rights."""
    return {one.name: (one.read_bytes(), one.stat().st_mode) for one in folder.iterdir() if one.suffix != ".lock"}


def test_a_refused_file_keeps_its_rights_and_gets_no_neighbours(place: Path) -> None:
    place.parent.mkdir(mode=0o700)
    other_database(place)
    place.chmod(0o644)
    before = files_in(place.parent)
    for refused in (refusal_of(place), journal("info", place).stderr, journal("compact", place).stderr):
        assert "another program's" in refused
    assert files_in(place.parent) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", None)], ids=["folder", "pipe"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(
    place: Path, make: Callable[[str], None], ending: str
) -> None:
    a_journal(place, 1)
    place.with_name("room.journal.lock").unlink()
    if not ending:
        place.unlink()
    make(f"{place}{ending}")
    assert f"cannot open or write {place}{ending}: not a regular file" in refusal_of(place)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_a_path_may_be_any_bytes(tmp_path: Path) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.journal"))
    with kept_hub(place) as kept:
        kept.hub.register("ann")
        with kept.hub.console() as console:
            assert "caf" in console.next("health")["health"]["journal"]["path"]
    for action in ("info", "compact"):
        done = journal(action, place)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("is_moved", [False, True])
def test_two_names_of_a_file_are_not_two_rooms(place: Path, is_moved: bool) -> None:
    other = place.with_name("other")
    with kept_hub(place) as kept:
        ann = kept.hub.register("ann")
        if not is_moved:
            os.link(place, other)
            assert "2 names" in refusal_of(other)
        elif sys.platform == "linux":
            os.rename(place, other)
            assert "another hub's" in refusal_of(other)
            os.rename(other, place)
        else:
            pytest.skip("only Linux tells")
        assert kept.hub.say(ann, "ann", "it is mine")["delivered_to"]


def test_a_hub_waits_a_moment_for_who_only_looks_whose_the_file_is(place: Path) -> None:
    state = a_journal(place, 2)
    lock = place.with_name("room.journal.lock")
    words = lock.read_text()
    assert caucus.holder_of(str(lock)) is None
    assert lock.read_text() == words
    handle = os.open(lock, os.O_RDWR)
    caucus.try_lock(handle)
    threading.Timer(0.05, os.close, [handle]).start()
    assert loaded(place) == state


def test_a_compaction_may_end_while_a_hub_starts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = a_journal(place, 9, is_closed=False)
    connect = caucus.connect

    def late(path: str, *words: Any, **named: Any) -> sqlite3.Connection:
        with contextlib.closing(connect(path)) as last:  # as it closes, SQLite copies its log, and drops it
            last.execute("SELECT count(*) FROM event").fetchone()
        assert not os.path.exists(f"{path}-wal")
        return connect(path, *words, **named)

    monkeypatch.setattr(caucus, "connect", late)
    assert loaded(place) == state


def test_an_older_file_is_brought_up_and_a_copy_of_it_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = a_journal(place, 5)
    monkeypatch.setattr(caucus, "_SCHEMA", caucus._SCHEMA + 1)
    monkeypatch.setitem(caucus.MIGRATIONS, caucus._SCHEMA - 1, lambda base: base.execute("CREATE TABLE novelty(x)"))
    assert loaded(place) == state
    base = sqlite3.connect(place)
    assert base.execute("PRAGMA user_version").fetchone() == (caucus._SCHEMA,)
    assert base.execute("SELECT count(*) FROM novelty").fetchone() == (0,)
    base.close()
    copy = sqlite3.connect(f"{place}.schema-{caucus._SCHEMA - 1}")
    assert copy.execute("PRAGMA user_version").fetchone() == (caucus._SCHEMA - 1,)
    copy.close()


# --- in one process: what is kept is what was ---


def a_journal(path: Path, rounds: int, snapshot_at: int = -1, is_closed: bool = True) -> Any:
    """Keep a lively room; give its state. Not closed, its last changes are in SQLite's log, as after a kill."""
    kept, clock = Journal(str(path)), FakeClock()
    room = RecordingRoom(clock)
    room.listeners.append(kept.hear)
    for turn in range(rounds):
        live(room, clock, turn)
        assert kept.commit()
        if turn == snapshot_at:
            caucus.compact(str(path))
    state = state_of(room)
    if is_closed:
        kept.close()
    else:
        for ending in ("", "-wal", "-shm"):
            shutil.copyfile(f"{path}{ending}", f"{path}.killed{ending}")
        kept.close()
        for ending in ("", "-wal", "-shm"):
            os.replace(f"{path}.killed{ending}", f"{path}{ending}")
    return state


def live(room: RecordingRoom, clock: FakeClock, turn: int) -> None:
    """Have a little of everything happen."""
    clock.advance(7.0)
    ann = room.join(f"ann{turn}", "#x", f"#{turn % 3}")
    bob = room.join(f"bob{turn}", "#x")
    room.say(ann, bob.name, f"to you {turn} ✓")
    room.say(bob, "#x", "to the channel")
    room.operator_say("all", "carry on")
    room.acknowledge(bob, room.fetch(bob)[-1].seq)
    room.fetch(ann)
    if turn % 3 == 0:
        room.use_floor(ann, "take", "all", None) if not room.floors() else room.use_floor(ann, "raise", "all", None)
        form = room.ask(ann, question(title=f"Question {turn}?"))
        if turn % 2:
            room.answer(form.id, {"why": "because"})
    if turn % 4 == 1:
        room.kick(f"bob{turn - 1}")
    if turn % 5 == 2:
        room.pause_peer(ann.name)


def loaded(path: Path) -> Any:
    """Give the state of the room that a file keeps, as it was. Raises Invalid."""
    kept = Journal(str(path))
    try:
        room = Room(lambda event: None, FakeClock(), lambda: "unused")
        kept.load(room)
        return state_of(room)
    finally:
        kept._base.close()
        kept._lock.release()


@pytest.mark.parametrize("snapshot_at", [-1, 0, 4, 9])
@pytest.mark.parametrize("is_closed", [True, False])
def test_a_loaded_room_is_the_room_that_was_kept(place: Path, snapshot_at: int, is_closed: bool) -> None:
    state = a_journal(place, 10, snapshot_at, is_closed)
    assert loaded(place) == state


def test_old_events_can_be_dropped_and_what_waits_stays(place: Path) -> None:
    state = a_journal(place, 10)
    done = caucus.compact(str(place), keep_days=1.0)  # the fake clock's events are years old
    assert done["dropped"] > 0
    assert loaded(place) == state
    base = sqlite3.connect(place)
    assert base.execute("SELECT count(*) FROM event").fetchone() == (1,)
    base.close()


def test_a_room_goes_on_after_a_load_and_is_kept_again(place: Path) -> None:
    a_journal(place, 3)
    for _ in range(3):
        kept = Journal(str(place))
        room = Room(kept.hear, kept.clock, caucus.new_secret)
        assert kept.load(room)
        room.reopen()
        peer, _ = room.register("here", f"peer{room._serial}")
        room.say(peer, peer.name, "again")
        kept.commit()
        state = state_of(room)
        kept.close()
        assert loaded(place) == state


def test_a_flipped_or_missing_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    chance = random.Random(4)
    whole = tmp_path / "whole"
    state = a_journal(whole, 12, 6, is_closed=False)
    refused = 0
    copy = tmp_path / "copy"
    for _ in range(250 * SCALE):
        for ending in ("", "-wal", *chance.choice((("-shm",), ()))):  # without: files that were copied, not left behind
            shutil.copyfile(f"{whole}{ending}", f"{copy}{ending}")
        victim = f"{copy}{chance.choice(('', '-wal'))}"
        data = bytearray(Path(victim).read_bytes())
        if chance.random() < 0.2 and not victim.endswith("-wal"):
            del data[chance.randrange(len(data)) :]
        else:
            for _ in range(chance.choice((1, 1, 8))):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        Path(victim).write_bytes(data)
        try:
            assert loaded(copy) == state, "a silent loss"
        except Invalid as refusal:
            refused += "\n" not in refusal.detail
        for ending in ("-shm", "-wal", ".lock", ""):
            with suppress(FileNotFoundError):
                os.unlink(f"{copy}{ending}")
    assert refused > 20


# --- the log of SQLite, beside the file ---


@pytest.fixture
def killed(place: Path) -> tuple[KeptHub, str]:
    """Kill a hub that has confirmed eight messages; give also the token of who has not read them."""
    kept = KeptHub(place)
    ann, bob = kept.hub.register("ann"), kept.hub.register("bob")
    for n in range(8):
        kept.hub.say(ann, "bob", f"word {n}")
    kept.kill()
    return kept, bob


def flip(path: Path, frame: int, at: int) -> None:
    """Change a byte of a frame of SQLite's log; frames count from 0, or from the end if negative."""
    log = path.with_name(f"{path.name}-wal")
    data = bytearray(log.read_bytes())
    data[32 + frame % ((len(data) - 32) // 4120) * 4120 + at] ^= 1
    log.write_bytes(data)


@pytest.mark.parametrize(("frame", "at"), [(-6, 500), (-1, 500), (-1, 9), (0, 20)],
                         ids=["middle", "last", "salt of the last", "sum of the first"])
def test_a_damaged_log_is_refused_each_time_and_nothing_is_changed(
    killed: tuple[KeptHub, str], place: Path, frame: int, at: int
) -> None:
    flip(place, frame, at)
    before = files_in(place.parent)
    for _ in range(2):
        assert "-wal" in refusal_of(place)
    for words in (("info", place), ("compact", place), ("backup", place, place.with_name("copy"))):
        done = journal(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "recover" in done.stderr
    assert files_in(place.parent) == before


def test_recover_tells_of_a_damaged_log_and_saves_what_is_behind(killed: tuple[KeptHub, str], place: Path) -> None:
    kept, bob = killed
    flip(place, -6, 500)
    before = files_in(place.parent)
    new = place.with_name("new")
    done = journal("recover", place, new, "--json")
    assert done.returncode == 1
    assert "-wal" in json.loads(done.stdout)["what"][0]
    assert {name: about for name, about in files_in(place.parent).items() if name != "new"} == before
    new.replace(place)
    for ending in ("-wal", "-shm"):
        place.with_name(place.name + ending).unlink()
    assert len(kept.restart().receive(bob)["messages"]) == 8
    assert kept.hub.stop()[0] == 0


@pytest.mark.parametrize("how", ["empty", "gone", "cut"])
def test_a_file_that_is_gone_is_no_empty_room_while_its_log_is_there(
    killed: tuple[KeptHub, str], place: Path, how: str
) -> None:
    if how == "gone":
        place.unlink()
    else:
        os.truncate(place, 0 if how == "empty" else 512)
    before = files_in(place.parent)
    assert "damaged" in refusal_of(place)
    assert files_in(place.parent) == before
    new = place.with_name("new")
    assert journal("recover", place, new).returncode == 1
    assert json.loads(journal("info", new, "--json").stdout)["waiting"] == 8


def test_a_log_that_is_gone_is_missed(killed: tuple[KeptHub, str], place: Path) -> None:
    place.with_name(f"{place.name}-wal").unlink()
    assert "-wal" in refusal_of(place)


@pytest.mark.parametrize("how", ["empty", "gone", "replaced"])
def test_a_hub_notices_at_once_that_its_file_is_gone(place: Path, how: str) -> None:
    kept = KeptHub(place)
    ann = kept.hub.register("ann")
    if how == "empty":
        kept.hub.stop()  # so that the file has something
        kept.restart()
        os.truncate(place, 0)
    elif how == "gone":
        place.unlink()
    else:
        os.replace(shutil.copyfile(place, place.with_name("copy")), place)
    answer = kept.hub.post("/send", token=ann, to="ann", content="is this kept?")
    assert (answer.status, answer.body["error"]) == (503, "journal_unavailable")
    kept.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
@pytest.mark.parametrize("room_left", [24, 4144, 8264])
def test_a_write_that_a_kill_cuts_off_is_no_damage(place: Path, room_left: int) -> None:
    import resource

    kept = KeptHub(place)
    ann, bob = kept.hub.register("ann"), kept.hub.register("bob")
    size = place.with_name(f"{place.name}-wal").stat().st_size
    limits = (size + room_left, resource.RLIM_INFINITY)  # between a frame's head and its page
    resource.prlimit(kept.hub.process.pid, resource.RLIMIT_FSIZE, limits)
    sent = [kept.hub.post("/send", token=ann, to="bob", content="x" * 3000).status for _ in range(4)]
    assert 503 in sent
    hub = kept.kill_and_restart()
    assert len(hub.receive(bob)["messages"]) == sent.count(200)
    assert hub.stop()[0] == 0


def test_of_files_that_were_copied_only_the_last_change_may_be_unfinished(tmp_path: Path) -> None:
    place, log = tmp_path / "room", tmp_path / "room-wal"
    a_journal(place, 12, is_closed=False)
    data = log.read_bytes()
    before = [(len(data) - 32) // 4120, len(data)]
    for index, is_fine in ((True, False), (False, True)):  # the index tells that it was finished
        log.write_bytes(data[:-4096])
        if not index:
            (tmp_path / "room-shm").unlink()
        with contextlib.nullcontext() if is_fine else pytest.raises(Invalid, match=f"of {before[0]} frames"):
            loaded(place)


# --- the commands ---


def test_info_tells_of_a_room_that_runs(place: Path) -> None:
    with kept_hub(place) as kept:
        ann, _ = kept.hub.register("ann"), kept.hub.register("bob")
        kept.hub.say(ann, "bob", "hi")
        about = json.loads(journal("info", place, "--json").stdout)
        assert (about["peers"], about["waiting"], about["mode"], about["gaps"]) == (2, 1, "running", 0)
        assert about["process"] == f"process {kept.hub.process.pid}"
        assert "2 peers" in journal("info", place).stdout


def test_a_backup_of_a_room_that_runs_is_a_journal(place: Path, tmp_path: Path) -> None:
    with kept_hub(place) as kept:
        ann = kept.hub.register("ann")
        copy = tmp_path / "copy"
        assert journal("backup", place, copy).returncode == 0
        assert journal("backup", place, copy).returncode == 2  # it is there already
        with kept_hub(copy) as other:
            assert other.hub.get("/peek", ann).status == 200


def test_a_snapshot_is_made_while_the_hub_runs(place: Path) -> None:
    with kept_hub(place) as kept:
        ann = kept.hub.register("ann")
        assert json.loads(journal("compact", place, "--json").stdout)["replayed"] >= 1
        kept.hub.post("/status", token=ann, status="later")
        hub = kept.kill_and_restart()
        assert hub.get("/ping", peer="ann").body["status"] == "later"


def room_of(hub: HubProcess) -> str:
    """Give the identity of the room that a console is shown."""
    with hub.console() as console:
        return str(console.snapshot["room"])


def test_a_room_keeps_its_identity_through_restarts_and_snapshots(place: Path) -> None:
    with kept_hub(place) as kept:
        kept.hub.register("ann")
        born = room_of(kept.hub)
        assert room_of(kept.kill_and_restart()) == born, "told by the first event"
        journal("compact", place)
        assert room_of(kept.kill_and_restart()) == born, "told by the snapshot"
    with kept_hub(place.with_name("another")) as other:
        other.hub.register("ann")
        assert room_of(other.hub) != born


def test_a_snapshot_of_a_hub_that_kept_no_identity_gives_the_same_at_each_start() -> None:
    rows = [["room", 7, 3, "running", None, 10.0, 2.0]]
    rooms = [replayed([]), replayed([])]
    for room in rooms:
        room.restore(rows)
    assert [room.born for room in rooms] == [7, 7]


@pytest.mark.parametrize("spot", ["head", "events", "snapshot line"])
def test_recover_saves_what_can_be_read(tmp_path: Path, spot: str) -> None:
    broken, saved = tmp_path / "broken", tmp_path / "saved"
    state = a_journal(broken, 12, 6)
    data = bytearray(broken.read_bytes())
    if spot == "head":
        data[18:300] = bytes(282)
    elif spot == "events":
        at = data.rindex(b'"to the channel"')
        data[at + 1] ^= 1
    else:
        base = sqlite3.connect(broken)
        base.execute("UPDATE snapshots SET parts = 7")
        base.commit()
        base.close()
        data = bytearray(broken.read_bytes())
    broken.write_bytes(data)
    with pytest.raises(Invalid, match=re.escape("recover")):
        loaded(broken)
    before = broken.read_bytes()
    done = journal("recover", broken, saved)
    assert done.returncode == (1 if spot != "head" else 0), done.stderr + done.stdout
    assert broken.read_bytes() == before
    again = loaded(saved)
    assert {*again["peers"]} == {*state["peers"]}
    assert [one[0] for one in again["channels"].values()] == [one[0] for one in state["channels"].values()]
    if spot != "events":
        assert again == state


def test_a_look_into_a_journal_leaves_nothing_beside_it(place: Path) -> None:
    a_journal(place, 3)
    before = files_in(place.parent)
    assert journal("info", place).returncode == 0
    assert files_in(place.parent) == before


@pytest.mark.parametrize("make", [other_database, newer_journal, lambda path: path.write_text("# Notes\n" * 9999)],
                         ids=["another database", "a newer journal", "text"])
def test_recover_refuses_what_is_no_journal_of_ours(tmp_path: Path, make: Callable[[Path], None]) -> None:
    place = tmp_path / "room"
    make(place)
    before = files_in(tmp_path)
    done = journal("recover", place, tmp_path / "new")
    assert (done.returncode, done.stdout) == (2, "")
    assert files_in(tmp_path) == before


def test_recover_goes_on_with_the_time_of_the_snapshot_where_all_events_are_lost(tmp_path: Path) -> None:
    place, new = tmp_path / "room", tmp_path / "new"
    a_journal(place, 9)
    assert journal("compact", place).returncode == 0
    base = sqlite3.connect(place)
    (at,) = base.execute("SELECT at FROM snapshots").fetchone()
    base.execute("DELETE FROM event")
    base.commit()
    base.close()
    done = journal("recover", place, new)
    assert done.returncode == 1
    assert "1 places could not be read" in done.stdout
    base = sqlite3.connect(new)
    assert base.execute("SELECT at FROM snapshots").fetchone() == (at,)
    base.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
@pytest.mark.parametrize("action", ["backup", "recover"])
def test_a_full_disk_is_not_called_damage(tmp_path: Path, action: str) -> None:
    import resource

    place, new = tmp_path / "room", tmp_path / "new"
    a_journal(place, 60)
    argv = [*PROGRAM, "journal", action, str(place), str(new)]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))  # noqa: E731
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, preexec_fn=limit)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(f"cannot open or write {tmp_path}/(new|recover-)", done.stderr), done.stderr
    assert [one.name for one in tmp_path.iterdir() if one.suffix != ".lock"] == ["room"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("info", "/nowhere"), "no file"),
        (("backup", "FILE"), "needs a new file"),
        (("info", "FILE", "NEW"), "one file only"),
        (("info", __file__), "damaged"),
        (("recover", "FILE", "FILE-wal"), "beside"),
    ],
)
def test_a_wrong_command_says_so_in_a_line(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    file = tmp_path / "room"
    a_journal(file, 1)
    done = journal(*[word.replace("FILE", str(file)) for word in words])
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


# --- a disk that fails ---


@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
@pytest.mark.parametrize("road", ROADS)
def test_while_the_disk_is_full_nothing_is_confirmed_and_the_brakes_work(place: Path, road: str) -> None:
    import resource

    kept = KeptHub(place, *ROADS[road])
    hub, pid = kept.hub, kept.hub.process.pid
    ann, bob = hub.register("ann"), hub.register("bob")
    with hub.console() as console:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        answers = [hub.post("/send", token=ann, to="bob", content="x" * 4000) for _ in range(3)]
        assert [(one.status, one.body["error"]) for one in answers] == [(503, "journal_unavailable")] * 3
        assert answers[-1].body["retry_after"] > 0
        assert hub.get("/receive", bob, timeout=0).status == 503
        console.next("health", where=lambda frame: (frame["health"]["journal"] or {}).get("cause"))
        console.send(say="hello", to="all")
        assert console.next("error")["reason"] == "journal_unavailable"
        console.send(kick="bob")
        console.message(content="bob was kicked by the operator")
        assert hub.post("/control", action="stop").body == {"mode": "stopped"}
        assert hub.receive(ann)["messages"][0]["content"] == "stop"
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        console.next("health", where=lambda frame: not frame["health"]["journal"]["cause"])
    assert hub.post("/control", action="resume").body == {"mode": "running"}
    hub.say(ann, "all", "it works again")
    hub = kept.kill_and_restart()
    assert hub.get("/ping", peer="bob").body["state"] == "absent"
    with hub.console() as console:
        said = [message["content"] for message in console.snapshot["log"]]
    assert "it works again" in said
    assert hub.stop()[0] == 0
    assert json.loads(journal("info", place, "--json").stdout)["gaps"] == 0


@contextmanager
def full_disk(kept: KeptHub) -> Iterator[None]:
    """Have the hub's disk full, until the hub has noticed that it is not."""
    import resource

    pid, resource_of = kept.hub.process.pid, resource.RLIMIT_FSIZE
    with kept.hub.console() as console:
        resource.prlimit(pid, resource_of, (4096, resource.RLIM_INFINITY))
        yield
        resource.prlimit(pid, resource_of, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        console.next("health", where=lambda frame: not frame["health"]["journal"]["cause"])


@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
def test_a_full_disk_is_nobodys_silence(place: Path) -> None:
    with kept_hub(place, "--client-ttl", "2.5") as kept:
        ann, bob = kept.hub.register("ann"), kept.hub.register("bob")
        kept.hub.post("/floor", token=ann, action="take", scope="all")
        kept.hub.say(ann, "bob", "confirmed")
        with full_disk(kept):
            end = time.monotonic() + 3.5  # longer than the room waits for a silent peer: that is what is tested
            while time.monotonic() < end:
                assert kept.hub.post("/status", token=ann, status="I am here").status == 503
                assert kept.hub.get("/ping", peer="ann").body["state"] == "live"
        assert kept.hub.get("/ping", peer="ann").body["state"] == "live"
        assert kept.hub.get("/floor", ann).body["floors"]["all"]["holder"] == "ann"
        assert "confirmed" in [one["content"] for one in kept.hub.receive(bob)["messages"]]


@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
def test_a_registration_that_could_not_be_kept_holds_no_name(place: Path) -> None:
    with kept_hub(place) as kept:
        with full_disk(kept):
            assert kept.hub.post("/register", project="ann").status == 503
        ann = kept.hub.register("ann")
        assert kept.kill_and_restart().get("/peek", ann).status == 200

# --- proof: the chain of hashes ---


def verified(place: Path, *words: str | Path) -> tuple[int, Any]:
    """Run `caucus journal verify --json`, which must change nothing; give its exit code and what it says."""
    before = files_in(place.parent)
    done = journal("verify", place, "--json", *words)
    after = files_in(place.parent)
    assert {name: data for name, data in after.items() if "-shm" not in name} == {
        name: data for name, data in before.items() if "-shm" not in name
    }
    return done.returncode, json.loads(done.stdout)


def change(place: Path, *words: str) -> None:
    """Change a journal as somebody could who has the file and SQLite."""
    with contextlib.closing(sqlite3.connect(place)) as base:
        for one in words:
            base.execute(one)
        base.commit()


def rows_of(place: Path) -> list[tuple[Any, ...]]:
    """Read all events, with their hashes."""
    with contextlib.closing(sqlite3.connect(place)) as base:
        return base.execute("SELECT * FROM event ORDER BY serial").fetchall()


def by_the_book(place: Path) -> bytes:
    """Verify a journal by what docs/operating.md says, and nothing of ours; give its head."""
    with contextlib.closing(sqlite3.connect(place)) as base:
        rows = base.execute("SELECT serial, at, ts, kind, body, hash FROM event ORDER BY serial").fetchall()
        seams = base.execute("SELECT value FROM meta WHERE key GLOB 'seam *' ORDER BY 0 + substr(key, 6)").fetchall()
    head, left = bytes(32), [json.loads(value) for (value,) in seams]
    for row in [*rows, (1 << 62,)]:
        while left and left[0][0] < row[0]:
            _, hashed, note = left.pop(0)
            if json.loads(note)["why"] != "dropped":
                assert hashed == sha256(head + note.encode()).hexdigest()
            head = bytes.fromhex(hashed)
        if len(row) > 1:
            serial, at, ts, kind, body, hashed = row
            stamp = serial.to_bytes(8, "big") + struct.pack(">d", at) + struct.pack(">d", ts)
            head = sha256(head + stamp + bytes([len(kind)]) + kind.encode() + body.encode()).digest()
            assert hashed == head, serial
    return head


def test_verify_proves_a_room_that_runs_and_each_shows_the_same_head(place: Path) -> None:
    with kept_hub(place) as kept:
        ann = kept.hub.register("ann")
        heads = []
        for n in range(3):
            kept.hub.say(ann, "ann", f"word {n}")
            with kept.hub.console() as console:
                shown = console.next("health")["health"]["journal"]
            code, told = verified(place, "--head", shown["head"])
            assert (code, told["fault"], told["head"], told["serial"]) == (0, None, shown["head"], shown["serial"])
            assert told["noted"]["serial"] == told["serial"]
            assert json.loads(journal("info", place, "--json").stdout)["head"] == shown["head"]
            heads.append(shown["head"])
        assert len({*heads}) == 3
        kept.kill_and_restart()
        kept.hub.say(ann, "ann", "and on")
    code, told = verified(place, "--head", heads[0])
    assert (code, told["events"]) == (0, len(rows_of(place)))
    assert told["noted"]["serial"] < told["serial"]
    assert by_the_book(place).hex() == told["head"]
    words = journal("verify", place, "--head", heads[0]).stdout
    assert f"{told['events']} events, unbroken, head {told['head']}\n" in words
    assert f"is that of event {told['noted']['serial']}, of {caucus._local(told['noted']['ts'])}" in words


def test_a_hub_prints_the_head_at_its_end(place: Path) -> None:
    argv = [*PROGRAM, "hub", "--port", "0", "--no-browser", "--journal", str(place)]
    with nursery.start(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as hub:
        assert hub.stdout is not None
        assert "hub and console" in hub.stdout.readline()
        hub.terminate()
        told = hub.communicate(timeout=30)[0].splitlines()[-1]
    _, about = verified(place)
    assert told == f"caucus: the record ends at event {about['serial']}, head {about['head']}"


def test_verify_changes_nothing_of_what_a_kill_has_left(killed: tuple[KeptHub, str], place: Path) -> None:
    code, told = verified(place)
    assert (code, told["fault"]) == (0, None)
    assert place.with_name(f"{place.name}-wal").stat().st_size


def nth(place: Path, at: int) -> int:
    return int(rows_of(place)[at][0])


TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a word": (lambda place: change(place, "UPDATE event SET body = replace(body, 'to you 3', 'to you 4') "
                                           "WHERE body LIKE '%to you 3%'"), r"event \d+: not what was written"),
    "a time": (lambda place: change(place, f"UPDATE event SET ts = ts + 1e-6 WHERE serial = {nth(place, 40)}"),
               "event"),
    "the room's time": (lambda place: change(place, f"UPDATE event SET at = 0 WHERE serial = {nth(place, 0)}"),
                        "event"),
    "a kind": (lambda place: change(place, "UPDATE event SET kind = 'PeerRevived' WHERE kind = 'PeerPaused'"),
               "event"),
    "a kind and a body": (lambda place: change(place, f"UPDATE event SET kind = kind || substr(body, 1, 1), "
                                               f"body = substr(body, 2) WHERE serial = {nth(place, 9)}"), "event"),
    "a hash": (lambda place: change(place, f"UPDATE event SET hash = zeroblob(32) WHERE serial = {nth(place, 9)}"),
               "event"),
    "no hash": (lambda place: change(place, f"UPDATE event SET hash = NULL WHERE serial = {nth(place, -1)}"), "event"),
    "two rows": (lambda place: change(
        place, f"UPDATE event SET serial = -1 WHERE serial = {nth(place, 20)}",
        f"UPDATE event SET serial = {nth(place, 20)} WHERE serial = {nth(place, 21)}",
        f"UPDATE event SET serial = {nth(place, 20) + 1} WHERE serial = -1"), "event"),
    "the first": (lambda place: change(place, f"DELETE FROM event WHERE serial <= {nth(place, 3)}"),
                  "or what came before it is missing"),
    "one in the middle": (lambda place: change(place, f"DELETE FROM event WHERE serial = {nth(place, 30)}"),
                          "what came between the events"),
    "the last": (lambda place: change(place, f"DELETE FROM event WHERE serial > {nth(place, -3)}"),
                 "the last one when it was closed, is missing"),
    "all since the snapshot": (lambda place: change(
        place, "DELETE FROM event WHERE serial >= (SELECT serial FROM snapshots)",
        "DELETE FROM meta WHERE key = 'closed'"), "is of an event that is not here"),
    "a snapshot": (lambda place: change(place, "UPDATE snapshot SET body = replace(body, 'carry on', 'carry off')"),
                   "part 1 of the snapshot"),
    "the line of a snapshot": (lambda place: change(place, "UPDATE snapshots SET at = at + 1"), "the line of"),
    "the event of a snapshot": (lambda place: change(place, "UPDATE snapshots SET serial = serial - 1",
                                                     "UPDATE snapshot SET serial = serial - 1"), "the line of"),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_verify_names_the_first_that_was_changed(place: Path, what: str) -> None:
    a_journal(place, 10, 6)
    assert verified(place)[0] == 0
    tamper, words = TAMPERED[what]
    before = rows_of(place)
    tamper(place)
    code, told = verified(place)
    assert code == 1
    assert re.search(words, told["fault"]), told
    good = list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, rows_of(place))))
    if told["fault"].startswith("event") and what != "the last":
        assert f"{rows_of(place)[len(good)][0]}: " in told["fault"]
        assert told["events"] == len(good)
    assert told["fault"] in journal("verify", place).stdout


def test_no_flipped_byte_escapes_verify(tmp_path: Path) -> None:
    whole, copy, chance = tmp_path / "whole", tmp_path / "copy", random.Random(7)
    a_journal(whole, 10, 6)
    rows, data, found = rows_of(whole), whole.read_bytes(), 0
    for _ in range(150 * SCALE):
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        copy.write_bytes(changed)
        try:
            about, _ = caucus.journal_verify(str(copy), "")
        except Invalid:
            about = {"fault": "no journal"}
        found += bool(about["fault"])
        if not about["fault"]:
            assert rows_of(copy) == rows
    assert found > 60


def test_a_chain_that_was_made_anew_is_found_by_a_head_that_was_noted(place: Path) -> None:
    a_journal(place, 10, 6)
    rows = rows_of(place)
    late, early = rows[100], rows[20]
    head, anew = rows[49][5], []
    for row in rows[50:]:
        body = row[4].replace("to you", "to none")
        head = caucus.hash_of_row((*row[:4], body), head)
        anew.append((body, head, row[0]))
    with contextlib.closing(sqlite3.connect(place)) as base:
        base.executemany("UPDATE event SET body = ?, hash = ? WHERE serial = ?", anew)
        base.execute("DELETE FROM meta WHERE key = 'closed'")
        base.execute("DELETE FROM snapshots")
        base.commit()
    assert verified(place)[0] == 0  # it fits in itself
    code, told = verified(place, "--head", late[5].hex())
    assert (code, told["fault"], told["noted"]) == (1, None, None)
    assert "not in this chain" in journal("verify", place, "--head", late[5].hex().upper()).stdout
    code, told = verified(place, "--head", early[5].hex())
    assert (code, told["noted"]) == (0, {"serial": early[0], "ts": early[2]})


def set_note(place: Path, edit: Callable[[Any], object]) -> Iterator[str]:
    """Change the note at the first seam; give what it was."""
    with contextlib.closing(sqlite3.connect(place)) as base:
        (value,) = base.execute("SELECT value FROM meta WHERE key = 'seam 0'").fetchone()
        serial, head, before = json.loads(value)
        note = json.loads(before)
        edit(note)
        base.execute("UPDATE meta SET value = ? WHERE key = 'seam 0'",
                     (caucus.encode_plain([serial, head, caucus.encode_plain(note)]),))
        base.commit()
    return iter([before])


ODD_NOTES: dict[str, Any] = {
    "no object": "[]", "null": "null", "nothing": "{}", "deep": "[" * 100_000,
    "no time": {"why": "dropped", "events": 1}, "a time without a date": {"why": "dropped", "events": 1, "ts": 1e300},
    "a text for a time": {"why": "dropped", "events": 1, "ts": "x"}, "no count": {"why": "dropped", "ts": 1.0},
    "another why": {"why": "x", "events": 1, "ts": 1.0}, "no head": {"why": "lost", "after": 3, "ts": 1.0},
    "a head that is none": {"why": "lost", "after": 3, "ts": 1.0, "head": "xy"},
}  # fmt: skip


@pytest.mark.parametrize("note", ODD_NOTES)
@pytest.mark.parametrize("serial", [0, "x", 1e300])
def test_an_odd_note_is_damage_and_no_bug(place: Path, note: str, serial: Any) -> None:
    a_journal(place, 3)
    words = ODD_NOTES[note] if isinstance(ODD_NOTES[note], str) else json.dumps(ODD_NOTES[note])
    change(place, f"INSERT OR REPLACE INTO meta VALUES('seam 0', '{json.dumps([serial, '00' * 32, words])}')")
    about, _ = caucus.journal_verify(str(place), "")
    assert "its chain of hashes goes on" in str(about["fault"])
    with pytest.raises((caucus.Damaged, Invalid)):
        caucus.journal_info(str(place))


@pytest.mark.parametrize("sql", [
    "INSERT OR REPLACE INTO meta VALUES('closed', '[1e400, \"00\"]')", "ALTER TABLE event ADD COLUMN z",
    "ALTER TABLE snapshots ADD COLUMN z", "DROP TABLE snapshot",
])  # fmt: skip
def test_what_else_was_changed_in_the_file_ends_in_words(place: Path, sql: str) -> None:
    a_journal(place, 3)
    change(place, sql)
    out = place.with_name("out")
    for words in (("verify",), ("export", "--json"), ("export", out, "--html"), ("info",), ("backup", out)):
        done = journal(words[0], place, *words[1:])
        assert "Traceback" not in done.stderr
        assert (done.returncode, out.exists()) in ((1, False), (2, False), (0, words[0] in ("export", "backup")))
        out.unlink(missing_ok=True)
    assert journal("verify", place).returncode == 1


def test_what_is_dropped_leaves_its_hash(place: Path) -> None:
    state = a_journal(place, 10, 6)
    rows = rows_of(place)
    with contextlib.closing(sqlite3.connect(place)) as base:
        (upto,) = base.execute("SELECT serial FROM snapshots").fetchone()
    change(place, f"UPDATE event SET ts = ts WHERE serial < {upto}")
    assert journal("compact", place, "--keep", "1").returncode == 0
    left = rows_of(place)
    assert left == rows[-1:]
    code, told = verified(place, "--head", rows[-1][5].hex())
    assert (code, told["events"], told["head"]) == (0, 1, rows[-1][5].hex())
    (note,) = told["notes"]
    assert (note["why"], note["events"], note["serial"]) == ("dropped", len(rows) - 1, rows[-2][0])
    assert verified(place, "--head", rows[-2][5].hex())[0] == 0  # the last that was dropped
    assert verified(place, "--head", rows[-3][5].hex())[0] == 1
    assert "dropped, and of that nothing can be said" in journal("verify", place, "--head", rows[3][5].hex()).stdout
    assert by_the_book(place) == rows[-1][5]
    assert loaded(place) == state
    (whole,) = set_note(place, lambda note: note.pop("sum"))
    assert verified(place)[0] == 0  # of a hub before this one
    for field, value in (("events", 3), ("ts", 1.0)):
        set_note(place, lambda note, field=field, value=value: note.update(json.loads(whole) | {field: value}))
        code, told = verified(place)
        assert (code, "which were dropped, is not what was written" in told["fault"]) == (1, True)
    set_note(place, lambda note: note.update(json.loads(whole)))
    assert verified(place)[0] == 0
    change(place, f"UPDATE meta SET value = replace(value, '{rows[-2][5].hex()}', '{rows[-3][5].hex()}')")
    assert verified(place)[0] == 1


def test_events_are_dropped_and_copied_under_a_hub_that_goes_on(place: Path) -> None:
    with kept_hub(place, "--loops", "hold") as kept:
        ann = kept.hub.register("ann")
        for n in range(4):
            kept.hub.say(ann, "ann", f"word {n}")
            assert journal("compact", place, "--keep", "0.0000001").returncode == 0
            kept.hub.say(ann, "ann", f"and {n}")
            code, told = verified(place)
            assert (code, len(told["notes"])) == (0, 1)
            assert by_the_book(place).hex() == told["head"]
        assert told["notes"][0]["events"] + told["events"] == 9
        copy = place.with_name("copy")
        assert journal("backup", place, copy).returncode == 0
        assert verified(copy, "--head", told["head"])[0] == 0
        kept.kill_and_restart()
        assert kept.hub.get("/peek", ann).body["pending"] == 8
        assert verified(place, "--head", told["head"])[0] == 0
        whole = kept.hub.get("/export").body
        assert (whole["count"] < 10, whole["dropped"]) == (True, told["notes"][0]["events"])
        assert f"; {whole['dropped']} events before " in kept.hub.request("GET", "/export?format=md").content.decode()
        assert whole["head"] == verified(place)[1]["head"]


def test_a_drop_that_was_killed_leaves_a_whole_chain_and_the_next_one_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_journal(place, 10)
    rows = rows_of(place)
    monkeypatch.setattr(caucus, "_DROPPED_AT_A_TIME", 50)
    leave, calls = caucus.leave_hash, []

    def killed_at_the_second(*words: Any) -> None:
        calls.append(words)
        if len(calls) == 2:
            raise KeyboardInterrupt
        leave(*words)

    monkeypatch.setattr(caucus, "leave_hash", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        caucus.compact(str(place), 1.0)
    assert (rows_of(place), verified(place)[0]) == (rows[50:], 0)
    monkeypatch.setattr(caucus, "leave_hash", leave)
    caucus.compact(str(place), 1.0)
    assert verified(place)[1]["notes"][0]["events"] == len(rows) - 1


def test_what_does_not_fit_is_not_dropped(place: Path) -> None:
    a_journal(place, 10, 6)
    change(place, f"UPDATE event SET ts = ts + 1 WHERE serial = {nth(place, 5)}")
    done = journal("compact", place, "--keep", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "not what was written" in done.stderr
    assert verified(place)[1]["events"] == 5


def test_recover_keeps_the_chain_up_to_the_break_and_tells_of_it(tmp_path: Path) -> None:
    place, new = tmp_path / "room", tmp_path / "new"
    a_journal(place, 10)
    rows = rows_of(place)
    change(place, f"DELETE FROM event WHERE serial = {rows[30][0]}",
           f"UPDATE event SET ts = ts + 1 WHERE serial = {rows[60][0]}")
    done = journal("recover", place, new)
    assert done.returncode == 1
    left = rows_of(new)
    assert [row[:5] for row in left] == [row[:5] for row in rows if row[0] not in (rows[30][0], rows[60][0])]
    assert [row[5] for row in left[:30]] == [row[5] for row in rows[:30]]
    code, told = verified(new, "--head", rows[29][5].hex())
    assert (code, told["noted"]["serial"]) == (0, rows[29][0])
    assert verified(new, "--head", rows[31][5].hex())[0] == 1
    lost = [(note["why"], note["after"], note["head"]) for note in told["notes"]]
    assert lost == [("lost", rows[n][0], rows[n][5].hex()) for n in (29, 59, len(rows) - 1)]
    assert f"after event {rows[29][0]}, whose hash was {rows[29][5].hex()}" in journal("verify", new).stdout
    assert by_the_book(new).hex() == told["head"]
    change(new, "DELETE FROM meta WHERE key = 'seam 1'")
    assert verified(new)[0] == 1
    with kept_hub(tmp_path / "again") as kept:
        kept.hub.stop()
        shutil.copyfile(place, kept.path)
        kept.path.unlink()
        assert journal("recover", place, kept.path).returncode == 1
        kept.restart().register("later")
        assert (verified(kept.path)[0], by_the_book(kept.path).hex()) == (0, verified(kept.path)[1]["head"])
    again = tmp_path / "twice"  # what was recovered can be damaged, dropped and recovered again
    change(kept.path, f"DELETE FROM event WHERE serial = {rows[80][0]}")
    assert journal("recover", kept.path, again).returncode == 1
    assert len(verified(again)[1]["notes"]) == 5
    assert journal("compact", again, "--keep", "0.0000001").returncode == 0
    code, told = verified(again)
    assert (code, [note["why"] for note in told["notes"][:1]]) == (0, ["dropped"])
    assert by_the_book(again).hex() == told["head"]


def test_a_chain_goes_on_after_a_full_disk(place: Path) -> None:
    with kept_hub(place) as kept:
        ann = kept.hub.register("ann")
        with full_disk(kept):
            assert kept.hub.post("/send", token=ann, to="ann", content="x" * 3000).status == 503
        eventually(lambda: kept.hub.post("/send", token=ann, to="ann", content="again").status == 200, "a disk")
        assert verified(place)[0] == 0

# --- export ---


def exported(place: Path, *words: str) -> Any:
    """Run `caucus journal export --json`; give what it writes."""
    done = journal("export", place, "--json", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_an_export_has_the_whole_record_in_the_words_of_the_hub(place: Path, tmp_path: Path) -> None:
    with kept_hub(place, "--plain-http") as kept:
        ann, bob = kept.hub.register("ann"), kept.hub.register("bob")
        kept.hub.post("/channels/join", token=ann, channel="#x")
        kept.hub.unthrottle()
        for n in range(300):
            kept.hub.say(ann, "#x", f"in x: {n} grüße 😀 **bold**")
            kept.hub.say(bob, "all", f"**to all** {n}\n**forged**")
        log = [json.loads(wire) for wire in (row[4] for row in rows_of(place)) if '"bob"' in wire]
        assert log
        served = {name: kept.hub.request("GET", f"/export?format={name}") for name in ("json", "md", "text")}
        head = json.loads(journal("info", place, "--json").stdout)["head"]
    for name, answer in served.items():
        assert answer.status == 200
        assert f'filename="caucus-chat.{name.replace("text", "txt")}"' in answer.headers["content-disposition"]
        assert "content-length" not in answer.headers
    whole = json.loads(served["json"].content)
    assert (whole["count"], whole["head"]) == (len(whole["messages"]), head)
    assert whole["count"] >= 600 + 4
    assert [m["seq"] for m in whole["messages"] if m["seq"]] == [*range(1, 601)]
    after = exported(place)
    assert after["messages"][: whole["count"]] == whole["messages"]
    words = journal("export", place, "--md").stdout
    assert f"its head is `{after['head']}`" in words
    assert words.count("\n**bob** → all · ") == 300
    assert words.endswith(f"\n---\n\n{after['count']} messages and notices\n")
    out = tmp_path / "out.md"
    done = journal("export", place, "--md", out)
    assert (done.returncode, out.read_text()) == (0, words)
    assert (out.stat().st_mode & 0o777, f"head {after['head']}" in done.stdout) == (0o600, True)
    assert "there already" in journal("export", place, "--md", out).stderr
    lines = journal("export", place, "--text").stdout.splitlines()
    assert len(lines) == after["count"]
    assert served["md"].content.decode().splitlines()[4:50] == words.splitlines()[4:50]


def test_an_export_may_be_of_a_channel_and_of_a_time(place: Path) -> None:
    a_journal(place, 12)
    whole = exported(place)["messages"]
    ours = exported(place, "--channel", "#x")
    assert ours["messages"] == [m for m in whole if m["recipient"] == "#x"]
    assert (ours["channel"], ours["count"]) == ("#x", 12)
    assert exported(place, "--channel", "#nowhere")["count"] == 0
    times = sorted({m["ts"] for m in whole})
    some = exported(place, "--since", str(times[3]), "--until", str(times[5]))["messages"]
    assert some == [m for m in whole if times[3] <= m["ts"] <= times[5]]
    iso = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(times[3]))
    assert exported(place, "--since", f"{iso}Z")["messages"] == [m for m in whole if m["ts"] >= times[3]]
    local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(times[3]))
    assert exported(place, "--until", local)["messages"] == [m for m in whole if m["ts"] <= times[3]]
    assert exported(place, "--since", "2h")["count"] == 0
    assert exported(place, "--until", "2h")["count"] == len(whole)


def test_an_export_of_a_part_quotes_nothing_that_is_not_in_it(place: Path) -> None:
    with kept_hub(place) as kept:
        ann, bob = kept.hub.register("ann"), kept.hub.register("bob")
        for token in (ann, bob):
            kept.hub.post("/channels/join", token=token, channel="#x")
        seqs = [kept.hub.say(ann, to, f"asked in {to}")["seq"] for to in ("bob", "all", "#x")]
        kept.hub.receive(bob)
        for seq in seqs:
            kept.hub.post("/send", token=bob, to="#x", content=f"answers {seq}", reply_to=seq)
    whole = exported(place)["messages"]
    assert [m.get("quote") for m in whole if m["sender"] == "bob"] == [None, "asked in all", "asked in #x"]
    ours = exported(place, "--channel", "#x")["messages"]
    assert [m.get("quote") for m in ours if m["sender"] == "bob"] == [None, None, "asked in #x"]
    assert [m.get("reply_to") for m in ours if m["sender"] == "bob"] == [None, None, seqs[2]]
    since = next(m["ts"] for m in whole if m["seq"] == seqs[2])
    later = exported(place, "--since", repr(since))["messages"]
    assert [m.get("quote") for m in later if m["sender"] == "bob"] == [None, None, "asked in #x"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("export", "FILE"), "--json: "),
        (("export", "FILE", "--json", "--md"), "--md: "),
        *((("export", "FILE", "--md", "--since", bad), "--since: ")
          for bad in ("", "soon", "2y", "nan", "1e999", "2026-13-01", "99999-01-01")),
        (("export", "FILE", "--md", "--until", "x"), "--until: "),
        (("export", "FILE", "--md", "--since", "2000", "--until", "1000"), "--since: "),
        *((("export", "FILE", "--md", "--channel", bad), "--channel: ") for bad in ("", "x", "#", "#" + "x" * 64)),
        *((("verify", "FILE", "--head", bad), "--head: ") for bad in ("", "12", "g" * 64, "a" * 63)),
        (("info", "FILE", "--since", "2h"), "--since: "),
        (("verify", "FILE", "--md"), "--md: "),
        (("info", "FILE", "--head", "a" * 64), "--head: "),
        (("verify", "FILE", "--keep", "3"), "--keep: "),
        (("verify", "FILE", "OUT"), "NEW: "),
        (("export", "FILE", "FILE-2", "--md", "--html"), "--html: "),
        (("export", "FILE", "-", "--md"), "NEW: "),
    ],
)
def test_an_option_that_makes_no_sense_is_named(place: Path, words: tuple[str, ...], told: str) -> None:
    a_journal(place, 1)
    done = journal(*[word.replace("FILE", str(place)) for word in words])
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"caucus: {told}")


@pytest.mark.parametrize(("at", "damage"), [(60, "body = CAST(x'ff' || body AS TEXT)"), (-1, "at = 'x'")])
def test_what_comes_before_a_row_that_cannot_be_read_is_told(place: Path, at: int, damage: str) -> None:
    a_journal(place, 10)
    serials = [row[0] for row in rows_of(place)]
    good = len(serials[:at])
    said = [line for line in journal("export", place, "--text").stdout.splitlines() if "to you" in line]
    change(place, f"UPDATE event SET {damage} WHERE serial = {serials[at]}")
    code, told = verified(place)
    assert (code, told["events"], told["serial"]) == (1, good, serials[at - 1])
    assert "to you" not in told["fault"]  # no words of a peer
    done = journal("export", place, "--text")
    left = [line for line in done.stdout.splitlines() if "to you" in line]
    assert done.returncode == 2
    assert said[: len(left)] == left
    assert 0 < len(left) < len(said) if at > 0 else left == said


def test_a_drop_of_old_events_that_ends_half_way_leaves_a_whole_journal(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_journal(place, 10, 2)
    caucus.compact(str(place))
    count, calls, leave_hash = len(rows_of(place)), itertools.count(1), caucus.leave_hash

    def leave_some(*given: Any) -> None:
        if next(calls) * 10 > count // 2:
            raise KeyboardInterrupt  # as if it were killed
        leave_hash(*given)

    monkeypatch.setattr(caucus, "_DROPPED_AT_A_TIME", 10)
    monkeypatch.setattr(caucus, "leave_hash", leave_some)
    with pytest.raises(KeyboardInterrupt):
        caucus.compact(str(place), 1.0)
    left = rows_of(place)
    assert 0 < len(left) < count
    code, told = verified(place)
    assert (code, told["events"]) == (0, len(left)), told
    with contextlib.closing(caucus.connect_reader(str(place))) as base:
        start, _, _ = caucus.reach_of_journal(base)
        assert start == caucus.latest_snapshot(base)[0]  # what is before may go while it is read


def test_an_export_of_a_changed_record_ends_with_a_no(place: Path) -> None:
    a_journal(place, 10)
    change(place, f"UPDATE event SET ts = ts + 1 WHERE serial = {nth(place, 60)}")
    out = place.with_name("out")
    done = journal("export", place, "--json", out)
    assert (done.returncode, done.stdout, out.exists()) == (2, "", False)
    assert "not what was written" in done.stderr


@pytest.mark.parametrize(("words", "made"), [
    (("export", "--md"), ()), (("export", "--html"), ()), (("recover",), ("-wal", "-shm", "-journal")),
    (("backup",), ("-wal", "-shm", "-journal")),
])  # fmt: skip
def test_what_stands_beside_a_new_file_stays(place: Path, words: tuple[str, ...], made: tuple[str, ...]) -> None:
    a_journal(place, 10)
    whole = place.read_bytes()
    for ending in caucus.BESIDE:
        new = place.with_name(f"new{ending}x")
        beside = Path(f"{new}{ending}")
        beside.write_text("precious")
        place.write_bytes(whole)
        if words[0] != "backup":
            change(place, f"UPDATE event SET ts = ts + 1 WHERE serial = {nth(place, 60)}")
        done = journal(words[0], place, new, *words[1:])
        if ending in made:
            assert (done.returncode, new.exists()) == (2, False)
            assert f"{new}{ending} is there already" in done.stderr
        if words[0] == "export" or ending in made:
            assert beside.read_text() == "precious"
        assert beside.exists()
        assert new.exists() == (done.returncode < 2)


@pytest.mark.parametrize("words", [("verify",), ("info",), ("export", "--json"), ("export", "--html"), ("recover",)])
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.skipif(os.name == "nt", reason="signals are of POSIX")
def test_who_is_interrupted_says_so_and_leaves_nothing_half_made(
    place: Path, words: tuple[str, ...], sign: signal.Signals
) -> None:
    a_journal(place, 10)
    new = place.with_name("new")
    code = (
        "import os, sys; import caucus; from caucus import *\n"
        "def slow(*words):\n"
        "    print('at work', file=sys.stderr, flush=True); time.sleep(60)\n"
        "caucus.event_of_row = caucus.readable_seams = caucus.check_line = slow\n"
        "caucus.Proof.check_snapshots = caucus.Chain.follow = slow\n"
        "sys.exit(caucus.main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", code, "journal", words[0], str(place)]
    argv += [str(new)] if words[0] in ("export", "recover") else []
    with subprocess.Popen([*argv, *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          cwd=Path(caucus.__file__).parent) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "at work\n"
        process.send_signal(sign)
        told = process.communicate(timeout=30)
    assert (process.returncode, told) == (130, ("", "caucus: interrupted\n"))
    assert [one.name for one in place.parent.iterdir() if "new" in one.name or "recover" in one.name] == []


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
@pytest.mark.parametrize("words", [("export", "--md"), ("verify",), ("info", "--json")])
def test_a_stdout_that_takes_nothing_is_blamed_itself(place: Path, words: tuple[str, ...]) -> None:
    a_journal(place, 10)
    argv = [*PROGRAM, "journal", words[0], str(place), *words[1:]]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (
        2, "caucus: FILE: cannot open or write standard output: No space left on device\n")
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *argv], stderr=subprocess.PIPE, text=True, timeout=60,
                          check=False)
    assert (done.returncode, done.stderr) == (2, "caucus: FILE: cannot open or write standard output: it is closed\n")


def test_who_reads_an_export_may_have_enough(place: Path) -> None:
    a_journal(place, 300)
    argv = [*PROGRAM, "journal", "export", str(place), "--json"]
    with nursery.start(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(100)
        process.stdout.close()
        assert (process.stderr.read(), process.wait(timeout=30)) == (b"", 0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_long_export_takes_little_memory(place: Path) -> None:
    kept, serial = Journal(str(place)), 1 << 46
    for n in range(20_000):
        words = f"{n} " + "x" * 800
        message = caucus.Message(caucus.id_of(serial + n), "ann", "bob", words, "message", 1.7e9, n, "agent")
        kept.hear(caucus.MessageRouted(serial + n, float(n), 1.7e9, message, ()))
        if n % 1000 == 0:
            kept.commit()
    kept.close()
    words = ("import sys; sys.path.insert(0, sys.argv.pop(1)); import caucus; caucus.main(); "
             "print(*[one for one in open('/proc/self/status') if one.startswith('VmHWM')], file=sys.stderr)")
    argv = [sys.executable, "-c", words, str(Path(caucus.__file__).parent), "journal", "export", str(place), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["count"] == 20_000
    assert len(done.stdout) > 18_000_000
    assert int(done.stderr.split()[-2]) < 45_000  # kB; 30 MB of it are Python and we


def is_whole(hub: HubProcess) -> bool:
    """Whether an export is of the whole record: how long that is nobody knows when it begins."""
    with hub.http.stream("GET", "/export") as answer:
        return "content-length" not in answer.headers


@pytest.mark.parametrize("road", ROADS)
def test_a_whole_record_comes_from_a_hub_that_goes_on_answering(place: Path, road: str) -> None:
    kept_room, serial = Journal(str(place)), int(time.time() - 1000) << 16
    for n in range(10_000):  # 20 MB, more than a connection takes that nobody reads
        message = caucus.Message(caucus.id_of(serial + n), "ann", "bob", f"{n} " + "x" * 1_800, "message", 1.7e9, n + 1,
                                 "agent")
        kept_room.hear(caucus.MessageRouted(serial + n, 1.0, 1.7e9, message, ()))
    kept_room.commit()
    kept_room.close()
    with kept_hub(place, *ROADS[road]) as kept:
        hub, count, answers = kept.hub, 0, list[Any]()
        ask = threading.Thread(target=lambda: answers.append(hub.http.get("/export", timeout=60)))
        ask.start()
        while ask.is_alive():
            assert hub.get("/version").status == 200
            count += 1
        whole = answers[0].json()
        assert whole["count"] > 10_000
        assert count > 20, "others were answered meanwhile"
        with hub.http.stream("GET", "/export") as first, hub.http.stream("GET", "/export?format=md"):
            assert first.status_code == 200
            third = hub.get("/export").body  # all places are taken
            assert (third["count"], third["said"]) == (500, 10_000)
        eventually(lambda: is_whole(hub), "a place")
        assert hub.get("/version").status == 200


def test_the_long_journal_of_the_bench_is_one_and_all_of_it_is_found(place: Path) -> None:
    place.parent.mkdir(mode=0o700)
    about = long_journal(str(place), 6_000)
    code, told = verified(place)
    assert (code, told["fault"], told["events"] > 6_000) == (0, None, True)
    with kept_hub(place) as kept:
        eventually(lambda: kept.hub.get("/history", about["token"], q="needle").status == 200, "the index is read")
        asked = [kept.hub.get("/history", about["token"], q=q, limit=200) for q in (about["rare"], "needle", "价格")]
        assert [answer.status for answer in asked] == [200] * 3
        assert [bool(answer.body["messages"]) for answer in asked[1:]] == [True, True]
        assert len(kept.hub.get("/history", about["token"], limit=200).body["messages"]) == 200


# --- schema 1, which had sums in place of hashes ---

SCHEMA_1 = Path(__file__).with_name("schema-1.journal.gz")  # made by 0.1.0 as it was before


def older(place: Path) -> list[tuple[Any, ...]]:
    """Put a journal of schema 1 in a place; give its events."""
    place.parent.mkdir(mode=0o700, exist_ok=True)
    place.write_bytes(gzip.decompress(SCHEMA_1.read_bytes()))
    return rows_of(place)


def known_to_schema_1(state: dict[str, Any]) -> dict[str, Any]:
    """Give what of a room's state a snapshot of an older hub has."""
    known = {key: value for key, value in state.items() if key not in ("said", "born", "news")}
    lines = [json.loads(line) for line in known["log"]]  # whose notices did not say what they tell of
    return known | {"log": [{key: value for key, value in line.items() if key != "meta"} for line in lines]}


def files_held() -> list[str]:
    """Give what this process has open."""
    held = []
    for one in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the list itself is one
            held.append(os.readlink(f"/proc/self/fd/{one}"))
    return held


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("is_older", [True, False])
def test_a_journal_that_is_refused_is_let_go_of(place: Path, is_older: bool) -> None:
    if is_older:
        older(place)
    else:
        a_journal(place, 10)
    change(place, f"UPDATE event SET {'ts = ts + 1' if is_older else 'at = NULL'}")
    with pytest.raises(Invalid, match="not what was written") as refusal:
        Journal(str(place))
    assert refusal.tb  # it holds all frames of what has failed
    assert [one for one in files_held() if one.startswith(str(place))] == []


def test_a_journal_of_schema_1_gets_its_hashes_and_says_since_when(place: Path) -> None:
    rows, state = older(place), known_to_schema_1(a_journal(place.with_name("same"), 10, 6))
    page = place.with_name("page")
    for words in (("info",), ("verify",), ("compact",), ("export", "--md"), ("export", page, "--html")):
        done = journal(words[0], place, *words[1:])
        assert (done.returncode, done.stdout) == (2, "")
        assert "older Caucus (schema 1)" in done.stderr
    assert rows_of(place) == rows
    assert known_to_schema_1(loaded(place)) == state
    assert [row[:5] for row in rows_of(place)] == [row[:5] for row in rows]
    code, told = verified(place)
    assert (code, told["events"]) == (0, len(rows))
    assert [(note["why"], note["events"], note["serial"]) for note in told["notes"]] == [
        ("migrated", len(rows), rows[-1][0])
    ]
    assert by_the_book(place).hex() == told["head"]
    assert "when the file was brought up" in journal("verify", place).stdout
    with contextlib.closing(sqlite3.connect(f"{place}.schema-1")) as copy:
        assert copy.execute("SELECT * FROM event ORDER BY serial").fetchall() == rows
    with kept_hub(place) as kept:
        kept.hub.register("later")
        assert verified(place)[0] == 0
    data = bytearray(place.read_bytes())
    data[18:300] = bytes(282)
    place.write_bytes(data)
    assert journal("recover", place, place.with_name("mended")).returncode == 0  # its tables are where they were
    assert verified(place.with_name("mended"))[1]["head"] == verified(place.with_name("mended"))[1]["head"]


def test_a_damaged_journal_of_schema_1_is_refused_as_it_is_and_recovered(place: Path) -> None:
    rows = older(place)
    change(place, f"UPDATE event SET ts = ts + 1 WHERE serial = {rows[90][0]}")
    data = place.read_bytes()
    for _ in range(2):
        assert f"event {rows[90][0]}: not what was written" in refusal_of(place)
        assert place.read_bytes() == data
    new = place.with_name("new")
    done = journal("recover", place, new)
    assert done.returncode == 1
    assert [row[:5] for row in rows_of(new)] == [row[:5] for row in rows if row[0] != rows[90][0]]
    code, told = verified(new)
    assert (code, {note["why"] for note in told["notes"]}) == (0, {"migrated", "lost"})


def test_a_whole_journal_of_schema_1_is_recovered_as_a_newer_one(place: Path) -> None:
    rows, state = older(place), known_to_schema_1(a_journal(place.with_name("same"), 10, 6))
    new = place.with_name("new")
    assert journal("recover", place, new).returncode == 0
    assert [row[:5] for row in rows_of(new)] == [row[:5] for row in rows]
    assert [note["why"] for note in verified(new)[1]["notes"]] == ["migrated"]
    assert known_to_schema_1(loaded(new)) == state


def test_a_start_that_is_killed_while_it_brings_up_a_file_loses_nothing(place: Path) -> None:
    rows = older(place)
    many = [(rows[-1][0] + n, *caucus.Acknowledged(0, 80.0, 1.7e9, "ann9", n).to_row()[1:]) for n in range(1, 60_001)]
    with contextlib.closing(sqlite3.connect(place)) as base:
        kept = [(*row, caucus.crc_of(f"{row[3]} {row[4]}", *row[:3])) for row in many]
        base.executemany("INSERT INTO event VALUES(?, ?, ?, ?, ?, ?)", kept)
        base.commit()
    argv = [*PROGRAM, "hub", "--port", "0", "--no-browser", "--journal", str(place)]
    copy, log = place.with_name(f"{place.name}.schema-1"), place.with_name(f"{place.name}-wal")
    for is_there in (Path(f"{copy}.part").exists, copy.exists, lambda: caucus.size_of(str(log)) > 3_000_000):
        with nursery.start(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as hub:
            while not is_there() and hub.poll() is None:
                pass
            hub.kill()
    assert caucus.size_of(str(log)) > 3_000_000
    kept_room = KeptHub(place, "--loops", "hold")  # as it is by itself
    assert kept_room.hub.stop()[0] == 0
    assert verified(place)[1]["events"] == len(rows) + 60_000 + 1  # and a RoomReopened
    assert not place.with_name(f"{place.name}.schema-1.part").exists()


class Answer:
    """An answer that waits for the end of its turn; notes what becomes of it."""

    def __init__(self, number: int, told: list[str]) -> None:
        self.send = lambda: told.append(f"{number} sent")
        self.withdraw = lambda: told.append(f"{number} withdrawn")


def test_a_commit_that_fails_in_the_middle_of_a_turn_withdraws_what_was_answered_before_it() -> None:
    turn, told, fails = caucus.Turn(), list[str](), iter((True, False, False))

    def commit() -> bool:
        if is_failing := next(fails):
            turn.fail()  # as the hub does
        return not is_failing

    turn.commit = commit
    turn.answer(Answer(1, told))
    turn.settle(Answer(2, told))
    turn.answer(Answer(3, told))  # a refusal: it confirms nothing
    turn.end()
    turn.loop.close()
    assert told == ["1 withdrawn", "2 withdrawn", "3 sent"]


@pytest.mark.parametrize("snapshot_at", [-1, 0])
def test_that_a_seat_may_go_without_a_word_is_kept(place: Path, snapshot_at: int) -> None:
    kept, clock = Journal(str(place)), FakeClock()
    room = RecordingRoom(clock)
    room.listeners.append(kept.hear)
    room.register("here", "ann", token="of-a-session")
    room.register("here", "bob")
    kept.commit()
    if not snapshot_at:
        caucus.compact(str(place))
    kept.close()
    kept = Journal(str(place))
    again = Room(lambda event: None, clock, lambda: "unused")
    kept.load(again)
    kept.close()
    clock.advance(caucus.YIELD_AFTER_S + 1)
    assert [peer.is_yielding(clock.mono()) for peer in again.roster] == [True, False]


# --- the torture ---


class Talker:
    """A pair of peers: one says numbers to the other, which polls and acknowledges, whatever becomes of the hub."""

    def __init__(self, url: str, number: int) -> None:
        self._sender, self._reader = Client(url), Client(url)
        for client, name in ((self._sender, f"s{number}"), (self._reader, f"r{number}")):
            client.register(name)
        self._name = f"r{number}"
        self.confirmed: list[str] = []  # words, in the order in which the hub confirmed them
        self.heard: list[str] = []
        self.faults: list[str] = []
        self.is_over = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._talk, self._read)]
        for thread in self._threads:
            thread.start()

    def _talk(self) -> None:
        number = 0
        while not self.is_over.is_set():
            number += 1
            try:
                self._sender.post("/send", to=self._name, content=str(number))
                self.confirmed.append(str(number))
            except Refusal as refusal:  # not confirmed: it may have been said or not, and is never said again
                if not isinstance(refusal, Unreachable) and not refusal.retryable:
                    self.faults.append(f"{refusal.code}: {refusal}")
                    return
                time.sleep(0.02)

    def _read(self) -> None:
        lease, seen = caucus.new_secret(8), None
        while True:
            try:
                batch: Any = self._reader.receive(0.2, lease, seen)["messages"]
            except Refusal as refusal:
                if not isinstance(refusal, Unreachable) and not refusal.retryable:
                    self.faults.append(f"{refusal.code}: {refusal}")
                    return
                time.sleep(0.02)
                continue
            if not batch and self.is_over.is_set():
                return
            for message in batch:
                self.heard.append(message["content"])
                seen = message["seq"]

    def finish(self) -> None:
        """Hear the rest, and check: everything that was confirmed arrived, in order; what comes twice had come."""
        self.is_over.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        self._sender.close()
        self._reader.close()
        assert not self.faults
        order = list(dict.fromkeys(self.heard))
        assert [int(one) for one in order] == sorted(int(one) for one in order), "out of order"
        lost = [one for one in self.confirmed if one not in set(order)]
        assert not lost, f"lost: {lost[:5]} of {len(self.confirmed)}"


@pytest.mark.parametrize("road", ROADS)
def test_kills_at_any_instant_lose_nothing_that_was_confirmed(place: Path, road: str) -> None:
    chance = random.Random(road)
    with kept_hub(place, *ROADS[road]) as kept:
        with kept.hub.console() as console:
            console.send(set_rate={"refill_rate": 1000, "capacity": 1000})
            console.send(heartbeat="x")
            console.next("heartbeat_result")
        talkers = [Talker(kept.hub.url, number) for number in range(3)]
        for _ in range(6 * SCALE):
            was = sum(len(one.confirmed) for one in talkers)
            eventually(lambda was=was: sum(len(one.confirmed) for one in talkers) > was + 5, "talk", 30)
            time.sleep(chance.random() * 0.2)  # any instant
            kept.kill_and_restart()
        for talker in talkers:
            talker.finish()
        assert sum(len(one.confirmed) for one in talkers) > 30 * SCALE


class Heard(threading.Thread):
    """Numbers that a client of some kind has heard, from a thread that asks it again and again."""

    def __init__(self, ask: Callable[[], str]) -> None:
        super().__init__(daemon=True)
        self._ask, self.is_over = ask, threading.Event()
        self.numbers: list[int] = []
        self.start()

    def run(self) -> None:
        """Read `<<12>>` out of whatever is told."""
        while not self.is_over.is_set():
            self.numbers += [int(one) for one in re.findall(r"<<(\d+)>>", self._ask())]


def by_bridge(bridge: BridgeProcess) -> Callable[[], str]:
    """Listen through a bridge."""
    return lambda: json.dumps(bridge.call("listen", timeout=1))


def by_watch(watch: WatchProcess) -> Callable[[], str]:
    """Read what a following watch prints."""
    assert watch.process.stdout is not None
    return lambda: watch.process.stdout.readline().decode()


def by_connector(connector: Connector, token: str) -> Callable[[], str]:
    """Poll with the original's library, which tells its caller of each failure, and acknowledge as its bots do."""

    def ask() -> str:
        try:
            batch = connector.call("receive", token, 1)["messages"]
            for message in batch:
                connector.call("ack", token, message["seq"])
        except Refused:
            time.sleep(0.05)
            return ""
        return json.dumps(batch)

    return ask


def by_client(client: Client) -> Callable[[], str]:
    """Poll with our own."""
    lease, seen = caucus.new_secret(8), list[int]()

    def ask() -> str:
        try:
            batch: Any = client.receive(0.5, lease, seen[-1] if seen else None)["messages"]
        except Refusal:
            time.sleep(0.05)
            return ""
        seen.extend(message["seq"] for message in batch)
        return json.dumps(batch)

    return ask


def test_every_kind_of_client_hears_what_was_confirmed_through_kills(place: Path, tmp_path: Path) -> None:
    require_originals()
    echo = "import re, sys; print(*re.findall('<<[0-9]+>>', sys.stdin.read()))"
    with contextlib.ExitStack() as end:
        kept = end.enter_context(kept_hub(place))
        with kept.hub.console() as console:
            console.send(set_rate={"refill_rate": 1000, "capacity": 1000})
        bridge = end.enter_context(bridge_at(kept.hub.url, tmp_path))
        bridge.join("desk")
        watch = WatchProcess(kept.hub.url, "--token", kept.hub.register("api"), "--follow", "--json")
        end.callback(watch.end)
        end.callback(watch.process.terminate)
        end.enter_context(agent(kept.hub.url, "--project", "bot", "--exec", f'{sys.executable} -c "{echo}"'))
        eventually(lambda: "bot" in kept.hub.get("/peers").body["peers"], "the agent")
        ear, talker = Client(kept.hub.url), Client(kept.hub.url)
        ear.register("ear")
        talker.register("talker")
        reader = Client(kept.hub.url, talker.token)
        for client in (ear, talker, reader):
            end.callback(client.close)
        heard = {"api": Heard(by_watch(watch)), "desk": Heard(by_bridge(bridge)), "ear": Heard(by_client(ear))}
        for version in VERSIONS:
            connector = end.enter_context(contextlib.closing(Connector(version, kept.hub.url, tmp_path)))
            token = connector.call("register", f"old-{version}", None)["token"]
            heard[f"old-{version}"] = Heard(by_connector(connector, token))
        heard["bot"] = Heard(by_client(reader))  # what it hears it says back
        confirmed: dict[str, list[int]] = {name: [] for name in heard}
        killer = threading.Thread(target=lambda: [kept.kill_and_restart() for _ in range(4 * SCALE)])
        killer.start()
        for number in itertools.count():
            for name, said in confirmed.items():
                try:
                    talker.post("/send", to=name, content=f"<<{number}>>")
                    said.append(number)
                except Unreachable:
                    time.sleep(0.02)
            if not killer.is_alive():
                break
        for name, said in confirmed.items():
            numbers = heard[name].numbers
            eventually(lambda said=said, numbers=numbers: {*said} <= {*numbers}, f"all that {name} is to hear", 40)
            order = list(dict.fromkeys(numbers))
            assert order == sorted(order), name
        watch.process.terminate()
        for one in heard.values():
            one.is_over.set()
        for one in heard.values():
            one.join(10)
