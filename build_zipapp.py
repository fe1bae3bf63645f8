"""Build caucus.pyz: all of Caucus in one file, for any machine that has Python 3.11 or newer.

    caucus.py, ui/, some of docs/ -----+
                                       +--> byte code beside each module --> caucus.pyz
    vendor.lock --pip--> .cache/ ------+

It needs Python and pip, and the network for the first build only. The same sources give the same bytes in any
folder, under any umask, hash seed and time zone. What does decide over the bytes, besides the sources, is the
Python that builds (its minor version's byte code, its zlib's deflate) and SOURCE_DATE_EPOCH where it is set.
"""

import argparse
import hashlib
import os
import platform
import py_compile
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit("build_zipapp.py: needs Python 3.11 or newer")

EXAMPLES = """\
examples:
  python3 build_zipapp.py                      write caucus.pyz into this folder
  python3 build_zipapp.py -o /tmp/caucus.pyz   write it elsewhere
  python3 caucus.pyz demo                      then see it work
"""
ROOT = Path(__file__).resolve().parent
ZIP_EPOCH_S = 315_532_800  # 1980-01-01T00:00:00Z, the earliest date that a zip can hold
ZIP_END_S = 4_354_819_198  # the last date that a zip can hold, in 2107
SHEBANG = b"#!/usr/bin/env python3\n"

# What caucus.py reads of docs/.
DOCS = (
    *("docs/protocol.md", "docs/cli.txt", "docs/play.toml", "docs/agent.toml", "docs/hosts.toml", "docs/loops.toml"),
    *("docs/hosts/opencode.js", "docs/hosts/note.md"),
    *("docs/service/keepers.toml", "docs/service/caucus.service", "docs/service/task.xml"),
)
FOLDERS = ("ui", "docs/meetings")

# The only file in the zip that an old interpreter gets to read, so Python 2 must be able to parse it.
MAIN = b"""\
import sys

if sys.version_info < (3, 11):
    sys.stderr.write("caucus needs Python 3.11 or newer; this is Python %d.%d.\\n" % sys.version_info[:2])
    sys.exit(2)

if sys.argv[1:2] == ["brake"] and len(sys.argv) > 2 and sys.argv[2][:1] != "-":  # a hook, before each tool of an agent
    from caucus_brake import main_brake

    sys.exit(main_brake(sys.argv[2:]))

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports: an end without a traceback

from caucus import main

sys.exit(main())
"""

# What pip prints -> what it means to the reader, first match wins.
PIP_TROUBLES = {
    "No module named pip": "this Python has no pip; try `python3 -m ensurepip`, or your system's python3-pip",
    "DO NOT MATCH THE HASHES": "a downloaded package has another hash than vendor.lock says, so it is not used",
    "connection broken": "cannot reach the package index; the first build needs the network",
}


class BuildError(Exception):
    """A reason why there is no caucus.pyz, in one line for the person who asked for it."""


def vendored(root: Path) -> Path:
    """Return the folder with the packages of `root`/vendor.lock, downloaded once for each content of that file."""
    lock = root / "vendor.lock"
    text = lock.read_bytes()
    names = ", ".join(" ".join(pin) for pin in re.findall(r"^([\w.-]+)==(\S+)", text.decode(), re.MULTILINE))
    folder = root / ".cache" / f"vendor-{hashlib.sha256(text).hexdigest()[:16]}"
    if folder.is_dir():
        print(f"vendored: {names} (downloaded before)")
        return folder
    print(f"vendored: {names} (downloading ...)", flush=True)
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        pip_install(lock, Path(scratch, "packages"))
        try:  # renamed only when complete: an interrupted download leaves nothing that looks like a cache
            Path(scratch, "packages").rename(folder)
        except OSError:
            if not folder.is_dir():  # else another build has put the same packages there meanwhile
                raise
    return folder


def pip_install(lock: Path, target: Path) -> None:
    """Have pip put the packages of `lock` into `target`. Raises BuildError."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--retries", "2", "--require-hashes", "--no-deps", "--no-compile"]
    command += ["--requirement", str(lock), "--target", str(target)]
    environment = os.environ | {"TORNADO_EXTENSION": "0"}  # pure Python: no compiler needed here, no .so made
    pip = subprocess.run(
        command, env=environment, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if pip.returncode == 0:
        return
    said = pip.stdout + pip.stderr
    reasons = [meaning for sign, meaning in PIP_TROUBLES.items() if sign in said]
    reasons += [f"pip says: {line}" for line in re.findall(r"^ERROR: (.+)", said, re.MULTILINE)[-1:]]
    raise BuildError(reasons[0] if reasons else f"pip ended with exit code {pip.returncode}")


def sources(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield everything but __main__.py that goes into the zip as it is: its name there and where it lies now."""
    for name in ("caucus.py", *DOCS):
        yield name, root / name
    for folder in FOLDERS:
        if not (root / folder).is_dir():
            raise BuildError(f"{folder}/ is missing beside build_zipapp.py")
        for path in visible_files(root / folder):
            yield path.relative_to(root).as_posix(), path
    packages = vendored(root)
    for path in visible_files(packages):
        parts = path.relative_to(packages).parts
        if path.name.startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE")):
            # How deep a licence lies is up to the version of setuptools. Not below *.dist-info: whoever looks for
            # installed packages (pydantic does, for claude-agent-sdk) would meet one without a name, and fail.
            yield f"licenses/{parts[0].removesuffix('.dist-info')}/{path.name}", path
        elif path.suffix == ".py" and not {"test", "tests"} & set(parts):
            yield "/".join(parts), path


