"""The documents and the code say the same: what exists is documented, and what is documented exists."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import caucus

ROOT = Path(__file__).resolve().parent.parent
FRONT = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
DOCUMENTS = (*FRONT, *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
TEXT = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
README, API, DESIGN = TEXT["README.md"], TEXT["docs/api.md"], TEXT["docs/design.md"]
OPERATING, PROTOCOL = TEXT["docs/operating.md"], TEXT["docs/protocol.md"]
SOURCE = (ROOT / "caucus.py").read_text(encoding="utf-8")
EVENTS = {kind.__name__: kind for kind in caucus.EVENTS}
REFUSALS = dict(caucus.REFUSALS)  # here, because some test may declare one of its own

ROUTES = {
    **caucus.ROUTES,
    **caucus.Replays(None, lambda call: None).routes(),
    **caucus.Grants(None).routes(),  # type: ignore[arg-type]
    **caucus.McpEndpoint(None, None).routes(),  # type: ignore[arg-type]
}

README_LINES_MAX = 197
CORE_MAX = 4_500  # characters: every agent pays for them on every join
REVISION_MIN = 25  # programs of the other make have read up to 24
BUG_CODE = "bug"  # of status 500: not a refusal


def part(text: str, heading: str) -> str:
    """Cut the part of a document under `heading`, up to the next heading of its rank or higher."""
    level = len(heading) - len(heading.lstrip("#"))
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{level}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no part {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """List the rows of the tables in `text`, without heads and rules."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if re.fullmatch(r"[|: -]*-[|: -]*", line) and found:
            found.pop()  # the line above a rule is a head
        elif line.startswith("|"):
            found.append([cell.strip() for cell in line.split("|")[1:-1]])
    return found


def code_blocks(text: str, language: str) -> list[str]:
    """List the fenced blocks of a language, those of list items included."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in found]


def prose_of(text: str) -> str:
    """Leave out the fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)


def code_spans(text: str) -> set[str]:
    """Collect what stands in backquotes outside of fenced blocks."""
    return set(re.findall(r"`([^`]+)`", prose_of(text)))


def flags_of(command: str) -> set[str]:
    """List the long options of a subcommand."""
    ours = {name for name in caucus.COMMANDS[command][1] if name.startswith("--")}
    return ours | {"--help", "--version"}


