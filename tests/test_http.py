"""The hub's HTTP, route by route, over a real process: shapes, statuses, order of checks, refusals, hostile input."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import stat
import struct
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import nursery
import pytest
from fakes import FakeClock, RecordingRoom
from hubs import DEADLINE_S, ROOT, START, Answer, HubProcess, eventually, running_hub
from polls import contents, got, park, reap, receive_request, refused, retune
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin
from wires import Raw, RawAnswer

import caucus

OPERATOR, OBSERVER, KEY = "operator-secret", "observer-secret", "agent-key"
MESSAGE_KEYS = {"id", "sender", "recipient", "content", "kind", "ts", "seq", "origin"}
FORM_KEYS = {"id", "title", "asker", "to", "fields", "status", "answers", "ts", "seq"}
FLOOR_KEYS = {"scope", "holder", "reason", "hands", "since"}
FIELD = {"key": "k", "label": "Which?", "type": "text"}
RADIO = {"key": "r", "label": "One?", "type": "radio", "options": ["a", "b"]}
UNPAIRED = "\ud800"


# --- fixtures and helpers ---


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


@pytest.fixture(scope="module")
def guarded_hub(road: tuple[str, ...]) -> Iterator[HubProcess]:
    secrets = ("--operator-token", OPERATOR, "--observer-token", OBSERVER, "--agent-key", KEY)
    with running_hub(*road, *secrets) as hub:
        yield hub


@pytest.fixture
def guarded(guarded_hub: HubProcess) -> Iterator[HubProcess]:
    """Give a hub with all three secrets; its room is empty and running."""
    yield guarded_hub
    guarded_hub.post("/control", bearer=OPERATOR, action="reset")
    guarded_hub.clear()


@pytest.fixture(scope="module")  # once: to be reaped is to send nothing, and that is alike on all roads
def hasty_hub() -> Iterator[HubProcess]:
    with running_hub("--client-ttl", "0.5") as hub:
        yield hub


@pytest.fixture
def hasty(hasty_hub: HubProcess) -> Iterator[HubProcess]:
    """Give a hub that reaps after half a second; its room is empty and running."""
    yield hasty_hub
    hasty_hub.clear()


@pytest.fixture
def fast(hub: HubProcess) -> Iterator[HubProcess]:
    """Give the open hub with a speech rate that no test can exceed."""
    retune(hub)
    yield hub
    retune(hub, 2, 10)


def ask_raw(hub: HubProcess, data: bytes) -> RawAnswer:
    """Send bytes, read one answer."""
    with Raw(hub.port) as raw:
        return got(raw.send(data))


def post_raw(hub: HubProcess, path: str, content: bytes, kind: str | None = "application/json") -> Answer:
    headers = {} if kind is None else {"Content-Type": kind}
    return hub.request("POST", path, content=content, headers=headers)


# --- HTTP in general: what is JSON, and what is no JSON ---


def test_every_answer_is_json_without_cors_cookies_or_sniffing(hub: HubProcess) -> None:
    for answer in (hub.get("/version"), hub.get("/nowhere"), hub.post("/send"), hub.get("/receive")):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "set-cookie" not in answer.headers


def test_version_is_open_and_has_one_key(guarded: HubProcess) -> None:
    assert guarded.get("/version").body == {"version": caucus.__version__}


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/vnd.caucus+json",
        "application/json;charset=utf-16",  # the parameter says nothing: the bytes do
    ],
)
def test_json_content_types_are_accepted(hub: HubProcess, kind: str) -> None:
    assert post_raw(hub, "/control", b'{"action":"resume"}', kind).body == {"mode": "running"}


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/octet-stream, application/json",
    ],
)
def test_what_a_web_form_can_send_is_refused(hub: HubProcess, kind: str | None) -> None:
    body = refused(post_raw(hub, "/control", b'{"action":"stop"}', kind), 422, "invalid", "Content-Type")
    assert body["detail"][0]["loc"] == ["header", "Content-Type"]
    assert hub.post("/control", action="resume").body == {"mode": "running"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_bodies_in_utf_8_and_utf_16_arrive_intact(hub: HubProcess, encoding: str) -> None:
    a, text = hub.register("a"), "grüße 😀 →"
    body = json.dumps({"token": a, "to": "a", "content": text}, ensure_ascii=False).encode(encoding)
    assert post_raw(hub, "/send", body).status == 200
    assert contents(hub.receive(a)) == [text]


def test_the_last_of_duplicate_keys_wins(hub: HubProcess) -> None:
    a = hub.register("a")
    assert post_raw(hub, "/status", b'{"token":"%b","status":"one","status":"two"}' % a.encode()).body == {
        "status": "two"
    }


def test_unknown_keys_are_ignored(hub: HubProcess) -> None:
    a = hub.register("a")
    body = b'{"token":"%b","status":"s","x":[1,{"y":null}],"\\ud800":"\\udfff"}' % a.encode()
    assert post_raw(hub, "/status", body).body == {"status": "s"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"1",
        b"true",
        b'{"a":1,}',
        b"{'a':1}",
        b'{"a":1}{}',
        b'{"a":"\n"}',
        b"\xef\xbb\xbf",
    ],
)
def test_what_is_no_json_object_is_a_422(open_hub: HubProcess, content: bytes) -> None:
    body = refused(post_raw(open_hub, "/send", content), 422, "invalid", "body")
    fault = body["detail"][0]
    assert {"type", "loc", "msg"} <= fault.keys()
    assert fault["loc"] == ["body", "body"]


@pytest.mark.parametrize(
    "content",
    [
        b'{"token":"\xff"}',
        b'{"token":"\xed\xa0\x80"}',
        b'{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"x":' + b'{"y":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
        b"[" * 60_000,
        b'{"x":' + b"9" * 5000 + b"}",
        b'{"token":"t","seq":-' + b"9" * 5000 + b"}",
        b"\xff\xfe{",
    ],
    ids=[
        "latin-1",
        "raw surrogate",
        "deep lists",
        "deep objects",
        "unclosed",
        "5000 digits",
        "-5000 digits",
        "half a character",
    ],
)
@pytest.mark.parametrize("path", ["/send", "/ack"])
def test_what_cannot_be_read_at_all_is_a_400(open_hub: HubProcess, path: str, content: bytes) -> None:
    answer = post_raw(open_hub, path, content)
    refused(answer, 400, "malformed")
    assert answer.body["detail"] == "There was an error parsing the body"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("path", ["/register", "/send", "/ack", "/floor", "/ask", "/control", "/ring"])
def test_numbers_that_are_not_json_are_a_422(open_hub: HubProcess, path: str, number: str) -> None:
    refused(post_raw(open_hub, path, f'{{"token":"t","seq":{number}}}'.encode()), 422, "invalid", "body")
    refused(post_raw(open_hub, path, f'{{"unknown":[{number}]}}'.encode()), 422, "invalid", "body")


QUESTION = {"token": "t", "title": "t", "fields": [FIELD]}
STRINGS = [
    ("/register", {"project": "a"}, "project"),
    ("/register", {"project": "a", "token": "t"}, "token"),
    ("/leave", {"token": "t"}, "token"),
    ("/send", {"token": "t", "to": "a", "content": "c"}, "token"),
    ("/send", {"token": "t", "to": "a", "content": "c"}, "to"),
    ("/send", {"token": "t", "to": "a", "content": "c"}, "content"),
    ("/ack", {"token": "t", "seq": 0}, "token"),
    ("/status", {"token": "t", "status": "s"}, "token"),
    ("/status", {"token": "t", "status": "s"}, "status"),
    ("/channels/join", {"token": "t", "channel": "#x"}, "token"),
    ("/channels/join", {"token": "t", "channel": "#x"}, "channel"),
    ("/channels/leave", {"token": "t", "channel": "#x"}, "token"),
    ("/channels/leave", {"token": "t", "channel": "#x"}, "channel"),
    ("/channels/topic", {"token": "t", "channel": "#x", "topic": "t"}, "token"),
    ("/channels/topic", {"token": "t", "channel": "#x", "topic": "t"}, "channel"),
    ("/channels/topic", {"token": "t", "channel": "#x", "topic": "t"}, "topic"),
    ("/floor", {"token": "t", "action": "take"}, "token"),
    ("/floor", {"token": "t", "action": "take"}, "action"),
    ("/floor", {"token": "t", "action": "take", "scope": "all"}, "scope"),
    ("/floor", {"token": "t", "action": "take", "reason": "r"}, "reason"),
    ("/ask", QUESTION, "token"),
    ("/ask", QUESTION, "title"),
    ("/ask", {**QUESTION, "to": "all"}, "to"),
    ("/watch-ticket", {"token": "t"}, "token"),
    ("/watch-ticket/redeem", {"ticket": "t"}, "ticket"),
    ("/control", {"action": "pause"}, "action"),
    ("/ring", {"peer": "a"}, "peer"),
]
EVERY_STRING = pytest.mark.parametrize(
    ("path", "body", "field"), STRINGS, ids=[f"{path[1:]}-{field}" for path, _, field in STRINGS]
)


@EVERY_STRING
def test_a_lone_surrogate_is_refused_in_every_string(
    open_hub: HubProcess, path: str, body: dict[str, Any], field: str
) -> None:
    for text in (UNPAIRED, f"#{UNPAIRED}", "\udfff\udbff"):  # the last is a pair the wrong way round
        refused(open_hub.post(path, **{**body, field: text}), 422, "invalid", field)


@EVERY_STRING
def test_a_string_must_be_a_string(open_hub: HubProcess, path: str, body: dict[str, Any], field: str) -> None:
    for value in (1, True, ["x"], {"x": "y"}):
        refused(open_hub.post(path, **{**body, field: value}), 422, "invalid", field)


@EVERY_STRING
def test_a_missing_string_is_named_unless_it_may_be_absent(
    hub: HubProcess, path: str, body: dict[str, Any], field: str
) -> None:
    rest = {key: value for key, value in body.items() if key != field}
    answer = hub.post(path, **rest)
    if (path, field) in {
        ("/register", "token"),
        ("/channels/topic", "topic"),
        ("/floor", "scope"),
        ("/floor", "reason"),
        ("/ask", "to"),
    }:
        assert answer.status in (200, 401)  # got beyond the body
        if path == "/register":
            hub.post("/leave", token=answer.body["token"])
    else:
        refused(answer, 422, "invalid", field)


@pytest.mark.parametrize("field", ["key", "label", "type"])
@pytest.mark.parametrize("value", [UNPAIRED, 1, None], ids=["surrogate", "number", "null"])
def test_strings_inside_a_form_are_checked_as_well(open_hub: HubProcess, field: str, value: object) -> None:
    refused(open_hub.post("/ask", token="t", title="t", fields=[{**FIELD, field: value}]), 422, "invalid", field)


@pytest.mark.parametrize("options", [[UNPAIRED], [1], "ab", {"a": 1}, [""], ["x" * 201]])
def test_options_of_a_form_are_checked_as_well(open_hub: HubProcess, options: object) -> None:
    refused(
        open_hub.post("/ask", token="t", title="t", fields=[{**RADIO, "options": options}]), 422, "invalid", "options"
    )


def test_a_surrogate_pair_is_an_ordinary_character(hub: HubProcess) -> None:
    a = hub.register("a")
    assert post_raw(hub, "/status", b'{"token":"%b","status":"\\ud83d\\ude00"}' % a.encode()).body == {"status": "😀"}


@pytest.mark.parametrize("value", [7, "7", 7.0, " 7 ", "7.0", True])
def test_integers_accept_what_plainly_is_one(hub: HubProcess, value: object) -> None:
    a = hub.register("a")
    told = {"acked": True, "seq": 1 if value is True else 7, "mode": "running"}
    assert hub.post("/ack", token=a, seq=value).body == told


@pytest.mark.parametrize(
    "value", [7.5, "x", "", "7x", "0x7", "1e3", "٧", -1, "-1", 2**64, "9" * 21, None, [7], {"n": 7}, "1" * 5000]
)
def test_integers_accept_nothing_else(hub: HubProcess, value: object) -> None:
    refused(hub.post("/ack", token=hub.register("a"), seq=value), 422, "invalid", "seq")


def test_a_float_beyond_all_bounds_is_no_integer(hub: HubProcess) -> None:
    a = hub.register("a")
    for number in (b"1e400", b"-1e400", b"1e300"):
        refused(post_raw(hub, "/ack", b'{"token":"%b","seq":%b}' % (a.encode(), number)), 422, "invalid", "seq")


@pytest.mark.parametrize(
    ("value", "meaning"), [("true", True), (1, True), ("on", True), ("0", False), (0.0, False), (False, False)]
)
def test_booleans_accept_what_plainly_is_one(hub: HubProcess, value: object, meaning: bool) -> None:
    a = hub.register("a")
    form_id = hub.post("/ask", token=a, title="t", fields=[{**FIELD, "required": value}]).body["form_id"]
    form = next(form for form in hub.get("/forms").body["forms"] if form["id"] == form_id)
    assert form["fields"][0]["required"] is meaning
    with hub.console() as console:
        console.send(cancel_form=form_id)
        console.next("form_resolved")


@pytest.mark.parametrize("value", [2, "maybe", None, [], 0.5])
@pytest.mark.parametrize("field", ["required", "allow_other"])
def test_booleans_accept_nothing_else(open_hub: HubProcess, field: str, value: object) -> None:
    refused(open_hub.post("/ask", token="t", title="t", fields=[{**FIELD, field: value}]), 422, "invalid", field)


# --- HTTP in general: sizes, paths, methods ---


def padded(size: int) -> bytes:
    body = b'{"action":"resume"}'
    return body + b" " * (size - len(body))


def test_a_body_of_exactly_the_cap_is_read(hub: HubProcess) -> None:
    assert post_raw(hub, "/control", padded(caucus.BODY_MAX_BYTES)).body == {"mode": "running"}


@pytest.mark.parametrize("size", [caucus.BODY_MAX_BYTES + 1, 500_000, 5_000_000])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["declared", "chunked"])
def test_a_body_over_the_cap_is_a_413(hub: HubProcess, size: int, is_chunked: bool) -> None:
    chunk = padded(50_000)
    body = iter([chunk] * (size // 50_000 + 1)) if is_chunked else padded(size)
    answer = hub.request("POST", "/send", content=body, headers={"Content-Type": "application/json"})
    assert answer.status == 413
    assert answer.body == {"error": "too_large", "detail": "request body too large", "max_bytes": 65_536}
    assert hub.get("/version").status == 200  # the client knows whether that connection lives on


def test_a_chunked_body_within_the_cap_is_read(hub: HubProcess) -> None:
    body = iter([b'{"act', b'ion":"re', b'sume"}'])
    answer = hub.request("POST", "/control", content=body, headers={"Content-Type": "application/json"})
    assert answer.body == {"mode": "running"}


def test_a_declared_giant_is_refused_unread(hub: HubProcess) -> None:
    head = b"POST /send HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    for size in (2_000_000, 10**15, 10**30):
        answer = ask_raw(hub, head % size)
        refused(answer, 413, "too_large")
        assert answer.headers["connection"] == "close"


def test_a_chunked_body_without_end_is_refused(hub: HubProcess) -> None:
    with Raw(hub.port) as raw:
        raw.send(b"POST /send HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(40):
            raw.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            if raw.is_answered(0.0):
                break
        refused(got(raw), 413, "too_large")


def test_the_longest_message_fits_as_raw_utf_8(hub: HubProcess) -> None:
    a, text = hub.register("a"), "😀" * 8192
    raw, escaped = (
        json.dumps({"token": a, "to": "a", "content": text}, ensure_ascii=e).encode() for e in (False, True)
    )
    assert post_raw(hub, "/send", raw).status == 200
    refused(post_raw(hub, "/send", escaped), 413, "too_large")
    assert contents(hub.receive(a)) == [text]


@pytest.mark.parametrize(
    "head",
    [
        f"GET /version HTTP/1.1\r\nX: {'x' * 20_000}",
        f"GET /version?{'x' * 20_000} HTTP/1.1",
        "GET /version HTTP/1.1\r\n" + "\r\n".join(f"X{n}: y" for n in range(6000)),
    ],
)
def test_oversized_headers_are_a_431(hub: HubProcess, head: str) -> None:
    answer = ask_raw(hub, f"{head}\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert refused(answer, 431, "headers_too_large")["max_bytes"] == caucus.HEADERS_MAX_BYTES
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /version\r\n\r\n",
        b"POST /send HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /send HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1, 2\r\n\r\nx",
        b"POST /send HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: ten\r\n\r\n",
        b"POST /send HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /send HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /send HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nbroken header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n folded: yes\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 1_100_000,
    ],
)
def test_what_is_no_http_ends_its_connection_and_nothing_else(hub: HubProcess, data: bytes) -> None:
    with Raw(hub.port) as raw:
        assert all(400 <= answer.status < 500 for answer in raw.send(data).end_sending().answers())
    assert hub.get("/version").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/favicon.ico",
        "//",
        "/version/x",
        "/%76ersion/",
        "/mcp/x",
        "/VERSION",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD"])
def test_an_unknown_path_is_a_404(open_hub: HubProcess, method: str, path: str) -> None:
    answer = open_hub.request(method, open_hub.url + path)
    assert answer.status == 404
    if method != "HEAD":
        assert answer.body == {"error": "not_found", "detail": "Not Found"}


@pytest.mark.parametrize("path", sorted({path for _, path in caucus.ROUTES}))
def test_a_wrong_method_is_a_405_that_names_the_right_ones(open_hub: HubProcess, path: str) -> None:
    right = {method for method, known in caucus.ROUTES if known == path}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - right:
        answer = open_hub.request(method, path)
        body = refused(answer, 405, "method_not_allowed")
        assert body["detail"] == "Method Not Allowed"
        assert set(answer.headers["allow"].split(", ")) == right


@pytest.mark.parametrize(("path", "status"), [("/", 405), ("/version", 405), ("/nowhere", 404)])
def test_an_answer_to_head_has_no_body(hub: HubProcess, path: str, status: int) -> None:
    with Raw(hub.port) as raw:
        raw.send(
            f"HEAD {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        )
        raw.end_sending()
        data = b""
        while chunk := raw.socket.recv(65_536):
            data += chunk
    first, _, rest = data.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 %d " % status)
    assert rest.startswith(b"HTTP/1.1 200 "), rest


@pytest.mark.parametrize(("method", "path"), sorted(set(caucus.ROUTES) - {("GET", "/")}))
def test_a_trailing_slash_is_redirected(open_hub: HubProcess, method: str, path: str) -> None:
    answer = open_hub.request(method, f"{path}/?a=1&b=%20")
    assert answer.status == 307
    assert answer.headers["location"] == f"{path}?a=1&b=%20"


def test_a_redirect_never_leads_to_another_host(hub: HubProcess) -> None:
    for path in ("//evil.example/version/", "//version/", "/\\evil.example/"):
        answer = ask_raw(hub, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert not answer.headers.get("location", "/").startswith(("//", "/\\")), answer
    # "//version/" would be a host of that name
    assert ask_raw(hub, b"GET //version/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").status == 404


def test_requests_of_one_connection_are_answered_in_order(hub: HubProcess) -> None:
    a = hub.register("a")
    body = json.dumps({"token": a, "to": "a", "content": "c"}).encode()
    head = b"POST /send HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    version = b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with Raw(hub.port) as raw:
        raw.send(head % len(body) + body + version + receive_request(a) + version)
        assert "message_id" in got(raw).body
        assert "version" in got(raw).body
        assert contents(got(raw).body) == ["c"]
        assert "version" in got(raw).body


def test_a_request_behind_a_parked_poll_is_answered_after_it(hub: HubProcess) -> None:
    a = hub.register("a")
    with park(hub, "a", a) as raw:
        raw.send(b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        hub.say(a, "a", "c")
        assert contents(got(raw).body) == ["c"]
        assert "version" in got(raw).body


@pytest.mark.parametrize(
    "extra", ["Connection: close", "Content-Length: 0", "Expect: 100-continue", "Connection: Keep-Alive"]
)
def test_a_poll_is_served_however_its_connection_goes_on(hub: HubProcess, extra: str) -> None:
    a = hub.register("a")
    with Raw(hub.port) as raw:
        raw.send(receive_request(a, extra))
        eventually(lambda: hub.is_listening("a"), "a parked poll")
        hub.say(a, "a", "c")
        answers = [got(raw)]
        if answers[-1].status == 100:
            answers.append(got(raw))
        assert contents(answers[-1].body) == ["c"]


def test_http_1_0_is_served_and_ended(hub: HubProcess) -> None:
    a = hub.register("a")
    with Raw(hub.port) as raw:
        raw.send(f"GET /receive HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {a}\r\n\r\n".encode())
        eventually(lambda: hub.is_listening("a"), "a parked poll")
        hub.say(a, "a", "c")
        assert contents(got(raw).body) == ["c"]
        assert raw.answer() is None


# --- Host and Origin: a page that rebinds DNS, or comes from elsewhere, reads nothing ---

PATHS = sorted({*caucus.ROUTES, ("GET", "/nowhere"), ("POST", "/mcp"), ("GET", "/mcp"), ("GET", "/agents")})
PATHS += [
    ("GET", "/assets/app.js"),
    ("GET", "/assets/nothing"),
    ("OPTIONS", "/send"),
    ("PUT", "/export"),
    ("GET", "/export/"),
]
FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:{port}",
    "127.0.0.1.evil.example",
    "localhost.evil.example:{port}",
    "evil.example, 127.0.0.1",
    "127.0.0.1@evil.example",
    "192.168.0.1:{port}",
    "[::2]:{port}",
    "",
]


@pytest.mark.parametrize(("method", "path"), PATHS, ids=[f"{m} {p}" for m, p in PATHS])
def test_a_foreign_host_reads_nothing_anywhere(open_hub: HubProcess, method: str, path: str) -> None:
    answer = open_hub.request(method, path, headers={"Host": f"evil.example:{open_hub.port}"})
    refused(answer, 421, "host_refused")
    assert answer.body.keys() == {"error", "detail", "host"}


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_no_disguise_makes_a_foreign_host_ours(open_hub: HubProcess, host: str) -> None:
    answer = ask_raw(open_hub, f"GET /peers HTTP/1.1\r\nHost: {host.format(port=open_hub.port)}\r\n\r\n".encode())
    assert answer.status in (400, 421), answer


def test_two_hosts_are_none(hub: HubProcess) -> None:
    with Raw(hub.port) as raw:
        answer = (
            raw.send(b"GET /peers HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n").end_sending().answer()
        )
        assert answer is None or answer.status in (400, 421)


def test_a_request_without_a_host_is_refused(hub: HubProcess) -> None:
    with Raw(hub.port) as raw:
        answer = raw.send(b"GET /peers HTTP/1.1\r\n\r\n").end_sending().answer()
        assert answer is None or answer.status in (400, 421)


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LocalHost", "[::1]:{port}", "127.9.9.9:1"])
def test_the_machines_own_names_are_the_hubs(hub: HubProcess, host: str) -> None:
    assert hub.request("GET", "/peers", headers={"Host": host.format(port=hub.port)}).status == 200


def test_further_hosts_are_allowed_by_name() -> None:
    with running_hub("--allowed-host", "room.test", "--public-url", "http://localhost:99") as hub:
        for host, status in {"room.test": 200, "room.test:80": 200, "localhost:99": 200, "other.test": 421}.items():
            assert hub.request("GET", "/peers", headers={"Host": host}).status == status, host


def handshake(hub: HubProcess, *headers: str) -> bytes:
    lines = ["GET /ui HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_foreign_host_gets_no_console(hub: HubProcess) -> None:
    refused(ask_raw(hub, handshake(hub, f"Host: evil.example:{hub.port}")), 421, "host_refused")
    assert ask_raw(hub, handshake(hub, f"Host: 127.0.0.1:{hub.port}")).status == 101


FOREIGN_ORIGINS = [
    "http://evil.example",
    "null",
    "https://127.0.0.1:{port}",
    "http://127.0.0.1:1",
    "http://localhost",
    "",
]


@pytest.mark.parametrize(("method", "path"), PATHS, ids=[f"{m} {p}" for m, p in PATHS])
def test_a_foreign_origin_reads_nothing_anywhere(open_hub: HubProcess, method: str, path: str) -> None:
    for origin in FOREIGN_ORIGINS:
        answer = open_hub.request(method, path, headers={"Origin": origin.format(port=open_hub.port)})
        assert (answer.status, answer.body) == (403, {"error": "origin_refused", "detail": "origin not allowed"}), (
            origin
        )


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_foreign_origin_gets_no_console(hub: HubProcess, origin: str) -> None:
    headers = {"Origin": origin.format(port=hub.port)}
    with connect(f"ws://127.0.0.1:{hub.port}/ui", proxy=None, additional_headers=headers) as console:
        with pytest.raises(ConnectionClosed) as ended:
            console.recv(timeout=DEADLINE_S)
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 1008


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_the_hubs_own_pages_may_call(hub: HubProcess, host: str) -> None:
    origin = f"http://{host}:{hub.port}"
    answer = hub.request("POST", "/control", json={"action": "resume"}, headers={"Origin": origin})
    assert answer.body == {"mode": "running"}
    with connect(f"ws://127.0.0.1:{hub.port}/ui", proxy=None, origin=Origin(origin)) as console:
        assert json.loads(console.recv(timeout=DEADLINE_S))["type"] == "auth_ok"


def test_further_origins_are_allowed_by_option_and_environment() -> None:
    env = {"CAUCUS_ALLOWED_ORIGINS": "https://b.test, https://c.test:8443"}
    with running_hub("--allowed-origin", "https://a.test") as hub:
        for origin, status in {"https://a.test": 200, "http://a.test": 403, "https://b.test": 403}.items():
            assert hub.request("GET", "/export", headers={"Origin": origin}).status == status, origin
    with running_hub(env=env) as hub:
        for origin, status in {"https://b.test": 200, "https://c.test:8443": 200, "https://c.test": 403}.items():
            assert hub.request("GET", "/export", headers={"Origin": origin}).status == status, origin


def test_host_and_origin_come_before_token_and_body(guarded: HubProcess) -> None:
    foreign = {"Origin": "http://evil.example"}
    refused(guarded.request("POST", "/control", content=b"{", headers=foreign), 403, "origin_refused")
    refused(guarded.request("GET", "/export", headers=foreign), 403, "origin_refused")
    refused(guarded.request("GET", "/export", headers={**foreign, "Host": "evil.example"}), 421, "host_refused")


# --- credentials ---

NOBODY = None
GATED = ["/peers", "/ping?peer=a", "/channels", "/forms", "/floor"]
ROLES = [
    *((path, who, 200) for path in GATED for who in (KEY, OPERATOR, OBSERVER)),
    *((path, who, 401) for path in GATED for who in (NOBODY, "wrong", KEY.upper(), KEY + "x")),
    *(("/export", who, 200) for who in (OPERATOR, OBSERVER)),
    *(("/export", who, 401) for who in (NOBODY, KEY, "wrong")),
    *(("/decisions", who, 200) for who in (OPERATOR, OBSERVER)),
    *(("/decisions", who, 401) for who in (NOBODY, KEY, "wrong")),
    *((path, who, 200) for path in ("/version", "/protocol", "/", "/assets/app.js") for who in (NOBODY, "wrong")),
    *((path, who, 401) for path in ("/receive", "/peek") for who in (NOBODY, KEY, OPERATOR, OBSERVER, "wrong")),
]


@pytest.mark.parametrize(("path", "who", "status"), ROLES)
def test_each_credential_opens_what_it_should(guarded: HubProcess, path: str, who: str | None, status: int) -> None:
    headers = {} if who is None else {"Authorization": f"Bearer {who}"}
    answer = guarded.request("GET", path, headers=headers)
    assert answer.status == status, answer.text
    if status == 401:
        code = "unknown_token" if path in ("/decisions", "/receive", "/peek") else "credential_required"
        refused(answer, 401, code)


@pytest.mark.parametrize(("who", "status"), [(OPERATOR, 200), (OBSERVER, 401), (KEY, 401), ("x", 401), (NOBODY, 401)])
def test_only_the_operator_controls(guarded: HubProcess, who: str | None, status: int) -> None:
    answer = guarded.post("/control", bearer=who, action="resume")
    if status == 200:
        assert answer.body == {"mode": "running"}
    else:
        assert (answer.status, answer.body) == (
            401,
            {"error": "credential_required", "detail": "operator token required"},
        )


@pytest.mark.parametrize(("who", "status"), [(OPERATOR, 409), (OBSERVER, 401), (KEY, 401), ("x", 401), (NOBODY, 401)])
def test_only_the_operator_rings(guarded: HubProcess, who: str | None, status: int) -> None:
    a = guarded.register("a", bearer=KEY)
    code = "nobody_waits" if status == 409 else "credential_required"
    refused(guarded.post("/ring", bearer=who, peer="a"), status, code)
    refused(guarded.post("/ring", bearer=a, peer="a"), 401, "credential_required")


def test_a_ring_wakes_the_peer_beside_which_somebody_waits(hub: HubProcess) -> None:
    a = hub.register("a")
    refused(hub.post("/ring", peer="nobody"), 404, "unknown_peer")
    refused(hub.post("/ring", peer="a"), 409, "nobody_waits")
    with ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(hub.get, "/wake", a, timeout=10, host="claude")
        eventually(lambda: (hub.get("/ping", peer="a").body["wake"] or {}).get("kind") == "waits", "a waiter")
        assert hub.post("/ring", peer="a").body == {"rung": True, "peer": "a"}
        assert waiting.result().body == {"waiting": 0, "operator": 0, "ring": True, "name": "a"}


@pytest.mark.parametrize(("who", "status"), [(KEY, 200), (OPERATOR, 401), (OBSERVER, 401), ("x", 401), (NOBODY, 401)])
def test_only_the_agent_key_registers_and_redeems(guarded: HubProcess, who: str | None, status: int) -> None:
    a = guarded.register("a", bearer=KEY)
    ticket = guarded.post("/watch-ticket", token=a).body["ticket"]
    for path, body in (("/register", {"project": "a", "token": a}), ("/watch-ticket/redeem", {"ticket": ticket})):
        answer = guarded.post(path, bearer=who, **body)
        if status == 200:
            assert answer.body["token"] == a
        else:
            assert "agent key required" in refused(answer, 401, "credential_required")["detail"]


def test_a_peers_token_opens_its_own_things_only(guarded: HubProcess) -> None:
    a = guarded.register("a", bearer=KEY)
    for path in ("/receive?timeout=0", "/peek", "/decisions"):
        assert guarded.get(path, a).status == 200, path
    for path in ("/peers", "/ping?peer=a", "/channels", "/forms", "/export"):
        refused(guarded.get(path, a), 401, "credential_required")
    refused(guarded.post("/control", bearer=a, action="stop"), 401, "credential_required")


def test_the_floor_can_be_read_with_a_peers_token_as_the_originals_clients_do(guarded: HubProcess) -> None:
    assert guarded.get("/floor", guarded.register("a", bearer=KEY)).body == {"floors": {}}


def test_without_secrets_the_console_and_the_reads_are_open(hub: HubProcess) -> None:
    for path in (*GATED, "/export"):
        assert hub.get(path).status == 200, path
    assert hub.post("/control", action="resume").status == 200
    refused(hub.get("/decisions"), 401, "unknown_token")


def test_secrets_come_from_the_environment_and_empty_ones_are_none() -> None:
    secrets = {"CAUCUS_OPERATOR_TOKEN": OPERATOR, "CAUCUS_OBSERVER_TOKEN": OBSERVER, "CAUCUS_AGENT_KEY": KEY}
    with running_hub(env=secrets) as hub:
        assert [hub.get("/export", who).status for who in (None, OPERATOR, OBSERVER)] == [401, 200, 200]
        assert [hub.get("/peers", who).status for who in (None, KEY)] == [401, 200]
    with running_hub("--operator-token", "", "--agent-key", "", env=dict.fromkeys(secrets, "")) as hub:
        assert [hub.get(path).status for path in ("/export", "/peers")] == [200, 200]
        assert hub.register("a")


@pytest.mark.parametrize("form", ["bearer {}", "BEARER {}", "Bearer   {}", "Bearer {}  "])
def test_the_bearer_scheme_is_read_leniently(hub: HubProcess, form: str) -> None:
    a = hub.register("a")
    head = f"GET /peek HTTP/1.1\r\nHost: localhost\r\nAuthorization: {form.format(a)}\r\n\r\n"
    assert ask_raw(hub, head.encode()).status == 200


@pytest.mark.parametrize("form", ["Basic {}", "{}", "Bearer", "Bearer ", "Bearer{}", "Token {}", "Bearer {}\xe9"])
def test_no_other_scheme_is_a_bearer(hub: HubProcess, form: str) -> None:
    a = hub.register("a")
    head = f"GET /peek HTTP/1.1\r\nHost: localhost\r\nAuthorization: {form.format(a)}\r\n\r\n"
    refused(ask_raw(hub, head.encode("latin-1")), 401, "unknown_token")


@pytest.mark.parametrize("name", ["json", "md", "text"])
def test_a_long_log_is_exported_in_turns_of_the_loop_and_once_for_all_who_ask(
    name: str, room: RecordingRoom, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caucus, "EXPORT_S", -1.0)  # each message takes a turn
    ann, turns, got = room.join("ann"), list[Callable[[], None]](), list[bytes]()
    for n in range(50):
        clock.advance(1)
        room.say(ann, "all", f"{n} " + "\N{SNOWMAN}*\n" * 2000)
    exports, wording = caucus.Exports(room, turns.append), caucus.FORMATS[name]
    for _ in range(3):
        exports.ask(wording, got.append)
    assert got == []
    assert len(turns) == 1, "one job for all"
    steps = 0
    while turns:
        turns.pop()()
        steps += 1
    assert steps >= 50
    assert (len(got), len({id(file) for file in got})) == (3, 1)
    exports.ask(wording, got.append)
    assert got[3] is got[0]
    for n in range(50):
        assert f"{n} \N{SNOWMAN}*" in got[0].decode()


class SlowReader:
    """A caller that takes what it is sent only if it is told to."""

    def __init__(self) -> None:
        self.parts, self.is_slow, self.lasts = list[bytes](), False, list[bool]()

    def stream(self, chunk: bytes, is_last: bool, headers: Any) -> None:
        """Note it."""
        assert chunk
        self.parts.append(chunk)
        self.lasts.append(is_last)

    def is_sending(self) -> bool:
        """Whether it has yet to take something."""
        return self.is_slow and bool(self.parts)

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Note what to do when it goes."""
        self.go = callback


