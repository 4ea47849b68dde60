"""Replay: folds the log up to an earlier moment into a schema of its own, for SQL queries."""

from datetime import datetime

from abaco_projector.adapters.postgres_session import Session, quote_name
from abaco_projector.adapters.sql_queries import QUERIES
from abaco_projector.app.log_range import ReadableLog, read_head
from abaco_projector.audit.rebuild import NEXT_SCHEMA, OLD_SCHEMA
from abaco_projector.audit.shadow_schema import (
    Progress,
    ShadowSource,
    create_indexes,
    drop_schema,
    exclusive_session,
    folded_shadow,
    read_live_schema,
)
from abaco_projector.audit.verify import SCRATCH_SCHEMA
from abaco_proto.errors import Malformed, Refused

RESERVED_SCHEMAS = frozenset({NEXT_SCHEMA, OLD_SCHEMA, SCRATCH_SCHEMA, "information_schema"})


async def replay(  # noqa: PLR0913 - source, target, and progress
    log: ReadableLog,
    dsn: str,
    until: int | datetime,
    schema: str,
    progress: Progress,
    *,
    force: bool = False,
) -> int:
    """Fold the log up to a sequence, or to the last event at a time; return the sequence.

    Raises:
        Malformed: the schema's name is reserved.
        Refused: the schema exists, or the log ends earlier.
    """
    if schema in RESERVED_SCHEMAS or schema.startswith("pg_"):
        raise Malformed(f"--into: {schema} is reserved, choose another name")
    async with exclusive_session(dsn, schema) as session:
        live = await read_live_schema(session)
        if schema == live:
            raise Malformed(f"--into: {schema} holds the live tables, choose another name")
        if await session.fetch_sql(QUERIES["schema_comment"], schema) and not force:
            raise Refused(f"schema {schema} exists already; --force replaces it")
        sequence = await _sequence(session, log, live, until)
        try:
            async with folded_shadow(
                session, schema, ShadowSource(log, dsn, live), sequence, progress
            ):
                await create_indexes(session, live, schema)
        except BaseException:
            await drop_schema(session, schema)
            raise
        # Output is not in the log.
        await session.run_sql(f"DROP TABLE {quote_name(schema)}.logs")
        return sequence


async def _sequence(session: Session, log: ReadableLog, live: str, until: int | datetime) -> int:
    if isinstance(until, int):
        head = await read_head(log)
        if until > head:
            raise Refused(f"--until: the log ends at event {head}")
        return until
    query = QUERIES["last_before"].format(live=quote_name(live))
    return int((await session.fetch_sql(query, until))[0][0] or 0)
