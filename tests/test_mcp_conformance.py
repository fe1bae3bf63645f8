"""The official conformance suite over /mcp of a live hub: only what is not offered fails, each with its reason."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hubs import ROOT, HubProcess

SUITE = ROOT / ".cache/conformance/node_modules"
PROGRAM = SUITE / "@modelcontextprotocol/conformance/dist/index.js"
NODE = ROOT / ".cache/conformance" / ("Scripts/node.exe" if os.name == "nt" else "bin/node")
RUNS = ("every scenario", "2025-06-18", "2025-11-25")  # the first: at whatever revision the suite chooses

# What we do not offer: why -> scenario -> checks that fail or warn. Everything else passes.
NOT_OFFERED = {
    "our tools answer with text or data, and word their own refusals: no other content, no isError": {
        "tools-call-image": "tools-call-image",
        "tools-call-audio": "tools-call-audio",
        "tools-call-embedded-resource": "tools-call-embedded-resource",
        "tools-call-mixed-content": "tools-call-mixed-content",
        "tools-call-error": "tools-call-error",
    },
    "only listen waits, so only listen reports progress": {"tools-call-with-progress": "tools-call-with-progress"},
    "our prompts are text": {
        "prompts-get-embedded-resource": "prompts-get-embedded-resource",
        "prompts-get-with-image": "prompts-get-with-image",
    },
    "our tools keep to a subset of JSON Schema": {"json-schema-2020-12": "json-schema-2020-12-tool-found"},
    "no resources": {
        "resources-list": "resources-list",
        "resources-read-text": "resources-read-text",
        "resources-read-binary": "resources-read-binary",
        "resources-templates-read": "resources-templates-read",
        "resources-subscribe": "resources-subscribe",
        "resources-unsubscribe": "resources-unsubscribe",
        "sep-2164-resource-not-found": "sep-2164-error-code sep-2164-data-uri",
        "caching": "sep-2549-resources-list-caching-hints sep-2549-resources-templates-list-caching-hints",
    },
    "no completion of arguments": {"completion-complete": "completion-complete"},
    "the hub's log is the operator's": {
        "logging-set-level": "logging-set-level",
        "tools-call-with-logging": "tools-call-with-logging",
    },
    "no headers of a tool's own": {
        "http-custom-header-server-validation": "sep-2243-server-custom-setup sep-2243-server-decode-base64 "
        "sep-2243-server-validate-param-match sep-2243-server-reject-invalid-param-chars "
        "sep-2243-server-reject-param-mismatch",
    },
    "we ask the client for nothing: the operator is asked at the console": {
        "tools-call-sampling": "tools-call-sampling",
        "tools-call-elicitation": "tools-call-elicitation",
        "elicitation-sep1034-defaults": "elicitation-sep1034-general",
        "elicitation-sep1330-enums": "elicitation-sep1330-general",
        "input-required-result-basic-elicitation": "sep-2322-elicitation-incomplete",
        "input-required-result-basic-list-roots": "sep-2322-list-roots-incomplete",
        "input-required-result-basic-sampling": "sep-2322-sampling-incomplete",
        "input-required-result-capability-check": "sep-2322-respect-client-capabilities",
        "input-required-result-ignore-extra-params": "sep-2322-ignore-unexpected-params",
        "input-required-result-missing-input-response": "sep-2322-missing-response-rerequests",
        "input-required-result-multi-round": "sep-2322-multi-round-r1",
        "input-required-result-multiple-input-requests": "sep-2322-multiple-inputs-incomplete",
        "input-required-result-non-tool-request": "sep-2322-non-tool-incomplete",
        "input-required-result-request-state": "sep-2322-request-state-incomplete",
        "input-required-result-result-type": "sep-2322-result-type-included",
        "input-required-result-tampered-state": "sep-2322-reject-tampered-state",
        "server-stateless": "sep-2575-server-rejects-undeclared-capability sep-2575-missing-capability-http-400 "
        "sep-2575-http-server-no-independent-requests-on-stream sep-2575-server-no-log-without-loglevel",
    },
    "no stateless requests over HTTP: nothing in them proves whose seat it is": {
        "caching": "sep-2549-cache-scope-valid sep-2549-prompts-list-caching-hints sep-2549-tools-list-caching-hints "
        "sep-2549-ttl-non-negative",
        "http-header-validation": "sep-2243-server-accepts-whitespace-header-value "
        "sep-2243-server-reject-invalid-headers sep-2243-server-standard-setup",
        "server-stateless": "sep-2575-http-server-header-mismatch-400 sep-2575-http-server-meta-invalid-400 "
        "sep-2575-http-server-method-not-found-404-initialize sep-2575-http-server-unsupported-version-400 "
        "sep-2575-request-meta-client-info-optional sep-2575-request-meta-invalid-missing-client-capabilities "
        "sep-2575-request-meta-invalid-missing-meta sep-2575-request-meta-invalid-missing-protocol-version "
        "sep-2575-server-honors-notification-filter sep-2575-server-identifies-in-result-meta "
        "sep-2575-server-implements-discover sep-2575-server-sends-subscription-ack "
        "sep-2575-server-tags-subscription-id sep-2575-server-unsupported-version-error",
    },
    "no tasks, an extension": {
        "tasks-dispatch-and-envelope": "tasks-server-directed-creation-no-hint sep-2663-legacy-task-param-ignored "
        "tasks-immediate-result-shortcut tasks-result-type-complete-on-non-task-responses "
        "sep-2663-durable-create-strong-consistency sep-2663-tasks-get-invalid-task-id-32602",
        "tasks-lifecycle": "tasks-sync-tool-call sep-2663-result-type-task-on-create "
        "sep-2663-tasks-get-status-working sep-2663-tasks-get-status-completed "
        "sep-2663-tool-error-uses-completed-status sep-2663-tasks-get-status-failed "
        "sep-2663-cancel-ack-empty-result tasks-cancel-terminal-idempotent-ack",
        "tasks-mrtr-composition": "sep-2663-mrtr-synchronous-before-task-creation",
        "tasks-mrtr-input": "sep-2663-tasks-get-status-input-required tasks-mrtr-tasks-update-resumes "
        "tasks-mrtr-partial-fulfillment",
        "tasks-request-headers": "tasks-headers-reject-mismatched-method "
        "tasks-headers-tolerate-mcp-method-on-tools-call "
        "sep-2663-routing-headers-accepted-on-tasks-get sep-2663-server-rejects-mismatched-mcp-name-on-tasks-get",
        "tasks-request-state-removal": "tasks-request-state-removal-setup",
        "tasks-required-task-error": "sep-2663-server-returns-missing-capability-when-required",
        "tasks-wire-fields": "tasks-wire-field-renames tasks-no-early-ttl-expiry "
        "tasks-no-related-task-meta-on-inlined-result",
    },
}
EXPECTED = {
    (scenario, check): why
    for why, scenarios in NOT_OFFERED.items()
    for scenario, checks in scenarios.items()
    for check in checks.split()
}
# Scenarios of which the suite itself leaves checks out, as nothing declares what they are about.
SKIPPING = {
    "caching": "no resources",
    "server-stateless": "no subscriptions/listen: nothing that we list ever changes",
    "tasks-status-notifications": "no tasks, an extension",
}
# Scenarios of extensions that the suite gives up without a discovery.
NOT_RUN = frozenset({
    "sep-2640-skills-directory", "sep-2640-skills-enumeration", "sep-2640-skills-manifest",
    "tasks-capability-negotiation",
})

Check = tuple[str, str]  # scenario, check


def conformance(*words: str) -> str:
    """Run the suite's program; give what it printed. Its exit code only counts failures, expected ones as well."""
    done = subprocess.run([NODE, PROGRAM, *words], check=False, capture_output=True, text=True, timeout=240)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProcess]:
    if not (PROGRAM.is_file() and NODE.is_file()):
        if os.environ.get("CI"):
            pytest.fail(f"{SUITE} is not complete: tests/run.py makes it")
        pytest.skip(f"NOT TRIED: {SUITE} is not complete; tests/run.py makes it")
    command = (sys.executable, "-W", "error", str(ROOT / "tests/conformance_hub.py"), "hub")
    hub = HubProcess(command=command)
    try:
        yield hub
    finally:
        code, log = hub.stop()
    assert (code, "Traceback" in log, " ERROR " in log) == (0, False, False), log


