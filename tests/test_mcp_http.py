"""/mcp over raw HTTP: sessions, who may come in, and what happens to messages when a client goes."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes import FakeClock
from hubs import Answer, HubProcess, eventually, running_hub

import caucus

KEY, OPERATOR = "agent-key", "operator-secret"
MODERN = caucus.MODERN_REVISIONS[-1]
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProcess]:
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def keyed() -> Iterator[HubProcess]:
    with running_hub("--operator-token", OPERATOR, "--agent-key", KEY, "--public-url", "https://caucus.example") as hub:
        yield hub


def post(hub: HubProcess, body: Any, path: str = "/mcp", **headers: str) -> Answer:
    """Send one message, or what is none."""
    data = body if isinstance(body, bytes) else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return hub.request("POST", path, content=data, headers={"Content-Type": "application/json", **ACCEPT, **named})


def rpc(method: str, about: int | None = 1, **params: Any) -> dict[str, Any]:
    """Word a request, or with no id a notification."""
    return {"jsonrpc": "2.0", "method": method, "params": params} | ({} if about is None else {"id": about})


def let_in(join: Callable[[], Any]) -> Any:
    """Join, and again while the hub says that too many from this address did; give its answer."""

    def answer() -> Any:
        said = join()
        return None if said.get("error") == "rate_limited" else said

    return eventually(answer, "the hub letting one more in")


class Session:
    """A client of the handshake era."""

    def __init__(self, hub: HubProcess, revision: str = "2025-06-18", path: str = "/mcp", **headers: str) -> None:
        self.hub, self.path, self.headers = hub, path, headers
        about = {"name": "web", "version": "1"}
        answer = self.send(rpc("initialize", protocolVersion=revision, capabilities={}, clientInfo=about))
        assert answer.status == 200, answer.text
        self.headers = {**headers, "Mcp-Session-Id": answer.headers["Mcp-Session-Id"]}

    def send(self, body: Any, **headers: str) -> Answer:
        """Send one message of this session."""
        return post(self.hub, body, self.path, **self.headers, **headers)

    def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool; give its structure, or its prose."""
        result = self.send(rpc("tools/call", name=tool, arguments=arguments)).body["result"]
        return result.get("structuredContent", result["content"][0]["text"])

    def join(self, name: str) -> Any:
        """Set up and join."""
        self.call("setup")
        return let_in(lambda: self.call("join", project=name))

    def end(self) -> Answer:
        """End the session."""
        return self.hub.request("DELETE", self.path, headers=self.headers)


@pytest.fixture
def web(hub: HubProcess) -> Iterator[Session]:
    session = Session(hub)
    yield session
    session.end()


# --- sessions ---


def test_a_session_is_asked_for_and_its_end_is_its_peers_end(hub: HubProcess) -> None:
    session = Session(hub)
    assert session.join("web")["joined"]
    assert "web" in hub.get("/peers").body["peers"]
    assert session.end().status == 204
    assert "web" not in hub.get("/peers").body["peers"]
    assert (session.end().status, session.send(rpc("ping")).status) == (404, 404)


def test_without_its_session_a_request_is_refused(hub: HubProcess) -> None:
    answer = post(hub, rpc("tools/list"))
    assert (answer.status, answer.body["error"]["code"]) == (400, caucus.INVALID_REQUEST)
    assert "initialize" in answer.body["error"]["message"]


@pytest.mark.parametrize("key", ["never-given", "", "x" * 4_000])
def test_a_session_that_was_never_given_is_not_found(hub: HubProcess, key: str) -> None:
    answer = post(hub, rpc("tools/list"), Mcp_Session_Id=key)
    assert (answer.status, answer.body["error"]["code"], answer.body["id"]) == (404, caucus.UNKNOWN_SESSION, 1)
    assert hub.request("DELETE", "/mcp", headers={"Mcp-Session-Id": key}).status == 404