def record_export(code: str, reader: SlowReader, is_done: Callable[[], Any]) -> list[bool]:
    """Stream what a Python program prints, until something is so; give what was told at the end."""
    ends = list[bool]()
    export = caucus.RecordExport([sys.executable, "-c", code], cast(Any, reader), (), ends.append)
    eventually(lambda: export.look() or ends or is_done(), "the end")
    return ends


def test_a_record_goes_out_as_it_is_taken_and_says_when_it_could_not_be_read_to_its_end() -> None:
    reader = SlowReader()
    assert record_export("print('x' * 10**6, end='')", reader, lambda: False) == [False]
    assert (b"".join(reader.parts), reader.lasts) == (b"x" * 10**6, [False] * (len(reader.parts) - 1) + [True])
    assert len(reader.parts) == 4
    reader = SlowReader()
    assert record_export("print('x' * 10**6); raise SystemExit(2)", reader, lambda: False) == [False]
    assert b"".join(reader.parts).endswith(b"x\n\n\n[the record could not be read any further]\n")
    reader = SlowReader()
    assert record_export("raise SystemExit(2)", reader, lambda: False) == [True]
    assert reader.parts == []


def test_who_takes_nothing_of_a_record_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = "while True: print('x' * 10**5)"
    reader = SlowReader()
    reader.is_slow = True
    assert record_export(endless, reader, lambda: len(reader.parts) > 1 or reader.is_sending()) == []
    reader = SlowReader()
    reader.is_slow = True
    monkeypatch.setattr(caucus, "RECORD_TAKE_S", 0.0)
    assert record_export(endless, reader, lambda: False) == [False]
    assert reader.parts[-1].endswith(b"[it was read too slowly]\n")
    assert len(reader.parts) == 2
    gone = SlowReader()
    assert record_export(endless, gone, lambda: gone.parts and gone.go()) == [False]