@pytest.fixture(scope="module")
def outcomes(hub: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[Check, set[str]]]:
    """For each run, the statuses that each check ended with."""
    return {run: outcomes_of(hub.url, run, tmp_path_factory.mktemp("conformance")) for run in RUNS}


def outcomes_of(url: str, run: str, folder: Path) -> dict[Check, set[str]]:
    """Do one run, and read what it wrote: a folder for each scenario."""
    revision = () if run == RUNS[0] else ("--spec-version", run)
    said = conformance("server", "--url", f"{url}/mcp", "--suite", "all", *revision, "-o", str(folder))
    found: dict[Check, set[str]] = {}
    for file in folder.glob("*/checks.json"):
        scenario = re.sub(r"^server-|-\d{4}-\d\d-\d\dT.*$", "", file.parent.name)
        for check in json.loads(file.read_text()):
            found.setdefault((scenario, check["id"]), set()).add(check["status"])
    assert found, said
    return found


@pytest.mark.parametrize("run", RUNS)
def test_every_check_passes_but_those_about_what_we_do_not_offer(
    outcomes: dict[str, dict[Check, set[str]]], run: str
) -> None:
    failed = {check for check, statuses in outcomes[run].items() if statuses & {"FAILURE", "WARNING"}}
    assert failed - EXPECTED.keys() == set()