def test_a_session_of_the_hub_before_this_one_is_taken_up_and_its_tools_say_what_to_do() -> None:
    with running_hub() as old:
        session = Session(old, path="/mcp?project=shop", **{"MCP-Protocol-Version": "2025-06-18"})
        session.join("web")
    with running_hub("--port", str(old.port)) as session.hub:
        refused = session.call("say", content="hello")
        assert (refused["error"], "the hub has restarted" in refused["detail"]) == ("setup_required", True)
        assert "setup, then join" in refused["detail"]
        about = session.call("whoami")
        assert (about["joined"], about["project"], "the hub has restarted" in about["note"]) == (False, None, True)
        assert session.call("list_peers")["error"] == "setup_required"
        assert session.join("")["project"] == "shop"
        assert "note" not in session.call("whoami")
        assert session.call("list_peers") == {"peers": ["shop"], "you": "shop"}
        assert session.end().status == 204


def test_a_batch_of_more_calls_than_are_answered_in_a_moment_is_refused(hub: HubProcess) -> None:
    session = Session(hub, "2025-03-26")
    most = [rpc("tools/list", about=n) for n in range(caucus.BATCH_CALLS_MAX)]
    assert len(session.send(most).body) == caucus.BATCH_CALLS_MAX
    refused = session.send([*most, rpc("ping", about=99)])
    assert (refused.status, refused.body["error"]["code"]) == (400, caucus.INVALID_REQUEST)
    session.end()


@pytest.mark.parametrize("method", ["ping", "tools/list"])
def test_a_session_that_its_client_has_ended_stays_ended(hub: HubProcess, method: str) -> None:
    session = Session(hub)
    session.end()
    assert [session.send(rpc(method)).status for _ in range(2)] == [404, 404]


def test_an_agent_that_begins_anew_has_its_seat_by_its_secret_and_the_old_session_is_told(hub: HubProcess) -> None:
    mine, wrong = {"Caucus-Seat": "s" * 16}, {"Caucus-Seat": "t" * 16}
    old = Session(hub, **mine)
    assert old.join("mine")["joined"]
    sender = Session(hub)
    sender.join("sender")
    sender.call("say", to="mine", content="kept for you")
    for other in (Session(hub), Session(hub, **wrong)):
        assert other.join("mine")["error"] == "name_in_use"
        other.end()
    new = Session(hub, **mine)
    assert new.join("mine")["project"] == "mine"
    assert "kept for you" in new.call("listen", timeout=0)
    told = old.call("say", content="still me?")
    assert (told["error"], "the same agent has begun another one" in told["detail"]) == ("not_joined", True)
    for one in (new, sender, old):
        one.end()
    assert not {"mine", "sender"} & {*hub.get("/peers").body["peers"]}


def test_an_agent_whose_name_was_yielded_is_refused_and_stays_itself(clock: FakeClock) -> None:
    """It took its own session for another one's, and came back as None."""
    one = endpoint(clock)
    ids = []
    for secret in ("s" * 16, ""):
        shown = {"Caucus_Seat": secret} if secret else {}
        reply = one.post(one._gate, request(rpc("initialize", protocolVersion="2025-06-18"), **shown))
        assert reply is not None
        ids.append(dict(reply.headers)["Mcp-Session-Id"])

    def call(key: str, tool: str, **arguments: Any) -> Any:
        reply = one.post(one._gate, request(rpc("tools/call", name=tool, arguments=arguments), Mcp_Session_Id=key))
        assert reply is not None
        return json.loads(reply.body)["result"].get("structuredContent")

    for key in ids:
        call(key, "setup")
    assert call(ids[0], "join", project="api")["joined"]
    clock.advance(caucus.YIELD_AFTER_S + 1)
    assert call(ids[1], "join", project="api")["joined"]
    told = call(ids[0], "say", content="still me?")
    assert (told["error"], told["detail"].startswith("api's session is over")) == ("session_expired", True)
    assert call(ids[0], "join", project="")["error"] == "name_in_use"
    assert one._gate.room.names() == ["api"]
    one.close()


def test_a_session_of_the_hub_before_this_one_that_is_ended_stays_ended(hub: HubProcess) -> None:
    headers = {"Mcp-Session-Id": "a" * 32}
    assert hub.request("DELETE", "/mcp", headers=headers).status == 404
    assert post(hub, rpc("ping"), Mcp_Session_Id="a" * 32).status == 404


@pytest.mark.parametrize("secret", ["short", "x" * 257])
def test_a_seats_secret_of_a_wrong_length_is_refused_with_its_name(hub: HubProcess, secret: str) -> None:
    answer = post(hub, rpc("initialize", protocolVersion="2025-06-18"), Caucus_Seat=secret)
    assert (answer.status, answer.body["field"]) == (422, "Caucus-Seat")


