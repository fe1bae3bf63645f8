"""Section 11: JSON-RPC and every revision of MCP, without a transport; coroutines are driven by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import caucus
from caucus import Call, Mcp, Prompt, RpcError, Tool, call_of, fault_in, no_report, read_rpc

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

MODERN = "2026-07-28"
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN_META = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the core waited for something")


async def echo(seat: object, given: dict[str, Any], report: object) -> caucus.Json:
    return given


async def recite(seat: object, given: dict[str, Any], report: object) -> caucus.Json:
    return "prose"


TOOLS = (
    Tool("echo", "Say it back.", {"text": {"type": "string", "maxLength": 5},
                                  "times": {"type": "integer", "default": 1, "minimum": 1}}, True, echo),
    Tool("recite", "Say something.", {}, False, recite),
)
PROMPTS = (Prompt("greet", "Greet", {"whom": "a name"}, lambda given: f"Hello {given['whom']}!"),)


@pytest.fixture
def mcp() -> Mcp:
    return Mcp(TOOLS, PROMPTS, "be brief")


def ask(mcp: Mcp, method: str, params: dict[str, Any] | None = None, revision: str = "2025-11-25") -> dict[str, Any]:
    """Ask in the era of `revision`."""
    meta = MODERN_META if revision == MODERN else {}
    return drive(mcp.answer(Call(7, method, params or {}, meta), revision, None, no_report))


def call_tool(mcp: Mcp, name: str, arguments: Any, revision: str) -> dict[str, Any]:
    return ask(mcp, "tools/call", {"name": name, "arguments": arguments}, revision)


def code_of(data: bytes) -> int:
    with pytest.raises(RpcError) as caught:
        call_of(read_rpc(data))
    return caught.value.code


# --- revisions ---
@pytest.mark.parametrize("revision", REVISIONS)
def test_a_handshake_agrees_on_every_revision_that_has_one(mcp, revision):
    assert ask(mcp, "initialize", {"protocolVersion": revision})["result"]["protocolVersion"] == revision


@pytest.mark.parametrize("wanted", [MODERN, "2023-01-01", "", "2099-01-01", None, 5])
def test_a_handshake_that_wants_another_revision_ends_with_the_newest(wanted):
    assert caucus.agreed_revision(wanted) == "2025-11-25"


def test_a_handshake_without_a_revision_is_invalid(mcp):
    assert ask(mcp, "initialize")["error"]["code"] == -32602


def test_initialize_tells_the_instructions_and_what_is_offered(mcp):
    result = ask(mcp, "initialize", {"protocolVersion": "2025-06-18"})["result"]
    assert result["instructions"] == "be brief"
    assert set(result["capabilities"]) == {"tools", "prompts"}


def test_discover_lists_all_five_revisions(mcp):
    assert ask(mcp, "server/discover", revision=MODERN)["result"]["supportedVersions"] == [*REVISIONS, MODERN]


# --- reading ---
@pytest.mark.parametrize(("data", "code"), [
    (b"{", -32700),
    (b"", -32700),
    (b"\xff", -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}', -32700),
    (b"[" * 200_000, -32700),
    (b"1" * 5_000, -32700),
    (b"[]", -32600),
    (b"null", -32600),
    (b'{"id":1,"method":"ping"}', -32600),
    (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
    (b'{"jsonrpc":"2.0","id":1}', -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":5}', -32600),
    (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
    (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
    (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32602),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":[]}}', -32602),
], ids=lambda value: repr(value)[:40])
def test_what_is_no_request_is_refused_with_the_code_of_its_fault(data, code):
    assert code_of(data) == code


def test_a_fault_names_the_request_it_is_about_where_that_is_known():
    with pytest.raises(RpcError) as caught:
        call_of({"jsonrpc": "2.0", "id": "a", "method": 5})
    assert caught.value.to_json()["id"] == "a"


@pytest.mark.parametrize("about", [0, -1, "", "x"])
def test_an_id_is_a_string_or_an_integer(about):
    assert call_of({"jsonrpc": "2.0", "id": about, "method": "ping"}) == Call(about, "ping", {}, {})


def test_a_notification_has_no_id():
    assert call_of({"jsonrpc": "2.0", "method": "notifications/initialized"}).id is None


@pytest.mark.parametrize("outcome", ["result", "error"])
def test_a_response_is_nothing_to_answer(outcome):
    assert call_of({"jsonrpc": "2.0", "id": 1, outcome: {}}) is None


def test_a_cancellation_names_what_it_cancels():
    assert Call(None, "notifications/cancelled", {"requestId": 3}, {}).cancels == 3


def test_only_a_cancellation_cancels():
    assert Call(None, "notifications/initialized", {"requestId": 3}, {}).cancels is None


@pytest.mark.parametrize(("token", "known"), [("a", "a"), (0, 0), (True, None), (1.5, None), ({}, None)])
def test_a_progress_token_is_a_string_or_an_integer(token, known):
    assert Call(1, "tools/call", {}, {"progressToken": token}).progress_token == known


# --- eras ---
@pytest.mark.parametrize(("method", "revision"), [
    ("server/discover", "2025-11-25"), ("ping", MODERN), ("nothing", "2025-11-25"), ("nothing", MODERN),
    ("resources/list", "2025-11-25"), ("logging/setLevel", MODERN),
])
def test_a_method_that_its_era_does_not_have_is_unknown(mcp, method, revision):
    assert ask(mcp, method, revision=revision)["error"]["code"] == -32601


def test_the_era_is_that_of_the_request_not_of_the_one_before(mcp):
    kinds = ["resultType" in ask(mcp, "tools/list", revision=one)["result"] for one in (MODERN, "2024-11-05", MODERN)]
    assert kinds == [True, False, True]


def test_initialize_is_a_handshake_even_with_modern_meta():
    assert not Call(1, "initialize", {}, MODERN_META).is_modern


def test_an_unsupported_modern_revision_is_told_which_ones_there_are(mcp):
    meta = {**MODERN_META, "io.modelcontextprotocol/protocolVersion": "2099-01-01"}
    error = drive(mcp.answer(Call(7, "tools/list", {}, meta), "2025-11-25", None, no_report))["error"]
    assert (error["code"], error["data"]) == (-32022, {"supported": [*REVISIONS, MODERN], "requested": "2099-01-01"})


@pytest.mark.parametrize("meta", [
    {"io.modelcontextprotocol/protocolVersion": MODERN},
    {**MODERN_META, "io.modelcontextprotocol/protocolVersion": 5},
    {**MODERN_META, "io.modelcontextprotocol/clientCapabilities": []},
])
def test_modern_meta_must_be_whole(mcp, meta):
    response = drive(mcp.answer(Call(7, "tools/list", {}, meta), "2025-11-25", None, no_report))
    assert response["error"]["code"] == -32602


@pytest.mark.parametrize("method", ["server/discover", "tools/list", "prompts/list"])
def test_a_modern_list_says_how_long_it_holds_and_for_whom(mcp, method):
    result = ask(mcp, method, revision=MODERN)["result"]
    assert (result["ttlMs"], result["cacheScope"]) == (caucus.LISTS_TTL_MS, "public")


def test_a_modern_call_says_that_it_is_complete_and_who_answers(mcp):
    result = call_tool(mcp, "recite", {}, MODERN)["result"]
    server = result["_meta"]["io.modelcontextprotocol/serverInfo"]
    assert (result["resultType"], server["name"], "ttlMs" in result) == ("complete", "caucus", False)


# --- tools and prompts ---
@pytest.mark.parametrize("revision", REVISIONS[:3])
def test_before_2025_11_25_invalid_arguments_are_a_protocol_error(mcp, revision):
    assert call_tool(mcp, "echo", {"text": 5}, revision)["error"]["code"] == -32602


@pytest.mark.parametrize("revision", ["2025-11-25", MODERN])
def test_from_2025_11_25_on_invalid_arguments_are_an_answer_that_a_model_sees(mcp, revision):
    result = call_tool(mcp, "echo", {"text": 5}, revision)["result"]
    assert (result["isError"], result["content"][0]["text"]) == (True, "Invalid arguments: text must be of type string")


@pytest.mark.parametrize("revision", [*REVISIONS, MODERN])
def test_data_is_structured_from_2025_06_18_on(mcp, revision):
    result = call_tool(mcp, "echo", {"text": "é"}, revision)["result"]
    assert result.get("structuredContent") == ({"text": "é", "times": 1} if revision >= "2025-06-18" else None)


@pytest.mark.parametrize("revision", [*REVISIONS, MODERN])
def test_prose_is_never_structured(mcp, revision):
    assert "structuredContent" not in call_tool(mcp, "recite", {}, revision)["result"]


def test_data_is_also_worded_as_text(mcp):
    content = call_tool(mcp, "echo", {"text": "é"}, "2025-11-25")["result"]["content"]
    assert json.loads(content[0]["text"]) == {"text": "é", "times": 1}


@pytest.mark.parametrize("revision", [*REVISIONS, MODERN])
@pytest.mark.parametrize("params", [{}, {"name": "none"}, {"name": 5}, {"name": "recite", "arguments": []}])
def test_an_unknown_tool_or_arguments_that_are_no_object_are_invalid(mcp, params, revision):
    assert ask(mcp, "tools/call", params, revision)["error"]["code"] == -32602


def test_a_tool_without_arguments_may_be_called_without_any(mcp):
    assert ask(mcp, "tools/call", {"name": "recite"})["result"]["content"] == [{"type": "text", "text": "prose"}]


@pytest.mark.parametrize("method", ["tools/list", "prompts/list"])
def test_there_is_one_page_so_a_cursor_is_refused(mcp, method):
    assert ask(mcp, method, {"cursor": "x"})["error"]["code"] == -32602


def test_a_listed_tool_requires_what_has_no_default(mcp):
    assert ask(mcp, "tools/list")["result"]["tools"][0]["inputSchema"]["required"] == ["text"]


def test_a_prompt_is_listed_with_its_arguments(mcp):
    arguments = [{"name": "whom", "description": "a name"}]
    listed = [{"name": "greet", "description": "Greet", "arguments": arguments}]
    assert ask(mcp, "prompts/list")["result"]["prompts"] == listed


def test_a_prompt_is_filled_in(mcp):
    result = ask(mcp, "prompts/get", {"name": "greet", "arguments": {"whom": " web "}})["result"]
    assert result["messages"] == [{"role": "user", "content": {"type": "text", "text": "Hello web!"}}]


@pytest.mark.parametrize("params", [{}, {"name": "none"}, {"name": "greet", "arguments": []},
                                    {"name": "greet", "arguments": {"whom": 5}}])
def test_an_unknown_prompt_or_arguments_that_are_no_strings_are_invalid(mcp, params):
    assert ask(mcp, "prompts/get", params)["error"]["code"] == -32602


# --- schemas ---
SCHEMA_WORDS = {"type", "description", "properties", "required", "additionalProperties", "items", "enum", "default"}
SCHEMA_WORDS |= {word for pair in caucus.BOUNDS for word in pair}


def schemas_in(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give a schema and all that are in it."""
    yield schema
    for inner in [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]:
        yield from schemas_in(inner)


