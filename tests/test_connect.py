"""docs/connect.md and the program say the same: its blocks are what is printed, and each of them works."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nursery
import pytest
from hubs import DEADLINE_S, START, HubProcess, running_hub
from test_docs import code_blocks, part, rows

import caucus

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = str(ROOT / "caucus.py")
PLACEHOLDERS = {sys.executable: "python3", PROGRAM: "/path/to/caucus.pyz"}
CONNECT = (ROOT / "docs/connect.md").read_text(encoding="utf-8")
HEADINGS = {
    "claude": "## Claude Code", "codex": "## Codex", "gemini": "## Gemini CLI",
    "cursor": "## Cursor", "vscode": "## VS Code", "opencode": "## OpenCode",
}
LANGUAGES = {host: "toml" if host == "codex" else "json" for host in HEADINGS}
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("CAUCUS_")}
KEY = "the-agent-key"


def printed(host: str, *flags: str) -> str:
    """Run `bridge --print-config`; give what it prints."""
    argv = [sys.executable, "-W", "error", START, "bridge", "--print-config", host, *flags]
    return nursery.run(argv, check=True, env=CLEAN).stdout


def read_block(block: str, language: str) -> Any:
    """Parse a block as the host would."""
    return tomllib.loads(block) if language == "toml" else json.loads(block)


def blocks_of(host: str) -> list[str]:
    """List the configuration blocks that the manual has for a host, the printed one first."""
    return code_blocks(part(CONNECT, HEADINGS[host]), LANGUAGES[host])


def entry_of(config: Any) -> Any:
    """Find what a host's configuration says of the server `caucus`; None: nothing."""
    groups = (config.get(key, {}) for key in ("mcpServers", "mcp_servers", "servers", "mcp"))
    return next((group["caucus"] for group in groups if "caucus" in group), None)


def command_of(entry: Any) -> list[str]:
    """Give the command that a host would run."""
    command = entry["command"]
    return [*command, *entry.get("args", ())] if isinstance(command, list) else [command, *entry["args"]]