def test_a_handshake_that_fails_gives_no_session(hub: HubProcess) -> None:
    answer = post(hub, rpc("initialize", protocolVersion=7))
    assert (answer.status, answer.body["error"]["code"]) == (400, caucus.INVALID_PARAMS)
    assert "Mcp-Session-Id" not in answer.headers


def test_a_session_is_not_bound_to_its_connection(web: Session) -> None:
    web.join("web")
    with begin(web.hub, rpc("tools/call", name="whoami", arguments={}), web.headers) as line:
        assert b'"project":"web"' in line.recv(65_536)


def test_one_session_does_not_reach_the_seat_of_another(web: Session, hub: HubProcess) -> None:
    other = Session(hub)
    web.join("web")
    other.call("setup")
    assert other.call("whoami")["joined"] is False
    assert other.call("say", content="as somebody else")["error"] == "not_joined"
    assert other.join("web")["error"] == "name_in_use"
    other.end()


def test_a_seat_is_kept_under_its_name(web: Session) -> None:
    assert web.join("web")["project"] == "web"
    answer = web.call("join", project="api")
    assert (answer["error"], web.call("whoami")["project"]) == ("already_joined", "web")


@pytest.mark.parametrize(("path", "name"), [("/mcp?project=api", "api"), ("/mcp", "web")])
def test_a_seat_is_named_after_the_url_else_the_client(hub: HubProcess, path: str, name: str) -> None:
    session = Session(hub, path=path)
    assert session.call("whoami")["default_project"] == name
    session.end()


def test_notifications_and_responses_have_no_answer(web: Session) -> None:
    for body in (rpc("notifications/initialized", None), {"jsonrpc": "2.0", "id": 7, "result": {}}):
        answer = web.send(body)
        assert (answer.status, answer.content) == (202, b"")


def test_a_batch_is_for_the_revision_that_has_them(hub: HubProcess) -> None:
    old, new = Session(hub, "2025-03-26"), Session(hub, "2025-06-18")
    batch = [rpc("ping", 1), rpc("notifications/initialized", None), rpc("tools/call", 2, name="whoami"), 7]
    assert [one.get("id") for one in old.send(batch).body] == [1, 2, None]
    assert new.send(batch).status == old.send([]).status == 400
    old.end()
    new.end()


def test_a_revision_that_nobody_knows_is_refused_with_those_that_are_known(web: Session) -> None:
    answer = web.send(rpc("ping"), MCP_Protocol_Version="1999-01-01")
    assert (answer.status, answer.body["error"]["code"]) == (400, caucus.UNSUPPORTED_REVISION)
    assert answer.body["error"]["data"]["supported"] == [*caucus.HANDSHAKE_REVISIONS]


# --- who may come in ---


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
def test_other_methods_are_not_allowed(hub: HubProcess, method: str) -> None:
    answer = hub.request(method, "/mcp", headers=ACCEPT)
    assert (answer.status, answer.headers["Allow"]) == (405, "POST, DELETE")


@pytest.mark.parametrize(("headers", "status", "code"), [
    ({"Accept": "text/event-stream"}, 406, "not_acceptable"),
    ({"Content_Type": "text/plain"}, 422, "invalid"),
    ({"Origin": "http://evil.example"}, 403, "origin_refused"),
    ({"Host": "evil.example"}, 421, "host_refused"),
])
def test_who_does_not_belong_here_is_refused(hub: HubProcess, headers: dict[str, str], status: int, code: str) -> None:
    answer = post(hub, rpc("ping"), **headers)
    assert (answer.status, answer.body["error"]) == (status, code)


def test_a_keyed_hub_wants_the_key_with_every_request(keyed: HubProcess) -> None:
    assert post(keyed, rpc("ping")).body["error"] == "credential_required"
    session = Session(keyed, Authorization=f"Bearer {KEY}")
    stolen = {"Mcp-Session-Id": session.headers["Mcp-Session-Id"]}
    assert post(keyed, rpc("ping"), **stolen).status == keyed.request("DELETE", "/mcp", headers=stolen).status == 401
    assert session.join("web")["joined"]
    assert session.call("list_peers") == {"peers": ["web"], "you": "web"}
    assert session.call("floor_status")["floors"] == {}
    session.end()


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 60_000, b"NaN"])
def test_what_is_no_json_is_a_parse_error(hub: HubProcess, body: bytes) -> None:
    answer = post(hub, body)
    assert (answer.status, answer.body["id"], answer.body["error"]["code"]) == (400, None, caucus.PARSE_ERROR)


