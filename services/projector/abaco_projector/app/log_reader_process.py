"""Reading the log in a process of its own: a rebuild's second processor.

Half of the work of a fold is to read: bytes from a socket, headers, messages, and to check the copy
against them. In a process of its own it goes on while the other folds. This module is both ends of
the pipes: the order goes in as JSON; out come frames of four bytes of length (big-endian) and
MessagePack.
"""

import asyncio
import struct
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import msgspec

from abaco_jetstream import Archive, Connection, Message, Messages
from abaco_jetstream.ports import Batch, EventLog
from abaco_projector.app import event_loop_runner as running
from abaco_projector.app.copy_audit import Audited, Copy, CopyDiffers, auditing
from abaco_projector.app.log_range import History
from abaco_proto.codec import decode
from abaco_proto.envelope import TIME, Recorded, from_message, unread
from abaco_proto.errors import Unavailable
from abaco_proto.events import Event
from abaco_proto.subjects import all_events_filter

WORTH_EVENTS = 20_000
"""Below, the time to start a process is longer than what it saves."""

PIPE_BYTES = 1 << 20
"""Twice as much is read ahead of the pipe: a frame is about this long."""

DIFFERS = 3
"""The exit status that says that the copy differs."""

_LENGTH = struct.Struct(">I")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Messages).decode


class OtherReader:
    """A log whose followers read, and check the copy, in processes of their own."""

    def __init__(self, log: EventLog, nats_url: str, copy: Copy | None = None) -> None:
        """``log`` is the same log, read here."""
        self._log = log
        self._url = nats_url
        self._copy = copy

    def audited(self, copy: Copy) -> "OtherReader":
        """The same, with every event checked."""
        return OtherReader(self._log, self._url, copy)

    async def last(self, filter: str) -> Recorded | None:  # noqa: A002 - the word of the port
        """See :meth:`abaco_jetstream.ports.EventLog.last`."""
        return await self._log.last(filter)

    async def follow(
        self, filters: Sequence[str], *, after: int = 0
    ) -> AsyncGenerator[Batch, None]:
        """See :meth:`abaco_jetstream.ports.EventLog.follow`; of all events only."""
        head = await self.last(all_events_filter())
        if head is None or head.sequence - after < WORTH_EVENTS:
            here: History = self._log if self._copy is None else Audited(self._log, self._copy)
            async with aclosing(here.follow(filters, after=after)) as batches:
                async for batch in batches:
                    yield batch
        else:
            async with aclosing(self._frames(after)) as frames:
                async for found in frames:
                    yield Batch(events=[*map(_recorded, found.items)], pending=found.pending)

    async def _frames(self, after: int) -> AsyncGenerator[Messages, None]:
        order = msgspec.json.encode(Order(self._url, after, self._copy))
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "abaco_projector.app.log_reader_process"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=PIPE_BYTES,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(order)
            child.stdin.close()
            while True:
                (length,) = _LENGTH.unpack(await child.stdout.readexactly(_LENGTH.size))
                yield _decode(await child.stdout.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            if await child.wait() == DIFFERS:
                raise CopyDiffers("log and copy differ") from None
            raise Unavailable("the process that reads the log has ended") from None
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()


def audited(log: History, copy: Copy) -> History:
    """The same log, with every event checked against the copy as it is read."""
    return log.audited(copy) if isinstance(log, OtherReader) else Audited(log, copy)


def _recorded(message: Message, read: Callable[[bytes], Event] = decode) -> Recorded:
    return from_message(message.sequence, message.subject, message.headers, message.body, read)


# -- the process ---------------------------------------------------------------------------------


class Order(msgspec.Struct, frozen=True):
    """What is to be read: all behind ``after``, checked if there is a copy."""

    nats_url: str
    after: int
    copy: Copy | None


async def _read(order: Order) -> None:
    """Write frames to the output, until nobody reads them."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, sys.stdout
    )
    output = asyncio.StreamWriter(transport, protocol, None, loop)
    connection = Connection(order.nats_url, name="abaco-reader")
    await connection.open()
    async with aclosing(Archive(connection).follow(after=order.after)) as batches:
        checked = batches if order.copy is None else _checked(batches, order.copy, order.after)
        async for batch in checked:
            frame = _encode(batch)
            output.write(_LENGTH.pack(len(frame)))
            output.write(frame)
            await output.drain()


async def _checked(
    batches: AsyncGenerator[Messages, None], copy: Copy, after: int
) -> AsyncGenerator[Messages, None]:
    """The same messages, all checked, and without the headers that only the copy has."""
    async with auditing(copy, after) as audit:
        async for batch in batches:
            await audit.check([_recorded(message, unread) for message in batch.items])
            yield Messages([*map(_bare, batch.items)], batch.pending)


def _bare(message: Message) -> Message:
    time = (message.headers or {}).get(TIME, "")
    return Message(message.sequence, message.subject, {TIME: time}, message.body)


def main() -> None:
    """Read what the input says."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    try:
        running.run(_read(order))
    except ConnectionError:
        return
    except CopyDiffers:
        sys.exit(DIFFERS)


if __name__ == "__main__":
    main()