def limits() -> dict[str, float]:
    """Collect the numbers with names that the programs are built on; those below zero are codes."""
    found_limits: dict[str, float] = {}
    before_the_demo = re.split(r"(?m)^# (?:CAST|24\. Demo)|^def play_demo", SOURCE)[0]
    for node in ast.parse(before_the_demo).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        for name in (inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)):
            value = getattr(caucus, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            is_level = name.lower() in ("calm", *caucus.LOOPS_UPTO)  # a rank, which bounds nothing
            if is_number and value >= 0 and not is_level and not name.startswith(("_", "EXIT_")):
                found_limits[name] = value
    return found_limits


# --- routes ---

ROUTE = re.compile(r"(GET|POST|PUT|DELETE|PATCH) (/[\w/-]*)")


def routes_in(cells: Iterator[str] | list[str]) -> list[tuple[str, str]]:
    """Read routes from cells such as `GET /version`."""
    return [(found[1], found[2]) for cell in cells if (found := ROUTE.fullmatch(cell.strip("`")))]


def test_the_table_of_routes_is_the_codes_in_its_order() -> None:
    table = routes_in([row[0] for row in rows(part(API, "## Routes"))])
    assert sorted(table) == sorted(ROUTES)
    assert len(table) == len(set(table))


def test_every_route_but_the_page_has_a_part_of_its_own_in_the_order_of_the_table() -> None:
    table = routes_in([row[0] for row in rows(part(API, "## Routes"))])
    parts = routes_in(re.findall(r"^### (.+)$", API, re.MULTILINE))
    assert parts == [route for route in table if route != ("GET", "/")]


def test_every_route_that_a_document_names_exists() -> None:
    named = {found for text in TEXT.values() for span in code_spans(text) for found in ROUTE.findall(span)}
    assert named - set(ROUTES) - {("GET", "/assets/NAME")} == set()


def test_every_path_of_the_protocols_curl_lines_exists() -> None:
    paths = {path for _, path in ROUTES}
    raw = part(PROTOCOL, "## Section: raw-http")
    named = set(re.findall(r"(?:\$H|`)(/[a-z][a-z/-]*)", raw))
    assert named - paths - {"/leave", "/topic"} == set()


@pytest.mark.parametrize("route", sorted(ROUTES))
def test_what_a_handler_says_it_raises_is_what_the_manual_says(route: tuple[str, str]) -> None:
    text = ROUTES[route].__doc__ or ""
    raised = re.findall(r"[A-Z]\w+", text.partition("Raises ")[2])
    codes = {getattr(caucus, name).code for name in raised if name not in ("Invalid", "Malformed")}
    manual = part(API, f"### {' '.join(route)}") if route != ("GET", "/") else ""
    assert codes <= code_spans(manual)


def test_every_field_of_the_answer_to_a_speaker_is_in_the_manual() -> None:
    source = inspect.getsource(caucus.sent_answer)
    answered = {one or other for one, other in re.findall(r'^ +"(\w+)": |answer\["(\w+)"\]', source, re.MULTILINE)}
    answered |= {"repeated", "news"}
    table = part(API, "### POST /send").partition("| Answer |")[2]
    assert {row[0].strip("`") for row in rows("| Answer |" + table)} == answered


# --- refusals ---


def test_the_table_of_refusals_has_every_code_with_its_status_and_whether_to_try_again() -> None:
    table = {row[0].strip("`"): (int(row[1]), row[2]) for row in rows(part(API, "## Refusals"))}
    assert table == {code: (kind.status, "yes" if kind.retryable else "no") for code, kind in REFUSALS.items()}


def test_every_code_in_an_example_of_the_manual_exists() -> None:
    named = set(re.findall(r'"error": "(\w+)"', API))
    assert named - set(REFUSALS) == {BUG_CODE}


def test_every_code_that_a_part_names_as_refused_exists() -> None:
    sentences = re.findall(r"Refused: (.*?)\.\n", part(API, "## Routes"), re.DOTALL)
    named = {code for one in sentences for code in re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", one, flags=re.DOTALL))}
    named -= {"requested", "sections"}  # fields of one
    assert sentences
    assert named - set(REFUSALS) == set()


def test_every_code_that_the_troubleshooting_names_exists() -> None:
    named = set(re.findall(r"status \d+ `(\w+)`", part(OPERATING, "## Troubleshooting")))
    assert named
    assert named - set(REFUSALS) == set()


def test_a_status_in_the_troubleshooting_is_that_of_its_code() -> None:
    told = {(code, int(status)) for status, code in re.findall(r"status (\d+) `(\w+)`", OPERATING)}
    assert told == {(code, REFUSALS[code].status) for code, _ in told}


# --- MCP ---


def rpc_codes() -> dict[int, int]:
    """Read the manual's table of faults of the protocol: the status by the code."""
    table = part(API, "### POST /mcp").partition("Faults of the protocol:")[2]
    return {int(row[0]): int(row[1]) for row in rows(table)}


def test_every_code_of_json_rpc_that_the_hub_sends_is_in_the_manual_and_no_other() -> None:
    codes = {value for value in vars(caucus).values() if type(value) is int and value < 0}
    bridges = {caucus.INTERNAL_ERROR, caucus.BUSY}  # a hub's own bug has status 500, and it has no queue of calls
    assert set(rpc_codes()) == codes - bridges


def test_a_code_of_json_rpc_has_the_status_that_the_manual_says() -> None:
    assert caucus.RPC_STATUS.items() <= rpc_codes().items()


def test_every_revision_of_mcp_is_in_the_manual_as_offered_or_not() -> None:
    offered, refused = part(API, "### POST /mcp").split("Stateless", 1)
    assert tuple(re.findall(r"\d{4}-\d\d-\d\d", offered)) == caucus.HANDSHAKE_REVISIONS
    assert set(re.findall(r"\d{4}-\d\d-\d\d", refused.split("progressToken")[0])) == set(caucus.MODERN_REVISIONS)


def test_how_a_token_can_have_ended_is_in_the_manual() -> None:
    row = next(row for row in rows(part(API, "## Refusals")) if row[0] == "`unknown_token`")
    assert {caucus.LEFT, caucus.KICKED, caucus.AWAY} <= code_spans(row[3])


def test_every_host_whose_block_can_be_printed_is_in_the_manual_of_the_bridge() -> None:
    row = next(row for row in rows(part(OPERATING, "## Bridge")) if row[0] == "`--print-config HOST`")
    assert set(caucus.CONFIGS) <= code_spans(row[2])


def test_every_exit_code_of_the_bridge_is_in_the_manual() -> None:
    table = part(OPERATING, "## Bridge").partition("| Exit code |")[2]
    documented = {int(row[0]) for row in rows("| Exit code |" + table)}
    assert documented == {caucus.EXIT_OK, caucus.EXIT_USAGE, caucus.EXIT_GAVE_UP}


# --- the console's socket ---


def frame_types() -> set[str]:
    """Collect the types of frames that the hub sends."""
    return {"message"} | set(re.findall(r'frame_of\(\s*"(\w+)"', SOURCE))


def test_every_frame_of_the_hub_is_in_the_manual_and_no_other() -> None:
    table = rows(part(API, "## The console's socket").partition("**From the hub**")[2].partition("`health`:")[0])
    documented = {name for row in table for name in re.findall(r"`(\w+)`", row[0])}
    assert documented == frame_types()


def test_every_command_of_the_operator_is_in_the_manual_in_the_order_in_which_it_is_read() -> None:
    table = rows(part(API, "## The console's socket").partition("**To the hub**")[2].partition("**Close codes**")[0])
    documented = [found[1] for row in table if (found := re.match(r'`\{"(\w+)"', row[0]))]
    assert documented == [*caucus.CONSOLE_COMMANDS]


def test_every_refusal_of_a_command_in_the_manual_exists() -> None:
    table = rows(part(API, "## The console's socket").partition("**To the hub**")[2].partition("**Close codes**")[0])
    assert {code for row in table for code in re.findall(r"`(\w+)`", row[2])} - set(REFUSALS) == set()


def test_both_openings_of_a_console_are_in_the_manual() -> None:
    assert {'{"auth": "TOKEN"}', '{"auth_probe": true}'} <= code_spans(API)


def test_every_close_code_is_in_the_manual() -> None:
    sent = {int(code) for code in re.findall(r"(?:close|_turn_away)\(.*?\b(1\d{3}), \"", SOURCE)}
    documented = {int(row[0]) for row in rows(part(API, "## The console's socket").partition("**Close codes**")[2])}
    assert documented == sent | {1009}  # that one is sent by Tornado


def test_every_field_of_a_peers_row_is_in_the_manual() -> None:
    body = part(API, "## The console's socket").partition("A row of `peers`")[2].partition("**To the hub**")[0]
    [(_, seen)] = a_room().peers_seen(["api"])
    assert {name for row in rows(body) for name in re.findall(r"`(\w+)`", row[0])} == set(seen)


def test_every_figure_of_health_is_in_the_manual() -> None:
    sentence = re.search(r"^`health`: (.*?)\n\n", API, re.MULTILINE | re.DOTALL)
    assert sentence is not None
    told = set(re.findall(r"`(\w+)`", sentence[1]))
    hubs_own = {"mem_rss_mb", "console_count", "unsent_bytes", "wrong_credentials", "journal", "notify"}
    assert told == set(a_room().health()) | hubs_own


class StillClock:
    """A clock that stands still."""

    def mono(self) -> float:
        """Give monotonic seconds."""
        return 0.0

    def wall(self) -> float:
        """Give Unix seconds."""
        return 0.0


def a_room() -> caucus.Room:
    """Give a room with one peer."""
    room = caucus.Room(lambda event: None, StillClock(), lambda: "token")
    room.register("here", "api")
    return room


def test_every_key_of_a_message_is_in_the_manual() -> None:
    table = rows(part(API, "## Messages"))[: len(caucus.Message.FIELDS)]
    message = caucus.Message("0" * 12, "a", "b", "c", "answer", 0.0, 1, "operator", "{}", 1, "d", True, "settled")
    assert [row[0].strip("`") for row in table] == list(json.loads(message.wire))


# --- events ---


def test_every_event_is_in_the_table_with_its_own_fields() -> None:
    table = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in rows(part(API, "## Events"))}
    common = len(caucus.Event.FIELDS)  # they come first
    assert table == {name: [*kind.FIELDS[common:]] for name, kind in EVENTS.items()}


def test_the_table_of_events_shows_the_notices_as_they_are() -> None:
    table = {row[0].strip("`"): row[2] for row in rows(part(API, "## Events"))}
    patterns = {name: re.sub(r"\{.*?\}", ".+", kind.notice or "") for name, kind in EVENTS.items()}
    assert {name: shown for name, shown in table.items() if not re.fullmatch(patterns[name], shown)} == {}


def test_the_table_of_events_tells_which_frames_consoles_get() -> None:
    table = {row[0].strip("`"): row[3] for row in rows(part(API, "## Events"))}
    at_once = {name: 0 if "next" in cell else cell.count("`") // 2 for name, cell in table.items()}

    def count(kind: type[caucus.Event]) -> int:
        rows = (kind in caucus.OF_PEERS) + (kind in caucus.OF_CHANNELS)
        return len(caucus.FRAMES.get(kind, ())) + rows + (kind is caucus.MessageRouted)

    assert at_once == {name: count(kind) for name, kind in EVENTS.items()}


# --- limits ---


def test_every_limit_is_in_the_manual_with_its_value() -> None:
    table = {row[0].strip("`"): float(row[1]) for row in rows(part(API, "## Limits"))}
    assert table == limits()


# --- the command line ---

ENVIRONMENT = re.compile(r"CAUCUS_[A-Z_]*[A-Z]")


PARTS = {"hub": "## Options of the hub"}
COMMANDS = ("bridge", "install", "uninstall", "watch", "wake", "brake", "permit", "agent", "journal", "demo", "service",
            "doctor", "meet")
PARTS |= {name: f"## {name.capitalize()}" for name in COMMANDS}


@pytest.mark.parametrize(("command", "heading"), PARTS.items())
def test_every_option_of_a_command_is_in_its_part_and_no_other(command: str, heading: str) -> None:
    documented = {flag for span in code_spans(part(OPERATING, heading)) for flag in re.findall(r"--[a-z][a-z-]*", span)}
    assert documented == flags_of(command)


@pytest.mark.parametrize("command", PARTS)
def test_help_has_a_line_for_every_option_of_a_command_and_no_other(command: str) -> None:
    lines = caucus.help_texts()[command].split("\n\n", 2)[1].splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(caucus.COMMANDS[command][1])


def test_every_command_has_its_part_in_the_manual() -> None:
    assert set(caucus.COMMANDS) == set(PARTS)


def test_every_option_that_a_document_names_exists() -> None:
    known = {flag for command in caucus.COMMANDS for flag in flags_of(command)}
    known |= {"--strict", "--output", "--with"}  # of others
    spans = {span for text in TEXT.values() for span in code_spans(text)}
    named = {flag for span in spans for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", span)}
    assert named - known == set()


def test_every_variable_of_the_environment_is_in_the_manual_and_no_other() -> None:
    read = set(ENVIRONMENT.findall(SOURCE)) | {"CAUCUS_TOKEN", "CAUCUS_TICKET"}
    assert set(ENVIRONMENT.findall(OPERATING)) == read


def test_every_exit_code_of_watch_is_in_the_manual() -> None:
    codes = {value for name, value in vars(caucus).items() if name.startswith("EXIT_")}
    table = part(OPERATING, "## Watch").partition("| Exit code |")[2]
    assert {int(row[0]) for row in rows("| Exit code |" + table)} == codes


def test_every_line_that_watch_begins_is_in_the_manual() -> None:
    begun = set(re.findall(r'_print_end\("([A-Z ]+)"', SOURCE)) | {"STOP"}
    assert {word for word in begun if f"[caucus] {word}" not in part(OPERATING, "## Watch")} == set()


# --- commands that readers copy ---


def shell_lines() -> list[tuple[str, str]]:
    """List (document, command) of everything in the blocks marked as shell."""
    blocks = [(name, block) for name in DOCUMENTS for block in code_blocks(TEXT[name], "sh")]
    return [(name, line) for name, block in blocks for line in block.splitlines()]


def test_every_program_that_a_reader_is_told_to_run_exists() -> None:
    scripts = {name for _, line in shell_lines() for name in re.findall(r"\bpython3? ([\w/]+\.pyz?)\b", line)}
    assert {"build_zipapp.py", "caucus.pyz", "tests/run.py"} <= scripts
    made = {"caucus.pyz", "/path/to/caucus.pyz"}  # by build_zipapp.py
    assert {name for name in scripts - made if not (ROOT / name).is_file()} == set()


def test_every_command_line_of_ours_in_the_documents_is_accepted() -> None:
    begun = [re.search(r"caucus\.pyz? ([a-z].*?)(?:$| [>;&|])", line) for _, line in shell_lines()]
    lines = [found[1] for found in begun if found is not None]
    assert len(lines) > 5
    for line in lines:
        command, *rest = shlex.split(line)
        parser = argparse.ArgumentParser(exit_on_error=False)
        for name, option in caucus.COMMANDS[command][1].items():
            parser.add_argument(name, **caucus.spec_of(name, option))
        parser.parse_args(rest)  # raises, naming the option


def test_every_address_that_a_reader_is_told_to_call_is_a_route() -> None:
    paths = {path for _, path in ROUTES}
    called = {path for _, line in shell_lines() for path in re.findall(r"127\.0\.0\.1:8765(/[\w/-]*)", line)}
    assert {"/register", "/send", "/mcp"} <= called
    assert called - paths == set()


def test_the_readme_has_its_two_commands_in_blocks_of_their_own() -> None:
    blocks = [block.strip() for block in code_blocks(README, "sh")]
    assert blocks[:2] == ["python3 build_zipapp.py && python3 caucus.pyz demo", "python3 tests/run.py"]


def test_every_json_example_is_json() -> None:
    for name in DOCUMENTS:
        for block in code_blocks(TEXT[name], "json"):
            json.loads(block)


# --- the protocol ---


def test_the_protocol_is_newer_than_what_any_agent_has_read() -> None:
    assert caucus.protocol().revision >= max(REVISION_MIN, caucus.PROTOCOL_REVISION_MIN)


def test_the_core_of_the_protocol_is_short() -> None:
    assert 1_000 < len(caucus.protocol().core) <= CORE_MAX


def test_the_protocol_is_parsed_to_its_last_section() -> None:
    headings = re.findall(r"^## Section: (.+)$", PROTOCOL, re.MULTILINE)
    assert sorted(caucus.protocol().sections) == sorted(headings)
    assert all(caucus.protocol().sections.values())
    assert "## Section" not in caucus.protocol().core


def test_the_core_of_the_protocol_names_every_section() -> None:
    sentence = re.search(r"^Sections: (.*?)\. ", caucus.protocol().core, re.MULTILINE)
    assert sentence is not None
    assert re.findall(r"`([\w-]+)`", sentence[1]) == sorted(caucus.protocol().sections)


def test_every_section_that_the_protocol_points_to_exists() -> None:
    pointed = set(re.findall(r"[Ss]ection `([\w-]+)`", PROTOCOL))
    assert pointed - set(caucus.protocol().sections) == set()


@pytest.mark.parametrize(
    "words",
    [
        f"{caucus.CONTENT_MAX:,} characters",
        f"{caucus.SPEECH_BURST:g} in a burst, {caucus.SPEECH_PER_S:g} a second",
        f"{caucus.PEER_TTL_S:g} s",
        f"{caucus.GRACE_S:,.0f} s",
        f"{caucus.MAILBOX_MAX:,} messages",
        f"{caucus.STATUS_MAX} characters",
        f"up to {caucus.TOPIC_MAX} characters",
        f"in {caucus.CHANNELS_PER_PEER_MAX} channels",
        f"1 to {caucus.FIELDS_MAX} fields",
        f"at most {caucus.OPTIONS_MAX},",
        f"{caucus.BODY_MAX_BYTES:,} bytes",
        f"{caucus.POLL_HOLD_S:g} s",
    ],
)
def test_a_number_in_the_protocol_is_the_hubs(words: str) -> None:
    assert words in PROTOCOL


# --- the console's files ---


def test_every_file_of_the_console_is_served_and_every_served_file_exists() -> None:
    there = {path.relative_to(ROOT / "ui").as_posix() for path in (ROOT / "ui").rglob("*") if path.is_file()}
    assert there == set(caucus.CONSOLE_FILES)


def test_every_key_of_the_console_is_in_the_manual() -> None:
    keys = set(re.findall(r'^  \["(.)", "', (ROOT / "ui/app.js").read_text(encoding="utf-8"), re.MULTILINE))
    assert len(keys) > 5
    assert {key for key in keys if f"| `{key}` |" not in part(OPERATING, "## The console")} == set()


# --- the documents themselves ---


def anchors_of(path: Path) -> set[str]:
    """Collect the anchors that a page makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT[name]) + re.findall(r'(?:src|srcset|href)="([^"]+)"', TEXT[name])
    broken = []
    for link in links:
        path, _, fragment = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        is_elsewhere = re.match(r"https?:", link) is not None
        if not is_elsewhere and (not target.exists() or (fragment and fragment not in anchors_of(target))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_is_named_exists(name: str) -> None:
    named = {span for span in code_spans(TEXT[name]) if re.fullmatch(r"(?:tests|docs|ui)/[\w./-]+\.\w+", span)}
    named |= {f"tests/{span}" for span in code_spans(TEXT[name]) if re.fullmatch(r"test_\w+\.py", span)}
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_the_readme_is_short() -> None:
    assert README.count("\n") <= README_LINES_MAX


def test_the_design_has_the_map_of_the_sections() -> None:
    told = {int(number): title for number, title in re.findall(r"\| (\d+) ([^|]+?) \|", part(DESIGN, "## The shape"))}
    banners = {int(number): title for number, title in re.findall(r"^# =+\n# (\d+)\. (.+)$", SOURCE, re.MULTILINE)}
    assert list(told) == list(banners)
    assert {number for number, title in told.items() if not banners[number].startswith(title)} == set()


def test_the_design_states_the_nine_invariants_in_the_words_of_the_head() -> None:
    head = dict(re.findall(r"(\d)\. (.+)", (caucus.__doc__ or "").partition("Always")[2]))
    table = rows(part(DESIGN, "## The nine invariants, and who checks them"))
    assert {row[0]: row[1].replace("`", "") for row in table} == head


def test_the_changelog_speaks_of_this_version() -> None:
    assert f"## [{caucus.__version__}]" in TEXT["CHANGELOG.md"]


STRANGE = {
    "a path of some machine": r"(?<![\w.])/(?:home|Users|root|work|opt|private)/",
    "an address of a person": r"[\w.+-]+@[\w-]+\.[a-z]{2,}",
    "the host of a package registry": r"(?i)\b(?:pypi|pythonhosted|npmjs|unpkg|jsdelivr|conda|ghcr|docker)\b",
    "how it came about": r"(?i)co-authored|generated (?:by|with)|written (?:by|with)",
    "a forgotten note": r"\b(?:TODO|FIXME|XXX|TBD)\b",
}


@pytest.mark.parametrize("what", STRANGE)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_document_contains(name: str, what: str) -> None:
    assert [found[0] for found in re.finditer(STRANGE[what], TEXT[name])] == []


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "docs/protocol.md"])
def test_prose_fits_the_page(name: str) -> None:
    lines = prose_of(TEXT[name]).splitlines()
    wide = [line for line in lines if len(line) > 120 and not line.startswith(("|", "  <img"))]
    assert wide == []
