"""caucus.py still reads top to bottom like a book: its order, its purity, its map and its sizes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = (ROOT / "caucus.py").read_text(encoding="utf-8")
LINES = SOURCE.splitlines()

LAST_OF_THE_CORE = 9
LINES_MAX = 22_800
FUNCTION_LINES_MAX = 60
BROAD_MAX = 2  # handlers of every Exception
RULE = "# " + "=" * 118
IMPURE = {"asyncio", "tornado", "socket", "urllib", "http", "subprocess", "threading", "signal", "logging", "log"}
IMPURE |= {"os", "sys", "open", "print", "input", "time", "datetime", "random", "secrets", "uuid"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Section(NamedTuple):
    """One banner."""

    number: float  # 16b is 16.5, and 16c 16.75
    title: str
    line: int  # from 1


@cache
def tree() -> ast.Module:
    """Parse caucus.py: only when a test asks, as each worker imports this file and runs few of the tests."""
    return ast.parse(SOURCE)


@cache
def nodes() -> list[ast.AST]:
    """List all that stands in it."""
    return [*ast.walk(tree())]


def head() -> str:
    """Give the text at its top."""
    return ast.get_docstring(tree()) or ""


def functions() -> list[Function]:
    """List all that it defines with def."""
    return [node for node in nodes() if isinstance(node, Function)]


def number_of(digits: str, letter: str) -> float:
    """Read the number of a section, which may be one that was put between two others."""
    return int(digits) + {"": 0, "b": 0.5, "c": 0.75}[letter]


SECTIONS = [
    Section(number_of(found[1], found[2]), found[3], at)
    for at, line in enumerate(LINES, 1)
    if (found := re.fullmatch(r"# (\d+)([bc]?)\. (.+)", line)) and LINES[at - 2].startswith("# ===")
]


def section_at(line: int) -> float:
    """Give the number of the section that `line` is in; 0 is the head."""
    return max((one.number for one in SECTIONS if one.line <= line), default=0)


def names_of(node: ast.stmt) -> list[str]:
    """List what a top-level statement defines; imports are no definitions."""
    if isinstance(node, Function | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.If | ast.Try):
        return [name for inner in node.body for name in names_of(inner)]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    stored = (inner for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name))
    return [inner.id for inner in stored if isinstance(inner.ctx, ast.Store)]  # not x of x[0] = 1


def definitions() -> dict[str, int]:
    """Map each top-level name to the line that first defines it."""
    found: dict[str, int] = {}
    for node in tree().body:
        for name in names_of(node):
            found.setdefault(name, node.lineno)
    return found


def loads() -> list[tuple[str, int]]:
    """List each use of a name, annotations included, those in quotes too."""
    used = [
        (node.id, node.lineno)
        for node in nodes()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    ]
    for node in nodes():
        notes = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for note in notes:
            for part in ast.walk(note) if note is not None else ():
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    used += [(word, part.lineno) for word in re.findall(r"[A-Za-z_]\w*", part.value)]
    return used


def test_sections_are_numbered_upwards():
    numbers = [one.number for one in SECTIONS]
    assert numbers == sorted(set(numbers))


def test_the_core_is_complete():
    whole = [one.number for one in SECTIONS if one.number == int(one.number)]
    assert whole[:LAST_OF_THE_CORE] == [*range(1, LAST_OF_THE_CORE + 1)]


def test_every_banner_stands_between_two_rules():
    assert [one for one in SECTIONS if not LINES[one.line - 2] == LINES[one.line] == RULE] == []


def test_no_rule_is_left_without_a_banner():
    assert LINES.count(RULE) == 2 * len(SECTIONS)


def test_no_section_uses_a_name_of_a_later_one():
    where = definitions()
    down = [
        f"line {line}: section {section_at(line)} reaches down to {name}"
        for name, line in loads()
        if name in where and section_at(where[name]) > section_at(line)
    ]
    assert down == []


def test_no_name_is_defined_twice():
    names = [name for node in tree().body if not isinstance(node, ast.If | ast.Try) for name in names_of(node)]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_the_core_can_neither_read_nor_write_nor_sleep_nor_roll_dice():
    impure = [f"line {at}: {name}" for name, at in loads() if name in IMPURE and 0 < section_at(at) <= LAST_OF_THE_CORE]
    assert impure == []


def test_the_core_awaits_nothing():
    waits = ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith
    lines = [node.lineno for node in nodes() if isinstance(node, waits)]
    assert [line for line in lines if section_at(line) <= LAST_OF_THE_CORE] == []


PURE_AND_SLOW = {"hashlib", "hmac", "difflib"}  # to load; they compute, and only the hub needs them


def test_the_core_imports_nothing_on_its_way_that_could_touch_the_world():
    imports = [node for node in nodes() if isinstance(node, ast.Import | ast.ImportFrom)]
    late = [node for node in imports if 0 < section_at(node.lineno) <= LAST_OF_THE_CORE]
    assert {ast.unparse(node) for node in late if getattr(node, "module", None) not in PURE_AND_SLOW} == set()


def chapter(title: str) -> str:
    """Cut one chapter out of the head's docstring."""
    found = re.search(rf"^{title}\b.*?(?=^\S|\Z)", head(), re.MULTILINE | re.DOTALL)
    assert found is not None, f"the head has no {title}"
    return found[0]