def visible_files(folder: Path) -> list[Path]:
    """Return the files anywhere below `folder`, without an editor's or a system's hidden ones."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(folder).parts)
    ]


def brake_of(source: bytes) -> bytes:
    """Return section 10b of caucus.py as a module of its own. Raises BuildError."""
    found = re.search(rb"^# 10b\. Brake\n.*?(?=^# =+\n# \d)", source, re.DOTALL | re.MULTILINE)
    if found is None:
        raise BuildError("caucus.py has no section 10b")
    return b"from __future__ import annotations\n\nimport os\nimport sys\n\n" + found[0]


def compiled(name: str, source: bytes) -> bytes:
    """Return the .pyc of `source` for the place `name` in the zip.

    UNCHECKED_HASH: zipimport takes it without unpacking the source to compare. Another Python version than the
    one that builds cannot read it and compiles the .py beside it. Tracebacks show `caucus.pyz/name`, a path that
    tells nothing about the machine that built it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        module, pyc = Path(scratch, "module.py"), Path(scratch, "module.pyc")
        module.write_bytes(source)
        try:
            py_compile.compile(
                str(module),
                cfile=str(pyc),
                dfile=f"caucus.pyz/{name}",
                doraise=True,
                optimize=0,  # whatever -O or PYTHONOPTIMIZE say to this process
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
        except py_compile.PyCompileError as error:
            raise BuildError(" ".join(str(error).split())) from error
        return pyc.read_bytes()


def contents(root: Path) -> dict[str, bytes]:
    """Return the files of the zip by name, for the checkout `root`. Raises BuildError."""
    files = {"__main__.py": MAIN}
    for name, path in sources(root):
        try:
            files[name] = path.read_bytes()
        except FileNotFoundError as error:
            raise BuildError(f"{name} is missing beside build_zipapp.py") from error
    files["caucus_brake.py"] = brake_of(files["caucus.py"])
    modules = [name for name in files if name.endswith(".py") and name != "__main__.py"]
    return files | {f"{name}c": compiled(name, files[name]) for name in modules}


def write_zipapp(files: dict[str, bytes], output: Path) -> None:
    """Write `files` to `output` as an executable zip, the same bytes every time. Nobody sees a half-written one."""
    given = os.environ.get("SOURCE_DATE_EPOCH") or str(ZIP_EPOCH_S)
    if not given.isdecimal() or int(given) > ZIP_END_S:
        raise BuildError(f"SOURCE_DATE_EPOCH is {given!r}, not a number of seconds that a zip can hold")
    date = time.gmtime(max(ZIP_EPOCH_S, int(given)))[:6]
    part = output.with_name(f"{output.name}.part")
    with part.open("wb") as handle:
        handle.write(SHEBANG)  # before the archive and to the same handle, so that the archive's offsets count it
        with zipfile.ZipFile(handle, "w") as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(name, date)
                entry.create_system = 3  # Unix, on whatever system this runs
                entry.external_attr = 0o100644 << 16
                is_read_always = name in ("caucus.pyc", "caucus_brake.pyc")  # to inflate it would take each start 2 ms
                entry.compress_type = zipfile.ZIP_STORED if is_read_always else zipfile.ZIP_DEFLATED
                archive.writestr(entry, files[name], compresslevel=9)
    part.chmod(0o755)
    part.replace(output)


def build(root: Path, output: Path) -> None:
    """Build `output` from the checkout `root`, telling the progress on stdout. Raises BuildError."""
    files = contents(root)
    modules = sum(name.endswith(".pyc") for name in files)
    others = len(files) - 2 * modules
    print(f"packing: {modules} modules, compiled by Python {platform.python_version()}, and {others} other files")
    write_zipapp(files, output)
    built = output.read_bytes()
    print(f"{output}: {len(built):,} bytes\nSHA-256: {hashlib.sha256(built).hexdigest()}")


def main() -> int:
    """Build as the command line says; return the exit code."""
    parser = argparse.ArgumentParser(
        description="Build caucus.pyz, all of Caucus in one file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("caucus.pyz"), help="default: %(default)s")
    try:
        build(ROOT, parser.parse_args().output)
    except (BuildError, OSError) as error:
        print(f"build_zipapp.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