def asked(number: int, method: str, **params: Any) -> dict[str, Any]:
    """Word a request."""
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def greeting(number: int = 1) -> dict[str, Any]:
    """Word the handshake of a host."""
    about = {"name": "a-host", "version": "1"}
    return asked(number, "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=about)


def answers_of(command: list[str], *requests: dict[str, Any]) -> list[Any]:
    """Start a server as a host does, send these requests, close its stdin, give its answers in order."""
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    ended = subprocess.run(
        command, input=lines, capture_output=True, text=True, check=True, env=CLEAN, timeout=DEADLINE_S
    )
    assert ended.stderr == ""
    return [json.loads(line)["result"] for line in ended.stdout.splitlines()]


# --- the blocks for hosts, over stdio ---


def test_every_host_that_can_be_printed_has_its_part_and_no_other() -> None:
    assert set(HEADINGS) == set(caucus.CONFIGS)


@pytest.mark.parametrize("host", HEADINGS)
def test_the_manual_shows_the_block_that_is_printed(host: str) -> None:
    text = printed(host)
    for real, placeholder in PLACEHOLDERS.items():
        text = text.replace(json.dumps(real, ensure_ascii=False), json.dumps(placeholder))
    assert blocks_of(host)[0] == text


@pytest.mark.parametrize("host", HEADINGS)
def test_the_manual_says_where_the_printed_block_goes(host: str) -> None:
    words = part(CONNECT, HEADINGS[host]).partition("```")[0]
    assert any(f"`{where}`" in words for where in caucus.mcp_hosts()[host].servers if where)


@pytest.mark.parametrize("host", HEADINGS)
def test_the_printed_command_is_a_server_that_offers_all_tools(host: str) -> None:
    entry = entry_of(read_block(printed(host), LANGUAGES[host]))
    hello, offered = answers_of(command_of(entry), greeting(), asked(2, "tools/list"))
    assert hello["serverInfo"]["name"] == "caucus"
    assert [tool["name"] for tool in offered["tools"]] == [tool.name for tool in caucus.TOOLS]


@pytest.mark.parametrize("host", HEADINGS)
def test_what_is_given_beside_print_config_is_in_the_command(host: str) -> None:
    text = printed(host, "--hub", "http://127.0.0.1:9", "--project", 'web "2"')
    command = command_of(entry_of(read_block(text, LANGUAGES[host])))
    about = answers_of(command, greeting(), asked(2, "tools/call", name="whoami"))[1]["structuredContent"]
    assert (about["hub"], about["default_project"]) == ("http://127.0.0.1:9", 'web "2"')


def test_a_printed_block_can_be_sent_into_a_file_as_it_is() -> None:
    argv = [sys.executable, PROGRAM, "bridge", "--print-config", "claude"]
    ended = subprocess.run(argv, capture_output=True, text=True, check=True, env=CLEAN, timeout=DEADLINE_S)
    assert json.loads(ended.stdout)
    assert ".mcp.json" in ended.stderr


# --- the blocks for hosts, over HTTP ---


@pytest.fixture(scope="module")
def keyed_hub() -> Iterator[HubProcess]:
    """Run a hub that has an agent key."""
    with running_hub(env={"CAUCUS_AGENT_KEY": KEY}) as hub:
        yield hub


def http_entry_of(host: str) -> Any:
    """Find the one entry of a host's part that has a URL."""
    entries = [entry_of(read_block(block, LANGUAGES[host])) for block in blocks_of(host)]
    found = [entry for entry in entries if entry is not None and {"url", "httpUrl"} & entry.keys()]
    assert len(found) == 1
    return found[0]


def shown_headers(entry: Any) -> dict[str, str]:
    """Give the headers that a host would send, with the key where it puts what the environment or the user says."""
    if "bearer_token_env_var" in entry:
        assert entry["bearer_token_env_var"] == "CAUCUS_AGENT_KEY"
        return {"Authorization": f"Bearer {KEY}"}
    variable = re.compile(r"\$?\{(?:env:)?CAUCUS_AGENT_KEY\}|\$CAUCUS_AGENT_KEY|\$\{input:caucus-key\}")
    return {name: variable.sub(KEY, value) for name, value in entry["headers"].items()}


@contextlib.contextmanager
def session(hub: HubProcess, entry: Any) -> Iterator[tuple[httpx.Client, str]]:
    """Open an MCP session as an entry says, at `hub`; give the client and the URL."""
    url = entry.get("url") or entry["httpUrl"]
    assert url.startswith(f"{caucus.DEFAULT_URL}/mcp")
    url = url.replace(caucus.DEFAULT_URL, hub.url)
    accepted = {"Accept": "application/json, text/event-stream"}
    with httpx.Client(headers={**accepted, **shown_headers(entry)}, trust_env=False) as client:
        opened = client.post(url, json=greeting())
        assert opened.status_code == 200, opened.text
        client.headers["Mcp-Session-Id"] = opened.headers["Mcp-Session-Id"]
        yield client, url
        assert client.delete(url).status_code == 204


@pytest.mark.parametrize("host", HEADINGS)
def test_the_block_for_http_opens_a_hub_that_has_a_key(keyed_hub: HubProcess, host: str) -> None:
    with session(keyed_hub, http_entry_of(host)) as (client, url):
        offered = client.post(url, json=asked(2, "tools/list")).json()["result"]["tools"]
    assert [tool["name"] for tool in offered] == [tool.name for tool in caucus.TOOLS]


@pytest.mark.parametrize("host", [host for host in HEADINGS if host != "codex"])  # its one block serves all projects
def test_the_name_in_the_url_becomes_the_name_of_the_seat(keyed_hub: HubProcess, host: str) -> None:
    with session(keyed_hub, http_entry_of(host)) as (client, url):
        about = client.post(url, json=asked(2, "tools/call", name="whoami")).json()["result"]["structuredContent"]
    assert about["default_project"] == "api"


@pytest.mark.parametrize("host", HEADINGS)
def test_every_block_is_what_the_host_can_read(host: str) -> None:
    assert all(read_block(block, LANGUAGES[host]) for block in blocks_of(host))


# --- the commands that let Claude Code write its configuration ---


def test_the_command_line_for_claude_names_the_server_that_is_printed() -> None:
    said = re.search(r"^claude mcp add caucus -- (.+)$", CONNECT, re.MULTILINE)
    assert said is not None
    assert said[1].split() == command_of(entry_of(json.loads(blocks_of("claude")[0])))


def test_the_command_line_for_claude_over_http_says_what_the_block_says() -> None:
    line = r'^claude mcp add --transport http caucus "(.+?)" --header "(\S+): Bearer KEY"$'
    said = re.search(line, CONNECT, re.MULTILINE)
    assert said is not None
    entry = http_entry_of("claude")
    assert (said[1], [said[2]]) == (entry["url"], [*entry["headers"]])


# --- tools, prompts, codes ---


def signature(tool: caucus.Tool) -> str:
    """Write a tool's arguments as the manual does."""
    given = {name: one.get("default") for name, one in tool.arguments.items()}
    words = [f"`{name}`" if default is None else f"`{name}={json.dumps(default)}`" for name, default in given.items()]
    return ", ".join(words)


def test_the_table_of_tools_is_the_codes_in_its_order_with_all_arguments() -> None:
    table = {row[0].strip("`"): row[1] for row in rows(part(CONNECT, "## The tools"))}
    assert table == {tool.name: signature(tool) for tool in caucus.TOOLS}
    assert list(table) == [tool.name for tool in caucus.TOOLS]


def test_the_manual_counts_the_tools_right() -> None:
    assert f"The same {len(caucus.TOOLS)} by both doors." in CONNECT


def test_the_table_of_prompts_is_the_codes() -> None:
    table = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in rows(part(CONNECT, "## The prompts"))}
    assert table == {prompt.name: [*prompt.arguments] for prompt in caucus.PROMPTS}