def test_every_tool_of_caucus_is_written_in_the_subset_of_json_schema_that_is_held():
    schemas = [schema for tool in caucus.TOOLS for schema in schemas_in(tool.schema)]
    assert [one for one in schemas if one.get("type") not in caucus.SCHEMA_TYPES or one.keys() - SCHEMA_WORDS] == []


OBJECT = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


@pytest.mark.parametrize(("value", "schema", "fault"), [
    ("x", {"type": "string"}, None),
    (5, {"type": "string"}, "it must be of type string"),
    (None, {"type": "string"}, "it must be of type string"),
    (True, {"type": "integer"}, "it must be of type integer"),
    (True, {"type": "number"}, "it must be of type number"),
    (True, {"type": "boolean"}, None),
    (1, {"type": "boolean"}, "it must be of type boolean"),
    (1.0, {"type": "integer"}, None),
    (1.5, {"type": "integer"}, "it must be of type integer"),
    (1.5, {"type": "number"}, None),
    (0, {"type": "number", "minimum": 1}, "it is below its minimum of 1"),
    (2, {"type": "number", "maximum": 1}, "it is above its maximum of 1"),
    ("", {"type": "string", "minLength": 1}, "it is below its minLength of 1"),
    ("\U0001f600", {"type": "string", "maxLength": 1}, None),
    ("ab", {"type": "string", "maxLength": 1}, "it is above its maxLength of 1"),
    ([], {"type": "array", "minItems": 1, "items": {"type": "string"}}, "it is below its minItems of 1"),
    (["a", 5], {"type": "array", "items": {"type": "string"}}, "it[1] must be of type string"),
    ("c", {"type": "string", "enum": ["a", "b"]}, "it must be one of a, b"),
    ({}, OBJECT, "it: a is required"),
    ({"a": 1}, OBJECT, "a must be of type string"),
    ({"a": "", "b": 1}, OBJECT, "it: there is no 'b'; it takes a"),
    ({"b": 1}, {"type": "object"}, "it: there is no 'b'; it takes nothing"),
])
def test_the_first_fault_is_named(value, schema, fault):
    assert fault_in(value, schema, "it") == fault


