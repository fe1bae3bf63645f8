"""The console's pure model, ui/model.js: its own tests, where Node is present."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hubs import ROOT

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


def test_the_model_passes_its_own_tests() -> None:
    run = subprocess.run(
        [node(), "--test", "--test-reporter=tap", "tests/ui/model.test.mjs"],
        cwd=ROOT,
        check=False,  # what failed is told below
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "# fail 0" in run.stdout
    assert "# pass 0" not in run.stdout
