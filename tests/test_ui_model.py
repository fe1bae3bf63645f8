"""The console's pure modules: their tests in tests/ui, and the form rules against the hub's; where Node is present."""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import product
from typing import Any

import pytest
from hubs import ROOT

import caucus

NODE_MAJOR_MIN = 20  # older ones lack parts of node:test


def node() -> str:
    """Find a Node that can run the tests, or skip."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node on this machine; the browser tests exercise the model")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").partition(".")[0]) < NODE_MAJOR_MIN:
        pytest.skip(f"node {version.strip()} is older than {NODE_MAJOR_MIN}")
    return found


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "tests/ui").glob("*.test.mjs")))
def test_the_pure_modules_pass_their_own_tests(file: str) -> None:
    run = subprocess.run(
        [node(), "--test", "--test-reporter=tap", f"tests/ui/{file}"],
        cwd=ROOT,
        check=False,  # what failed is told below
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "# fail 0" in run.stdout
    assert "# pass 0" not in run.stdout


# --- the wizard validates as the hub does -----------------------------------------------------------------------------

TEXTS = [
    *("", " ", "\u3000\x1f", "\ufeff", "x", " x ", "now", "now ", "x" * 4096, "x" * 4097, "\U0001f600" * 4096),
    *("\U0001f600" * 4097, "\ud800", "a\ud83d", "\u202enow", "__proto__"),
]
LISTS = [[], [""], ["now"], ["now", "later"], ["now", "now"], ["now", ""], ["now", "mine"], [str(n) for n in range(34)]]
CHECK = """
import { complaintOf, givenOf } from "./ui/answers.js";
let text = "";
for await (const chunk of process.stdin) text += chunk;
const results = JSON.parse(text).map(([field, value]) => [complaintOf(field, value) === "", givenOf([field], [value])]);
process.stdout.write(JSON.stringify(results));
"""


def hubs_verdict(field: dict[str, Any], value: Any) -> tuple[bool, Any]:
    """Ask the hub's own form."""
    question = caucus.Question.parse({"token": "t", "title": "Go?", "fields": [field]})
    form = caucus.Form("f", "Go?", "api", "all", question.fields, 0.0)
    try:
        return True, form.validate({field["key"]: value})
    except caucus.InvalidForm:
        return False, None


def test_the_wizard_takes_what_the_hub_takes_and_refuses_what_it_refuses() -> None:
    cases: list[tuple[dict[str, Any], Any]] = []
    for kind, required, other in product(("text", "textarea", "radio", "checkbox"), (True, False), (True, False)):
        options = {"options": ["now", "later"], "allow_other": other} if kind in ("radio", "checkbox") else {}
        field = {"key": "k", "label": "L", "type": kind, "required": required, **options}
        cases += [(field, value) for value in (LISTS if kind == "checkbox" else TEXTS)]
    run = subprocess.run(
        [node(), "--input-type=module", "-e", CHECK],
        input=json.dumps(cases), cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )
    for (field, value), (is_good, given) in zip(cases, json.loads(run.stdout), strict=True):
        good, kept = hubs_verdict(field, value)
        assert is_good == good, (field, value)
        if good:
            assert given == kept, (field, value)