def test_who_guesses_credentials_is_slowed_and_told_of_once_and_the_operator_is_not() -> None:
    with running_hub("--operator-token", "right") as hub:
        wrong = [hub.get("/export", f"guess {n}").status for n in range(2 * int(caucus.GUESS_BURST))]
        assert set(wrong) == {401, 429}
        assert wrong[: int(caucus.GUESS_BURST)] == [401] * int(caucus.GUESS_BURST)
        refused = hub.post("/control", action="pause")
        assert refused.status == 401, "who shows nothing guesses nothing"
        assert hub.get("/export", "right").status == 200
        with hub.console("right") as console:
            figure = console.next("health")["health"]["wrong_credentials"]
            assert figure == len(wrong)
        assert hub.log.count("127.0.0.1 guesses credentials") == 1


@pytest.mark.parametrize("value", ["é".encode("latin-1"), "é→".encode(), b"\xff\xfe", b"x" * 9000])
def test_a_credential_that_cannot_be_ours_is_a_401(guarded: HubProcess, value: bytes) -> None:
    headers = {"Authorization": b"Bearer " + value}
    for path in ("/export", "/peers", "/receive", "/peek", "/decisions", "/floor"):
        assert guarded.request("GET", path, headers=headers).status == 401, path
    for path, body in (("/control", {"action": "stop"}), ("/register", {"project": "a"})):
        assert guarded.request("POST", path, json=body, headers=headers).status == 401, path


def test_no_credential_is_taken_from_a_url(guarded: HubProcess) -> None:
    a = guarded.register("a", bearer=KEY)
    for path in ("/receive", "/peek", "/decisions"):
        assert guarded.get(path, token=None, timeout="0", access_token=a).status == 401
        assert guarded.request("GET", f"{path}?token={a}&timeout=0").status == 401
    assert guarded.request("GET", f"/export?token={OPERATOR}").status == 401
    assert guarded.request("GET", f"/peers?key={KEY}").status == 401


# --- POST /register ---


def test_register_answers_all_that_a_newcomer_needs(hub: HubProcess) -> None:
    b = hub.register("b")
    hub.post("/channels/join", token=b, channel="#x")
    body = hub.post("/register", project="a").body
    hub.clear()
    hub.post("/leave", token=body["token"])
    protocol = hub.get("/protocol").body
    assert re.fullmatch(r"[0-9a-f]{32}", body.pop("token"))
    assert body == {
        "project": "a",
        "protocol_version": protocol["version"],
        "protocol_stale": True,
        "protocol_text": protocol["text"],
        "channels": {"#x": {"topic": None, "members": ["b"]}},
        "note": None,
    }


@pytest.mark.parametrize(("offset", "is_stale"), [(None, True), (-1, True), (0, False), (1, False)])
def test_the_protocol_is_sent_to_those_who_have_an_older_one(
    hub: HubProcess, offset: int | None, is_stale: bool
) -> None:
    protocol = hub.get("/protocol").body
    known = None if offset is None else protocol["version"] + offset
    token = hub.register("a")
    body = hub.post("/register", project="a", token=token, protocol_version=known).body
    assert body["protocol_stale"] is is_stale
    assert body["protocol_text"] == (protocol["text"] if is_stale else None)


@pytest.mark.parametrize("version", ["x", 1.5, [], 10**30])
def test_a_protocol_version_is_an_integer(hub: HubProcess, version: object) -> None:
    refused(hub.post("/register", project="a", protocol_version=version), 422, "invalid", "protocol_version")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "x" * 65,
            " a",
            "a ",
            "a\nb",
            "a\r",
            "a\x00",
            "\x7f",
            "a\u2028b",
            "a\u00a0b",
            "a\u200bb",
            "\u202eabc",
            "\ufeffa",
        ),
        *(
            "#x",
            "#",
            "all",
            "ALL",
            "human",
            "Human",
            "h u m a n",
            " human ",
            "hub",
            "system",
            "SYSTEM",
            "hub.",
            "ｈｕｂ",
            "hu\u00admb",
        ),
    ],
)
def test_malformed_and_reserved_names_are_refused(hub: HubProcess, name: str) -> None:
    refused(hub.post("/register", project=name), 422, "invalid", "project")
    assert hub.get("/peers").body == {"peers": []}


@pytest.mark.parametrize(
    "name", ["x" * 64, "my project", "ünïcode", "名前", "😀", "a.b-c_d", "human-2", "-x", "a'b\"c<i>"]
)
def test_other_names_are_welcome(hub: HubProcess, name: str) -> None:
    hub.register(name)
    assert hub.get("/peers").body == {"peers": [name]}
    assert hub.get("/ping", peer=name).body["state"] == "live"


def test_a_name_in_decomposed_form_is_the_same_name(hub: HubProcess) -> None:
    hub.register("café")
    refused(hub.post("/register", project="cafe\u0301"), 409, "name_in_use")


def test_registering_again_with_the_token_confirms_it(hub: HubProcess) -> None:
    a = hub.register("a")
    assert hub.post("/register", project="a", token=a).body["token"] == a
    assert hub.get("/peers").body == {"peers": ["a"]}


@pytest.mark.parametrize("token", [None, "wrong", "", "é", "x" * 256])
def test_a_taken_name_is_refused_without_its_token(hub: HubProcess, token: str | None) -> None:
    a = hub.register("a")
    answer = hub.post("/register", project="a", token=token)
    body = refused(answer, 409, "name_in_use")
    assert body["project"] == "a"
    assert isinstance(body["note"], str)
    assert a not in answer.text
    assert hub.post("/status", token=a, status="still here").status == 200


def test_a_taken_name_is_refused_while_its_peer_polls(hub: HubProcess) -> None:
    a = hub.register("a")
    with park(hub, "a", a) as poll:
        refused(hub.post("/register", project="a"), 409, "name_in_use")
        hub.say(a, "a", "undisturbed")
        assert contents(got(poll).body) == ["undisturbed"]


def test_another_peers_token_does_not_open_a_name(hub: HubProcess) -> None:
    _, b = hub.register("a"), hub.register("b")
    refused(hub.post("/register", project="a", token=b), 409, "name_in_use")


def test_a_contested_name_is_noted_on_the_console_once_in_five_seconds(hub: HubProcess) -> None:
    hub.register("contested")
    with hub.console() as console:
        for _ in range(3):
            refused(hub.post("/register", project="contested"), 409, "name_in_use")
        console.send(say="marker")
        console.message(content="marker")
    messages = hub.get("/export").body["messages"]
    notices = [m for m in messages if m["content"].startswith("contested ") and "refused" in m["content"]]
    assert len(notices) == 1
    assert (notices[0]["seq"], notices[0]["kind"], notices[0]["origin"]) == (0, "system", "hub")


def test_registrations_are_throttled_by_address() -> None:
    with running_hub() as hub:
        statuses = [hub.post("/register", project=f"p{n}").status for n in range(30)]
        assert statuses[:20] == [200] * 20
        assert 429 in statuses[20:22]  # one may have been refilled meanwhile
        answer = hub.post("/register", project="p0")  # also before it is seen that the name is taken
        body = refused(answer, 429, "rate_limited")
        assert body.keys() == {"error", "detail", "retry_after"}
        assert body["detail"] == "rate limited"
        assert 0 < body["retry_after"] <= 1.0
        assert answer.headers["retry-after"] == "1"
        refused(hub.post("/register", project=""), 422, "invalid", "project")  # costs nothing
        if sys.platform == "linux":
            assert hub.register("from elsewhere")


def test_what_is_wrong_with_a_registration_is_told_in_order(guarded: HubProcess) -> None:
    refused(guarded.post("/register", project=""), 422, "invalid", "project")
    refused(guarded.post("/register", project="a"), 401, "credential_required")
    guarded.register("a", bearer=KEY)
    refused(guarded.post("/register", bearer=KEY, project="a"), 409, "name_in_use")


# --- POST /leave, reaping, revival ---


def test_who_leaves_frees_the_name_and_ends_the_token(hub: HubProcess) -> None:
    a = hub.register("a")
    assert hub.post("/leave", token=a).body == {"left": True, "project": "a"}
    refused(hub.post("/leave", token=a), 401, "unknown_token")
    assert hub.get("/ping", peer="a").body == {"peer": "a", "state": "absent", "present": False}
    assert hub.register("a") != a


TOKEN_CALLS = [
    ("/leave", {}),
    ("/send", {"to": "a", "content": "c"}),
    ("/ack", {"seq": 1}),
    ("/status", {"status": "s"}),
    ("/channels/join", {"channel": "#x"}),
    ("/channels/leave", {"channel": "#x"}),
    ("/channels/topic", {"channel": "#x", "topic": "t"}),
    ("/floor", {"action": "take"}),
    ("/ask", {"title": "t", "fields": [FIELD]}),
    ("/watch-ticket", {}),
]


@pytest.mark.parametrize(("path", "body"), TOKEN_CALLS)
@pytest.mark.parametrize("token", ["", "wrong", "é", "😀" * 64])
def test_an_unknown_token_is_a_401(open_hub: HubProcess, path: str, body: dict[str, Any], token: str) -> None:
    answer = open_hub.post(path, token=token, **body)
    assert (answer.status, answer.body) == (
        401,
        {"error": "unknown_token", "detail": "unknown token: register again"},
    )