# --- the stateless era, which is not offered here ---


def modern(method: str, **params: Any) -> dict[str, Any]:
    """Word a request that stands for itself."""
    meta = {caucus.META + "protocolVersion": MODERN, caucus.META + "clientCapabilities": {},
            caucus.META + "clientInfo": {"name": "web-bot", "version": "1"}}
    return rpc(method, **{"_meta": meta, **params})


def headers_for(body: dict[str, Any]) -> dict[str, str]:
    """Repeat in headers what such a request says."""
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": body["method"]}
    return headers | ({"Mcp-Name": body["params"]["name"]} if "name" in body["params"] else {})


def stateless(hub: HubProcess, body: dict[str, Any], path: str = "/mcp", **headers: str) -> Answer:
    """Send it with the headers that it must have."""
    return post(hub, body, path, **headers_for(body), **headers)


@pytest.mark.parametrize("method", ["server/discover", "tools/list", "tools/call", "prompts/list", "ping", "dance"])
def test_a_request_without_a_session_is_told_that_there_is_no_such_method(hub: HubProcess, method: str) -> None:
    answer = stateless(hub, modern(method, **({"name": "whoami"} if method == "tools/call" else {})))
    assert (answer.status, answer.body["error"]["code"], answer.body["id"]) == (404, caucus.UNKNOWN_METHOD, 1)
    assert "initialize" in answer.body["error"]["message"]


def test_a_look_alike_speaks_for_nobody(web: Session, hub: HubProcess) -> None:
    """Same program, same address, same ?project=; and even with the session's id there is no road around a session."""
    api = hub.register("api")
    web.join("web")
    for tool, given in (("whoami", {}), ("say", {"content": "I am web", "to": "api"}), ("watch_command", {})):
        body = modern("tools/call", name=tool, arguments=given)
        for headers in ({}, web.headers):
            assert stateless(hub, body, "/mcp?project=web", **headers).status in (400, 404)
    assert hub.receive(api)["messages"] == []
    hub.clear()


def test_a_revision_in_the_header_alone_is_refused_with_those_that_are_offered(web: Session) -> None:
    answer = web.send(rpc("tools/list"), MCP_Protocol_Version=MODERN)
    assert (answer.status, answer.body["error"]["code"]) == (400, caucus.UNSUPPORTED_REVISION)
    assert answer.body["error"]["data"] == {"supported": [*caucus.HANDSHAKE_REVISIONS], "requested": MODERN}


@pytest.mark.parametrize("path", ["/mcp", "/mcp?project=api"])
def test_a_client_of_both_eras_goes_from_discovery_to_a_session_on_one_connection(hub: HubProcess, path: str) -> None:
    probe = modern("server/discover")
    with begin(hub, probe, headers_for(probe), path) as line:
        refused = line.recv(65_536)
        assert b" 404 " in refused.split(b"\r\n")[0]
        assert b"-32601" in refused
        about = {"name": "claude-code", "version": "1"}
        hello = rpc("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=about)
        line.sendall(raw(hello, {}, path))
        opened = line.recv(65_536)
        assert b" 200 " in opened.split(b"\r\n")[0]
        assert b"mcp-session-id:" in opened.lower()


def test_a_name_in_the_url_that_is_too_long_is_refused(hub: HubProcess) -> None:
    hello = rpc("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "a", "version": "1"})
    assert post(hub, hello, "/mcp?project=" + "x" * 65).body["field"] == "project"


# --- waiting ---


def raw(body: dict[str, Any], headers: dict[str, str], path: str = "/mcp") -> bytes:
    """Encode a whole HTTP request."""
    data = json.dumps(body).encode()
    lines = [f"{name}: {value}" for name, value in {**ACCEPT, **headers}.items()]
    head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *lines])
    return f"{head}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def begin(hub: HubProcess, body: dict[str, Any], headers: dict[str, str], path: str = "/mcp") -> socket.socket:
    """Send a request on a connection of its own and do not wait for its answer."""
    line = socket.create_connection(("127.0.0.1", hub.port), timeout=10)
    line.sendall(raw(body, headers, path))
    return line


