"""Export and restore: the log and the output, to one portable file and back.

Output is in no event. The read models hold all output that is kept, so it is exported from there,
and restored there.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from abaco_jetstream import Archive, Connection, JetStreamEventLog, Message
from abaco_jetstream.ports import EventLog
from abaco_projector.adapters.read_model_store import OUTPUT, ReadModelStore, open_store
from abaco_projector.adapters.schema_migrations import migrate
from abaco_projector.app.log_range import read_range
from abaco_projector.audit.shadow_schema import Progress
from abaco_projector.domain.hash_chain import GENESIS_HASH, next_hash
from abaco_projector.domain.history_difference import gap
from abaco_projector.domain.output_chunks import Chunk
from abaco_projector.domain.portable_format import (
    EndLine,
    EventLine,
    FileLine,
    OutputLine,
    PortableFileWriter,
    event_line,
    read_lines,
)
from abaco_proto import streams
from abaco_proto.envelope import from_message
from abaco_proto.errors import Refused

BATCH_MESSAGES = 500
BATCH_CHUNKS = 500


class ExportResult(msgspec.Struct, frozen=True):
    """The last line of the file, and the number of chunks that the read models do not have yet."""

    end: EndLine
    missing_chunks: int


async def export(
    connection: Connection, dsn: str | None, path: Path, progress: Progress
) -> ExportResult:
    """Write the file under a temporary name, and rename it once complete. Without ``dsn``, no
    output.

    Raises:
        Refused: the file exists.
        Difference: the log has a gap.
    """
    archive, partial = Archive(connection), _partial_path(path)
    with partial.open("wb") as file:
        writer = PortableFileWriter(file)
        until = await archive.last()
        with progress("events", until) as advance:
            async for messages in archive.read(until=until):
                for m in messages:
                    if m.sequence != writer.checksums.events + 1:
                        raise gap(writer.checksums.events, m.sequence)
                    writer.write(event_line(m.sequence, m.subject, dict(m.headers or {}), m.body))
                advance(len(messages))
        missing_chunks = await _export_output(archive, writer, dsn, progress) if dsn else 0
        end = writer.close()
    partial.rename(path)
    return ExportResult(end, missing_chunks)


def _partial_path(path: Path) -> Path:
    """Return the name of the file until it is complete."""
    if path.exists():
        raise Refused(f"{path} is there already: choose another name, or remove it")
    return path.with_name(path.name + ".part")


async def _export_output(
    archive: Archive, writer: PortableFileWriter, dsn: str, progress: Progress
) -> int:
    async with open_store(dsn) as store:
        await migrate(store)
        missing_chunks = await archive.last(streams.LOGS) - await store.checkpoint(OUTPUT)
        async with store.session.transaction("ISOLATION LEVEL REPEATABLE READ"):
            count = int(await store.session.fetch_value("count_chunks"))
            with progress("output", count) as advance:
                async for rows in store.session.scan("read_chunks"):
                    for row in rows:
                        writer.write(OutputLine(*row))
                    advance(len(rows))
    return missing_chunks


async def restore(connection: Connection, dsn: str, path: Path, progress: Progress) -> EndLine:
    """Restore a checked file into an empty log, or continue an earlier restore of it.

    Raises:
        Refused: the file is damaged, or the log holds other events.
        Unavailable: another process appends to the log.
    """
    end = check_file(path, progress)
    archive = Archive(connection)
    restored = await archive.last()
    if restored > end.events:
        raise Refused(f"the log holds {restored} events already: only an empty log is restored")
    last_hash = await _read_hash(JetStreamEventLog(connection), restored, progress)
    await archive.restoring(begin=True)
    with path.open("rb") as file, progress("events", end.events) as advance:
        await _restore_events(archive, read_lines(file, path), (restored, last_hash), advance)
    await archive.restoring(begin=False)
    if end.chunks:
        async with open_store(dsn) as store:
            await migrate(store)
            with path.open("rb") as file, progress("output", end.chunks) as advance:
                await _restore_output(store, read_lines(file, path), advance)
    return end


def check_file(path: Path, progress: Progress) -> EndLine:
    """Read a file to its end, and return its last line.

    Raises:
        Refused: see :func:`abaco_projector.domain.portable_format.read_lines`.
    """
    with path.open("rb") as file, progress("checking", path.stat().st_size) as advance:
        position = 0
        for line in read_lines(file, path):
            if file.tell() != position:
                advance(file.tell() - position)
                position = file.tell()
            if isinstance(line, EndLine):
                return line
    raise AssertionError("read_lines() yields an EndLine, or raises")


async def _read_hash(log: EventLog, until: int, progress: Progress) -> bytes:
    """Return the chain hash of event ``until``."""
    chain_hash = GENESIS_HASH
    with progress("comparing", until) as advance:
        async for batch in read_range(log, after=0, until=until):
            for recorded in batch:
                chain_hash = next_hash(chain_hash, recorded)
            advance(len(batch))
    return chain_hash


async def _restore_events(
    archive: Archive,
    file_lines: Iterator[FileLine],
    restored: tuple[int, bytes],
    advance: Callable[[int], object],
) -> None:
    chain_hash, pending = GENESIS_HASH, list[Message]()
    for line in file_lines:
        if isinstance(line, EventLine):
            message = Message(line.seq, line.subject, line.headers, line.body)
            chain_hash = next_hash(
                chain_hash, from_message(line.seq, line.subject, line.headers, line.body)
            )
            if line.seq == restored[0] and chain_hash != restored[1]:
                raise Refused("the log is not empty, and not the beginning of this file")
            if line.seq > restored[0]:
                pending.append(message)
        if len(pending) == BATCH_MESSAGES or (pending and not isinstance(line, EventLine)):
            await archive.write(pending)
            advance(len(pending))
            pending = []


async def _restore_output(
    store: ReadModelStore, file_lines: Iterator[FileLine], advance: Callable[[int], object]
) -> None:
    pending: list[Chunk] = []
    for line in file_lines:
        if isinstance(line, OutputLine):
            pending.append(line.chunk)
        if len(pending) == BATCH_CHUNKS or (pending and isinstance(line, EndLine)):
            await store.insert_chunks(pending)
            advance(len(pending))
            pending = []
