"""The parcels: caucus.pyz and the wheel, built from this checkout and run where nothing else of it is in reach."""

import hashlib
import http.client
import io
import marshal
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest

import build_zipapp

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = (ROOT / "caucus.py").read_text(encoding="utf-8")
DOCS = (*dict.fromkeys(re.findall(r'"(docs/[\w/.]+\.\w+)"', PROGRAM)),)  # what it reads there
SOURCES = ("build_zipapp.py", "vendor.lock", "caucus.py", *build_zipapp.FOLDERS, *DOCS)
PACKED = [path for name in build_zipapp.FOLDERS for path in sorted((ROOT / name).rglob("*")) if path.is_file()]
UI = [path.relative_to(ROOT).as_posix() for path in PACKED]
VERSION = re.findall(r'^__version__\b.*"(.+)"', PROGRAM, re.MULTILINE)[0]
DEADLINE_S = 20.0  # for what takes a tenth of a second on an idle machine
STOP_S = 5.0  # an orderly stop is at once; this allows for a busy machine, not for a poll that is waited for

# Runs argv[1] as `python argv[1] ...` would, where any socket call that leaves this machine is an error.
OFFLINE = """\
import runpy, sys

def refuse(event, args):
    host = {"socket.connect": lambda: args[1][0], "socket.getaddrinfo": lambda: args[0]}.get(event, lambda: None)()
    if host not in (None, "", "127.0.0.1", "::1", "localhost"):
        raise SystemExit(f"reached out: {event} {args}")

sys.addaudithook(refuse)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

T = TypeVar("T")


class Hub(NamedTuple):
    """A hub in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path  # its stdout and stderr


class Page(NamedTuple):
    """An answer of the hub."""

    status: int
    kind: str  # Content-Type
    body: str