def rest_of(line: socket.socket) -> bytes:
    """Read a stream to its end."""
    said = b""
    while not said.endswith(b"0\r\n\r\n"):
        said += (part := line.recv(65_536))
        assert part, f"the stream was cut: {said!r}"
    return said


LISTEN = rpc("tools/call", 77, name="listen", arguments={"timeout": 25})


def test_a_client_that_hangs_up_in_mid_listen_loses_no_message(web: Session, hub: HubProcess) -> None:
    api = hub.register("api")
    web.join("web")
    with begin(hub, LISTEN, web.headers):
        eventually(lambda: hub.is_listening("web"), "web listening")
    eventually(lambda: not hub.is_listening("web"), "the poll let go")
    hub.say(api, "web", "after it hung up")
    assert "after it hung up" in web.call("listen", timeout=5)
    hub.clear()


def test_a_listen_is_answered_though_another_call_comes_in_the_same_turn_of_the_loop(
    web: Session, hub: HubProcess
) -> None:
    """What was shown before is acknowledged in the listen's name, and not in that of the call beside it."""
    api = hub.register("api")
    web.join("web")
    hub.say(api, "web", "the first")
    assert "the first" in web.call("listen", timeout=5)
    for about in range(8):  # whether both are read in one turn is up to the kernel
        hub.say(api, "web", f"number {about}.")
        with begin(hub, LISTEN, web.headers) as line, begin(hub, rpc("tools/list"), web.headers) as other:
            assert f"number {about}.".encode() in line.recv(65_536)
            assert b"tools" in other.recv(65_536)
    hub.clear()


def test_a_cancelled_listen_says_so_and_loses_no_message(web: Session, hub: HubProcess) -> None:
    api = hub.register("api")
    web.join("web")
    with begin(hub, LISTEN, web.headers) as line:
        eventually(lambda: hub.is_listening("web"), "web listening")
        assert web.send(rpc("notifications/cancelled", None, requestId=77)).status == 202
        assert b"-32800" in line.recv(65_536)
    hub.say(api, "web", "after the cancel")
    assert "after the cancel" in web.call("listen", timeout=5)
    hub.clear()


def test_a_cancel_that_comes_after_the_answer_has_it_shown_again(web: Session, hub: HubProcess) -> None:
    api = hub.register("api")
    web.join("web")
    hub.say(api, "web", "on its way")
    with begin(hub, LISTEN, web.headers) as line:
        assert b"on its way" in line.recv(65_536)
    web.send(rpc("notifications/cancelled", None, requestId=77))
    assert "on its way" in web.call("listen", timeout=5)
    assert "on its way" not in web.call("listen", timeout=0)
    hub.clear()


def test_a_client_that_cancels_whatever_was_answered_is_shown_nothing_twice(web: Session, hub: HubProcess) -> None:
    api = hub.register("api")
    web.join("web")
    web.send(rpc("tools/call", 76, name="whoami", arguments={}))
    web.send(rpc("notifications/cancelled", None, requestId=76))
    hub.say(api, "web", "read once")
    with begin(hub, LISTEN, web.headers) as line:
        assert b"read once" in line.recv(65_536)
    web.send(rpc("notifications/cancelled", None, requestId=77))
    assert "read once" not in web.call("listen", timeout=0)
    hub.clear()


def test_the_later_of_two_listens_goes_on(web: Session, hub: HubProcess) -> None:
    api = hub.register("api")
    web.join("web")
    with begin(hub, LISTEN, web.headers) as first:
        eventually(lambda: hub.is_listening("web"), "web listening")
        with begin(hub, {**LISTEN, "id": 78}, web.headers) as second:
            assert b'\\"messages\\": 0' in first.recv(65_536)
            hub.say(api, "web", "to the later one")
            assert b"to the later one" in second.recv(65_536)
    hub.clear()


@pytest.fixture
def _running_again(hub: HubProcess) -> Iterator[None]:
    """Let the room run once more, however the test ends."""
    yield
    hub.post("/control", action="reset")
    hub.post("/control", action="resume")