@pytest.mark.parametrize("run", RUNS)
def test_no_check_is_left_out_but_of_what_we_do_not_offer(
    outcomes: dict[str, dict[Check, set[str]]], run: str
) -> None:
    skipped = {scenario for (scenario, _), statuses in outcomes[run].items() if "SKIPPED" in statuses}
    assert skipped - SKIPPING.keys() == set()


def test_each_expected_failure_still_fails(outcomes: dict[str, dict[Check, set[str]]]) -> None:
    passed = [(run, *check) for run in RUNS for check in EXPECTED if outcomes[run].get(check, set()) & {"SUCCESS"}]
    gone = [check for check in EXPECTED if check not in outcomes[RUNS[0]]]
    assert (passed, gone) == ([], [])


def test_each_expected_omission_is_still_left_out(outcomes: dict[str, dict[Check, set[str]]]) -> None:
    skipped = {scenario for (scenario, _), statuses in outcomes[RUNS[0]].items() if "SKIPPED" in statuses}
    assert SKIPPING.keys() - skipped == set()


def test_all_of_the_suites_scenarios_for_servers_were_run(outcomes: dict[str, dict[Check, set[str]]]) -> None:
    listed = set(re.findall(r"^  - (\S+) \[", conformance("list", "--server"), re.MULTILINE))
    assert "server-initialize" in listed
    assert listed - {scenario for scenario, _ in outcomes[RUNS[0]]} == NOT_RUN


@pytest.mark.parametrize("scenario", ["server-initialize", "ping", "server-session-lifecycle", "tools-list",
                                      "tools-call-simple-text", "prompts-list", "prompts-get-simple",
                                      "prompts-get-with-args", "dns-rebinding-protection"])
def test_a_scenario_of_what_we_offer_passes_as_a_whole(
    outcomes: dict[str, dict[Check, set[str]]], scenario: str
) -> None:
    statuses = [one for (name, _), found in outcomes[RUNS[0]].items() if name == scenario for one in found]
    assert set(statuses) == {"SUCCESS"}


@pytest.mark.parametrize("run", RUNS)
def test_every_message_of_ours_is_valid_by_the_schema_of_its_revision(
    outcomes: dict[str, dict[Check, set[str]]], run: str
) -> None:
    seen = [statuses for (_, check), statuses in outcomes[run].items() if check == "wire-schema-valid"]
    assert seen
    assert all(statuses == {"SUCCESS"} for statuses in seen)