@pytest.mark.parametrize(("path", "body"), TOKEN_CALLS)
def test_an_oversized_token_is_a_422(open_hub: HubProcess, path: str, body: dict[str, Any]) -> None:
    refused(open_hub.post(path, token="x" * 257, **body), 422, "invalid", "token")


def test_a_silent_peer_is_reaped_and_comes_back_with_all_it_had(hasty: HubProcess) -> None:
    a, b = hasty.register("a"), hasty.register("b")
    hasty.post("/channels/join", token=a, channel="#x")
    hasty.say(b, "a", "before")
    eventually(
        lambda: (
            hasty.post("/status", token=b, status="").status == 200 and hasty.get("/peers").body == {"peers": ["b"]}
        ),
        "a reaped",
    )
    assert hasty.get("/channels").body == {"channels": {}}
    seen = hasty.get("/ping", peer="a").body
    assert seen.keys() == {
        *("peer", "state", "present", "last_seen_age", "reaped_age", "listening", "status", "status_age"),
        *("usage", "wake"),
    }
    assert (seen["state"], seen["present"], seen["listening"]) == ("reaped", False, False)
    for to in ("a", "all", "#x"):
        assert hasty.say(b, to, f"to {to}")["delivered_to"] == ["a"]
    assert contents(hasty.receive(a)) == ["before", "to a", "to all", "to #x"]
    assert hasty.get("/ping", peer="a").body["state"] == "live"
    assert hasty.get("/channels").body["channels"]["#x"]["members"] == ["a", "b"]


def test_a_reaped_name_waits_for_its_own_peer(hasty: HubProcess) -> None:
    a = hasty.register("a")
    reap(hasty, "a")
    for token in (None, "wrong"):
        refused(hasty.post("/register", project="a", token=token), 409, "name_in_use")
    assert hasty.post("/register", project="a", token=a).body["token"] == a
    assert hasty.get("/ping", peer="a").body["state"] == "live"


def test_a_reaped_peer_may_leave_and_frees_its_name(hasty: HubProcess) -> None:
    a = hasty.register("a")
    reap(hasty, "a")
    assert hasty.post("/leave", token=a).body == {"left": True, "project": "a"}
    assert hasty.register("a") != a


def test_a_reaped_holder_gives_the_stick_on(hasty: HubProcess) -> None:
    a, b = hasty.register("a"), hasty.register("b")
    assert hasty.post("/floor", token=a, action="take").body["holder"] == "a"
    assert hasty.post("/floor", token=b, action="raise").body["position"] == 1
    hasty.receive(b, lease="one")
    with park(hasty, "b", b, lease="one") as poll:
        assert contents(got(poll).body) == ["a passed the talking stick of all to b"]
    assert hasty.get("/floor").body["floors"]["all"]["holder"] == "b"


def test_a_revival_is_told_to_consoles_only(hasty: HubProcess) -> None:
    a, b = hasty.register("a"), hasty.register("b")
    with park(hasty, "b", b) as poll, hasty.console() as console:
        console.message(content="a timed out", seq=0)
        hasty.receive(a)
        console.message(content="a is back", seq=0)
        hasty.say(a, "b", "marker")
        assert contents(got(poll).body) == ["marker"]


# --- GET /peers, /ping, POST /status ---


def test_peers_are_listed_by_name(hub: HubProcess) -> None:
    for name in ("b", "a", "C"):
        hub.register(name)
    assert hub.get("/peers").body == {"peers": ["C", "a", "b"]}


def test_ping_tells_of_a_live_peer(hub: HubProcess) -> None:
    a = hub.register("a")
    body = hub.get("/ping", peer="a").body
    assert 0 <= body.pop("last_seen_age") < DEADLINE_S
    assert body == {
        "peer": "a",
        "state": "live",
        "present": True,
        "listening": False,
        "status": None,
        "status_age": None,
        "usage": None,
        "wake": None,
    }
    hub.post("/status", token=a, status="busy")
    body = hub.get("/ping", peer="a").body
    assert body["status"] == "busy"
    assert 0 <= body["status_age"] < DEADLINE_S
    with park(hub, "a", a) as poll:
        assert hub.get("/ping", peer="a").body["listening"] is True
        hub.say(a, "a", "c")
        got(poll)
    assert hub.get("/ping", peer="a").body["listening"] is False


def test_ping_keeps_nobody_alive(hasty: HubProcess) -> None:
    hasty.register("a")
    reap(hasty, "a")  # by pinging it all the time


@pytest.mark.parametrize("query", ["", "?peer=", f"?peer={'x' * 65}", "?Peer=a"])
def test_ping_wants_a_name(hub: HubProcess, query: str) -> None:
    refused(hub.request("GET", f"/ping{query}"), 422, "invalid", "peer")


@pytest.mark.parametrize("peer", ["nobody", "all", "%23x", "a%0Ab", "%ED%A0%80", "%FF", "%00"])
def test_ping_of_a_name_that_nobody_bears_is_no_fault(hub: HubProcess, peer: str) -> None:
    body = hub.request("GET", f"/ping?peer={peer}").body
    assert (body["state"], body["present"]) == ("absent", False)
    assert body.keys() == {"peer", "state", "present"}


@pytest.mark.parametrize(("status", "kept"), [(" busy ", "busy"), ("", None), (" \n ", None), ("x" * 280, "x" * 280)])
def test_a_status_is_trimmed_and_a_blank_one_cleared(hub: HubProcess, status: str, kept: str | None) -> None:
    a = hub.register("a")
    hub.post("/status", token=a, status="before")
    assert hub.post("/status", token=a, status=status).body == {"status": kept}
    assert hub.get("/ping", peer="a").body["status"] == kept


def test_a_status_has_at_most_280_characters(hub: HubProcess) -> None:
    refused(hub.post("/status", token=hub.register("a"), status="x" * 281), 422, "invalid", "status")


USAGE = {"model": "claude", "turns": 12, "input_tokens": 45_000, "output_tokens": 3_123, "cost_usd": 0.31}


def test_usage_goes_beside_the_status_or_instead_of_it(hub: HubProcess) -> None:
    a = hub.register("a")
    assert hub.post("/status", token=a, status=" busy ", usage=USAGE).body == {"status": "busy", "usage": USAGE}
    more = {**USAGE, "turns": 13, "cost_usd": None}
    assert hub.post("/status", token=a, usage=more).body == {"status": "busy", "usage": more}
    assert hub.post("/status", token=a, status="").body == {"status": None}
    body = hub.get("/ping", peer="a").body
    assert (body["status"], body["usage"]) == (None, more)


def test_a_usage_of_null_is_none_and_a_status_is_required_then(hub: HubProcess) -> None:
    a = hub.register("a")
    assert hub.post("/status", token=a, status="busy", usage=None).body == {"status": "busy"}
    refused(hub.post("/status", token=a, usage=None), 422, "invalid", "status")
    refused(hub.post("/status", token=a), 422, "invalid", "status")


@pytest.mark.parametrize(("given", "field"), [
    ({"usage": "cheap"}, "usage"),
    ({"usage": [USAGE]}, "usage"),
    ({"usage": {}}, "model"),
    ({"usage": {**USAGE, "turns": "12"}}, "turns"),
    ({"usage": {**USAGE, "output_tokens": -1}}, "output_tokens"),
    ({"usage": USAGE, "status": None}, "status"),
    ({"usage": USAGE, "status": "x" * 281}, "status"),
])
def test_a_faulty_usage_or_status_changes_neither(hub: HubProcess, given: dict[str, Any], field: str) -> None:
    a = hub.register("a")
    hub.post("/status", token=a, status="before")
    refused(hub.post("/status", **{"token": a, "status": "after", **given}), 422, "invalid", field)
    body = hub.get("/ping", peer="a").body
    assert (body["status"], body["usage"]) == ("before", None)


@pytest.mark.parametrize("cost", [b"NaN", b"Infinity", b"1e400", b"-1", b'"1"', b"true"])
def test_a_cost_that_is_no_amount_is_refused(hub: HubProcess, cost: bytes) -> None:
    usage = b'{"model":"","turns":1,"input_tokens":1,"output_tokens":1,"cost_usd":%b}' % cost
    answer = post_raw(hub, "/status", b'{"token":"%b","usage":%b}' % (hub.register("a").encode(), usage))
    assert answer.status in (400, 422)
    assert hub.get("/ping", peer="a").body["usage"] is None


def test_usage_wants_a_token_that_holds(hub: HubProcess) -> None:
    refused(hub.post("/status", token="nobody's", usage=USAGE), 401, "unknown_token")


def test_status_and_speech_have_separate_rates(hub: HubProcess) -> None:
    a = hub.register("a")
    statuses = [hub.post("/status", token=a, status=str(n)).status for n in range(40)]
    assert statuses[:30] == [200] * 30
    assert 429 in statuses[30:]
    assert hub.say(a, "a", "speech is not used up")


# --- POST /send ---


def test_send_answers_who_has_it(hub: HubProcess) -> None:
    a, _ = hub.register("a"), hub.register("b")
    body = hub.say(a, "b", "hello")
    assert re.fullmatch(r"[0-9a-f]{12}", body.pop("message_id"))
    assert body.pop("seq") > 0
    assert body == {
        "delivered_to": ["b"], "missed": [], "warning": None, "hint": None,
        "recipients": {"b": {"state": "queued", "seen": 0}},
    }


