"""Reads the log in a subprocess, so that a rebuild uses a second processor.

Half of the work of a fold is reading: bytes from a socket, headers, messages, and the check of the
verified copy. A subprocess does it while this process folds. This module is both ends of the
pipes: the request goes in as JSON; frames come out, each four bytes of length (big-endian) and
MessagePack.
"""

import asyncio
import struct
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import msgspec

from abaco_jetstream import Archive, Connection, Message, MessageBatch
from abaco_jetstream.ports import Batch, EventLog
from abaco_projector.app import event_loop_runner
from abaco_projector.app.log_range import ReadableLog
from abaco_projector.audit.copy_audit import AuditedLog, CopyDiffers, VerifiedCopy, open_audit
from abaco_proto.envelope import TIME, Recorded, decode, from_message, skip_body
from abaco_proto.errors import Unavailable
from abaco_proto.events import Event
from abaco_proto.names import all_events_filter

MIN_SUBPROCESS_EVENTS = 20_000
"""With fewer events, starting a process takes longer than it saves."""

PIPE_BYTES = 1 << 20
"""The pipe's buffer holds twice as much: a frame is about this long."""

EXIT_COPY_DIFFERS = 3
"""The exit status if the verified copy differs from the log."""

_LENGTH = struct.Struct(">I")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(MessageBatch).decode


class SubprocessLogReader:
    """A log that is read, and checked against the verified copy, in subprocesses."""

    def __init__(self, log: EventLog, nats_url: str, copy: VerifiedCopy | None = None) -> None:
        """``log`` is the same log, for reading in this process."""
        self._log = log
        self._url = nats_url
        self._copy = copy

    def audited(self, copy: VerifiedCopy) -> "SubprocessLogReader":
        """Return the same log, with every event checked."""
        return SubprocessLogReader(self._log, self._url, copy)

    async def last(self, filter: str) -> Recorded | None:  # noqa: A002 - the port's name
        """See :meth:`abaco_jetstream.ports.EventLog.last`."""
        return await self._log.last(filter)

    async def follow(
        self, filters: Sequence[str], *, after: int = 0
    ) -> AsyncGenerator[Batch, None]:
        """See :meth:`abaco_jetstream.ports.EventLog.follow`; only for all events."""
        head = await self.last(all_events_filter())
        if head is None or head.sequence - after < MIN_SUBPROCESS_EVENTS:
            local: ReadableLog = (
                self._log if self._copy is None else AuditedLog(self._log, self._copy)
            )
            async with aclosing(local.follow(filters, after=after)) as batches:
                async for batch in batches:
                    yield batch
        else:
            async with aclosing(self._frames(after)) as frames:
                async for messages in frames:
                    yield Batch(
                        events=[*map(_to_recorded, messages.items)], pending=messages.pending
                    )

    async def _frames(self, after: int) -> AsyncGenerator[MessageBatch, None]:
        request = msgspec.json.encode(ReadRequest(self._url, after, self._copy))
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "abaco_projector.audit.log_reader_process"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=PIPE_BYTES,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(request)
            child.stdin.close()
            while True:
                (length,) = _LENGTH.unpack(await child.stdout.readexactly(_LENGTH.size))
                yield _decode(await child.stdout.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            if await child.wait() == EXIT_COPY_DIFFERS:
                raise CopyDiffers("log and copy differ") from None
            raise Unavailable("the process that reads the log has ended") from None
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()


def audited(log: ReadableLog, copy: VerifiedCopy) -> ReadableLog:
    """Return the same log, with every event checked against the verified copy as it is read."""
    return log.audited(copy) if isinstance(log, SubprocessLogReader) else AuditedLog(log, copy)


def _to_recorded(message: Message, read: Callable[[bytes], Event] = decode) -> Recorded:
    return from_message(message.sequence, message.subject, message.headers, message.body, read)


# -- the subprocess ------------------------------------------------------------------------------


class ReadRequest(msgspec.Struct, frozen=True):
    """What to read: all events after ``after``, checked if there is a ``copy``."""

    nats_url: str
    after: int
    copy: VerifiedCopy | None


async def _write_frames(request: ReadRequest) -> None:
    """Write frames to stdout until the reader closes it."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, sys.stdout
    )
    output = asyncio.StreamWriter(transport, protocol, None, loop)
    connection = Connection(request.nats_url, name="abaco-reader")
    await connection.open()
    async with aclosing(Archive(connection).follow(after=request.after)) as batches:
        checked = (
            batches
            if request.copy is None
            else _audit_messages(batches, request.copy, request.after)
        )
        async for batch in checked:
            frame = _encode(batch)
            output.write(_LENGTH.pack(len(frame)))
            output.write(frame)
            await output.drain()


async def _audit_messages(
    batches: AsyncGenerator[MessageBatch, None], copy: VerifiedCopy, after: int
) -> AsyncGenerator[MessageBatch, None]:
    """Yield the messages, all checked, without the headers that only the copy needs."""
    async with open_audit(copy, after) as audit:
        async for batch in batches:
            await audit.check([_to_recorded(message, skip_body) for message in batch.items])
            yield MessageBatch([*map(_without_headers, batch.items)], batch.pending)


def _without_headers(message: Message) -> Message:
    time = (message.headers or {}).get(TIME, "")
    return Message(message.sequence, message.subject, {TIME: time}, message.body)


def main() -> None:
    """Serve the request on stdin."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=ReadRequest)
    try:
        event_loop_runner.run(_write_frames(request))
    except ConnectionError:
        return
    except CopyDiffers:
        sys.exit(EXIT_COPY_DIFFERS)


if __name__ == "__main__":
    main()
