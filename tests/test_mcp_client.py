"""The official MCP client, in each of its modes, through both doors: the built caucus.pyz, and a live hub."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hubs import HubProcess, eventually, running_hub
from mcp_official import MODES, Official, built_pyz

import caucus

# Where the pinned stateless revision has no session to hold a seat, over HTTP, it is not offered.
WAYS = [(mode, door) for mode in MODES for door in ("stdio", "http") if (mode, door) != ("2026-07-28", "http")]


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with built_pyz(tmp_path_factory.mktemp("pyz")) as built:
        yield built


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProcess]:
    with running_hub() as hub:
        yield hub


def official(hub: HubProcess, pyz: Path, folder: Path, mode: str, door: str, project: str = "api") -> Official:
    """Connect one client."""
    bridge = [sys.executable, "-W", "error", str(pyz), "bridge", "--hub", hub.url]
    return Official(mode, bridge if door == "stdio" else f"{hub.url}/mcp?project={project}", folder)


@pytest.fixture(scope="module", params=WAYS, ids="-".join)
def api(
    hub: HubProcess, pyz: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Official]:
    """One client for each mode and door, which takes part in all tests."""
    mode, door = request.param
    with official(hub, pyz, tmp_path_factory.mktemp("api"), mode, door, project=f"api-{mode}") as client:
        yield client


@pytest.fixture
def seated(api: Official) -> Iterator[Official]:
    """The client, joined as api."""
    api.seat("api")
    yield api
    api.call("leave")


def test_the_connection_is_of_the_clients_era(api: Official, request: pytest.FixtureRequest) -> None:
    is_legacy = "legacy" in request.node.name or "http" in request.node.name
    assert api.hello["version"] == (caucus.HANDSHAKE_REVISIONS[-1] if is_legacy else caucus.MODERN_REVISIONS[-1])
    if "2026-07-28" not in request.node.name:  # pinned, the client asks nothing before its first call
        assert api.hello["server"]["name"] == "caucus"
        assert api.hello["instructions"] == caucus.INSTRUCTIONS


def test_before_setup_every_answer_names_the_way_out(api: Official) -> None:
    assert not api.call("whoami")["setup_done"]
    answer = api.call("list_peers")
    assert (answer["error"], "setup()" in answer["hint"]) == ("setup_required", True)


def test_all_tools_and_prompts_are_listed_as_the_table_has_them(api: Official) -> None:
    listed = api.do("tools")["tools"]
    assert [tool["name"] for tool in listed] == [tool.name for tool in caucus.TOOLS]
    assert [tool["inputSchema"] for tool in listed] == [tool.schema for tool in caucus.TOOLS]
    assert [prompt["name"] for prompt in api.do("prompts")["prompts"]] == [one.name for one in caucus.PROMPTS]


def test_what_is_said_in_any_script_arrives_as_it_was(seated: Official, hub: HubProcess) -> None:
    web = hub.register("web")
    text = "grüße 你好 🙂 \u202eabc\u202c \"quotes\" and\nlines"
    assert seated.call("say", content=text, to="web")["delivered_to"] == ["web"]
    assert hub.receive(web)["messages"][0]["content"] == text
    hub.say(web, "api", text)
    assert text in seated.call("listen", timeout=0)
    hub.clear()


def test_a_tool_that_does_not_exist_is_an_error_of_the_protocol(api: Official) -> None:
    outcome = api.do("call", "dance", {})
    assert outcome["code"] == caucus.INVALID_PARAMS
    assert "dance" in outcome["message"]


@pytest.mark.parametrize("arguments", [{}, {"content": 7}, {"content": "x" * 8193}, {"content": "x", "too": "web"}])
def test_a_wrong_argument_is_an_answer_that_names_it(api: Official, arguments: dict[str, Any]) -> None:
    outcome = api.do("call", "say", arguments)
    assert outcome["isError"]
    assert re.search("content|too", outcome["content"][0]["text"])


def test_a_prompt_carries_its_arguments(api: Official) -> None:
    words = api.do("prompt", "join", {"project": "api-2"})["messages"][0]["content"]["text"]
    assert 'project="api-2"' in words


def test_an_unknown_prompt_is_refused(api: Official) -> None:
    assert api.do("prompt", "dance", {})["code"] == caucus.INVALID_PARAMS


@pytest.mark.parametrize("api", [("legacy", "http"), ("2026-07-28", "stdio")], indirect=True, ids="-".join)
def test_who_waits_longer_than_a_while_hears_of_progress(seated: Official) -> None:
    outcome = seated.do("call", "listen", {"timeout": 5.5})
    assert outcome["reports"][0][1:] == [5.5, "api is listening"]
    assert 4.9 < outcome["reports"][0][0] < 5.5


def test_a_cancelled_listen_takes_no_message_with_it(seated: Official, hub: HubProcess) -> None:
    web = hub.register("web")
    seated.do("begin", "listen", {"timeout": 25})
    eventually(lambda: hub.is_listening("api"), "api listening")
    assert seated.do("cancel") == {"cancelled": True}
    eventually(lambda: not hub.is_listening("api"), "the poll let go")
    hub.say(web, "api", "after the cancel")
    assert "after the cancel" in seated.call("listen", timeout=5)
    hub.clear()


def messages_in(listened: str) -> list[tuple[dict[str, Any], str]]:
    """Read what a listen shows: what the hub vouches for, and the text between its fences."""
    found = re.findall(r"^(\{[^\n]*\}) [a-z' ,]+:\n<<(\w+)\n(.*?)\n\2>>$", listened, re.MULTILINE | re.DOTALL)
    return [(json.loads(about), text) for about, _, text in found]


@pytest.mark.parametrize("mode", MODES)
def test_two_agents_talk_while_the_operator_pauses_answers_and_stops(
    hub: HubProcess, pyz: Path, tmp_path: Path, mode: str
) -> None:
    names = {"stdio": f"api-{mode[:4]}", "http": f"web-{mode[:4]}"}
    with (
        official(hub, pyz, tmp_path, mode, "stdio") as api,
        official(hub, pyz, tmp_path, "legacy" if mode == MODES[-1] else mode, "http", names["http"]) as web,
        hub.console() as console,
    ):
        api.seat(names["stdio"])
        web.seat(names["http"])
        said = api.call("say", content="does the field stay?", to=names["http"], expects_answer=True)
        assert said["recipients"][names["http"]]["state"] == "queued"
        shown = web.call("listen", timeout=5)
        (about, text), = messages_in(shown)
        whence = {"sender": names["stdio"], "recipient": names["http"], "origin": "agent"}
        assert about == {"seq": said["seq"], **whence, "expects_answer": True}
        assert text == "does the field stay?"
        assert f"you owe {names['stdio']} an answer to {said['seq']}, asked " in shown

        console.send(action="pause")
        console.next("mode")
        assert "paused" in web.call("say", content="it stays", reply_to=said["seq"])["hint"]
        assert json.loads(api.call("listen", timeout=0).split("\n")[0])["mode"] == "paused"
        console.send(say="one at a time", to=names["stdio"])
        (about, text), = messages_in(api.call("listen", timeout=5))
        assert (about["origin"], text) == ("operator", "one at a time")
        console.send(action="resume")
        (about, text), = messages_in(api.call("listen", timeout=5))
        assert (about["sender"], text) == (names["http"], "it stays")
        assert (about["reply_to"], about["quote"]) == (said["seq"], "does the field stay?")
        assert "asked" not in api.call("whoami")

        field = {"key": "db", "label": "Which database?", "type": "radio", "options": ["Postgres", "SQLite"]}
        form = api.call("ask_operator", title="Database", fields=[field])["form_id"]
        console.next("form")
        console.send(answer={"id": form, "answers": {"db": "SQLite"}})
        for client in (api, web):
            (about, text), = messages_in(client.call("listen", timeout=5))
            assert (about["kind"], about["origin"]) == ("answer", "operator")
            assert about["meta"]["answers"] == {"db": "SQLite"}
        assert web.call("decisions")["decisions"][-1]["answer_summary"] == "Which database?: SQLite"

        console.send(action="stop")
        console.next("mode")
        assert json.loads(web.call("listen", timeout=25).split("\n")[0])["stop"]
        assert api.call("say", content="still here")["error"] == "stopped"
        console.send(action="reset")
        console.next("mode")
        for client in (api, web):
            assert client.call("leave")["left"]
