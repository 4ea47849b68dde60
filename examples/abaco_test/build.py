"""Builds the quickstart's image, unless the engine has it.

The image contains a static busybox and a script, so no registry is needed.
"""

import io
import os
import shutil
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import docker
from docker.errors import DockerException, ImageNotFound

TAG = "jstubbs/abaco_test:latest"
HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / "build" / "abaco_test"
PT_INTERP = 3  # the type of a program header that names a dynamic loader


def main() -> None:
    """Build the image."""
    try:
        client = docker.from_env()
        if _has_image(client):
            print_line(f"image {TAG} exists already")
            return
        client.images.build(
            fileobj=context(busybox()),
            custom_context=True,
            tag=TAG,
            rm=True,
            network_mode="none",
        )
    except DockerException as error:
        sys.exit(f"image {TAG} cannot be built: {error}")
    print_line(f"image {TAG} built")


def print_line(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")


def _has_image(client: docker.DockerClient) -> bool:
    try:
        client.images.get(TAG)
    except ImageNotFound:
        return False
    return True


def context(busybox_path: Path) -> io.BytesIO:
    """Return the build context as a tar file."""
    files = {
        "Dockerfile": HERE / "Dockerfile",
        "execute.sh": HERE / "execute.sh",
        "busybox": busybox_path,
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, path in files.items():
            member = tar.gettarinfo(str(path), name)
            member.mode = 0o755
            with path.open("rb") as file:
                tar.addfile(member, file)
    packed.seek(0)
    return packed


def busybox() -> Path:
    """Return a static busybox: that of the machine, or else that of Debian's package, unpacked."""
    installed = shutil.which("busybox", path="/bin:/usr/bin")
    if installed and is_static(Path(installed).read_bytes()):
        return Path(installed)
    for _ in range(2):
        for unpacked in ("bin/busybox", "usr/bin/busybox"):
            if (CACHE / unpacked).exists():
                return CACHE / unpacked
        _unpack()
    sys.exit("the package busybox-static holds no busybox")


def is_static(elf: bytes) -> bool:
    """Return whether a 64-bit little-endian program needs no dynamic loader."""
    if elf[:6] != b"\x7fELF\x02\x01":
        return False
    (offset,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    types = (struct.unpack_from("<I", elf, offset + size * index)[0] for index in range(count))
    return PT_INTERP not in types


def _unpack() -> None:
    if not shutil.which("apt-get"):
        sys.exit("a static busybox is needed: install your system's package of it")
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (CACHE / folder).mkdir(parents=True, exist_ok=True)
    # Use separate package lists: those of the machine may be empty, and are left unchanged.
    options = [
        f"Dir::State={CACHE}/state",
        f"Dir::Cache={CACHE}/cache",
        "Dir::State::status=/var/lib/dpkg/status",
        "APT::Sandbox::User=",
    ]
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    _run([*apt, "update"])
    _run([*apt, "download", "busybox-static"])
    _run(["dpkg", "-x", str(max(CACHE.glob("busybox-static_*.deb"))), str(CACHE)])


def _run(argv: list[str]) -> None:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(  # noqa: S603 - all arguments are constants
        argv, cwd=CACHE, env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        sys.exit(f"{argv[0]} failed: {lines[-1]}")


if __name__ == "__main__":
    main()
