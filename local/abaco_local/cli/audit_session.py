"""What every audit command needs: the addresses, a connection to the log, a progress bar."""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from abaco_jetstream import Connection
from abaco_local import stack_identity
from abaco_local.data_folder import DataFolder
from abaco_local.local_settings import LocalSettings
from abaco_projector.app import event_loop_runner
from abaco_proto import settings
from abaco_proto.errors import Unavailable

CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 10.0

T = TypeVar("T")


class ConfiguredAddresses(msgspec.Struct, frozen=True):
    """The addresses that are set in the environment."""

    nats_url: str | None = None
    postgres_dsn: str | None = None


class Addresses(msgspec.Struct, frozen=True):
    """The addresses of the log and of the read models."""

    nats_url: str
    postgres_dsn: str


def find_addresses() -> Addresses:
    """Return the addresses that are set, or else those of this folder's stack.

    Raises:
        Unavailable: no address is set, and this folder never had a stack.
    """
    config = settings.read(LocalSettings, os.environ)
    configured = settings.read(ConfiguredAddresses, os.environ)
    known = stack_identity.load(DataFolder(Path(config.data_dir).expanduser().resolve()))
    nats_url = configured.nats_url or (known and known.nats_url)
    postgres_dsn = configured.postgres_dsn or (known and known.postgres_dsn)
    if not nats_url or not postgres_dsn:
        raise Unavailable("there is no stack here: `abaco up` starts one")
    return Addresses(nats_url, postgres_dsn)


@asynccontextmanager
async def connect(url: str) -> AsyncGenerator[Connection, None]:
    """Open a connection to the log.

    Raises:
        Unavailable: NATS does not answer.
    """
    connection = Connection(url, name="abaco-history", timeout=REQUEST_SECONDS)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await connection.open()
    except TimeoutError:
        raise Unavailable(
            "the log (NATS) does not answer: `abaco up --servers` starts it alone"
        ) from None
    try:
        yield connection
    finally:
        await connection.close()


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on the error output, unless there is nothing to do."""
    if total == 0:
        yield lambda _: None
        return
    bar: Any = click.progressbar(  # its type depends on an item's type, and there are no items
        length=total, label=f"{what:<16}", file=sys.stderr, show_pos=True
    )
    with bar:
        yield bar.update


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine. Log lines are off: the command prints its own messages."""
    logging.basicConfig(level=logging.CRITICAL)
    return event_loop_runner.run(work)
