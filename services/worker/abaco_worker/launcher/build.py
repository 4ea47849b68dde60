"""Builds the launcher: ``python -m abaco_worker.launcher.build [folder]``.

Each version of the source has its own file name, as has each kind of processor. So a build is never
out of date, and running containers keep their launcher. Without a compiler or a static C library
there is no launcher, and runs start cold.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
FOLDER = SOURCES.parents[3] / "build" / "launcher"
"""Where the set-up puts the launcher, in a checkout."""

FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-Os", "-static", "-s", "-Wall", "-Wextra")
HINT = "on Debian and Ubuntu: apt-get install gcc libc6-dev; on Fedora: gcc glibc-static"
MODE = 0o755


class CannotBuild(Exception):
    """There is no compiler, or it fails; the text is one line with the cause."""


def build(folder: Path = FOLDER) -> Path | None:
    """Return the launcher, built if it is missing; if that fails, print why and return None."""
    target = folder / file_name()
    try:
        if not target.exists():
            _compile(target)
    except (CannotBuild, OSError) as error:
        sys.stderr.write(f"launcher: {error}\nlauncher: without it, every run starts cold\n")
        return None
    return target


def find(folder: Path = FOLDER) -> Path | None:
    """Return the launcher, or None if it is not built."""
    target = folder / file_name()
    return target if target.exists() else None


def file_name() -> str:
    """Return its file name, a digest of the source and the flags, and the processor."""
    digest = hashlib.sha256(repr(FLAGS).encode())
    for path in sorted(SOURCES.rglob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"abaco-launcher-{digest.hexdigest()[:12]}-{platform.machine()}"


def command(compiler: str, target: Path, *more: str) -> list[str]:
    """Return the command that compiles it."""
    sources = map(str, sorted(SOURCES.rglob("*.c")))
    return [compiler, *FLAGS, *more, "-o", str(target), *sources]


def compiler() -> str:
    """Return the C compiler.

    Raises:
        CannotBuild: there is none.
    """
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if found := name and shutil.which(name):
            return found
    raise CannotBuild(f"there is no C compiler ({HINT})")


def _compile(target: Path) -> None:
    """Compile to a temporary file first: other processes may build at the same time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / "launcher"
        _run(command(compiler(), made))
        made.chmod(MODE)
        made.replace(target)


def _run(arguments: list[str]) -> None:
    done = subprocess.run(  # noqa: S603 - all arguments are ours
        arguments, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        cause = next(
            (line for line in lines if "error" in line or "cannot find" in line), lines[-1]
        )
        raise CannotBuild(f"{arguments[0]} failed: {cause.strip()} ({HINT})")


def main() -> None:
    """Build it in the folder of the first argument, and print its path. Never fails."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    if built := build(folder):
        sys.stdout.write(f"{built}\n")


if __name__ == "__main__":
    main()