@pytest.mark.usefixtures("_running_again")
def test_a_listen_in_a_paused_room_says_so_and_still_hears_the_operator(web: Session, hub: HubProcess) -> None:
    api = hub.register("api")
    web.join("web")
    hub.post("/control", action="pause")
    hub.say(api, "web", "held back")
    shown = web.call("listen", timeout=0)
    assert '"mode": "paused"' in shown
    assert "held back" not in shown
    with hub.console() as console, begin(hub, LISTEN, web.headers) as line:
        eventually(lambda: hub.is_listening("web"), "web listening")
        console.send(say="one at a time", to="web")
        assert b"one at a time" in line.recv(65_536)
    hub.post("/control", action="resume")
    assert "held back" in web.call("listen", timeout=5)
    hub.clear()


@pytest.mark.usefixtures("_running_again")
def test_who_waits_hears_of_a_stop_at_once(web: Session, hub: HubProcess) -> None:
    web.join("web")
    with begin(hub, LISTEN, web.headers) as line:
        eventually(lambda: hub.is_listening("web"), "web listening")
        hub.post("/control", action="stop")
        assert b'\\"mode\\": \\"stopped\\"' in line.recv(65_536)
    assert web.call("say", content="one more thing")["error"] == "stopped"


STREAMED = rpc("tools/call", 77, name="listen", arguments={"timeout": 25}, _meta={"progressToken": "p"})


def test_a_cancelled_stream_ends_with_its_answer_and_loses_no_message(web: Session, hub: HubProcess) -> None:
    api = hub.register("api")
    web.join("web")
    with begin(hub, STREAMED, web.headers) as line:
        eventually(lambda: hub.is_listening("web"), "web listening")
        web.send(rpc("notifications/cancelled", None, requestId=77))
        assert b"-32800" in rest_of(line)
    hub.say(api, "web", "after the cancel")
    assert "after the cancel" in web.call("listen", timeout=5)
    hub.clear()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be held here")
def test_a_stream_that_is_cancelled_twice_at_once_has_one_answer(web: Session, hub: HubProcess) -> None:
    web.join("web")
    cancel = rpc("notifications/cancelled", None, requestId=77)
    with begin(hub, STREAMED, web.headers) as line:
        eventually(lambda: hub.is_listening("web"), "web listening")
        hub.process.send_signal(signal.SIGSTOP)
        with begin(hub, cancel, web.headers) as one, begin(hub, cancel, web.headers) as another:
            hub.process.send_signal(signal.SIGCONT)
            assert [other.recv(65_536)[9:12] for other in (one, another)] == [b"202", b"202"]
        assert rest_of(line).count(b"-32800") == 1
        line.setblocking(False)
        with pytest.raises(BlockingIOError):
            line.recv(65_536)
    hub.clear()


def test_a_stream_that_waits_as_the_hub_ends_has_its_answer() -> None:
    program = "import caucus, sys; caucus.PROGRESS_S = 1.0; sys.exit(caucus.main())"
    hub = HubProcess(command=(sys.executable, "-c", program, "hub"))
    web = Session(hub)
    web.join("web")
    with begin(hub, STREAMED, web.headers) as line:  # it asks anew each second, and may be about to
        eventually(lambda: hub.is_listening("web"), "web listening")
        hub.process.terminate()
        assert b'"result"' in rest_of(line)
    assert hub.stop()[0] == 0


def test_who_cannot_read_a_stream_gets_one_answer(web: Session) -> None:
    web.join("web")
    body = rpc("tools/call", 7, name="listen", arguments={"timeout": 0}, _meta={"progressToken": "p"})
    answer = web.send(body, Accept="application/json")
    assert (answer.headers["Content-Type"], answer.body["id"]) == ("application/json", 7)


def test_the_end_of_a_session_answers_what_waits_in_it(hub: HubProcess) -> None:
    session = Session(hub)
    session.join("web")
    with begin(hub, LISTEN, session.headers) as line:
        eventually(lambda: hub.is_listening("web"), "web listening")
        assert session.end().status == 204
        assert b"-32800" in line.recv(65_536)
    assert "web" not in hub.get("/peers").body["peers"]


def test_who_wants_progress_gets_a_stream_whose_last_event_is_the_answer(web: Session, hub: HubProcess) -> None:
    web.join("web")
    meta = {"progressToken": "p"}
    body = rpc("tools/call", 7, name="listen", arguments={"timeout": 5.2}, _meta=meta)
    answer = web.send(body)
    assert answer.headers["Content-Type"] == "text/event-stream"
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert [one.get("method", one.get("id")) for one in events] == ["notifications/progress", 7]
    assert events[0]["params"]["progressToken"] == "p"