def test_every_code_that_a_tool_can_answer_is_in_the_manual_and_no_other() -> None:
    table = part(CONNECT, "## When a tool says no").partition("| Elsewhere |")[0]
    assert sorted(row[0].strip("`") for row in rows(table)) == sorted(caucus.HINTS)


def test_every_tool_that_a_way_out_names_exists() -> None:
    table = rows(part(CONNECT, "## When a tool says no").partition("| Elsewhere |")[0])
    named = {word for row in table for word in re.findall(r"`([a-z_]+)`", row[2])}
    fields = {"sections", "retry_after"}  # of the answer
    fields |= {argument for tool in caucus.TOOLS for argument in tool.arguments}
    assert named - fields - {tool.name for tool in caucus.TOOLS} == set()


def test_every_code_that_the_manual_names_elsewhere_exists() -> None:
    named = set(re.findall(r"answers? `(\w+)`", CONNECT))
    assert named
    assert named - set(caucus.HINTS) == set()


def test_a_status_in_the_manual_is_that_of_its_code() -> None:
    told = {(code, int(status)) for status, code in re.findall(r"status (\d+) `(\w+)`", CONNECT)}
    assert told
    assert told == {(code, caucus.REFUSALS[code].status) for code, _ in told}


# --- numbers ---


@pytest.mark.parametrize(
    "words",
    [
        f"{caucus.POLL_HOLD_S:g} seconds at most",
        f"any revision from {caucus.HANDSHAKE_REVISIONS[0]} to {caucus.MODERN_REVISIONS[-1]}",
        f"Since revision {caucus.MODERN_REVISIONS[0]}",
    ],
)
def test_a_number_in_the_manual_is_the_programs(words: str) -> None:
    assert words in CONNECT


def test_a_host_that_waits_as_long_as_its_block_says_outlives_every_listen() -> None:
    entry = entry_of(tomllib.loads(blocks_of("codex")[0]))
    assert entry["tool_timeout_sec"] > caucus.POLL_HOLD_S + caucus.CLIENT_SLACK_S
