"""Builds the launcher: ``python -m abaco_worker.launcher.build [folder]``.

One file per version of the source and kind of machine, so that a build is never out of date, and
containers that still run one keep theirs. Without a compiler or a static C library there is none:
then runs start cold.
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
"""Where the set-up puts it, in a checkout."""

FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-Os", "-static", "-s", "-Wall", "-Wextra")
HINT = "on Debian and Ubuntu: apt-get install gcc libc6-dev; on Fedora: gcc glibc-static"
MODE = 0o755


class CannotBuild(Exception):
    """There is no compiler, or it refuses; the text says so in one line."""


def build(folder: Path = FOLDER) -> Path | None:
    """The launcher, built unless it is there; None, and words on stderr, when it cannot be."""
    target = folder / file_name()
    try:
        if not target.exists():
            _compile(target)
    except (CannotBuild, OSError) as error:
        sys.stderr.write(f"launcher: {error}\nlauncher: without it, every run starts cold\n")
        return None
    return target


def find(folder: Path = FOLDER) -> Path | None:
    """The launcher, if it is built."""
    target = folder / file_name()
    return target if target.exists() else None


def file_name() -> str:
    """Its name: by source, flags and machine."""
    digest = hashlib.sha256(repr(FLAGS).encode())
    for path in sorted(SOURCES.glob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"abaco-launcher-{digest.hexdigest()[:12]}-{platform.machine()}"


def command(compiler: str, target: Path, *more: str) -> list[str]:
    """The words that compile it."""
    sources = map(str, sorted(SOURCES.glob("*.c")))
    return [compiler, *FLAGS, *more, "-o", str(target), *sources]


def compiler() -> str:
    """The C compiler.

    Raises:
        CannotBuild: there is none.
    """
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if found := name and shutil.which(name):
            return found
    raise CannotBuild(f"there is no C compiler ({HINT})")


def _compile(target: Path) -> None:
    """Compile to a name of its own first: others may build at the same time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / "launcher"
        _run(command(compiler(), made))
        made.chmod(MODE)
        made.replace(target)


def _run(words: list[str]) -> None:
    done = subprocess.run(  # noqa: S603 - every word of it is ours
        words, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing said"]
        wrong = next((line for line in said if "error" in line or "cannot find" in line), said[-1])
        raise CannotBuild(f"{words[0]} failed: {wrong.strip()} ({HINT})")


def main() -> None:
    """Build it where the first argument says, and print where that is. Never fails."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    if built := build(folder):
        sys.stdout.write(f"{built}\n")


if __name__ == "__main__":
    main()