def test_the_end_of_a_line_whose_stream_was_answered_ends_no_listen_on_another(web: Session, hub: HubProcess) -> None:
    api = hub.register("api")
    web.join("web")
    hub.say(api, "web", "the first")
    with begin(hub, STREAMED, web.headers) as line:
        said = b""
        while not said.endswith(b"0\r\n\r\n"):
            said += line.recv(65_536)
        meta = {"progressToken": "q"}
        other = begin(hub, rpc("tools/call", 78, name="listen", arguments={"timeout": 5.5}, _meta=meta), web.headers)
        eventually(lambda: hub.is_listening("web"), "web listening")
    said = b""
    with other:
        while not said.endswith(b"0\r\n\r\n"):
            said += other.recv(65_536)
    assert b"notifications/progress" in said
    hub.clear()


def test_a_hub_that_ends_answers_who_waits() -> None:
    with running_hub() as hub:
        session = Session(hub)
        session.join("web")
        line = begin(hub, LISTEN, session.headers)
        eventually(lambda: hub.is_listening("web"), "web listening")
    with line:
        assert b'\\"messages\\": 0' in line.recv(65_536)


# --- what has become of a message ---


def test_a_later_call_proves_that_what_was_shown_was_read_and_tells_what_was_lost(
    web: Session, hub: HubProcess
) -> None:
    web.join("web")
    api = hub.register("api")
    seq = hub.say(api, "web", "hello")["seq"]
    web.call("listen", timeout=0)
    state = lambda: hub.get("/receipt", api, seq=seq).body["who"]["web"]  # noqa: E731
    assert state() == "fetched"
    web.call("floor_status")
    assert state() == "acknowledged"
    lost = web.call("say", content="are you there?", to="api")["seq"]
    hub.clear()
    assert web.call("list_peers")["news"] == [f"{lost} was lost: api left"]


def test_the_end_of_a_session_proves_nothing(hub: HubProcess) -> None:
    session, api = Session(hub), hub.register("api")
    session.join("web")
    seq = hub.say(api, "web", "hello")["seq"]
    session.call("listen", timeout=0)
    session.end()
    assert hub.get("/receipt", api, seq=seq).body["who"]["web"] == "fetched"
    hub.clear()


def test_setup_over_http_has_the_house_rules(web: Session, hub: HubProcess) -> None:
    with hub.console() as console:
        console.send(rules="Be brief.")
        console.next("rules")
        assert "set by the operator\n\nBe brief." in web.call("setup")
        assert "rules" not in let_in(lambda: web.call("join", project="web"))
        console.send(rules="")
        console.next("rules")


# --- the watch ---


def test_the_watch_command_of_a_hub_on_this_machine_runs_as_it_is(web: Session, hub: HubProcess) -> None:
    command = web.join("web")["watch"]
    hub.say(hub.register("api"), "web", "to the watch")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20, check=True)
    assert re.fullmatch(r"\[caucus\] msg api -> web \(\d+\): to the watch\n", done.stdout)
    assert web.call("whoami")["project"] == "web"
    hub.clear()


def test_the_watch_command_of_a_hub_for_others_has_a_ticket_and_its_public_address(keyed: HubProcess) -> None:
    session = Session(keyed, Authorization=f"Bearer {KEY}")
    command = shlex.split(session.join("web")["watch"])
    assert command[:6] == ["python3", "caucus.pyz", "watch", "--hub", "https://caucus.example", "--ticket"]
    token = keyed.post("/watch-ticket/redeem", bearer=KEY, ticket=command[6]).body["token"]
    assert keyed.get("/peek", token).status == 200
    session.end()


# --- the table of sessions, without a hub ---


class Line:
    """The caller of a request that nobody made."""

    serial = 1

    def source(self) -> str:
        """Give an address."""
        return "127.0.0.1"


def endpoint(clock: FakeClock) -> caucus.McpEndpoint:
    """Make an endpoint of a room in memory."""
    room = caucus.Room(lambda event: None, clock, caucus.new_secret)
    polls = caucus.Polls(room, clock, lambda at, call: None)
    return caucus.McpEndpoint(caucus.Gate(caucus.Settings(), room, polls, clock), clock)


