"""Runs with a launcher, as a plain process or beside a container."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from abaco_worker.domain.run_report import RunReport
from abaco_worker.domain.run_request import RunRequest
from abaco_worker.launcher import build
from abaco_worker.sandbox.launcher_client import (
    LauncherClient,
    connect,
    follow_output,
    process_start_ticks,
)
from abaco_worker.sandbox.sandbox_directory import ProcessIdentity, SandboxDirectory
from deadlines import LIMIT_SECONDS

SECONDS = LIMIT_SECONDS / 2
KEPT_BYTES = 1_000_000


ME = f"{os.getuid()}:{os.getgid()}" if os.getuid() else ""
"""A plain process without root's rights cannot change its user."""


class Ended(msgspec.Struct, frozen=True):
    report: RunReport
    output: bytes


def program() -> Path:
    built = build.build()
    if built is None:
        pytest.fail("no launcher can be built here: the set-up installs a C compiler")
    return built


def request(*argv: str, environment: Mapping[str, str] | None = None, **more: Any) -> RunRequest:
    return RunRequest(
        argv=argv, environment=environment or {}, **{"output_bytes": KEPT_BYTES, "user": ME, **more}
    )


def shell(script: str, environment: Mapping[str, str] | None = None, **more: Any) -> RunRequest:
    return request("/bin/sh", "-c", script, environment=environment, **more)


def new_directory(folder: Path) -> SandboxDirectory:
    directory = SandboxDirectory(folder)
    directory.create()
    return directory


@contextmanager
def process(directory: SandboxDirectory, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A launcher as a plain process; the relative path of its socket is short."""
    with subprocess.Popen(
        [program(), "./socket", *more],
        cwd=directory.socket_folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as running:
        directory.write_launcher(process_of(running.pid))
        try:
            yield running
        finally:
            running.kill()


def process_of(pid: int) -> ProcessIdentity:
    """Return the identity of a process."""
    return ProcessIdentity(pid=pid, started=process_start_ticks(pid))


@asynccontextmanager
async def connected(directory: SandboxDirectory) -> AsyncGenerator[LauncherClient, None]:
    launcher = await connect(directory, SECONDS)
    try:
        async with asyncio.timeout(2 * SECONDS):
            yield launcher
    finally:
        launcher.close()


async def ended(directory: SandboxDirectory, wanted: RunRequest) -> Ended:
    """Run it in the idle launcher of a directory."""
    async with connected(directory) as launcher:
        await launcher.launch(wanted)
        over = asyncio.Event()
        reading = asyncio.create_task(read(directory, over))
        try:
            report = await launcher.wait_for_report()
        finally:
            over.set()
        return Ended(report, await reading)


async def read(directory: SandboxDirectory, over: asyncio.Event) -> bytes:
    async with contextlib.aclosing(follow_output(directory, over)) as pieces:
        return b"".join([piece async for piece in pieces])


async def run(folder: Path, wanted: RunRequest) -> Ended:
    """Run it in a new launcher, as a plain process."""
    directory = new_directory(folder)
    with process(directory):
        return await ended(directory, wanted)
