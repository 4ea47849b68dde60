"""Commands for auditors: verify, rebuild, replay, export and restore the history."""

import re
from datetime import datetime
from pathlib import Path

import click

from abaco_jetstream import JetStreamEventLog
from abaco_local.cli.audit_session import connect, find_addresses, progress_bar, run
from abaco_local.cli.command_sections import example
from abaco_projector.audit.export import ExportResult, export, restore
from abaco_projector.audit.log_reader_process import SubprocessLogReader
from abaco_projector.audit.output_audit import OutputTally
from abaco_projector.audit.rebuild import RebuildResult, rebuild
from abaco_projector.audit.replay_schema import replay
from abaco_projector.audit.verify import VerifiedHead, verify
from abaco_projector.domain.portable_format import EndLine
from abaco_proto.errors import Malformed


@click.command("verify", epilog=example("abaco verify", "abaco verify --noted 61:5f70bf..."))
@click.option(
    "--noted", metavar="SEQ:HASH", help="A head that you noted earlier; it must still match."
)
def verify_command(noted: str | None) -> None:
    """Compare log, copy, read models and output.

    The first difference is printed, and the exit status is 1.
    """
    addresses, noted_hash = find_addresses(), _parse_noted(noted)
    tallies: list[OutputTally] = []

    async def work() -> VerifiedHead:
        async with connect(addresses.nats_url) as connection:
            log = SubprocessLogReader(JetStreamEventLog(connection), addresses.nats_url)
            return await verify(
                log, addresses.postgres_dsn, progress_bar, noted_hash, tallies.append
            )

    head = run(work())
    click.echo(f"clean: {head.sequence} events, head {head.sequence}:{head.hash}")
    for tally in tallies[-1:]:
        click.echo(str(tally))
    if head.unprojected:
        click.echo(f"the read models have not seen {head.unprojected} more events yet")


@click.command("rebuild", epilog=example("abaco rebuild"))
@click.option("--force", is_flag=True, help="Trust the log, even if the copy differs.")
def rebuild_command(*, force: bool) -> None:
    """Fold the log into new tables, and replace the live ones."""
    addresses = find_addresses()

    async def work() -> RebuildResult:
        async with connect(addresses.nats_url) as connection:
            log = SubprocessLogReader(JetStreamEventLog(connection), addresses.nats_url)
            return await rebuild(log, addresses.postgres_dsn, progress_bar, force=force)

    result = run(work())
    for table in result.differences:
        click.echo(f"was different: {table.count} rows of {table.table}; {table.first}")
    click.echo(f"rebuilt: {result.sequence} events")


@click.command(
    "replay",
    epilog=example(
        "abaco replay --until 1000 --into past",
        "abaco replay --until 2026-01-31T12:00:00Z --into january",
    ),
)
@click.option("--until", required=True, metavar="SEQ|TIME", help="A sequence, or RFC 3339.")
@click.option("--into", "schema", required=True, metavar="SCHEMA", help="A new Postgres schema.")
@click.option("--force", is_flag=True, help="Replace the schema of an earlier replay.")
def replay_command(until: str, schema: str, *, force: bool) -> None:
    """Make the read models of a past moment, for SQL."""
    addresses, moment = find_addresses(), _parse_moment(until)

    async def work() -> int:
        async with connect(addresses.nats_url) as connection:
            log = SubprocessLogReader(JetStreamEventLog(connection), addresses.nats_url)
            return await replay(
                log, addresses.postgres_dsn, moment, schema, progress_bar, force=force
            )

    click.echo(f"schema {schema} holds what was so after event {run(work())}")


@click.command("export", epilog=example("abaco export history.gz"))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--no-output", is_flag=True, help="Leave out the containers' output.")
def export_command(file: Path, *, no_output: bool) -> None:
    """Write the log and all output to a portable file."""
    addresses = find_addresses()
    dsn = None if no_output else addresses.postgres_dsn

    async def work() -> ExportResult:
        async with connect(addresses.nats_url) as connection:
            return await export(connection, dsn, file, progress_bar)

    result = run(work())
    end = result.end
    click.echo(
        f"{file}: {end.events} events, {end.chunks} chunks of output, head {end.events}:{end.hash}"
    )
    if result.missing_chunks > 0:
        click.echo(
            f"{result.missing_chunks} more chunks of output are not in the read models yet",
            err=True,
        )


@click.command("restore", epilog=example("abaco up --servers", "abaco restore history.gz"))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def restore_command(file: Path) -> None:
    """Restore an exported file into an empty log.

    If it is interrupted, run it again.
    """
    addresses = find_addresses()

    async def work() -> EndLine:
        async with connect(addresses.nats_url) as connection:
            return await restore(connection, addresses.postgres_dsn, file, progress_bar)

    end = run(work())
    click.echo(f"restored: {end.events} events, {end.chunks} chunks of output")


def _parse_noted(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,17}):([0-9a-fA-F]{64})", text)
    if found is None:
        raise Malformed("--noted: expected a sequence, a colon and 64 hexadecimal digits")
    return int(found[1]), found[2].lower()


def _parse_moment(text: str) -> int | datetime:
    if re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed("--until: expected a sequence, or a time as in RFC 3339") from None
    if time.tzinfo is None:
        raise Malformed("--until: a time needs its zone, e.g. a Z at its end")
    return time


AUDIT_COMMANDS = (verify_command, rebuild_command, replay_command, export_command, restore_command)
