"""The official conformance suite over /mcp of a live hub: what fails is exactly what is not offered, with the reason."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from hubs import ROOT, running_hub

MODULES = ROOT / ".cache/conformance/node_modules"
NODE = MODULES / "node/bin" / ("node.exe" if os.name == "nt" else "node")
SUITE = MODULES / "@modelcontextprotocol/conformance/dist/index.js"

NO_DIAGNOSTICS = "it calls a tool or a prompt that a server under test is to add; ours has the room's and no others"
NO_RESOURCES = "resources are not offered: what is in the room is asked for with tools"
NO_COMPLETION = "completion/complete is not offered"
NO_LOGGING = "logging is not offered: the hub's log is the operator's"
NO_BACK_QUESTIONS = "the server asks the client for nothing: no sampling, roots or elicitation; the operator has forms"
NO_TASKS = "the tasks extension is not offered: no call takes longer than one poll"
NO_PARAM_HEADERS = "no parameter is mirrored into an Mcp-Param header"

# scenario -> (why it cannot pass as a whole, the checks that fail)
SHARED = {
    "completion-complete": (NO_COMPLETION, {"completion-complete"}),
    **{f"tools-call-{kind}": (NO_DIAGNOSTICS, {f"tools-call-{kind}"}) for kind in (
        "simple-text", "image", "audio", "embedded-resource", "mixed-content", "error", "with-progress")},
    **{f"prompts-get-{kind}": (NO_DIAGNOSTICS, {f"prompts-get-{kind}"}) for kind in (
        "simple", "with-args", "embedded-resource", "with-image")},
    **{f"resources-{verb}": (NO_RESOURCES, {f"resources-{verb}"}) for verb in (
        "list", "read-text", "read-binary", "templates-read")},
}
HANDSHAKE = SHARED | {
    "logging-set-level": (NO_LOGGING, {"logging-set-level"}),
    "tools-call-with-logging": (NO_LOGGING, {"tools-call-with-logging"}),
    "tools-call-sampling": (NO_BACK_QUESTIONS, {"tools-call-sampling"}),
    "tools-call-elicitation": (NO_BACK_QUESTIONS, {"tools-call-elicitation"}),
    "elicitation-sep1034-defaults": (NO_BACK_QUESTIONS, {"elicitation-sep1034-general"}),
    "elicitation-sep1330-enums": (NO_BACK_QUESTIONS, {"elicitation-sep1330-general"}),
    "resources-subscribe": (NO_RESOURCES, {"resources-subscribe"}),
    "resources-unsubscribe": (NO_RESOURCES, {"resources-unsubscribe"}),
}
STATELESS = SHARED | {
    "server-stateless": (NO_DIAGNOSTICS, {
        "sep-2575-http-server-no-independent-requests-on-stream", "sep-2575-missing-capability-http-400",
        "sep-2575-server-no-log-without-loglevel", "sep-2575-server-rejects-undeclared-capability"}),
    "caching": (NO_RESOURCES, {
        "sep-2549-resources-list-caching-hints", "sep-2549-resources-templates-list-caching-hints"}),
    "json-schema-2020-12": (NO_DIAGNOSTICS, {"json-schema-2020-12-tool-found"}),
    "http-custom-header-server-validation": (NO_PARAM_HEADERS, {
        "sep-2243-server-decode-base64", "sep-2243-server-no-xmcp-tool", "sep-2243-server-reject-invalid-param-chars",
        "sep-2243-server-reject-param-mismatch", "sep-2243-server-validate-param-match"}),
    **{f"input-required-result-{scenario}": (NO_BACK_QUESTIONS, {f"sep-2322-{check}"}) for scenario, check in {
        "basic-elicitation": "elicitation-incomplete", "basic-list-roots": "list-roots-incomplete",
        "basic-sampling": "sampling-incomplete", "capability-check": "respect-client-capabilities",
        "multi-round": "multi-round-r1", "multiple-input-requests": "multiple-inputs-incomplete",
        "non-tool-request": "non-tool-incomplete", "request-state": "request-state-incomplete",
        "result-type": "result-type-included", "tampered-state": "reject-tampered-state"}.items()},
    **{f"tasks-{scenario}": (NO_TASKS, set(checks.split())) for scenario, checks in {
        "capability-negotiation": "sep-2663-server-rejects-undeclared-client sep-2663-tasks-methods-non-declaring "
                                  "tasks-extension-advertised tasks-per-request-meta-opt-in",
        "dispatch-and-envelope": "sep-2663-durable-create-strong-consistency sep-2663-legacy-task-param-ignored "
                                 "sep-2663-tasks-get-invalid-task-id-32602 tasks-immediate-result-shortcut "
                                 "tasks-result-type-complete-on-non-task-responses "
                                 "tasks-server-directed-creation-no-hint",
        "lifecycle": "sep-2663-cancel-ack-empty-result sep-2663-result-type-task-on-create "
                     "sep-2663-tasks-get-status-completed sep-2663-tasks-get-status-failed "
                     "sep-2663-tasks-get-status-working sep-2663-tool-error-uses-completed-status "
                     "tasks-cancel-terminal-idempotent-ack tasks-sync-tool-call",
        "mrtr-composition": "sep-2663-mrtr-synchronous-before-task-creation",
        "mrtr-input": "sep-2663-tasks-get-status-input-required tasks-mrtr-partial-fulfillment "
                      "tasks-mrtr-tasks-update-resumes",
        "request-headers": "sep-2663-routing-headers-accepted-on-tasks-get "
                           "sep-2663-server-rejects-mismatched-mcp-name-on-tasks-get "
                           "tasks-headers-tolerate-mcp-method-on-tools-call",
        "request-state-removal": "tasks-request-state-removal-setup",
        "required-task-error": "sep-2663-server-returns-missing-capability-when-required",
        "wire-fields": "tasks-no-early-ttl-expiry tasks-no-related-task-meta-on-inlined-result "
                       "tasks-wire-field-renames"}.items()},
}
MUST_PASS = {
    "handshake": {"server-initialize", "server-session-lifecycle", "ping", "tools-list", "prompts-list",
                  "server-sse-multiple-streams", "dns-rebinding-protection"},
    "stateless": {"tools-list", "prompts-list", "http-header-validation", "server-sse-multiple-streams",
                  "dns-rebinding-protection", "sep-2164-resource-not-found"},
}


def results(folder: Path, url: str, *flags: str) -> dict[str, list[dict[str, str]]]:
    """Run the suite; give the checks of each scenario."""
    if not (NODE.exists() and SUITE.exists()):
        if os.environ.get("CI"):
            pytest.fail(f"{MODULES} is not complete: tests/run.py makes it, with npm")
        pytest.skip(f"NOT TRIED: {MODULES} is not complete; tests/run.py makes it, with npm")
    command = [NODE, SUITE, "server", "--url", url, "-o", folder, *flags]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, check=False)
    found = {}
    for path in sorted(folder.glob("*/checks.json")):
        name = re.fullmatch(r"server-(.*)-\d{4}-\d\d-\d\dT.*", path.parent.name)
        assert name is not None
        found[name[1]] = json.loads(path.read_text())
    assert found, done.stdout + done.stderr
    return found


@pytest.mark.parametrize(("era", "flags", "expected"), [
    ("handshake", (), HANDSHAKE), ("stateless", ("--requirements", "2026-07-28"), STATELESS),
])
def test_nothing_fails_but_what_is_not_offered(
    tmp_path: Path, era: str, flags: tuple[str, ...], expected: dict[str, tuple[str, set[str]]]
) -> None:
    with running_hub() as hub:
        found = results(tmp_path, f"{hub.url}/mcp", *flags)
    failed = {name: {one["id"] for one in checks if one["status"] == "FAILURE"} for name, checks in found.items()}
    passed = {name for name, checks in found.items() if not failed[name] and checks}
    assert {name: ids for name, ids in failed.items() if ids} == {name: ids for name, (_, ids) in expected.items()}
    assert passed >= MUST_PASS[era]


def test_every_message_of_ours_is_valid_by_the_schema_of_its_revision(tmp_path: Path) -> None:
    with running_hub() as hub:
        for name, flags in (("old", ()), ("new", ("--requirements", "2026-07-28"))):
            (tmp_path / name).mkdir()
            checks = [one for all_of in results(tmp_path / name, f"{hub.url}/mcp", *flags).values() for one in all_of]
            wire = [one for one in checks if one["id"] == "wire-schema-valid"]
            assert wire
            assert [one for one in wire if one["status"] != "SUCCESS"] == []
