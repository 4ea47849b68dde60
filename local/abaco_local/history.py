"""The commands for auditors: prove, rebuild and replay the history of the running stack."""

import asyncio
import logging
import os
import re
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

import abaco_projector.app.export
import abaco_projector.app.rebuild
import abaco_projector.app.replay_schema
import abaco_projector.app.verify
import abaco_projector.domain.portable_format
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_local import identity
from abaco_local.config import Config
from abaco_local.folder import Folder
from abaco_projector.app import event_loop_runner
from abaco_projector.app.log_reader_process import SubprocessLogReader
from abaco_projector.app.output_audit import OutputTally
from abaco_proto import settings
from abaco_proto.errors import Malformed, Unavailable

CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 10.0

T = TypeVar("T")


class Given(msgspec.Struct, frozen=True):
    """The addresses that are set."""

    nats_url: str | None = None
    postgres_dsn: str | None = None


class Addresses(msgspec.Struct, frozen=True):
    """Where the log and the read models are."""

    nats_url: str
    postgres_dsn: str


def addresses() -> Addresses:
    """Those that are set, or else those of the stack of this folder.

    Raises:
        Unavailable: nothing is set, and this folder never had a stack.
    """
    config, given = settings.read(Config, os.environ), settings.read(Given, os.environ)
    known = identity.load(Folder(Path(config.data_dir).expanduser().resolve()))
    nats_url = given.nats_url or (known and known.nats_url)
    postgres_dsn = given.postgres_dsn or (known and known.postgres_dsn)
    if not nats_url or not postgres_dsn:
        raise Unavailable("there is no stack here: `abaco up` starts one")
    return Addresses(nats_url, postgres_dsn)


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Connection, None]:
    """A connection to the log.

    Raises:
        Unavailable: nobody answers.
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
def show(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar on the error output; none when there is nothing to do."""
    if total == 0:
        yield lambda _: None
        return
    bar: Any = click.progressbar(  # its type depends on the item's, and there is none
        length=total, label=f"{what:<16}", file=sys.stderr, show_pos=True
    )
    with bar:
        yield bar.update


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do it. What a library would log, the command says itself."""
    logging.basicConfig(level=logging.CRITICAL)
    return event_loop_runner.run(work)


@click.command()
@click.option(
    "--noted", metavar="SEQ:HASH", help="A head that was noted down earlier; it must still hold."
)
def verify(noted: str | None) -> None:
    """Compare log, copy, read models and output; name the first difference."""
    where, wanted = addresses(), _noted(noted)
    told: list[OutputTally] = []

    async def work() -> abaco_projector.app.verify.VerifiedHead:
        async with connected(where.nats_url) as connection:
            log = SubprocessLogReader(JetStreamEventLog(connection), where.nats_url)
            return await abaco_projector.app.verify.verify(
                log, where.postgres_dsn, show, wanted, told.append
            )

    head = run(work())
    click.echo(f"clean: {head.sequence} events, head {head.sequence}:{head.hash}")
    for tally in told[-1:]:
        click.echo(str(tally))
    if head.unprojected:
        click.echo(f"the read models have not seen {head.unprojected} more events yet")


@click.command()
@click.option("--force", is_flag=True, help="Even where the copy of the log says something else.")
def rebuild(*, force: bool) -> None:
    """Fold the log into new tables, and put them in the place of the old ones."""
    where = addresses()

    async def work() -> abaco_projector.app.rebuild.RebuildResult:
        async with connected(where.nats_url) as connection:
            log = SubprocessLogReader(JetStreamEventLog(connection), where.nats_url)
            return await abaco_projector.app.rebuild.rebuild(
                log, where.postgres_dsn, show, force=force
            )

    done = run(work())
    for table in done.differences:
        click.echo(f"was different: {table.count} rows of {table.table}; {table.first}")
    click.echo(f"rebuilt: {done.sequence} events")


@click.command()
@click.option("--until", required=True, metavar="SEQ|TIME", help="A sequence, or RFC 3339.")
@click.option("--into", "schema", required=True, metavar="SCHEMA", help="Where to, in Postgres.")
@click.option("--force", is_flag=True, help="Replace what an earlier replay left there.")
def replay(until: str, schema: str, *, force: bool) -> None:
    """Make the read models as they were at some moment, for SQL."""
    where, moment = addresses(), _moment(until)

    async def work() -> int:
        async with connected(where.nats_url) as connection:
            log = SubprocessLogReader(JetStreamEventLog(connection), where.nats_url)
            return await abaco_projector.app.replay_schema.replay(
                log, where.postgres_dsn, moment, schema, show, force=force
            )

    click.echo(f"schema {schema} holds what was so after event {run(work())}")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--no-output", is_flag=True, help="Leave out the containers' output.")
def export(file: Path, *, no_output: bool) -> None:
    """Write the log, and all output, to one portable file."""
    where = addresses()
    dsn = None if no_output else where.postgres_dsn

    async def work() -> abaco_projector.app.export.ExportResult:
        async with connected(where.nats_url) as connection:
            return await abaco_projector.app.export.export(connection, dsn, file, show)

    done = run(work())
    end = done.end
    click.echo(
        f"{file}: {end.events} events, {end.chunks} chunks of output, head {end.events}:{end.hash}"
    )
    if done.missing_chunks > 0:
        click.echo(
            f"{done.missing_chunks} more chunks of output are not in the read models yet", err=True
        )


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def restore(file: Path) -> None:
    """Put an exported file into an empty log; again after an interruption."""
    where = addresses()

    async def work() -> abaco_projector.domain.portable_format.EndLine:
        async with connected(where.nats_url) as connection:
            return await abaco_projector.app.export.restore(
                connection, where.postgres_dsn, file, show
            )

    end = run(work())
    click.echo(f"restored: {end.events} events, {end.chunks} chunks of output")


def _noted(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,17}):([0-9a-fA-F]{64})", text)
    if found is None:
        raise Malformed("--noted: expected a sequence, a colon and 64 hexadecimal digits")
    return int(found[1]), found[2].lower()


def _moment(text: str) -> int | datetime:
    if re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed("--until: expected a sequence, or a time as in RFC 3339") from None
    if time.tzinfo is None:
        raise Malformed("--until: a time needs its zone, e.g. a Z at its end")
    return time


COMMANDS = (verify, rebuild, replay, export, restore)