def test_send_answers_who_hears_it_now_who_later_and_who_on_its_return(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    hub.register("c")
    with park(hub, "b", b):
        body = hub.say(a, "all", "hello")
    assert body["hint"] is None
    assert body["recipients"] == {"b": {"state": "listening"}, "c": {"state": "queued", "seen": 0}}
    assert [*body["recipients"]] == ["c", "b"], "who does not hear it comes first"


def test_of_many_it_answers_some_and_counts_all(hub: HubProcess) -> None:
    a = hub.register("a")
    for number in range(caucus.RECIPIENTS_SHOWN_MAX + 3):
        hub.register(f"p{number}")
    body = hub.say(a, "all", "hello")
    assert len(body["recipients"]) == caucus.RECIPIENTS_SHOWN_MAX
    assert body["counts"] == {"queued": caucus.RECIPIENTS_SHOWN_MAX + 3}


def test_a_question_is_asked_shown_answered_and_settled(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    asked = hub.post("/send", token=a, to="b", content="which port?", expects_answer=True).body
    batch = hub.receive(b)
    assert (batch["messages"][0]["expects_answer"], batch["owes"][0]["seq"]) == (True, asked["seq"])
    assert [one["text"] for one in hub.get("/peek", b).body["owes"]] == ["which port?"]
    assert [one["to"] for one in hub.get("/peek", a).body["asked"]] == ["b"]
    answered = hub.post("/send", token=b, content="8765", reply_to=asked["seq"])
    assert answered.body["delivered_to"] == ["a"]
    answer = hub.receive(a)["messages"][0]
    assert (answer["reply_to"], answer["quote"]) == (asked["seq"], "which port?")
    assert hub.get("/peek", a).body["asked"] == hub.get("/peek", b).body["owes"] == []
    assert hub.get("/receipt", a, seq=asked["seq"]).body["who"] == {"b": "answered"}


def test_a_declined_question_tells_its_asker_why(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    asked = hub.post("/send", token=a, to="b", content="which port?", expects_answer=True).body
    hub.receive(b)
    hub.post("/send", token=b, content="not my field", declines=asked["seq"])
    answer = hub.receive(a)["messages"][0]
    assert (answer["content"], answer["outcome"], answer["reply_to"]) == ("not my field", "declined", asked["seq"])
    again = hub.post("/send", token=b, content="really", declines=asked["seq"])
    assert (again.status, again.body["error"]) == (404, "unknown_question")


@pytest.mark.parametrize("field", ["reply_to", "declines", "settles"])
def test_what_was_not_for_one_cannot_be_answered(hub: HubProcess, field: str) -> None:
    a, c = hub.register("a"), hub.register("c")
    hub.register("b")
    secret = hub.say(a, "b", "psst")["seq"]
    for seq in (secret, 10**6):
        answer = hub.post("/send", token=c, to="all", content="aha", **{field: seq})
        assert (answer.status, answer.body["error"]) == (404, "unknown_message")
        assert answer.body["detail"] == f"there is no message {seq} that you could answer"


def test_a_receipt_is_for_who_said_it(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    sent = hub.say(a, "b", "hi")
    assert hub.get("/receipt", a, seq=sent["message_id"]).body["who"] == {"b": "queued"}
    hub.receive(b)
    assert hub.get("/receipt", a, seq=sent["seq"]).body["who"] == {"b": "fetched"}
    hub.post("/ack", token=b, seq=sent["seq"])
    assert hub.get("/receipt", a, seq=sent["seq"]).body["who"] == {"b": "fetched"}, "printed is not read"
    hub.post("/status", token=b, status="at it")
    assert hub.get("/receipt", a, seq=sent["seq"]).body["who"] == {"b": "acknowledged"}
    assert hub.get("/receipt", b, seq=sent["seq"]).body["error"] == "unknown_message"
    assert hub.get("/receipt", a, seq="soon").body["field"] == "seq"
    assert hub.get("/receipt", a).body["field"] == "seq"


def test_the_operator_may_ask_for_any_receipt(guarded: HubProcess) -> None:
    a = guarded.register("a", KEY)
    sent = guarded.say(a, "human", "hi")
    for token in (OPERATOR, OBSERVER):
        assert guarded.get("/receipt", token, seq=sent["seq"]).body["id"] == sent["message_id"]


def test_what_became_of_it_is_told_with_the_next_call_and_once(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    sent = hub.say(a, "b", "hi")
    hub.post("/leave", token=b)
    assert hub.say(a, "human", "next")["news"] == [f"{sent['seq']} was lost: b left"]
    assert "news" not in hub.say(a, "human", "and next")


@pytest.mark.parametrize("call", ["/status", "/ack", "/channels/join", "/floor"])
def test_whatever_an_agent_calls_tells_it(hub: HubProcess, call: str) -> None:
    a, b = hub.register("a"), hub.register("b")
    hub.say(a, "b", "hi")
    hub.post("/leave", token=b)
    given = {"/status": {"status": "x"}, "/ack": {"seq": 0, "read": True}, "/channels/join": {"channel": "#x"},
             "/floor": {"action": "take"}}
    assert len(hub.post(call, token=a, **given[call]).body["news"]) == 1


def test_what_is_said_twice_under_one_client_id_is_in_the_room_once(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    said = [hub.post("/send", token=a, to="b", content="hi", client_id="x1").body for _ in range(3)]
    assert [one.pop("repeated", False) for one in said] == [False, True, True]
    assert said[0]["message_id"] == said[1]["message_id"] == said[2]["message_id"]
    assert len(hub.receive(b)["messages"]) == 1


def test_house_rules_are_read_with_the_protocol_or_with_a_seat(tmp_path: Path) -> None:
    (tmp_path / "rules.md").write_text("Be kind.\n")
    with running_hub("--rules", str(tmp_path / "rules.md")) as hub:
        assert hub.get("/protocol").body["rules"] == "Be kind."
        assert "house-rules" in hub.get("/protocol").body["sections"]
        change_the_rules(hub)


def change_the_rules(hub: HubProcess) -> None:
    early = hub.register("early")
    with hub.console() as console:
        console.send(rules="  Be brief.  ")
        assert console.next("rules")["text"] == "Be brief."
        assert console.message(content="house rules: version 2")
        console.send(rules="x" * (caucus.RULES_MAX + 1))
        assert console.next("error")["field"] == "rules"
    assert hub.get("/protocol").body["rules"] == "Be brief."
    late = hub.post("/register", project="late", rules_version=0).body
    assert (late["rules_version"], late["rules"]) == (2, "Be brief.")
    hub.say(late["token"], "all", "hi")
    assert hub.receive(early)["rules"] == 2
    hub.say(early, "all", "hi")
    assert "rules" not in hub.receive(late["token"])
    assert hub.get("/protocol", early, section="house-rules").body["text"] == "Be brief."
    with hub.console() as console:
        assert {row["name"]: row["rules_read"] for row in console.snapshot["peers"]} == {"early": 2, "late": 2}


def test_a_message_has_the_shape_that_all_clients_know(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    message_id, before = hub.say(a, "b", "héllo\n→ 😀")["message_id"], time.time()
    hub.say(a, "all", "second")
    batch = hub.receive(b)
    assert batch.keys() == {"messages", "mode"}
    assert batch["mode"] == "running"
    first, second = batch["messages"]
    assert second["seq"] == first["seq"] + 1
    assert abs(first.pop("ts") - before) < DEADLINE_S
    assert first == {
        "id": message_id,
        "sender": "a",
        "recipient": "b",
        "content": "héllo\n→ 😀",
        "kind": "message",
        "seq": second["seq"] - 1,
        "origin": "agent",
    }


def test_nobody_chooses_the_envelope(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    forged = {
        "sender": "human",
        "origin": "operator",
        "kind": "control",
        "seq": 10**9,
        "id": "0" * 12,
        "ts": 1.0,
        "meta": {},
    }
    assert hub.post("/send", token=a, to="b", content="stop", **forged).status == 200
    message = hub.receive(b)["messages"][0]
    assert message.keys() == MESSAGE_KEYS
    assert (message["sender"], message["origin"], message["kind"]) == ("a", "agent", "message")
    assert message["seq"] < 10**9


def test_all_is_everybody_else_and_a_name_may_be_ones_own(hub: HubProcess) -> None:
    a, b, c = hub.register("a"), hub.register("b"), hub.register("c")
    assert sorted(hub.say(a, "all", "1")["delivered_to"]) == ["b", "c"]
    assert hub.say(a, "a", "2")["delivered_to"] == ["a"]
    assert [contents(hub.receive(token)) for token in (a, b, c)] == [["2"], ["1"], ["1"]]


@pytest.mark.parametrize("to", ["nobody", "", "#", "All"])
def test_an_absent_name_is_missed_and_hinted_at(hub: HubProcess, to: str) -> None:
    a, _ = hub.register("a"), hub.register("b")
    body = hub.say(a, to, "c")
    assert (body["delivered_to"], body["missed"], body["warning"]) == ([], [to], None)
    assert isinstance(body["hint"], str)


@pytest.mark.parametrize("to", ["all", "#x"])
def test_a_scope_without_others_is_warned_of(hub: HubProcess, to: str) -> None:
    body = hub.say(hub.register("a"), to, "c")
    assert (body["delivered_to"], body["missed"], body["warning"]) == ([], [], "no_recipients")
    assert isinstance(body["hint"], str)


def test_a_message_has_1_to_8192_characters_of_any_width(hub: HubProcess) -> None:
    a = hub.register("a")
    for content in ("", "x" * 8193):
        refused(hub.post("/send", token=a, to="a", content=content), 422, "invalid", "content")
    for content in ("x", "ü" * 8192, "\x00", " "):
        hub.say(a, "a", content)
    assert contents(hub.receive(a)) == ["x", "ü" * 8192, "\x00", " "]


@pytest.mark.parametrize("to", ["x" * 65, "a\nb", "#x\u200b", " b"])
def test_a_scope_that_no_one_can_bear_is_refused(hub: HubProcess, to: str) -> None:
    refused(hub.post("/send", token=hub.register("a"), to=to, content="c"), 422, "invalid", "to")


def test_what_is_wrong_with_a_message_is_told_in_order(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    hub.post("/floor", token=b, action="take", reason="mine")
    while hub.post("/send", token=a, to="a", content="c").status == 200:
        pass  # until the rate is used up
    refused(hub.post("/send", token=a, to="a", content="c"), 429, "rate_limited")
    refused(hub.post("/send", token=a, to="all", content="c"), 423, "floor_held")
    hub.post("/control", action="stop")
    body = refused(hub.post("/send", token=a, to="all", content="c"), 409, "stopped")
    assert body == {"error": "stopped", "detail": "room stopped"}
    refused(hub.post("/send", token="wrong", to="all", content="c"), 401, "unknown_token")
    refused(hub.post("/send", token="wrong", to="all", content=""), 422, "invalid", "content")


def test_speech_is_throttled_after_ten_and_says_when_to_come_again(hub: HubProcess) -> None:
    a = hub.register("a")
    answers = [hub.post("/send", token=a, to="a", content="c") for _ in range(14)]
    assert [answer.status for answer in answers[:10]] == [200] * 10
    late = next(answer for answer in answers if answer.status == 429)
    assert late.body.keys() == {"error", "detail", "retry_after"}
    assert late.body["detail"] == "rate limited"
    assert 0 < late.body["retry_after"] <= 0.5
    assert late.headers["retry-after"] == "1"


def test_a_held_floor_refuses_its_scope_only_and_costs_no_rate(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    hub.post("/floor", token=a, action="take", reason="planning")
    for _ in range(15):
        body = refused(hub.post("/send", token=b, to="all", content="c"), 423, "floor_held")
    assert (body["scope"], body["held_by"], body["reason"]) == ("all", "a", "planning")
    assert isinstance(body["hint"], str)
    hub.say(b, "a", "direct")
    hub.say(b, "#x", "elsewhere")
    hub.say(a, "all", "the holder")
    assert hub.post("/ask", token=b, title="t", fields=[FIELD]).status == 200
    with hub.console() as console:
        console.send(say="the operator", to="all")
        console.message(content="the operator")
        console.send(cancel_form=console.snapshot["forms"][0]["id"])
        console.next("form_resolved")


def test_the_sender_is_told_whose_mailbox_lost_its_oldest(fast: HubProcess) -> None:
    a, _ = fast.register("a"), fast.register("b")
    for n in range(1000):
        assert "overflowed" not in fast.say(a, "b", str(n))
    body = fast.say(a, "b", "one too many")
    assert (body["delivered_to"], body["overflowed"]) == (["b"], ["b"])
    notice = fast.get("/export").body["messages"][-2]
    assert notice["content"].startswith("b's mailbox is full")


# --- GET /receive: waiting ---


@pytest.mark.parametrize("timeout", ["0", "-1", "-inf", "0.0", "-1e999"])
def test_a_poll_without_a_wait_is_answered_at_once(hub: HubProcess, timeout: str) -> None:
    assert hub.get("/receive", hub.register("a"), timeout=timeout).body == {"messages": [], "mode": "running"}


@pytest.mark.parametrize("timeout", ["nan", "-NaN", "x", "", "1s", "0x10"])
def test_a_wait_must_be_a_number(hub: HubProcess, timeout: str) -> None:
    refused(hub.get("/receive", hub.register("a"), timeout=timeout), 422, "invalid", "timeout")


@pytest.mark.parametrize("timeout", ["inf", "1e999", "1e308", "26", None])
def test_an_absurd_wait_is_clamped_and_served(hub: HubProcess, timeout: str | None) -> None:
    a = hub.register("a")
    path = "/receive" if timeout is None else f"/receive?timeout={timeout}"
    with Raw(hub.port) as raw:
        raw.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {a}\r\n\r\n".encode())
        eventually(lambda: hub.is_listening("a"), "a parked poll")
        hub.say(a, "a", "c")
        assert contents(got(raw).body) == ["c"]


def test_a_quiet_poll_ends_empty_at_its_deadline(hub: HubProcess) -> None:
    a, started = hub.register("a"), time.monotonic()
    assert hub.receive(a, 0.4) == {"messages": [], "mode": "running"}
    assert 0.3 < time.monotonic() - started < DEADLINE_S
    assert hub.get("/ping", peer="a").body["listening"] is False


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("ack_seq=x", "ack_seq"),
        ("ack_seq=1.5", "ack_seq"),
        ("ack_seq=", "ack_seq"),
        ("ack_seq=" + "9" * 5000, "ack_seq"),
        (f"lease={'x' * 65}", "lease"),
    ],
)
def test_a_polls_query_is_checked(hub: HubProcess, query: str, field: str) -> None:
    answer = hub.request("GET", f"/receive?timeout=0&{query}", headers={"Authorization": f"Bearer {hub.register('a')}"})
    body = refused(answer, 422, "invalid", field)
    assert body["detail"][0]["loc"] == ["query", field]


def test_a_query_of_countless_parameters_is_refused(hub: HubProcess) -> None:
    refused(hub.request("GET", "/ping?" + "a=1&" * 1000 + "peer=a"), 422, "invalid", "query")


def test_a_poll_gets_everything_that_waits_in_order(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    hub.say(a, "b", "1")
    with hub.console() as console:
        console.send(say="2", to="b")
        console.message(content="2")
    hub.say(a, "all", "3")
    batch = hub.receive(b)["messages"]
    assert [m["content"] for m in batch] == ["1", "2", "3"]
    assert [m["seq"] for m in batch] == sorted(m["seq"] for m in batch)
    assert (batch[1]["sender"], batch[1]["origin"], batch[1]["kind"]) == ("human", "operator", "message")


def test_a_parked_poll_is_woken_by_a_message(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    with park(hub, "b", b) as poll:
        hub.say(a, "all", "c")
        assert contents(got(poll).body) == ["c"]


# --- GET /receive: one listener per mailbox ---


def test_a_new_lease_takes_over_and_the_old_one_stays_out(hub: HubProcess) -> None:
    a = hub.register("a")
    with park(hub, "a", a, lease="old") as old, park(hub, "a", a, lease="new") as new:
        displaced = got(old)
        assert (displaced.status, displaced.body) == (
            409,
            {"error": "already_listening", "detail": "already_listening"},
        )
        for _ in range(3):
            refused(hub.get("/receive", a, timeout=0, lease="old"), 409, "already_listening")
        hub.say(a, "a", "c")
        assert contents(got(new).body) == ["c"]
    assert hub.receive(a, lease="new")["messages"] == []


def test_a_third_lease_may_take_over_from_the_second(hub: HubProcess) -> None:
    a = hub.register("a")
    for lease in ("one", "two", "three"):
        assert hub.receive(a, lease=lease)["messages"] == []
    for lease in ("one", "two"):
        refused(hub.get("/receive", a, timeout=0, lease=lease), 409, "already_listening")
    assert hub.receive(a, lease="three")["messages"] == []


def test_the_same_lease_again_supersedes_its_own_poll_quietly(hub: HubProcess) -> None:
    a = hub.register("a")
    with park(hub, "a", a, lease="one") as old, Raw(hub.port) as new:
        new.send(receive_request(a, lease="one"))
        quiet = got(old)
        assert (quiet.status, quiet.body) == (200, {"messages": [], "mode": "running"})
        hub.say(a, "a", "c")
        assert contents(got(new).body) == ["c"]


def test_a_poll_without_a_lease_is_never_refused_at_its_start(hub: HubProcess) -> None:
    a = hub.register("a")
    with park(hub, "a", a, lease="one") as leased:
        assert hub.receive(a) == {"messages": [], "mode": "running"}
        assert got(leased).status == 409
    with park(hub, "a", a) as first, Raw(hub.port) as second:
        second.send(receive_request(a))
        assert got(first).status == 409
        hub.say(a, "a", "c")
        assert contents(got(second).body) == ["c"]
    refused(hub.get("/receive", a, timeout=0, lease="one"), 409, "already_listening")


def test_an_empty_lease_is_no_lease(hub: HubProcess) -> None:
    a = hub.register("a")
    hub.receive(a, lease="one")
    assert hub.receive(a, lease="")["messages"] == []


def test_leases_are_each_peers_own(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    with park(hub, "a", a, lease="same") as one, park(hub, "b", b, lease="same") as other:
        hub.say(a, "b", "c")
        assert contents(got(other).body) == ["c"]
        hub.say(b, "a", "d")
        assert contents(got(one).body) == ["d"]


def test_an_acknowledgement_counts_even_when_its_poll_is_refused(hub: HubProcess) -> None:
    a = hub.register("a")
    hub.say(a, "a", "c")
    seq = hub.receive(a, lease="old")["messages"][0]["seq"]
    assert contents(hub.receive(a, lease="new")) == ["c"]
    refused(hub.get("/receive", a, timeout=0, lease="old", ack_seq=seq), 409, "already_listening")
    assert hub.receive(a, lease="newer")["messages"] == []


# --- GET /receive and POST /ack: what is not acknowledged comes again ---


def test_a_new_lease_gets_what_the_old_one_did_not_acknowledge(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    for text in ("1", "2", "3"):
        hub.say(a, "b", text)
    batch = hub.receive(b, lease="one")["messages"]
    assert hub.receive(b, lease="one")["messages"] == []  # the same listener has them
    told = {"acked": True, "seq": batch[0]["seq"], "mode": "running"}
    assert hub.post("/ack", token=b, seq=batch[0]["seq"]).body == told
    hub.say(a, "b", "4")
    assert contents(hub.receive(b, lease="two")) == ["2", "3", "4"]
    assert hub.receive(b, lease="two", ack_seq=batch[2]["seq"])["messages"] == []
    assert contents(hub.receive(b, lease="three")) == ["4"]


def test_what_comes_again_is_the_same_message(hub: HubProcess) -> None:
    a = hub.register("a")
    hub.say(a, "a", "c")
    assert hub.receive(a, lease="one") == hub.receive(a, lease="two")


def test_who_never_acknowledges_and_has_no_lease_sees_each_message_once(hub: HubProcess) -> None:
    a = hub.register("a")
    hub.say(a, "a", "c")
    with Raw(hub.port) as one, Raw(hub.port) as other:
        assert contents(got(one.send(receive_request(a, timeout=0))).body) == ["c"]
        assert contents(got(other.send(receive_request(a, timeout=0))).body) == []


def test_who_acknowledges_gets_the_unacknowledged_again_on_a_new_connection(hub: HubProcess) -> None:
    a = hub.register("a")
    hub.say(a, "a", "1")
    with Raw(hub.port) as one, Raw(hub.port) as other:
        seq = got(one.send(receive_request(a, timeout=0))).body["messages"][0]["seq"]
        hub.post("/ack", token=a, seq=seq)
        hub.say(a, "a", "2")
        assert contents(got(one.send(receive_request(a, timeout=0))).body) == ["2"]
        assert contents(got(one.send(receive_request(a, timeout=0))).body) == []
        assert contents(got(other.send(receive_request(a, timeout=0))).body) == ["2"]


def test_an_acknowledgement_beyond_anything_frees_what_was_fetched_only(hub: HubProcess) -> None:
    a = hub.register("a")
    hub.say(a, "a", "fetched")
    hub.receive(a, lease="one")
    hub.say(a, "a", "waiting")
    assert hub.post("/ack", token=a, seq=2**63).body == {"acked": True, "seq": 2**63, "mode": "running"}
    assert contents(hub.receive(a, lease="two")) == ["waiting"]
    assert contents(hub.receive(a, lease="three")) == ["waiting"]


def test_an_acknowledgement_of_the_past_changes_nothing(hub: HubProcess) -> None:
    a = hub.register("a")
    hub.say(a, "a", "c")
    seq = hub.receive(a, lease="one")["messages"][0]["seq"]
    for past in (0, seq - 1):
        assert hub.post("/ack", token=a, seq=past).body == {"acked": True, "seq": past, "mode": "running"}
    assert contents(hub.receive(a, lease="two", ack_seq=-5)) == ["c"]


def test_peers_acknowledge_for_themselves_only(hub: HubProcess) -> None:
    a, b, c = hub.register("a"), hub.register("b"), hub.register("c")
    hub.say(c, "all", "c")
    for token in (a, b):
        seq = hub.receive(token, lease="one")["messages"][0]["seq"]
    hub.post("/ack", token=a, seq=seq)
    assert contents(hub.receive(b, lease="two")) == ["c"]
    assert contents(hub.receive(a, lease="two")) == []


def test_a_revived_peer_gets_the_unacknowledged_first(hasty: HubProcess) -> None:
    a, b = hasty.register("a"), hasty.register("b")
    hasty.say(b, "a", "1")
    hasty.say(b, "a", "2")
    first = hasty.receive(a, lease="one")["messages"][0]
    hasty.post("/ack", token=a, seq=first["seq"])
    reap(hasty, "a")
    hasty.say(b, "a", "3")
    assert contents(hasty.receive(a, lease="one")) == ["2", "3"]


# --- pause and stop ---


def test_control_sets_the_mode(hub: HubProcess) -> None:
    for action, mode in (("pause", "paused"), ("resume", "running"), ("stop", "stopped"), ("reset", "running")):
        assert hub.post("/control", action=action).body == {"mode": mode}
        assert hub.post("/control", action=action).body == {"mode": mode}


@pytest.mark.parametrize("action", ["", "PAUSE", "explode", "paused", "x" * 5000])
def test_an_unknown_action_changes_nothing(hub: HubProcess, action: str) -> None:
    body = refused(hub.post("/control", action=action), 400, "unknown_action")
    assert body["actions"] == ["pause", "resume", "stop", "reset"]


def test_a_paused_room_holds_chatter_from_a_parked_poll_and_lets_the_operator_through(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    with park(hub, "b", b) as poll, hub.console() as console:
        hub.post("/control", action="pause")
        answer = hub.say(a, "b", "held")
        assert answer["delivered_to"] == ["b"]
        console.send(say="the operator", to="b")
        first = got(poll).body
        assert (contents(first), first["mode"]) == (["the operator"], "paused")
    assert hub.receive(b) == {"messages": [], "mode": "paused"}
    with park(hub, "b", b) as poll:
        hub.post("/control", action="resume")
        last = got(poll).body
        assert (contents(last), last["mode"]) == (["held"], "running")


def test_a_paused_peer_is_held_alone(hub: HubProcess) -> None:
    a, b, c = hub.register("a"), hub.register("b"), hub.register("c")
    with hub.console() as console, park(hub, "b", b) as poll:
        console.send(pause_peer="b")
        console.message(content="b paused by the operator")
        hub.say(a, "all", "held")
        assert contents(hub.receive(c)) == ["held"]
        console.send(say="pierces", to="all")
        first = got(poll).body
        assert (contents(first), first["mode"]) == (["pierces"], "running")
        assert hub.receive(b) == {"messages": [], "mode": "running"}
        with park(hub, "b", b) as poll:
            console.send(resume_peer="b")
            assert contents(got(poll).body) == ["held"]


def test_a_stop_answers_every_poll_at_once_every_time_and_keeps_the_mailbox(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    with park(hub, "b", b) as poll:
        hub.say(b, "a", "kept")
        hub.post("/control", action="stop")
        batch = got(poll).body
    for seen in (batch, hub.receive(b, 20), hub.receive(a, 20), hub.receive(a, 20, lease="x")):
        assert seen["mode"] == "stopped"
        assert len(seen["messages"]) == 1
        stop = seen["messages"][0]
        assert stop.keys() == MESSAGE_KEYS
        assert (stop["kind"], stop["content"], stop["seq"], stop["origin"], stop["sender"]) == (
            *("control", "stop", 0, "hub", "hub"),
        )
    hub.post("/control", action="reset")
    assert contents(hub.receive(a)) == ["kept"]
    assert hub.receive(b) == {"messages": [], "mode": "running"}


def test_a_stopped_room_refuses_speech_questions_and_sticks(hub: HubProcess) -> None:
    a = hub.register("a")
    hub.post("/control", action="stop")
    refused(hub.post("/send", token=a, to="a", content="c"), 409, "stopped")
    refused(hub.post("/ask", token=a, title="t", fields=[FIELD]), 409, "stopped")
    answer = hub.post("/floor", token=a, action="take")
    assert (answer.status, answer.body["ok"], answer.body["error"]) == (200, False, "stopped")
    assert hub.get("/floor").body == {"floors": {}}
    assert hub.post("/status", token=a, status="waiting").status == 200


def test_the_operator_speaks_in_a_stopped_room_and_is_heard_after_it(hub: HubProcess) -> None:
    a = hub.register("a")
    hub.post("/control", action="stop")
    with hub.console() as console:
        console.send(say="why I stopped you", to="a")
        console.message(content="why I stopped you")
    hub.post("/control", action="reset")
    assert contents(hub.receive(a)) == ["why I stopped you"]


@pytest.mark.parametrize("verb", ["interrupt", "reset"])
def test_a_command_pierces_a_pause_and_is_handed_out_once(hub: HubProcess, verb: str) -> None:
    a = hub.register("a")
    hub.post("/control", action="pause")
    with hub.console() as console, park(hub, "a", a, lease="one") as poll:
        console.send(command=verb, to="a")
        message = got(poll).body["messages"][0]
    assert (message["kind"], message["content"], message["sender"], message["origin"]) == (
        "control",
        verb,
        "human",
        "operator",
    )
    assert message["seq"] > 0
    assert hub.receive(a, lease="two")["messages"] == []


# --- GET /peek ---


def test_peek_tells_what_waits_and_drains_nothing(hub: HubProcess) -> None:
    a = hub.register("a")
    assert hub.get("/peek", a).body == {"pending": 0, "last": None, "owes": [], "asked": []}
    hub.say(a, "a", "first")
    hub.say(a, "a", "abc")
    hub.post("/control", action="pause")
    last = {"sender": "a", "preview": "abc", "preview_truncated": False, "content_chars": 3}
    for _ in range(2):
        assert hub.get("/peek", a).body == {"pending": 2, "last": last, "owes": [], "asked": []}
    hub.post("/control", action="resume")
    assert contents(hub.receive(a)) == ["first", "abc"]
    assert hub.get("/peek", a).body == {"pending": 0, "last": None, "owes": [], "asked": []}


@pytest.mark.parametrize(
    ("length", "preview"), [(120, "é" * 120), (121, "é" * 120 + " [+1 chars]"), (8192, "é" * 120 + " [+8072 chars]")]
)
def test_peek_cuts_a_long_message(hub: HubProcess, length: int, preview: str) -> None:
    a = hub.register("a")
    hub.say(a, "a", "é" * length)
    last = hub.get("/peek", a).body["last"]
    assert last == {"sender": "a", "preview": preview, "preview_truncated": length > 120, "content_chars": length}


# --- channels ---


def test_channels_are_joined_left_and_listed(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    for _ in range(2):
        assert hub.post("/channels/join", token=b, channel="#x").body == {"joined": True, "channel": "#x"}
    hub.post("/channels/join", token=a, channel="#x")
    assert hub.get("/channels").body == {"channels": {"#x": {"topic": None, "members": ["a", "b"]}}}
    for _ in range(2):
        assert hub.post("/channels/leave", token=a, channel="#x").body == {"left": True, "channel": "#x"}
    hub.post("/channels/leave", token=b, channel="#x")
    assert hub.get("/channels").body == {"channels": {}}


CHANNEL_CALLS = ["/channels/join", "/channels/leave", "/channels/topic"]


@pytest.mark.parametrize("path", CHANNEL_CALLS)
@pytest.mark.parametrize("channel", ["x", "", "#", "all", "#" + "x" * 64, "#a\nb", "#\u200b", "# ", " #x", None])
def test_what_is_no_channel_is_refused(open_hub: HubProcess, path: str, channel: str | None) -> None:
    refused(open_hub.post(path, token="wrong", channel=channel, topic="t"), 422, "invalid", "channel")


@pytest.mark.parametrize("channel", ["#x", "#" + "x" * 63, "##", "#über uns", "#😀", "#all"])
def test_anything_after_the_hash_is_a_channel(hub: HubProcess, channel: str) -> None:
    assert hub.post("/channels/join", token=hub.register("a"), channel=channel).body["channel"] == channel
    assert channel in hub.get("/channels").body["channels"]


def test_channel_calls_are_throttled_like_speech(hub: HubProcess) -> None:
    for path in CHANNEL_CALLS:
        a = hub.register(f"peer of {path}")
        hub.post("/channels/join", token=a, channel="#x")
        statuses = [hub.post(path, token=a, channel="#x", topic="t").status for _ in range(9)]
        assert 429 in statuses + [hub.post(path, token=a, channel="#x", topic="t").status for _ in range(9)], path


def test_a_topic_is_trimmed_cleared_and_dies_with_its_channel(hub: HubProcess) -> None:
    a = hub.register("a")
    hub.post("/channels/join", token=a, channel="#x")
    for topic, kept in ((" plans ", "plans"), ("  ", None), ("x" * 200, "x" * 200), (None, None), ("last", "last")):
        assert hub.post("/channels/topic", token=a, channel="#x", topic=topic).body == {"channel": "#x", "topic": kept}
        assert hub.get("/channels").body["channels"]["#x"]["topic"] == kept
    refused(hub.post("/channels/topic", token=a, channel="#x", topic="x" * 201), 422, "invalid", "topic")
    hub.post("/channels/leave", token=a, channel="#x")
    hub.post("/channels/join", token=a, channel="#x")
    assert hub.get("/channels").body["channels"]["#x"]["topic"] is None


def test_only_members_set_the_topic(hub: HubProcess) -> None:
    body = refused(hub.post("/channels/topic", token=hub.register("a"), channel="#x", topic="t"), 403, "not_a_member")
    assert body["detail"] == "not a channel member"


def test_a_channels_messages_reach_its_members_only_and_speaking_joins(hub: HubProcess) -> None:
    a, b, c = hub.register("a"), hub.register("b"), hub.register("c")
    hub.post("/channels/join", token=b, channel="#x")
    assert hub.say(a, "#x", "1")["delivered_to"] == ["b"]
    assert hub.say(b, "#x", "2")["delivered_to"] == ["a"]
    hub.post("/channels/leave", token=b, channel="#x")
    assert hub.say(a, "#x", "3")["delivered_to"] == []
    hub.say(a, "all", "marker")
    assert [contents(hub.receive(token)) for token in (a, b, c)] == [["2"], ["1", "marker"], ["marker"]]


# --- the floor ---


def floor(hub: HubProcess, token: str, action: str, **more: Any) -> Any:
    answer = hub.post("/floor", token=token, action=action, **more)
    assert answer.status == 200, answer.text
    return answer.body


def test_the_stick_goes_round_in_the_order_of_hands(hub: HubProcess) -> None:
    a, b, c = hub.register("a"), hub.register("b"), hub.register("c")
    assert floor(hub, a, "take", reason=" plan ") == {"ok": True, "scope": "all", "holder": "a", "reason": "plan"}
    taken = floor(hub, b, "take", reason="me too")
    wanted = {"ok": False, "error": "floor_held", "scope": "all", "held_by": "a", "reason": "plan", "position": 1}
    assert wanted.items() <= taken.items()
    assert floor(hub, c, "raise") == {"ok": True, "scope": "all", "position": 2}
    assert floor(hub, c, "raise") == {"ok": True, "scope": "all", "position": 2}
    assert floor(hub, a, "raise") == {"ok": True, "scope": "all", "position": 0}
    stick = hub.get("/floor").body["floors"]["all"]
    assert stick.keys() == FLOOR_KEYS
    assert abs(stick["since"] - time.time()) < DEADLINE_S
    assert (stick["scope"], stick["holder"], stick["reason"], stick["hands"]) == ("all", "a", "plan", ["b", "c"])
    for _ in range(2):
        assert floor(hub, b, "lower") == {"ok": True, "scope": "all"}
    assert floor(hub, a, "pass") == {"ok": True, "scope": "all", "passed_to": "c"}
    assert hub.get("/floor").body["floors"]["all"]["reason"] == "plan"
    assert floor(hub, c, "pass") == {"ok": True, "scope": "all", "released": True}
    assert hub.get("/floor").body == {"floors": {}}


def test_dropping_the_stick_discards_the_queue(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    floor(hub, a, "take")
    floor(hub, b, "raise")
    assert floor(hub, a, "drop") == {"ok": True, "scope": "all", "released": True}
    assert hub.get("/floor").body == {"floors": {}}


def test_taking_again_replaces_the_reason_if_there_is_one(hub: HubProcess) -> None:
    a = hub.register("a")
    for given, kept in (("one", "one"), (None, "one"), ("  ", "one"), ("two", "two")):
        assert floor(hub, a, "take", reason=given)["reason"] == kept


@pytest.mark.parametrize("action", ["raise", "lower", "pass", "drop"])
def test_without_a_stick_there_is_nothing_to_do(hub: HubProcess, action: str) -> None:
    wanted = {"ok": False, "error": "no_floor", "scope": "all"}
    assert wanted.items() <= floor(hub, hub.register("a"), action).items()


@pytest.mark.parametrize("action", ["pass", "drop"])
def test_only_the_holder_gives_the_stick_away(hub: HubProcess, action: str) -> None:
    a, b = hub.register("a"), hub.register("b")
    floor(hub, a, "take")
    wanted = {"ok": False, "error": "not_holder", "scope": "all", "held_by": "a"}
    assert wanted.items() <= floor(hub, b, action).items()


def test_a_channels_stick_is_for_its_members(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    assert {"ok": False, "error": "not_a_member", "scope": "#x"}.items() <= floor(hub, a, "take", scope="#x").items()
    hub.post("/channels/join", token=a, channel="#x")
    assert floor(hub, a, "take", scope="#x")["holder"] == "a"
    assert floor(hub, b, "take")["holder"] == "b"  # another lane
    assert hub.get("/floor").body["floors"].keys() == {"#x", "all"}


def test_every_change_of_the_stick_is_told_to_its_scope(hub: HubProcess) -> None:
    a, b, c = hub.register("a"), hub.register("b"), hub.register("c")
    for token in (a, b):
        hub.post("/channels/join", token=token, channel="#x")
    floor(hub, a, "take", scope="#x", reason="plans")
    floor(hub, b, "raise", scope="#x")
    floor(hub, a, "pass", scope="#x")
    floor(hub, b, "drop", scope="#x")
    for token in (a, b):
        batch = hub.receive(token)["messages"]
        assert {(m["sender"], m["recipient"], m["kind"], m["origin"]) for m in batch} == {
            ("hub", "#x", "system", "hub")
        }
        assert all(m["seq"] > 0 for m in batch)
        taken, passed, dropped = (m["content"] for m in batch)
        assert ("a" in taken, "plans" in taken, "b" in passed, "plans" in passed, "b" in dropped) == (True,) * 5
    assert hub.receive(c)["messages"] == []


def test_no_stick_outlives_its_holder(hub: HubProcess) -> None:
    a, b, c = hub.register("a"), hub.register("b"), hub.register("c")
    for token in (a, b, c):
        hub.post("/channels/join", token=token, channel="#x")
        floor(hub, token, "take", scope="#x")
    hub.post("/channels/leave", token=a, channel="#x")
    assert hub.get("/floor").body["floors"]["#x"]["holder"] == "b"
    hub.post("/leave", token=b)
    assert hub.get("/floor").body["floors"]["#x"]["holder"] == "c"
    with hub.console() as console:
        console.send(kick="c")
        console.message(content="c was kicked by the operator")
    assert hub.get("/floor").body == {"floors": {}}


def test_what_is_wrong_with_a_floor_call_is_told_in_order(hub: HubProcess) -> None:
    a = hub.register("a")
    while hub.post("/send", token=a, to="a", content="c").status == 200:
        pass
    refused(hub.post("/floor", token=a, action="take"), 429, "rate_limited")
    refused(hub.post("/floor", token="wrong", action="take"), 401, "unknown_token")
    answer = hub.post("/floor", token="wrong", action="x")
    assert refused(answer, 400, "unknown_action")["detail"] == "unknown action 'x'"
    refused(hub.post("/floor", token="wrong", action="x", reason="x" * 281), 422, "invalid", "reason")


@pytest.mark.parametrize("scope", ["", "a", "All", "#", "#" + "x" * 64, "#\n"])
def test_a_stick_has_the_scope_of_all_or_of_a_channel(hub: HubProcess, scope: str) -> None:
    refused(hub.post("/floor", token=hub.register("a"), action="take", scope=scope), 422, "invalid", "scope")


def test_there_are_at_most_128_hands(fast: HubProcess) -> None:
    floor(fast, fast.register("holder"), "take")
    peers = [fast.register(f"p{n}") for n in range(129)]
    assert [floor(fast, token, "raise")["position"] for token in peers[:128]] == [*range(1, 129)]
    refused(fast.post("/floor", token=peers[128], action="raise"), 409, "too_many_hands")
    assert floor(fast, peers[0], "raise")["position"] == 1


# --- forms and decisions ---


def ask(hub: HubProcess, token: str, *fields: dict[str, Any], to: str = "all", title: str = "Which way?") -> str:
    answer = hub.post("/ask", token=token, to=to, title=title, fields=[*fields] or [FIELD])
    assert answer.status == 200, answer.text
    assert answer.body == {"form_id": answer.body["form_id"], "to": to}
    return str(answer.body["form_id"])


def settle(hub: HubProcess, form_id: str, answers: Any) -> Any:
    """Answer (or with None: cancel) as the operator; give the frame that came of it."""
    with hub.console() as console:
        console.send(
            **({"cancel_form": form_id} if answers is None else {"answer": {"id": form_id, "answers": answers}})
        )
        return console.next("form_resolved", "error")


def test_a_question_is_listed_until_it_is_settled(hub: HubProcess) -> None:
    form_id = ask(hub, hub.register("a"), {**FIELD, "required": True}, RADIO)
    form = hub.get("/forms").body["forms"][0]
    assert form.keys() == FORM_KEYS
    assert abs(form.pop("ts") - time.time()) < DEADLINE_S
    assert form == {
        "id": form_id,
        "title": "Which way?",
        "asker": "a",
        "to": "all",
        "fields": [
            {**FIELD, "options": [], "required": True, "allow_other": False},
            {**RADIO, "required": False, "allow_other": False},
        ],
        "status": "pending",
        "answers": None,
        "seq": 0,
    }
    settle(hub, form_id, None)
    assert hub.get("/forms").body == {"forms": []}


def test_an_answer_reaches_the_audience_with_all_that_it_settles(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    form_id = ask(hub, a, FIELD, {**RADIO, "type": "checkbox"})
    resolved = settle(hub, form_id, {"k": "left", "r": ["b", "a"]})
    assert resolved == {
        "type": "form_resolved",
        "id": form_id,
        "status": "answered",
        "answers": {"k": "left", "r": ["b", "a"]},
    }
    for token in (a, b):
        message = hub.receive(token)["messages"][0]
        assert message.keys() == MESSAGE_KEYS | {"meta"}
        assert (message["kind"], message["sender"], message["origin"], message["recipient"]) == (
            "answer",
            "human",
            "operator",
            "all",
        )
        assert message["seq"] > 0
        assert message["meta"] == {
            "form_id": form_id,
            "title": "Which way?",
            "status": "answered",
            "answers": {"k": "left", "r": ["b", "a"]},
            "asker": "a",
            "to": "all",
        }
        assert "Which?: left" in message["content"]
        assert "One?: b, a" in message["content"]
    assert settle(hub, form_id, {"k": "right"})["reason"] == "unknown_form"
    assert settle(hub, form_id, None)["reason"] == "unknown_form"


def test_a_cancelled_question_is_told_as_well(hub: HubProcess) -> None:
    a = hub.register("a")
    form_id = ask(hub, a)
    assert settle(hub, form_id, None) == {"type": "form_resolved", "id": form_id, "status": "cancelled"}
    meta = hub.receive(a)["messages"][0]["meta"]
    assert (meta["status"], meta["answers"]) == ("cancelled", None)


def test_a_question_to_a_channel_joins_it_and_stays_in_it(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    form_id = ask(hub, a, to="#x")
    assert hub.get("/channels").body["channels"]["#x"]["members"] == ["a"]
    settle(hub, form_id, {"k": "v"})
    assert len(hub.receive(a)["messages"]) == 1
    assert hub.receive(b)["messages"] == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"title": ""}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"fields": []}, "fields"),
        ({"fields": None}, "fields"),
        ({"fields": {}}, "fields"),
        ({"fields": ["x"]}, "fields"),
        ({"fields": [{**FIELD, "key": f"k{n}"} for n in range(21)]}, "fields"),
        ({"fields": [{**FIELD, "key": ""}]}, "key"),
        ({"fields": [{**FIELD, "key": "x" * 65}]}, "key"),
        ({"fields": [{**FIELD, "label": ""}]}, "label"),
        ({"fields": [{**FIELD, "label": "x" * 201}]}, "label"),
        ({"fields": [{**FIELD, "type": "select"}]}, "type"),
        ({"fields": [{**RADIO, "options": [str(n) for n in range(33)]}]}, "options"),
        ({"fields": [{**RADIO, "options": ["a", "a"]}]}, "options"),
        ({"to": "b"}, "to"),
        ({"to": ""}, "to"),
        ({"to": "#"}, "to"),
    ],
)
def test_a_malformed_question_is_refused(hub: HubProcess, change: dict[str, Any], field: str) -> None:
    body = {"token": hub.register("a"), "to": "all", "title": "t", "fields": [FIELD], **change}
    refused(hub.post("/ask", **body), 422, "invalid", field)
    assert hub.get("/forms").body == {"forms": []}


@pytest.mark.parametrize(
    ("fields", "culprit"),
    [
        ([{**RADIO, "options": []}], "r"),
        ([{**FIELD, "type": "radio"}], "k"),
        ([{**FIELD, "type": "checkbox"}], "k"),
        ([{**FIELD, "options": ["a"]}], "k"),
        ([{**FIELD, "type": "textarea", "options": ["a"]}], "k"),
        ([FIELD, FIELD], "fields"),
    ],
)
def test_a_question_that_contradicts_itself_is_refused(hub: HubProcess, fields: list[Any], culprit: str) -> None:
    refused(hub.post("/ask", token=hub.register("a"), title="t", fields=fields), 422, "invalid_form", culprit)


def test_a_question_may_be_as_large_as_its_bounds(hub: HubProcess) -> None:
    fields = [
        {**RADIO, "key": f"{n}".ljust(64), "label": "l" * 200, "options": [f"{o}" for o in range(32)]}
        for n in range(20)
    ]
    settle(hub, ask(hub, hub.register("a"), *fields, title="t" * 200), None)


def test_what_is_wrong_with_a_question_is_told_in_order(hub: HubProcess) -> None:
    a = hub.register("a")
    while hub.post("/send", token=a, to="a", content="c").status == 200:
        pass
    refused(hub.post("/ask", token=a, title="t", fields=[FIELD]), 429, "rate_limited")
    hub.post("/control", action="stop")
    assert refused(hub.post("/ask", token=a, title="t", fields=[FIELD]), 409, "stopped")["detail"] == "room stopped"
    refused(hub.post("/ask", token="wrong", title="t", fields=[FIELD]), 401, "unknown_token")
    refused(hub.post("/ask", token="wrong", title="", fields=[FIELD]), 422, "invalid", "title")


def test_at_most_256_questions_are_pending(fast: HubProcess) -> None:
    a = fast.register("a")
    ids = [ask(fast, a) for _ in range(256)]
    assert len(set(ids)) == 256
    refused(fast.post("/ask", token=a, title="t", fields=[FIELD]), 422, "too_many_forms")
    with fast.console() as console:
        for form_id in ids:
            console.send(cancel_form=form_id)
        for form_id in ids:
            assert console.next("form_resolved")["id"] == form_id
    settle(fast, ask(fast, a), None)


def test_decisions_are_told_to_whom_they_concern(guarded: HubProcess) -> None:
    a, b = guarded.register("a", bearer=KEY), guarded.register("b", bearer=KEY)
    with guarded.console(OPERATOR) as console:
        for number, to in enumerate(("all", "#x", "all")):
            form_id = ask(guarded, a, title=f"q{number}", to=to)
            console.send(answer={"id": form_id, "answers": {"k": "yes"}})
            console.next("form_resolved")
    titles = lambda token, **query: [  # noqa: E731
        row["title"] for row in guarded.get("/decisions", token, **query).body["decisions"]
    ]
    for who in (OPERATOR, OBSERVER, a):
        assert titles(who)[-3:] == ["q0", "q1", "q2"]
    assert titles(b)[-2:] == ["q0", "q2"]
    assert titles(OPERATOR, limit=1) == ["q2"]
    row = guarded.get("/decisions", OPERATOR, limit=1).body["decisions"][0]
    assert abs(row.pop("ts") - time.time()) < DEADLINE_S
    assert 0 <= time.time() - row.pop("asked_ts") < DEADLINE_S
    about = {"id": form_id, "to": "all", "reason": None}  # ours
    assert row == {"asker": "a", "title": "q2", "status": "answered", "answer_summary": "Which?: yes", **about}
    guarded.post("/channels/leave", token=a, channel="#x")
    assert "q1" not in titles(a)


@pytest.mark.parametrize("limit", ["0", "501", "-1", "x", "", "1.5", "nan"])
def test_decisions_are_1_to_500(hub: HubProcess, limit: str) -> None:
    refused(hub.get("/decisions", hub.register("a"), limit=limit), 422, "invalid", "limit")


# --- GET /export ---


@pytest.mark.parametrize(
    ("wanted", "ending", "content_type"),
    [
        *((w, "json", "application/json") for w in (None, "json", "JSON", "", "pdf", "é")),
        *((w, "md", "text/markdown; charset=utf-8") for w in ("markdown", "md", "MarkDown", " md ")),
        *((w, "txt", "text/plain; charset=utf-8") for w in ("text", "txt", "plain", "TXT")),
    ],
)
def test_a_transcript_comes_as_a_file(open_hub: HubProcess, wanted: str | None, ending: str, content_type: str) -> None:
    answer = open_hub.request("GET", "/export", params={} if wanted is None else {"format": wanted})
    assert answer.status == 200
    assert answer.headers["content-type"] == content_type
    assert answer.headers["content-disposition"] == f'attachment; filename="caucus-chat.{ending}"'


def test_the_json_transcript_has_messages_and_notices(hub: HubProcess) -> None:
    a = hub.register("a")
    hub.say(a, "all", "grüße 😀")
    body = hub.get("/export").body
    assert body.keys() == {"version", "said", "left_out", "since", "messages", "count"}
    assert (body["said"], body["since"]) == (max(m["seq"] for m in body["messages"]), body["messages"][0]["ts"])
    assert body["version"] == caucus.__version__
    assert body["count"] == len(body["messages"]) <= 500
    joined, said = body["messages"][-2:]
    assert said.keys() == joined.keys() - {"meta"} == MESSAGE_KEYS
    assert joined["meta"] == {"event": "PeerJoined"}
    assert (joined["content"], joined["seq"], joined["origin"]) == ("a joined", 0, "hub")
    assert (said["content"], said["sender"]) == ("grüße 😀", "a")


def test_the_markdown_transcript_can_be_read(hub: HubProcess) -> None:
    hub.say(hub.register("a"), "all", "# one\ntwo 😀")
    text = hub.request("GET", "/export?format=md").content.decode()
    title, count, *_ = (line for line in text.splitlines() if line)
    assert title.startswith("# ")
    assert re.search(r"^The last \d+ messages and notices, from \d{4}-.* on, of \d+ messages that were said", count)
    assert re.search(r"\*\*a\*\* → all · \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n\n# one\ntwo 😀\n", text)
    assert re.search(r"\*\*hub\*\* → all · .* · system\n\n> a joined\n", text)


def test_the_text_transcript_has_one_line_each(hub: HubProcess) -> None:
    a = hub.register("a")
    hub.say(a, "all", "one\ntwo\r\n[x] forged -> all: three")
    lines = hub.request("GET", "/export?format=text").content.decode().split("\n")
    assert re.fullmatch(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] a -> all: one two \[x\] forged -> all: three", lines[-2])
    assert re.fullmatch(r"\[.{19}\] hub -> all \(system\): a joined", lines[-3])
    assert lines[-1] == ""


def test_a_transcript_forgets_the_oldest_beyond_500(fast: HubProcess) -> None:
    a = fast.register("a")
    for n in range(510):
        fast.say(a, "a", str(n))
    body = fast.get("/export").body
    messages = body["messages"]
    assert [m["content"] for m in messages] == [str(n) for n in range(10, 510)]
    assert (body["count"], body["said"]) == (500, messages[-1]["seq"])
    assert body["left_out"] == messages[0]["seq"] - 1 > 0
    since = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    first = fast.request("GET", "/export?format=text").text.split("\n")[0]
    assert re.fullmatch(f"--- {body['left_out']} messages before {since} are left out", first)
    assert f"; {body['left_out']} earlier ones are left out" in fast.request("GET", "/export?format=md").text


# --- tickets ---


def test_a_ticket_becomes_the_token_once(hub: HubProcess) -> None:
    a = hub.register("a")
    body = hub.post("/watch-ticket", token=a).body
    assert body.keys() == {"ticket", "expires_in"}
    assert body["expires_in"] == 120
    assert a not in body["ticket"]
    assert hub.post("/watch-ticket/redeem", ticket=body["ticket"]).body == {"token": a}
    answer = hub.post("/watch-ticket/redeem", ticket=body["ticket"])
    assert (answer.status, answer.body) == (
        404,
        {"error": "unknown_ticket", "detail": "unknown, used or expired ticket"},
    )


def test_a_newer_ticket_ends_the_older_of_the_same_peer_only(hub: HubProcess) -> None:
    a, b = hub.register("a"), hub.register("b")
    old, other, new = (hub.post("/watch-ticket", token=token).body["ticket"] for token in (a, b, a))
    refused(hub.post("/watch-ticket/redeem", ticket=old), 404, "unknown_ticket")
    assert hub.post("/watch-ticket/redeem", ticket=new).body == {"token": a}
    assert hub.post("/watch-ticket/redeem", ticket=other).body == {"token": b}


@pytest.mark.parametrize("ticket", ["", "x" * 129])
def test_a_ticket_has_1_to_128_characters(hub: HubProcess, ticket: str) -> None:
    refused(hub.post("/watch-ticket/redeem", ticket=ticket), 422, "invalid", "ticket")


@pytest.mark.parametrize("ticket", ["x", "x" * 128, "é", "\x00"])
def test_an_unknown_ticket_is_a_404(hub: HubProcess, ticket: str) -> None:
    refused(hub.post("/watch-ticket/redeem", ticket=ticket), 404, "unknown_ticket")


def test_a_ticket_lasts_two_minutes(room: RecordingRoom, clock: FakeClock) -> None:
    polls = caucus.Polls(room, clock, lambda when, callback: None)
    gate = caucus.Gate(caucus.Settings(), room, polls, clock)
    early, late = gate.new_ticket("one"), gate.new_ticket("two")
    clock.advance(119)
    assert gate.redeem(early) == "one"
    clock.advance(2)
    with pytest.raises(caucus.UnknownTicket):
        gate.redeem(late)


# --- GET /protocol ---


def test_the_protocol_has_a_core_and_named_sections(guarded: HubProcess) -> None:
    body = guarded.get("/protocol").body
    assert body.keys() == {"version", "text", "sections", "rules", "rules_version"}
    assert body["version"] >= 25
    assert 0 < len(body["text"]) <= 4500
    assert body["sections"] == sorted(body["sections"])
    assert {"channels", "formatting", "listening-fallbacks", "operator-forms", "talking-stick"} <= {*body["sections"]}
    for name in body["sections"]:
        section = guarded.request("GET", "/protocol", params={"section": f" {name.upper()} "}).body
        assert section.keys() == {"version", "section", "text"}
        assert (section["version"], section["section"]) == (body["version"], name)
        assert section["text"].strip()


def test_an_unknown_section_names_the_known_ones(hub: HubProcess) -> None:
    known = hub.get("/protocol").body["sections"]
    answer = hub.get("/protocol", section=" Nonsense ")
    body = refused(answer, 404, "unknown_section")
    assert (body["requested"], body["sections"]) == ("nonsense", known)


@pytest.mark.parametrize("section", ["", "x" * 65])
def test_a_section_has_1_to_64_characters(hub: HubProcess, section: str) -> None:
    refused(hub.request("GET", "/protocol", params={"section": section}), 422, "invalid", "section")


# --- the page and its assets ---

FILES = ["/", *(f"/assets/{name}" for name in caucus.CONSOLE_FILES)]


@pytest.mark.parametrize("path", FILES)
def test_a_file_of_the_console_is_sent_whole_zipped_or_not_at_all(open_hub: HubProcess, path: str) -> None:
    plain = open_hub.request("GET", path, headers={"Accept-Encoding": "identity"})
    name = path.removeprefix("/assets/") if path != "/" else "index.html"
    assert plain.status == 200
    assert plain.content == (ROOT / "ui" / name).read_bytes()
    assert "content-encoding" not in plain.headers
    zipped = ask_raw(open_hub, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: br, gzip\r\n\r\n".encode())
    assert zipped.headers["content-encoding"] == "gzip"
    assert gzip.decompress(zipped.content) == plain.content
    for headers in (plain.headers, zipped.headers):
        assert headers["vary"] == "Accept-Encoding"
        assert headers["etag"] == plain.headers["etag"]
    for tag in (plain.headers["etag"], f'"x", W/{plain.headers["etag"]}'):
        same = open_hub.request("GET", path, headers={"If-None-Match": tag})
        assert (same.status, same.content, same.headers["etag"]) == (304, b"", plain.headers["etag"])
    assert open_hub.request("GET", path, headers={"If-None-Match": '"other"'}).status == 200


def test_the_console_can_be_put_on_a_home_screen(hub: HubProcess) -> None:
    page = hub.get("/").text
    [path] = re.findall(r'<link rel="manifest" href="([^"]+)"', page)
    answer = hub.get(path)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/manifest+json")
    assert answer.headers["cache-control"] == "no-cache"
    assert "manifest-src 'self'" in hub.get("/").headers["content-security-policy"]
    manifest = json.loads(answer.text)
    assert (manifest["start_url"], manifest["scope"], manifest["display"]) == ("/", "/", "standalone")
    for icon in [*manifest["icons"], {"src": "/assets/icon-192.png", "type": "image/png"}]:
        assert hub.get(icon["src"]).headers["content-type"] == icon["type"]
    picture = hub.get("/assets/icon-192.png").content
    assert (picture[:8], picture[16:24]) == (b"\x89PNG\r\n\x1a\n", struct.pack(">II", 192, 192))
    assert re.findall(r'<link rel="apple-touch-icon" href="([^"]+)"', page) == ["/assets/icon-192.png"]
    assert "serviceWorker" not in "".join(hub.get(one).text for one in FILES if one.endswith(".js"))


def test_a_304_does_not_say_that_the_file_is_empty(hub: HubProcess) -> None:
    etag = hub.get("/").headers["etag"]
    same = ask_raw(hub, f"GET / HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {etag}\r\n\r\n".encode())
    assert same.headers.get("content-length") != "0"  # RFC 9110, 8.6: the length of the 200, or none


@pytest.mark.parametrize("path", FILES)
def test_the_console_runs_its_own_scripts_only(open_hub: HubProcess, path: str) -> None:
    headers = open_hub.get(path).headers
    rules = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
    assert (rules["default-src"], rules["script-src"], rules["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"


def test_the_page_has_nothing_inline_that_the_policy_forbids(hub: HubProcess) -> None:
    page = hub.get("/").text
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page)
    assert hub.get("/").headers["content-type"] == "text/html; charset=utf-8"


def test_every_file_that_the_page_names_is_there(hub: HubProcess) -> None:
    named = re.findall(r'(?:src|href)="(/?assets/[^"]+|[^":#]+\.(?:js|css|svg))"', hub.get("/").text)
    assert named
    for path in named:
        assert hub.get(urllib.parse.urljoin("/", path)).status == 200, path


@pytest.mark.parametrize(
    "path",
    [
        *("/assets/", "/assets", "/assets/nothing.js", "/assets/app.js/", "/assets//app.js", "/assets/APP.JS"),
        *(
            "/assets/../caucus.py",
            "/assets/..%2fcaucus.py",
            "/assets/%2e%2e/caucus.py",
            "/assets/..\\caucus.py",
            "/assets/./app.js",
        ),
        *(
            "/assets//etc/passwd",
            "/assets/../../../../etc/passwd",
            "/assets/%2fetc%2fpasswd",
            "/assets/app.js%00",
            "/../caucus.py",
        ),
        *("/assets/file:///etc/passwd", "/ui/app.js", "/app.js", "/assets/index.html/..", "/caucus.py", "/assets/é"),
    ],
)
def test_nothing_else_is_served(open_hub: HubProcess, path: str) -> None:
    answer = ask_raw(open_hub, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    refused(answer, 404, "not_found")


def test_ui_without_a_handshake_asks_for_one(hub: HubProcess) -> None:
    body = refused(hub.get("/ui"), 426, "upgrade_required")
    assert body["detail"].endswith("whose page is at /")


# --- the disk log ---


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_the_disk_log_has_a_line_for_each_routed_message(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with running_hub("--log-file", str(path)) as hub:
        a, _ = hub.register("a"), hub.register("b")
        message_id = hub.say(a, "all", "grüße\n→ 😀")["message_id"]
        hub.post("/floor", token=a, action="take")
        with hub.console() as console:
            console.send(say="hello", to="nobody")
            console.next("error")
            console.send(say="hello", to="b")
            console.message(content="hello")
        eventually(lambda: len(lines_of(path)) == 3, "three lines in the log")
        hub.say(a, "b", "the last words")
    first, stick, operator, last = lines_of(path)
    assert abs(datetime.fromisoformat(first["ts"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert first.pop("ts").endswith("+00:00")
    assert first == {
        "seq": 1,
        "sender": "a",
        "recipient": "all",
        "kind": "message",
        "content": "grüße\n→ 😀",
        "meta": {"id": message_id, "delivered_to": ["b"]},
    }
    assert (stick["kind"], stick["sender"], stick["meta"]["delivered_to"]) == ("system", "hub", ["a", "b"])
    assert (operator["sender"], operator["content"]) == ("human", "hello")
    assert last["content"] == "the last words"  # written although the hub ended at once


def test_the_disk_log_is_private_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    stamp = datetime.now(UTC).isoformat()
    path.write_text(json.dumps({"ts": stamp, "content": "earlier"}) + "\n")
    path.chmod(0o644)
    for text in ("one", "two"):
        with running_hub(env={"CAUCUS_LOG_FILE": str(path)}) as hub:
            hub.say(hub.register("a"), "a", text)
    assert [line["content"] for line in lines_of(path)] == ["earlier", "one", "two"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process's files")
def test_the_disk_log_goes_on_where_a_full_disk_stopped_it(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "log.jsonl"
    with running_hub("--log-file", str(path)) as hub:
        a = hub.register("a")
        hub.say(a, "a", "before")
        eventually(lambda: path.stat().st_size > 0, "a line in the log")
        full = path.stat().st_size + 50  # in the middle of the next line
        resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
        for n in range(3):
            hub.say(a, "a", f"while it is full {n}")
        eventually(lambda: "cannot write" in hub.log, "a word on the full disk")
        resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        eventually(lambda: "again; 0 lines were lost" in hub.log, "a word on its recovery")
        hub.say(a, "a", "after")
        assert hub.log.count("disk log") == 2
    words = [line["content"] for line in lines_of(path)]
    assert words == ["before", *(f"while it is full {n}" for n in range(3)), "after"]


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc elsewhere")
@pytest.mark.parametrize("name", ["/proc/version", "/dev/null"])
def test_a_log_file_that_is_no_regular_file_is_refused_by_its_name(name: str) -> None:
    ended = failed_start("--log-file", name)
    assert ended.returncode == 3
    assert "cannot write the log file" in ended.stderr
    assert name in ended.stderr


def test_a_failed_prune_does_not_end_the_disk_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_warning: Callable[[str], None]
) -> None:
    path = tmp_path / "log.jsonl"
    monkeypatch.setattr(caucus.os, "replace", lambda *paths: (_ for _ in ()).throw(PermissionError("held open")))
    expect_warning("cannot prune")
    disk_log = caucus.DiskLog(str(path), 1.0)
    message = caucus.Message("0" * 12, "a", "b", "still written", "message", 1e9, 1, "agent")
    disk_log.on_event(caucus.MessageRouted(1, 0.0, 1e9, message, ("b",)))
    disk_log.close()
    assert [line["content"] for line in lines_of(path)] == ["still written"]


def test_the_disk_log_drops_what_is_too_old_and_what_is_not_its_own(tmp_path: Path) -> None:
    path, now = tmp_path / "log.jsonl", datetime.now(UTC)
    kept = json.dumps({"ts": (now - timedelta(minutes=50)).isoformat(), "content": "young"})
    old = [
        json.dumps({"ts": (now - timedelta(minutes=70)).isoformat(), "content": "old"}),
        "junk",
        "",
        "[]",
        "null",
        '{"ts": 5}',
    ]
    path.write_text("\n".join([*old, kept]) + "\n")
    with running_hub("--log-file", str(path), "--log-retention-hours", "1") as hub:
        hub.say(hub.register("a"), "a", "new")
        eventually(lambda: len(path.read_bytes().splitlines()) == 2, "the pruned log")
    assert [line["content"] for line in lines_of(path)] == ["young", "new"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_retention_of_0_keeps_all(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"ts":"2001-01-01T00:00:00+00:00","content":"old"}\n')
    with running_hub("--log-file", str(path), env={"CAUCUS_LOG_RETENTION_HOURS": "0"}) as hub:
        hub.say(hub.register("a"), "a", "new")
    assert [line["content"] for line in lines_of(path)] == ["old", "new"]


def failed_start(*flags: str) -> subprocess.CompletedProcess[str]:
    """Start a hub that cannot start."""
    command = [sys.executable, "-W", "error", START, "hub", "--port", "0", "--no-browser", *flags]
    return nursery.run(command)


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "in no folder"])
def test_a_log_file_that_is_none_keeps_the_hub_from_starting(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "log.jsonl", tmp_path / "target"
    if kind == "link":
        target.write_text("precious")
    if "link" in kind:
        path.symlink_to(target)
    elif kind == "folder":
        path.mkdir()
    else:
        path = tmp_path / "missing" / "log.jsonl"
    ended = failed_start("--log-file", str(path))
    assert ended.returncode == 3
    assert "Traceback" not in ended.stderr
    assert str(path if kind != "in no folder" else path.parent) in ended.stderr
    assert target.exists() == (kind == "link")
    if target.exists():
        assert target.read_text() == "precious"


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a folder away")
def test_a_log_file_in_somebody_elses_folder_keeps_the_hub_from_starting(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    ended = failed_start("--log-file", str(folder / "log.jsonl"))
    assert ended.returncode == 3
    assert "somebody else" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not [*folder.iterdir()]


# --- the process ---


def test_a_busy_port_is_explained_with_what_listens_there(hub: HubProcess) -> None:
    ended = failed_start("--port", str(hub.port))
    assert ended.returncode == 3
    assert f"another Caucus, {caucus.__version__}, runs there" in ended.stderr
    with socket.create_server(("127.0.0.1", 0)) as other:
        ended = failed_start("--port", str(other.getsockname()[1]))
    assert ended.returncode == 3
    assert "something else listens there" in ended.stderr


def test_clients_of_many_addresses_and_connections_are_served_alike(hub: HubProcess) -> None:
    a = hub.register("a")
    with httpx.Client(base_url=hub.url, trust_env=False) as client:
        assert client.post("/send", json={"token": a, "to": "a", "content": "c"}).status_code == 200
    assert contents(hub.receive(a)) == ["c"]


@pytest.mark.parametrize(("target", "status"), [
    ("http://127.0.0.1:{port}/version", 200), ("HTTP://localhost/ping?peer=nobody", 200), ("http://localhost", 200),
    ("http://localhost?a=b", 200), ("http://evil.example/version", 421), ("http:///version", 421),
])
def test_an_absolute_target_is_served_and_names_the_host(hub: HubProcess, target: str, status: int) -> None:
    with Raw(hub.port) as line:
        line.send(f"GET {target.format(port=hub.port)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer = line.answer()
        assert answer is not None
        assert answer.status == status