def wait_for(probe: Callable[[], T | None], what: str) -> T:
    """Return what `probe` returns as soon as it is something; fail after DEADLINE_S."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.01)
    pytest.fail(f"waited {DEADLINE_S} s for {what}")


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end in `cwd`, in an empty environment unless `env` is given."""
    words = [str(word) for word in command]
    return subprocess.run(
        words, check=False, cwd=cwd, env=env or {}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


@contextmanager
def running_hub(*command: str | Path, cwd: Path, log: Path, env: dict[str, str] | None = None) -> Iterator[Hub]:
    """Start `command` plus a free port, wait until it announces its address, and end it in any case."""
    words = [str(word) for word in (*command, "--port", "0", "--no-browser")]
    with log.open("wb") as out:
        process = subprocess.Popen(words, cwd=cwd, env=env or {}, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def announced() -> re.Match[str] | None:
        assert process.poll() is None, f"the hub ended at once:\n{log.read_text()}"
        return re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())

    try:
        yield Hub(process, int(wait_for(announced, "the hub's address")[1]), log)
    finally:
        process.kill()
        process.wait()


def get(hub: Hub, path: str) -> Page:
    """GET `path` from `hub`."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=DEADLINE_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return Page(answer.status, answer.headers["Content-Type"], answer.read().decode())
    finally:
        connection.close()


def assert_serves_version_page_and_protocol(hub: Hub) -> None:
    version, page, protocol = get(hub, "/version"), get(hub, "/"), get(hub, "/protocol")
    assert (version.status, page.status, protocol.status) == (200, 200, 200)
    assert VERSION in version.body
    assert page.kind.startswith("text/html")
    assert "<title>" in page.body
    assert "version" in protocol.body


def python_found(*names: str) -> list[str]:
    """Return the interpreters of these names that this machine really has, PATH and pyenv's folder both searched."""
    found = [shutil.which(name) for name in names]
    found += [str(path) for name in names for path in Path.home().glob(f".pyenv/versions/*/bin/{name}")]
    return [path for path in found if path and run(path, "-c", "pass", cwd=ROOT, env=dict(os.environ)).returncode == 0]


def copy_of_checkout(folder: Path) -> Path:
    """Copy what the build reads to `folder`, the packages that were downloaded included."""
    for name in SOURCES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    for packages in (ROOT / ".cache").glob("vendor-*"):
        shutil.copytree(packages, folder / ".cache" / packages.name)
    return folder


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """caucus.pyz, built by the README's command, alone in its folder."""
    output = tmp_path_factory.mktemp("pyz") / "caucus.pyz"
    built = run(sys.executable, ROOT / "build_zipapp.py", "-o", output, cwd=output.parent, env=dict(os.environ))
    assert built.returncode == 0, built.stderr
    return output


@pytest.fixture(scope="module")
def launch(pyz: Path) -> tuple[str, str, str]:
    """`python caucus.pyz`, -S taking this environment's tornado and caucus out of reach."""
    return (sys.executable, "-S", str(pyz))


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder with nothing in it."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pyproject.toml describes."""
    folder = tmp_path_factory.mktemp("wheel")
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    built = run(*command, cwd=folder, env=dict(os.environ))
    assert built.returncode == 0, built.stdout + built.stderr
    return next(folder.glob("caucus-*.whl"))


# ---------------------------------------------------------------- building


def test_build_elsewhere_gives_the_same_bytes(pyz: Path, tmp_path: Path) -> None:
    copy = copy_of_checkout(tmp_path / "another folder")
    environment = os.environ | {"PYTHONHASHSEED": "4242", "TZ": "Asia/Tokyo", "PYTHONOPTIMIZE": "2", "LC_ALL": "C"}
    command = f"umask 077; exec '{sys.executable}' build_zipapp.py"
    built = run("sh", "-c", command, cwd=copy, env=environment)
    assert built.returncode == 0, built.stderr
    assert (copy / "caucus.pyz").read_bytes() == pyz.read_bytes()


def test_second_build_needs_no_network(pyz: Path, tmp_path: Path) -> None:
    copy = copy_of_checkout(tmp_path / "copy")
    built = run(sys.executable, "build_zipapp.py", cwd=copy, env=os.environ | {"PIP_NO_INDEX": "1"})
    assert built.returncode == 0, built.stderr


def test_build_tells_size_and_sha256(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_zipapp.build(ROOT, tmp_path / "caucus.pyz")
    built = (tmp_path / "caucus.pyz").read_bytes()
    last_lines = f"caucus.pyz: {len(built):,} bytes\nSHA-256: {hashlib.sha256(built).hexdigest()}\n"
    assert capsys.readouterr().out.endswith(last_lines)


def test_source_date_epoch_dates_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    build_zipapp.write_zipapp({"a": b""}, tmp_path / "a.pyz")
    with zipfile.ZipFile(tmp_path / "a.pyz") as archive:
        assert archive.getinfo("a").date_time == (2026, 1, 1, 0, 0, 0)


def test_build_help_has_examples(tmp_path: Path) -> None:
    told = run(sys.executable, ROOT / "build_zipapp.py", "--help", cwd=tmp_path)
    assert told.returncode == 0
    assert "examples:" in told.stdout


@pytest.fixture
def bare_copy(tmp_path: Path) -> Path:
    """A checkout that has downloaded nothing yet."""
    copy = copy_of_checkout(tmp_path / "bare")
    shutil.rmtree(copy / ".cache", ignore_errors=True)
    return copy


def assert_fails_in_one_line(built: subprocess.CompletedProcess[str], words: str, copy: Path) -> None:
    assert built.returncode == 1
    assert re.fullmatch(rf"build_zipapp.py: .*{words}.*\n", built.stderr)
    assert not list(copy.glob("caucus.pyz*"))
    assert not list(copy.glob(".cache/*"))


def test_build_without_pip_says_so(bare_copy: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare-venv"], check=True)
    built = run(tmp_path / "bare-venv/bin/python", "build_zipapp.py", cwd=bare_copy)
    assert_fails_in_one_line(built, "has no pip", bare_copy)


def test_build_without_network_says_so(bare_copy: Path) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    built = run(sys.executable, "build_zipapp.py", cwd=bare_copy, env=os.environ | nowhere | {"PIP_FIND_LINKS": ""})
    assert_fails_in_one_line(built, "cannot reach the package index", bare_copy)


def test_build_refuses_a_package_with_another_hash(bare_copy: Path, tmp_path: Path) -> None:
    name, version = re.findall(r"^(\w+)==(\S+)", (ROOT / "vendor.lock").read_text(), re.MULTILINE)[0]
    (tmp_path / f"{name}-{version}.tar.gz").write_bytes(b"not what the lock says")
    forged = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    built = run(sys.executable, "build_zipapp.py", cwd=bare_copy, env=os.environ | forged)
    assert_fails_in_one_line(built, "another hash", bare_copy)


@pytest.mark.parametrize("name", ["caucus.py", *build_zipapp.FOLDERS, *DOCS])
def test_build_names_the_source_that_is_missing(name: str, pyz: Path, tmp_path: Path) -> None:
    copy = copy_of_checkout(tmp_path / "copy")
    (copy / name).rename(tmp_path / "away")
    built = run(sys.executable, "build_zipapp.py", cwd=copy, env=dict(os.environ))
    assert built.returncode == 1
    assert re.fullmatch(rf"build_zipapp.py: {name}/? is missing beside build_zipapp.py\n", built.stderr)


def test_build_names_the_line_of_a_syntax_error(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def (:\n")
    with pytest.raises(build_zipapp.BuildError, match="line 1"):
        build_zipapp.compiled("broken.py", (tmp_path / "broken.py").read_bytes())


# ---------------------------------------------------------------- the zip


def test_zip_holds_the_program_its_page_and_its_protocol(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        names = archive.namelist()
        for name in ("caucus.py", *DOCS, *UI):
            assert archive.read(name) == (ROOT / name).read_bytes()
    assert {"__main__.py", "caucus.pyc", "tornado/web.py", "tornado/web.pyc"} <= set(names)
    assert {"mistune/__init__.py", "mistune/plugins/table.pyc"} <= set(names)
    for package in ("tornado", "mistune"):
        assert any(re.fullmatch(rf"licenses/{package}-[\d.]+/LICENSE", name) for name in names)


def test_zip_does_not_look_like_an_installed_package(pyz: Path) -> None:
    """Else what lists installed packages, as claude-agent-sdk does, meets one that has no name."""
    assert not any(".dist-info" in name or ".egg-info" in name for name in zipfile.ZipFile(pyz).namelist())


def test_zip_holds_nothing_compiled_for_one_machine_and_no_tests(pyz: Path) -> None:
    names = zipfile.ZipFile(pyz).namelist()
    assert {Path(name).suffix for name in names if name.startswith(("tornado/", "mistune/"))} == {".py", ".pyc"}
    assert not [name for name in names if "/test/" in name]


def test_zip_is_whole_and_regular(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        assert archive.testzip() is None
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    assert names == sorted(set(names))
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {(entry.create_system, entry.external_attr >> 16) for entry in entries} == {(3, 0o100644)}
    assert entries[0].header_offset == len(build_zipapp.SHEBANG)
    assert pyz.read_bytes().startswith(b"#!/usr/bin/env python3\nPK")


@pytest.mark.skipif(not shutil.which("unzip"), reason="no unzip here")
def test_unzip_does_not_warn(pyz: Path) -> None:
    tested = run(shutil.which("unzip") or "", "-tq", pyz, cwd=pyz.parent)
    assert (tested.returncode, tested.stderr) == (0, "")
    assert "warning" not in tested.stdout


def test_byte_code_is_not_checked_and_tells_nothing_about_the_builder(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        codes = {name: archive.read(name) for name in archive.namelist() if name.endswith(".pyc")}
    assert {code[4:8] for code in codes.values()} == {b"\x01\x00\x00\x00"}  # PEP 552: by hash, unchecked
    for name, code in codes.items():
        assert marshal.load(io.BytesIO(code[16:])).co_filename == f"caucus.pyz/{name[:-1]}"
        assert os.fsencode(ROOT) not in code


# ---------------------------------------------------------------- running it


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_pyz_answers_without_a_warning(flag: str, launch: tuple[str, str, str], empty: Path) -> None:
    python, no_site, pyz = launch
    told = run(python, no_site, "-W", "error", pyz, flag, cwd=empty)
    assert (told.returncode, told.stderr) == (0, "")
    assert (VERSION if flag == "--version" else "hub") in told.stdout
    assert not list(empty.iterdir())


def test_pyz_can_be_executed_by_its_name(pyz: Path, empty: Path) -> None:
    assert pyz.stat().st_mode & 0o777 == 0o755
    told = run(pyz, "--version", cwd=empty, env={"PATH": str(Path(sys.executable).parent)})
    assert (told.returncode, VERSION in told.stdout) == (0, True)


@pytest.mark.parametrize(
    "written",
    [
        *("caucus.pyz", "./caucus.pyz", "../a room for é/caucus.pyz", "./../a room for é/./caucus.pyz"),
        *("{folder}/caucus.pyz", "./link", "{folder}/link"),
    ],
)
def test_the_zip_is_whole_however_its_path_is_written(written: str, pyz: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a room for é"
    folder.mkdir()
    shutil.copy(pyz, folder)
    (folder / "link").symlink_to("caucus.pyz")
    command = (sys.executable, written.format(folder=folder), "hub")
    with running_hub(*command, cwd=folder, log=tmp_path / "log") as hub:
        assert_serves_version_page_and_protocol(hub)


@pytest.mark.parametrize(
    "words",
    [
        ("./caucus.pyz",),
        (sys.executable, "-I", "-OO", "-W", "error", "./caucus.pyz"),
        (sys.executable, "-S", "-W", "error", "-m", "caucus"),
    ],
    ids=["executed", "isolated and optimised", "as a module"],
)
def test_the_zip_serves_however_it_is_started(words: tuple[str, ...], pyz: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a room for é"
    folder.mkdir()
    shutil.copy(pyz, folder)
    env = {"PATH": str(Path(sys.executable).parent)} | ({"PYTHONPATH": "caucus.pyz"} if "-m" in words else {})
    with running_hub(*words, "hub", cwd=folder, log=tmp_path / "log", env=env) as hub:
        assert_serves_version_page_and_protocol(hub)


def test_newer_pythons_serve_from_the_zip(pyz: Path, empty: Path, tmp_path: Path) -> None:
    pythons = [path for path in python_found("python3.12", "python3.13", "python3.14") if path != sys.executable]
    if not pythons:
        pytest.skip("no other Python from 3.12 on here")
    for python in pythons:
        with running_hub(python, "-S", "-W", "error", pyz, "hub", cwd=empty, log=tmp_path / "log") as hub:
            assert_serves_version_page_and_protocol(hub)


def test_hub_from_the_zip_serves_offline_and_stops_on_sigterm(pyz: Path, empty: Path, tmp_path: Path) -> None:
    offline = (sys.executable, "-S", "-c", OFFLINE, pyz)
    with running_hub(*offline, "hub", cwd=empty, log=tmp_path / "log") as hub:
        assert_serves_version_page_and_protocol(hub)
        hub.process.send_signal(signal.SIGTERM)
        assert hub.process.wait(STOP_S) == 0
    assert "reached out" not in hub.log.read_text()
    assert not list(empty.iterdir())


def test_folders_here_do_not_shadow_those_in_the_zip(launch: tuple[str, str, str], empty: Path, tmp_path: Path) -> None:
    decoys = [*UI, "docs/protocol.md", "caucus.py", "tornado/__init__.py", "caucus_assets/ui/index.html"]
    for name in decoys:
        (empty / name).parent.mkdir(parents=True, exist_ok=True)
        (empty / name).write_text("raise SystemExit('decoy')")
    with running_hub(*launch, "hub", cwd=empty, log=tmp_path / "log") as hub:
        assert_serves_version_page_and_protocol(hub)
        assert "decoy" not in get(hub, "/").body + get(hub, "/protocol").body


def test_byte_code_is_used_by_this_python(pyz: Path, empty: Path) -> None:
    script = "import caucus, tornado; print(caucus.__file__, tornado.__file__)"
    told = run(sys.executable, "-S", "-c", script, cwd=empty, env={"PYTHONPATH": str(pyz)})
    assert told.stdout.split() == [f"{pyz}/caucus.pyc", f"{pyz}/tornado/__init__.pyc"]


def test_newer_pythons_run_it_from_source(pyz: Path, empty: Path) -> None:
    pythons = [path for path in python_found("python3.12", "python3.13", "python3.14") if path != sys.executable]
    if not pythons:
        pytest.skip("no other Python from 3.12 on here")
    for python in pythons:
        told = run(python, "-S", "-W", "error", pyz, "--version", cwd=empty)
        assert (told.returncode, told.stderr, VERSION in told.stdout) == (0, "", True), python


def test_older_pythons_get_one_clear_line(pyz: Path, empty: Path) -> None:
    pythons = python_found("python2.7", "python3.6", "python3.7", "python3.8", "python3.9", "python3.10")
    if not pythons:
        pytest.skip("no Python before 3.11 here")
    for python in pythons:
        told = run(python, pyz, "hub", cwd=empty)
        assert (told.returncode, told.stdout) == (2, ""), python
        assert re.fullmatch(r"caucus needs Python 3\.11 or newer; this is Python [23]\.\d+\.\n", told.stderr), python


# ---------------------------------------------------------------- the wheel


def test_wheel_holds_the_module_and_the_assets_only(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {"caucus.py"} | {f"caucus_assets/{name}" for name in (*DOCS, *UI)}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert f"caucus-{VERSION}.dist-info/licenses/LICENSE" in names


def test_wheel_names_the_console_scripts_of_the_original(wheel: Path) -> None:
    text = zipfile.ZipFile(wheel).read(f"caucus-{VERSION}.dist-info/entry_points.txt").decode()
    scripts = dict(line.split(" = ") for line in text.splitlines() if " = " in line)
    aliases = {f"caucus-{name}": f"caucus:main_{name}" for name in ("bridge", "hub", "watch")}
    aliases["caucus-claude-agent"] = "caucus:main_agent"
    assert scripts == {"caucus": "caucus:main", **aliases}


def test_installed_wheel_has_working_commands(wheel: Path, empty: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = (sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", "--no-deps", "--no-index", wheel)
    installed = run(*pip, cwd=empty, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    assert installed.returncode == 0, installed.stderr
    for command in ("caucus", "caucus-hub"):
        told = run(venv / "bin" / command, "--version", cwd=empty)
        assert (told.returncode, VERSION in told.stdout) == (0, True), told.stderr
    assert run(venv / "bin/caucus-watch", "--help", cwd=empty).returncode == 0
    # The hub needs tornado: lend it the one that the zip carries.
    lent = {"PYTHONPATH": str(build_zipapp.vendored(ROOT))}
    with running_hub(venv / "bin/caucus-hub", cwd=empty, log=tmp_path / "log", env=lent) as hub:
        assert_serves_version_page_and_protocol(hub)
