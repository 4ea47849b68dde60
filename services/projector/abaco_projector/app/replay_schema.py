"""Replay: the read models as they were at some moment, in a schema of their own, for SQL."""

from datetime import datetime

from abaco_projector.adapters.postgres_session import Session, quoted
from abaco_projector.adapters.sql_queries import QUERIES
from abaco_projector.app.log_range import History, head_of
from abaco_projector.app.rebuild import NEXT, OLD
from abaco_projector.app.shadow_schema import Show, Source, alone, built, drop, index, live_schema
from abaco_projector.app.verify import SCRATCH
from abaco_proto.errors import Malformed, Refused

OURS = frozenset({NEXT, OLD, SCRATCH, "information_schema"})


async def replay(  # noqa: PLR0913 - what, from where, into what, and how it is shown
    log: History, dsn: str, until: int | datetime, schema: str, show: Show, *, force: bool = False
) -> int:
    """Fold the log up to a sequence, or up to the last event of a time; return the sequence.

    Raises:
        Malformed: the schema's name is a reserved one.
        Refused: the schema is there already, or the log does not reach that far.
    """
    if schema in OURS or schema.startswith("pg_"):
        raise Malformed(f"--into: {schema} is reserved, choose another name")
    async with alone(dsn, schema) as session:
        live = await live_schema(session)
        if schema == live:
            raise Malformed(f"--into: {schema} holds the live tables, choose another name")
        if await session.found(QUERIES["schema_comment"], schema) and not force:
            raise Refused(f"schema {schema} is there already; --force replaces it")
        sequence = await _sequence(session, log, live, until)
        try:
            async with built(session, schema, Source(log, dsn, live), sequence, show):
                await index(session, live, schema)
        except BaseException:
            await drop(session, schema)
            raise
        # Output is in no event.
        await session.run(f"DROP TABLE {quoted(schema)}.logs")
        return sequence


async def _sequence(session: Session, log: History, live: str, until: int | datetime) -> int:
    if isinstance(until, int):
        head = await head_of(log)
        if until > head:
            raise Refused(f"--until: the log ends at event {head}")
        return until
    query = QUERIES["last_before"].format(live=quoted(live))
    return int((await session.found(query, until))[0][0] or 0)
