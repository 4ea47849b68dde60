"""Export and restore: the log and the output, into one portable file and back.

Output is in no event. All of it that is kept is in the read models, so it is taken from there, and
put back there.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from abaco_jetstream import Archive, Connection, JetStreamEventLog, Message
from abaco_jetstream.ports import EventLog
from abaco_projector.adapters.read_model_store import OUTPUT, Store, open_store
from abaco_projector.adapters.schema_migrations import migrate
from abaco_projector.app.log_range import span
from abaco_projector.app.shadow_schema import Show
from abaco_projector.domain.hash_chain import START, link
from abaco_projector.domain.history_difference import gap
from abaco_projector.domain.output_chunks import Chunk
from abaco_projector.domain.portable_format import End, Event, Line, Output, Writer, event, lines
from abaco_proto import streams
from abaco_proto.envelope import from_message
from abaco_proto.errors import Refused

BATCH_MESSAGES = 500
BATCH_CHUNKS = 500


class Exported(msgspec.Struct, frozen=True):
    """The seal of the file, and how many chunks of output were not in the read models yet."""

    end: End
    behind: int


async def export(connection: Connection, dsn: str | None, path: Path, show: Show) -> Exported:
    """Write the file; nothing stands under its name before it is complete. No ``dsn``, no output.

    Raises:
        Refused: the file is there already.
        Difference: the log has a gap.
    """
    archive, part = Archive(connection), _part(path)
    with part.open("wb") as file:
        writer = Writer(file)
        until = await archive.last()
        with show("events", until) as advance:
            async for messages in archive.read(until=until):
                for m in messages:
                    if m.sequence != writer.seal.events + 1:
                        raise gap(writer.seal.events, m.sequence)
                    writer.write(event(m.sequence, m.subject, dict(m.headers or {}), m.body))
                advance(len(messages))
        behind = await _export_output(archive, writer, dsn, show) if dsn else 0
        end = writer.close()
    part.rename(path)
    return Exported(end, behind)


def _part(path: Path) -> Path:
    """Where a file is written before it is complete."""
    if path.exists():
        raise Refused(f"{path} is there already")
    return path.with_name(path.name + ".part")


async def _export_output(archive: Archive, writer: Writer, dsn: str, show: Show) -> int:
    async with open_store(dsn) as store:
        await migrate(store)
        behind = await archive.last(streams.LOGS) - await store.checkpoint(OUTPUT)
        async with store.session.transaction("ISOLATION LEVEL REPEATABLE READ"):
            count = int(await store.session.value("count_chunks"))
            with show("output", count) as advance:
                async for rows in store.session.scan("read_chunks"):
                    for row in rows:
                        writer.write(Output(*row))
                    advance(len(rows))
    return behind


async def restore(connection: Connection, dsn: str, path: Path, show: Show) -> End:
    """Put a file back: checked first, then into an empty log, or behind what an earlier try left.

    Raises:
        Refused: the file is damaged, or the log holds something else.
        Unavailable: someone else appends to the log.
    """
    end = check(path, show)
    archive = Archive(connection)
    done = await archive.last()
    if done > end.events:
        raise Refused(f"the log holds {done} events already: only an empty log is restored")
    before = await _hash_of(JetStreamEventLog(connection), done, show)
    await archive.restoring(begin=True)
    with path.open("rb") as file, show("events", end.events) as advance:
        await _restore_events(archive, lines(file, path), (done, before), advance)
    await archive.restoring(begin=False)
    if end.chunks:
        async with open_store(dsn) as store:
            await migrate(store)
            with path.open("rb") as file, show("output", end.chunks) as advance:
                await _restore_output(store, lines(file, path), advance)
    return end


def check(path: Path, show: Show) -> End:
    """Read a file to its end.

    Raises:
        Refused: see :func:`abaco_projector.domain.portable_format.lines`.
    """
    with path.open("rb") as file, show("checking", path.stat().st_size) as advance:
        place = 0
        for line in lines(file, path):
            if file.tell() != place:
                advance(file.tell() - place)
                place = file.tell()
            if isinstance(line, End):
                return line
    raise AssertionError("lines() ends with an end, or raises")


async def _hash_of(log: EventLog, until: int, show: Show) -> bytes:
    """The chain's hash at an event of the log."""
    own = START
    with show("comparing", until) as advance:
        async for batch in span(log, after=0, until=until):
            for recorded in batch:
                own = link(own, recorded)
            advance(len(batch))
    return own


async def _restore_events(
    archive: Archive,
    found: Iterator[Line],
    done: tuple[int, bytes],
    advance: Callable[[int], object],
) -> None:
    own, waiting = START, list[Message]()
    for line in found:
        if isinstance(line, Event):
            message = Message(line.seq, line.subject, line.headers, line.body)
            own = link(own, from_message(line.seq, line.subject, line.headers, line.body))
            if line.seq == done[0] and own != done[1]:
                raise Refused("the log is not empty, and not the beginning of this file")
            if line.seq > done[0]:
                waiting.append(message)
        if len(waiting) == BATCH_MESSAGES or (waiting and not isinstance(line, Event)):
            await archive.write(waiting)
            advance(len(waiting))
            waiting = []


async def _restore_output(
    store: Store, found: Iterator[Line], advance: Callable[[int], object]
) -> None:
    waiting: list[Chunk] = []
    for line in found:
        if isinstance(line, Output):
            waiting.append(line.chunk)
        if len(waiting) == BATCH_CHUNKS or (waiting and isinstance(line, End)):
            await store.put_chunks(waiting)
            advance(len(waiting))
            waiting = []
