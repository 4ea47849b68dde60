"""Runs with a launcher, whether it is a plain process here or the first one of a container."""

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

from abaco_worker.domain.run_report import Report
from abaco_worker.domain.run_request import Request
from abaco_worker.launcher import build
from abaco_worker.sandbox.launcher_client import Launcher, connect, started, tail
from abaco_worker.sandbox.sandbox_directory import Place, Process

SECONDS = 60.0
KEPT_BYTES = 1_000_000


ME = f"{os.getuid()}:{os.getgid()}" if os.getuid() else ""
"""A plain process that is not root can only stay who it is."""


class Ended(msgspec.Struct, frozen=True):
    report: Report
    output: bytes


def program() -> Path:
    built = build.build()
    if built is None:
        pytest.fail("no launcher can be built here: the set-up installs a C compiler")
    return built


def request(*argv: str, environment: Mapping[str, str] | None = None, **more: Any) -> Request:
    return Request(
        argv=argv, environment=environment or {}, **{"output_bytes": KEPT_BYTES, "user": ME, **more}
    )


def shell(script: str, environment: Mapping[str, str] | None = None, **more: Any) -> Request:
    return request("/bin/sh", "-c", script, environment=environment, **more)


def new_place(folder: Path) -> Place:
    place = Place(folder)
    place.make()
    return place


@contextmanager
def process(place: Place) -> Iterator[subprocess.Popen[bytes]]:
    """A launcher as a plain process; a path as short as this one is never too long."""
    with subprocess.Popen(
        [program(), "./socket"],
        cwd=place.mounted,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as running:
        place.expect(process_of(running.pid))
        try:
            yield running
        finally:
            running.kill()


def process_of(pid: int) -> Process:
    """What the kernel calls a process."""
    return Process(pid=pid, started=started(pid))


@asynccontextmanager
async def connected(place: Place) -> AsyncGenerator[Launcher, None]:
    launcher = await connect(place, SECONDS)
    try:
        async with asyncio.timeout(2 * SECONDS):
            yield launcher
    finally:
        launcher.close()


async def ended(place: Place, wanted: Request) -> Ended:
    """Run it in the launcher that waits there."""
    async with connected(place) as launcher:
        await launcher.launch(wanted)
        over = asyncio.Event()
        reading = asyncio.create_task(read(place, over))
        try:
            report = await launcher.report()
        finally:
            over.set()
        return Ended(report, await reading)


async def read(place: Place, over: asyncio.Event) -> bytes:
    async with contextlib.aclosing(tail(place, over)) as pieces:
        return b"".join([piece async for piece in pieces])


async def run(folder: Path, wanted: Request) -> Ended:
    """Run it in a launcher of its own, a plain process."""
    place = new_place(folder)
    with process(place):
        return await ended(place, wanted)
