"""How each MCP host opens a conversation, frame by frame as recorded, and what it must hear."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import nursery
import pytest
from hubs import START, HubProcess, running_hub

import caucus

NO_HUB = "http://127.0.0.1:9"  # nobody listens there: all of this needs none
MODERN = "2026-07-28"


def modern(version: str) -> dict[str, Any]:
    """Give the envelope of each request of Claude Code's."""
    about = {"name": "claude-code", "title": "Claude Code", "version": version,
             "description": "Anthropic's agentic coding tool", "websiteUrl": "https://claude.com/claude-code"}
    capabilities = {"roots": {"listChanged": True}, "elicitation": {"form": {}, "url": {}}}
    return {caucus.META + "protocolVersion": MODERN, caucus.META + "clientInfo": about,
            caucus.META + "clientCapabilities": capabilities}


def hello(revision: str, name: str, version: str, **capabilities: Any) -> dict[str, Any]:
    """Word the handshake of a host."""
    params = {"protocolVersion": revision, "capabilities": capabilities,
              "clientInfo": {"name": name, "version": version}}
    return {"method": "initialize", "params": params, "jsonrpc": "2.0", "id": 0}


ENVELOPE = modern("2.1.330")
DISCOVER = {"jsonrpc": "2.0", "id": "server-discover-probe-1", "method": "server/discover",
            "params": {"_meta": ENVELOPE}}
INITIALIZED = {"method": "notifications/initialized", "jsonrpc": "2.0"}
CALL = {"method": "tools/call", "jsonrpc": "2.0", "id": 9,
        "params": {"name": "whoami", "arguments": {}, "_meta": {"progressToken": 9}}}

# host -> what it sends, in its order
OPENINGS: dict[str, list[dict[str, Any]]] = {
    "Claude Code 2.1.330": [
        DISCOVER,
        {"method": "prompts/list", "jsonrpc": "2.0", "id": 0, "params": {"_meta": ENVELOPE}},
        {"method": "tools/list", "jsonrpc": "2.0", "id": 1, "params": {"_meta": ENVELOPE}},
        {**CALL, "params": {**CALL["params"], "_meta": {**ENVELOPE, "claudecode/toolUseId": "t", "progressToken": 2}}},
    ],
    "Claude Code 2.1.330, whose probe timed out": [
        DISCOVER,
        hello("2025-11-25", "claude-code", "2.1.330", roots={}, elicitation={}),
        INITIALIZED,
        {"method": "tools/list", "jsonrpc": "2.0", "id": 1},
        CALL,
    ],
    "Claude Code 2.1.197": [
        hello("2025-11-25", "claude-code", "2.1.197", roots={}, elicitation={}),
        INITIALIZED,
        {"method": "tools/list", "jsonrpc": "2.0", "id": 1},
        {"method": "prompts/list", "jsonrpc": "2.0", "id": 2},
        CALL,
    ],
    "Codex 0.169.0": [
        hello("2025-06-18", "codex-mcp-client", "0.169.0", experimental={"codex/auth-change": {}}, elicitation={}),
        INITIALIZED,
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": {"progressToken": 0}}},
        {**CALL, "params": {**CALL["params"], "_meta": {"progressToken": 1, "threadId": "thread-7"}}},
    ],
    "Gemini CLI 0.61.0": [
        hello("2025-06-18", "gemini-cli-mcp-client", "0.61.0"),
        INITIALIZED,
        {"method": "ping", "jsonrpc": "2.0", "id": 1},
        {"method": "tools/list", "jsonrpc": "2.0", "id": 2},
        CALL,
    ],
    "OpenCode 1.18.33": [
        hello("2025-11-25", "opencode", "1.18.33", roots={}),
        INITIALIZED,
        {"method": "tools/list", "jsonrpc": "2.0", "id": 1},
        CALL,
    ],
}


def over_stdio(frames: list[dict[str, Any]]) -> dict[Any, Any]:
    """Say all of it to a bridge and close; give its answers by id."""
    said = "".join(json.dumps(frame) + "\n" for frame in frames)
    command = [sys.executable, "-W", "error", START, "bridge", "--hub", NO_HUB]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("CAUCUS_")}
    done = nursery.run(command, said=said, check=True, env=clean)
    assert done.stderr == ""
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == sum("id" in frame for frame in frames), "each request has one answer, a notification none"
    return {answer["id"]: answer for answer in answers}


@pytest.mark.parametrize("host", OPENINGS)
def test_every_frame_of_a_hosts_opening_is_answered_over_stdio(host: str) -> None:
    frames = OPENINGS[host]
    answers = over_stdio(frames)
    assert [one for one in answers.values() if "error" in one] == []
    for frame in frames:
        if "id" in frame:
            check(frame, answers[frame["id"]]["result"])


def check(frame: dict[str, Any], result: dict[str, Any]) -> None:
    """Assert what the host reads of an answer."""
    is_modern = caucus.META + "protocolVersion" in frame.get("params", {}).get("_meta", {})
    assert ("resultType" in result) == is_modern
    if frame["method"] == "server/discover":
        assert MODERN in result["supportedVersions"]
        assert result["instructions"] == caucus.INSTRUCTIONS
    if frame["method"] == "initialize":
        assert result["protocolVersion"] == frame["params"]["protocolVersion"]
        assert result["instructions"] == caucus.INSTRUCTIONS
    if frame["method"] == "tools/list":
        assert len(result["tools"]) == len(caucus.TOOLS)
    if frame["method"] == "prompts/list":
        assert [one["name"] for one in result["prompts"]] == ["join", "talk", "status", "leave"]
    if frame["method"] == "tools/call":
        assert result["structuredContent"]["joined"] is False


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProcess]:
    with running_hub() as hub:
        yield hub


def over_http(hub: HubProcess, frames: list[dict[str, Any]], query: str) -> dict[Any, Any]:
    """Say it to /mcp as a host does: the probe with the headers that it has, everything else in a session."""
    session: dict[str, str] = {}
    answers = {}
    for frame in frames:
        headers = {"Accept": "application/json, text/event-stream", **session}
        if caucus.META + "protocolVersion" in frame.get("params", {}).get("_meta", {}):
            headers |= {"MCP-Protocol-Version": MODERN, "Mcp-Method": frame["method"]}
            headers |= {"Mcp-Name": frame["params"]["name"]} if "name" in frame["params"] else {}
        answer = hub.request("POST", f"/mcp{query}", json=frame, headers=headers)
        if "Mcp-Session-Id" in answer.headers:
            session = {"Mcp-Session-Id": answer.headers["Mcp-Session-Id"]}
        if "id" in frame:
            answers[frame["id"]] = answer.body
        else:
            assert answer.status == 202
    return answers


def test_claude_code_is_sent_to_a_session(hub: HubProcess) -> None:
    answers = over_http(hub, [DISCOVER], "?project=api")
    assert answers["server-discover-probe-1"]["error"]["code"] == caucus.UNKNOWN_METHOD


SESSIONS = {host: [one for one in frames if one is not DISCOVER]
            for host, frames in OPENINGS.items() if host != "Claude Code 2.1.330"}


@pytest.mark.parametrize("host", SESSIONS)
def test_every_frame_of_a_hosts_session_is_answered_over_http(hub: HubProcess, host: str) -> None:
    answers = over_http(hub, SESSIONS[host], "?project=api")
    for frame in SESSIONS[host]:
        if "id" in frame:
            check(frame, answers[frame["id"]]["result"])
