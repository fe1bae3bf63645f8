"""Run every check of Caucus on a machine that has nothing but Python 3.11 or newer.

    python3 tests/run.py              ruff, mypy --strict, pytest
    python3 tests/run.py -x -k floor  the same, with these arguments for pytest

The first run makes .venv (the tools) and .cache (the programs that ours must get on with: the originals, MCP's own SDK
and, where npm is, its conformance suite; claude-agent-sdk), which needs the network and a minute or two; later runs
only check. The first check that fails ends the run with its exit code.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit("tests/run.py: needs Python 3.11 or newer")

ROOT = Path(__file__).resolve().parent.parent
PYTHON_NAME = f"python{sys.version_info.major}.{sys.version_info.minor}"
ORIGINALS = ("1.3.0", "5.1.0")  # releases of caucus-mcp, one of each generation of the wire
MCP_SDK = "mcp==2.3.0"  # the official client
AGENT_SDK = ("--no-binary", "claude-agent-sdk", "claude-agent-sdk==0.2.187")  # from its source: a wheel has 160 MB more
CONFORMANCE = ("@modelcontextprotocol/conformance@0.2.0-alpha.12", "node@22")  # the official suite, and what it runs on


def run(*command: str | Path) -> None:
    """Run `command` in the checkout, in view. Raises CalledProcessError."""
    words = [str(word) for word in command]
    print(f"==> {shlex.join(words)}", flush=True)
    subprocess.run(words, cwd=ROOT, check=True)


def environment(folder: Path, *requirements: str, key: str) -> Path:
    """Make `folder` a venv that holds `requirements`, unless it is so since a run with the same `key`.

    Returns the venv's Python. Raises CalledProcessError.
    """
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "made-by-tests-run"
    wanted = hashlib.sha256("\0".join((sys.version, key, *requirements)).encode()).hexdigest()
    if python.exists() and stamp.is_file() and stamp.read_text() == wanted:
        return python
    if not (folder / "lib" / PYTHON_NAME).is_dir():
        run(sys.executable, "-m", "venv", "--clear", folder)
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
    stamp.write_text(wanted)
    return python


def install_originals() -> None:
    """Install both generations of the original, whose clients the tests run against our hub."""
    for version in ORIGINALS:
        try:
            environment(ROOT / ".cache/originals" / version, f"caucus-mcp=={version}", "mcp==1.30.*", key="")
        except subprocess.CalledProcessError:
            if os.environ.get("CI"):
                raise
            print(f"WARNING: caucus-mcp {version} cannot be installed; the tests that need it will say so", flush=True)


def install_mcp_tools() -> None:
    """Install what MCP itself offers to test with: the official SDK, and where npm is, the conformance suite."""
    try:
        environment(ROOT / ".cache/mcp-sdk", MCP_SDK, key="")
        folder = ROOT / ".cache/conformance"
        stamp = folder / "made-by-tests-run"
        if not stamp.is_file() or stamp.read_text() != " ".join(CONFORMANCE):
            folder.mkdir(parents=True, exist_ok=True)
            npm = shutil.which("npm")
            if npm is None:
                print("WARNING: there is no npm; the test that needs the conformance suite will say so", flush=True)
                return
            (folder / "package.json").write_text('{"private": true}')
            run(npm, "install", "--prefix", folder, "--no-audit", "--no-fund", "--loglevel=error", *CONFORMANCE)
            stamp.write_text(" ".join(CONFORMANCE))
    except subprocess.CalledProcessError:
        if os.environ.get("CI"):
            raise
        print("WARNING: MCP's own tools cannot be installed; the tests that need them will say so", flush=True)


def install_agent_sdk() -> None:
    """Install the SDK of the native agent; its `claude` is a fake one."""
    try:
        environment(ROOT / ".cache/agent-sdk", *AGENT_SDK, key="")
    except subprocess.CalledProcessError:
        if os.environ.get("CI"):
            raise
        print("WARNING: claude-agent-sdk cannot be installed; the tests that need it will say so", flush=True)


def run_tests(python: Path) -> None:
    """Run pytest; give what failed a second, visible chance: real browsers and processes on a busy machine can be late.

    Raises CalledProcessError when something fails twice.
    """
    count = str(min(4, 1 + (os.cpu_count() or 1)))  # for much of the time they wait
    workers = ("-n", count, "--dist", "loadfile", "--no-loadscope-reorder")  # tests/conftest.py has the order
    try:
        run(python, "-m", "pytest", *workers, *sys.argv[1:])
    except subprocess.CalledProcessError as error:
        if error.returncode != 1:  # interrupted, or not even collected
            raise
        print("==> once more, only what failed", flush=True)
        run(python, "-m", "pytest", "--last-failed", "--last-failed-no-failures=none", *sys.argv[1:])


def main() -> int:
    """Prepare, then check; return the exit code of what failed first, or 0."""
    try:
        python = environment(ROOT / ".venv", "-e", ".[dev]", key=(ROOT / "pyproject.toml").read_text())
        install_originals()
        install_mcp_tools()
        install_agent_sdk()
        run(python, "-m", "ruff", "check", ".")
        run(python, "-m", "mypy", "--strict", "caucus.py", "build_zipapp.py")
        run_tests(python)
    except subprocess.CalledProcessError as error:
        return int(error.returncode)  # what failed has said why, below its own "==>" line
    return 0


if __name__ == "__main__":
    sys.exit(main())