def request(body: Any, **headers: str) -> caucus.Request:
    """Word a request."""
    named = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return caucus.Request(caucus.Head(named, "POST", "/mcp"), json.dumps(body).encode(), Line())  # type: ignore[arg-type]


def opened(one: caucus.McpEndpoint) -> str:
    """Open a session; give its id."""
    reply = one.post(one._gate, request(rpc("initialize", protocolVersion="2025-06-18")))
    assert reply is not None
    return dict(reply.headers)["Mcp-Session-Id"]


def test_a_session_that_nobody_uses_is_forgotten(clock: FakeClock) -> None:
    one = endpoint(clock)
    key = opened(one)
    clock.advance(caucus.SESSION_TTL_S + 1)
    one.sweep()
    assert key not in one._sessions


def test_a_session_lasts_while_its_peer_is_in_the_room(clock: FakeClock) -> None:
    one = endpoint(clock)
    key = opened(one)
    for tool in ("setup", "join"):
        one.post(one._gate, request(rpc("tools/call", name=tool), Mcp_Session_Id=key))
    clock.advance(caucus.SESSION_TTL_S + 1)
    one.sweep()
    reply = one.post(one._gate, request(rpc("ping"), Mcp_Session_Id=key))
    assert reply is not None
    assert reply.status == 200
    one.close()


def joined(one: caucus.McpEndpoint, name: str) -> tuple[str, Any]:
    """Open a session and take a seat; give its id, and what join answered."""
    key = opened(one)
    one.post(one._gate, request(rpc("tools/call", name="setup"), Mcp_Session_Id=key))
    call = rpc("tools/call", name="join", arguments={"project": name})
    reply = one.post(one._gate, request(call, Mcp_Session_Id=key))
    assert reply is not None
    return key, json.loads(reply.body)["result"]["structuredContent"]


def test_a_seat_that_is_silent_for_two_minutes_yields_its_name_to_a_newcomer_and_not_sooner(clock: FakeClock) -> None:
    one = endpoint(clock)
    old, _ = joined(one, "web")
    clock.advance(caucus.YIELD_AFTER_S)
    assert joined(one, "web")[1]["error"] == "name_in_use"
    clock.advance(0.1)
    assert joined(one, "web")[1]["project"] == "web"
    reply = one.post(one._gate, request(rpc("tools/call", name="peek"), Mcp_Session_Id=old))
    assert reply is not None
    told = json.loads(reply.body)["result"]["structuredContent"]
    assert (told["error"], caucus.SILENT in told["detail"]) == ("session_expired", True)
    one.close()


def test_a_seat_that_listens_yields_its_name_to_nobody(clock: FakeClock) -> None:
    one = endpoint(clock)
    joined(one, "web")
    peer = one._gate.room.roster.get("web")
    assert peer is not None
    one._gate.room.note_listening(peer, is_listening=True)
    clock.advance(caucus.YIELD_AFTER_S + 1)
    assert joined(one, "web")[1]["error"] == "name_in_use"
    one.close()


def test_when_there_are_too_many_one_without_a_seat_goes(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caucus, "SESSIONS_MAX", 2)
    one = endpoint(clock)
    keys = [opened(one) for _ in range(3)]
    assert [*one._sessions] == keys[1:]


def test_when_all_have_a_seat_the_next_is_refused_and_nobody_goes(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caucus, "SESSIONS_MAX", 1)
    one = endpoint(clock)
    key = opened(one)
    for tool in ("setup", "join"):
        one.post(one._gate, request(rpc("tools/call", name=tool), Mcp_Session_Id=key))
    with pytest.raises(caucus.RoomFull):
        opened(one)
    reply = one.post(one._gate, request(rpc("ping"), Mcp_Session_Id=key))
    assert reply is not None
    assert reply.status == 200
    one.close()


def test_a_handshake_that_fails_costs_nobody_the_session(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caucus, "SESSIONS_MAX", 1)
    one = endpoint(clock)
    key = opened(one)
    one.post(one._gate, request(rpc("initialize", protocolVersion=7)))
    reply = one.post(one._gate, request(rpc("ping"), Mcp_Session_Id=key))
    assert reply is not None
    assert reply.status == 200