def mapped() -> list[tuple[float, str]]:
    """Read the map: numbers and short titles, without the remark on what is kept free."""
    plain = re.sub(r"\(.*?\)", "", chapter("Map"), flags=re.DOTALL)
    entries = re.findall(r"(?:^|\s)(\d{1,2})([bc]?) (\S.*?)(?=\s\s|\n|\Z)", plain)
    return [(number_of(digits, letter), title) for digits, letter, title in entries]


def test_the_map_lists_the_sections_that_there_are_in_their_order():
    assert [number for number, _ in mapped()] == [one.number for one in SECTIONS]


def test_the_map_calls_the_sections_what_their_banners_call_them():
    banners = {one.number: one.title for one in SECTIONS}
    strange = [(number, title, banners.get(number)) for number, title in mapped()]
    assert [entry for entry in strange if entry[2] is not None and not entry[2].startswith(entry[1])] == []


def test_what_the_map_keeps_free_is_free():
    remark = re.search(r"\(([^)]*) kept free", chapter("Map"))
    kept = {int(number) for number in re.findall(r"\d+", remark[1])} if remark else set()
    assert kept.isdisjoint({one.number for one in SECTIONS})


WORDS = [
    "hub",
    "room",
    "peer",
    "operator",
    "observer",
    "scope",
    "seq",
    "mailbox",
    "fetched",
    "poll",
    "floor",
    "mode",
    "refusal",
    "event",
]


@pytest.mark.parametrize("word", WORDS)
def test_the_glossary_explains(word):
    assert re.search(rf"(^Words     |^          |; ){word}\b", chapter("Words"), re.MULTILINE)


def test_the_head_states_the_nine_invariants():
    assert re.findall(r"(\d)\. ", chapter("Always")) == ["1", "2", "3", "4", "5", "6", "7", "8", "9"]


def test_the_head_fits_a_page():
    assert head().count("\n") <= 60


def test_the_file_is_within_its_budget():
    assert len(LINES) <= LINES_MAX


def test_no_line_is_longer_than_the_page_is_wide():
    assert [at for at, line in enumerate(LINES, 1) if len(line) > 120] == []


def test_every_function_fits_a_screen():
    sizes = {f"line {node.lineno}: {node.name}": (node.end_lineno or 0) - node.lineno + 1 for node in functions()}
    assert {name: size for name, size in sizes.items() if size > FUNCTION_LINES_MAX} == {}


def test_every_function_is_annotated():
    assert [f"line {node.lineno}: {node.name}" for node in functions() if node.returns is None] == []


def test_every_public_name_of_the_core_is_documented():
    public = [
        node
        for node in nodes()
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_") and section_at(node.lineno) <= 9
    ]
    assert [f"line {node.lineno}: {node.name}" for node in public if ast.get_docstring(node) is None] == []


def test_every_exception_is_caught_in_two_places_at_most():
    handlers = [node for node in nodes() if isinstance(node, ast.ExceptHandler)]
    broad = [
        one.lineno for one in handlers if one.type is None or ast.unparse(one.type) in ("Exception", "BaseException")
    ]
    assert len(broad) <= BROAD_MAX, broad


def test_main_is_the_last_definition():
    last = [node for node in tree().body if isinstance(node, Function | ast.ClassDef)][-1]
    assert last.name.startswith("main")


def test_mypy_lets_nobody_assign_to_a_record(tmp_path):
    """At run time nothing looks: it would make an event twice as dear."""
    classes = [one for one in tree().body if isinstance(one, ast.ClassDef)]
    kinds = [one.name for one in classes if {"Event", "PeerEvent"} & {*map(ast.unparse, one.bases)}]
    lines = [f"def f{n}(event: caucus.{kind}) -> None: event.ts = 1.0" for n, kind in enumerate(kinds)]
    program = tmp_path / "program.py"
    program.write_text("\n".join(["import caucus", *lines]))
    mypy = [sys.executable, "-m", "mypy", "--strict", str(program)]
    told = subprocess.run(mypy, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300).stdout
    assert told.count("is read-only") == len(lines) > 20, told
