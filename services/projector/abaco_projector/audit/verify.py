"""Verify: checks that log, copy, read models and output agree, and names the first difference.

The log is folded into a scratch schema, and the verified copy checked meanwhile. One transaction
then reads the live tables at one checkpoint, folds the log up to exactly there, and compares.
Output is compared with the digests in the log. If the copy differs, everything is repeated with a
fresh copy, so that Postgres can locate the difference.
"""

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from abaco_projector.adapters.postgres_session import Session, quote_name
from abaco_projector.adapters.read_model_store import EVENTS, ReadModelStore
from abaco_projector.adapters.schema_migrations import migrations, pending
from abaco_projector.adapters.sql_queries import QUERIES
from abaco_projector.app.log_range import ReadableLog, read_head
from abaco_projector.audit.copy_audit import CopyDiffers, check_ends
from abaco_projector.audit.output_audit import OutputTally, check_output
from abaco_projector.audit.shadow_schema import (
    Progress,
    ShadowSource,
    drop_schema,
    exclusive_session,
    fold_into,
    folded_shadow,
    read_live_schema,
)
from abaco_projector.audit.table_comparison import READ_MODELS, TABLE_KEYS, find_first_difference
from abaco_projector.domain import history_difference as differences
from abaco_proto.errors import Refused

SCRATCH_SCHEMA = "abaco_verify"

NotedHash = tuple[int, str]
"""A sequence, and the chain hash that an auditor noted for it."""

ReportTally = Callable[[OutputTally], object]
"""Receives how much of the stored output could be checked."""


def ignore_tally(tally: OutputTally) -> None:
    """Ignore how much output was checked."""


class VerifiedHead(msgspec.Struct, frozen=True):
    """The last verified event, its hash, and how many later events the log has."""

    sequence: int
    hash: str
    unprojected: int


async def verify(
    log: ReadableLog,
    dsn: str,
    progress: Progress,
    noted: NotedHash | None = None,
    report_tally: ReportTally = ignore_tally,
) -> VerifiedHead:
    """Compare log, copy, read models and output. ``noted`` must still hold.

    Raises:
        Difference: the first one.
        Refused: there are no read models, or the projector has not migrated them yet.
    """
    async with exclusive_session(dsn, SCRATCH_SCHEMA) as session:
        live = await read_live_schema(session)
        until = min(await checkpoint(session, live), await read_head(log))
        try:
            source = ShadowSource(log, dsn, live, READ_MODELS, logged=False)
            try:
                return await _verify_schema(session, source, until, progress, (noted, report_tally))
            except CopyDiffers:
                source = replace(source, tables=tuple(TABLE_KEYS))
                return await _verify_schema(session, source, until, progress, (noted, report_tally))
        finally:
            await drop_schema(session, SCRATCH_SCHEMA)


async def _verify_schema(
    session: Session,
    source: ShadowSource,
    until: int,
    progress: Progress,
    audit: tuple[NotedHash | None, ReportTally],
) -> VerifiedHead:
    async with folded_shadow(session, SCRATCH_SCHEMA, source, until, progress) as store:
        return await _compare(store, source, progress, audit)


async def checkpoint(session: Session, live: str) -> int:
    """Return the sequence of the live checkpoint.

    Raises:
        Refused: there are no read models, or the projector has not migrated them yet.
    """
    if (await session.fetch_sql("SELECT to_regclass($1)", f"{live}.events"))[0][0] is None:
        raise Refused("there are no read models yet: the projector makes them when it starts")
    applied = await session.fetch_sql(QUERIES["read_migrations"])
    if pending({int(row[0]) for row in applied}, migrations()):
        raise Refused(
            "the read models are of an earlier version: start the projector, which migrates them"
        )
    found = await session.fetch_sql(_checkpoint(live), EVENTS)
    return int(found[0][0]) if found else 0


def _checkpoint(live: str) -> str:
    return f"SELECT sequence FROM {quote_name(live)}.projection_checkpoints WHERE name = $1"  # noqa: S608


async def _compare(
    store: ReadModelStore,
    source: ShadowSource,
    progress: Progress,
    audit: tuple[NotedHash | None, ReportTally],
) -> VerifiedHead:
    noted, report_tally = audit
    session, live, tables = store.session, source.live, source.tables
    async with session.transaction("ISOLATION LEVEL REPEATABLE READ"):
        for table in (*TABLE_KEYS, "logs"):  # a rebuild must not switch now
            await session.run_sql(f"LOCK TABLE {quote_name(live)}.{table} IN ACCESS SHARE MODE")
        until = int((await session.fetch_sql(_checkpoint(live), EVENTS))[0][0])
        await fold_into(store, source, until, progress, "catching up")
        end = (await session.fetch_sql(QUERIES["last_copied"].format(live=quote_name(live))))[0][0]
        if not source.copies_events:
            await check_ends(session, source.copy_up_to(until))
        found = await _hashes(
            session, SCRATCH_SCHEMA if source.copies_events else live, until, noted
        )
        with progress("comparing", len(tables)) as advance:
            if (end or 0) < until:
                raise differences.copy_ended_early(end or 0, until)
            difference = await find_first_difference(session, live, SCRATCH_SCHEMA, tables)
            advance(len(tables))
        if difference is None:
            with progress("output", 1) as advance:
                report_tally(await check_output(session, live, SCRATCH_SCHEMA))
                advance(1)
    if difference is not None:
        raise difference
    if noted is not None and found.get(noted[0]) != noted[1]:
        raise differences.noted(*noted, found.get(noted[0]))
    return VerifiedHead(until, found.get(until, ""), await read_head(source.log) - until)


async def _hashes(
    session: Session, schema: str, until: int, noted: NotedHash | None
) -> dict[int, str]:
    wanted = [until, *(noted[:1] if noted else ())]
    query = QUERIES["hashes"].format(schema=quote_name(schema))
    return {int(seq): value for seq, value in await session.fetch_sql(query, wanted)}