# --- anything ---
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8)
METHODS = st.sampled_from(["initialize", "ping", "server/discover", "tools/list", "tools/call", "prompts/list",
                           "prompts/get", "notifications/cancelled"]) | st.text(max_size=10)
PARAMS = ANY_JSON | st.fixed_dictionaries({}, optional={
    "name": st.sampled_from(["echo", "recite", "greet"]) | ANY_JSON, "arguments": ANY_JSON, "cursor": ANY_JSON,
    "protocolVersion": ANY_JSON, "_meta": st.sampled_from([MODERN_META, {}]) | ANY_JSON,
})
MESSAGES = ANY_JSON | st.fixed_dictionaries({"jsonrpc": st.just("2.0")}, optional={
    "id": st.integers() | st.text(max_size=3) | ANY_JSON, "method": METHODS | ANY_JSON, "params": PARAMS})


@given(MESSAGES, st.sampled_from(REVISIONS))
def test_any_json_value_is_a_call_a_response_or_refused_and_any_call_is_answered(message, revision):
    try:
        call = call_of(message)
    except RpcError as error:
        response = error.to_json()
    else:
        if call is None:
            return
        response = drive(Mcp(TOOLS, PROMPTS, "").answer(call, revision, None, no_report))
        assert response["id"] == call.id
    assert response["jsonrpc"] == "2.0"
    assert ("result" in response) != ("error" in response)
    json.dumps(response, allow_nan=False)
