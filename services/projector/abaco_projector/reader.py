"""Reading the log in a process of its own: a rebuild's second processor.

Half of the work of a fold is to read: bytes from a socket, headers, messages. In a process of its
own it goes on while the other folds. This module is both ends of the pipe: a frame is four bytes
of length (big-endian) and MessagePack.
"""

import asyncio
import os
import struct
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from abaco_projector import running
from abaco_projector.config import Config
from abaco_proto import settings
from abaco_proto.envelope import Recorded, from_message
from abaco_proto.errors import Unavailable
from abaco_proto.jetstream import Archive, Connection, Message, Messages
from abaco_proto.log import Batch, EventLog
from abaco_proto.subjects import all_events_filter

WORTH_EVENTS = 20_000
"""Below, the time to start a process is longer than what it saves."""

_LENGTH = struct.Struct(">I")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Messages).decode


class OtherReader:
    """A log whose followers read in processes of their own."""

    def __init__(self, log: EventLog, nats_url: str) -> None:
        """``log`` is the same log, read here."""
        self._log = log
        self._url = nats_url

    async def last(self, filter: str) -> Recorded | None:  # noqa: A002 - the word of the port
        """See :meth:`abaco_proto.log.EventLog.last`."""
        return await self._log.last(filter)

    async def follow(
        self, filters: Sequence[str], *, after: int = 0
    ) -> AsyncGenerator[Batch, None]:
        """See :meth:`abaco_proto.log.EventLog.follow`; of all events only."""
        head = await self.last(all_events_filter())
        if head is None or head.sequence - after < WORTH_EVENTS:
            async with aclosing(self._log.follow(filters, after=after)) as batches:
                async for batch in batches:
                    yield batch
        else:
            async with aclosing(self._frames(after)) as frames:
                async for found in frames:
                    yield Batch(events=[*map(_recorded, found.items)], pending=found.pending)

    async def _frames(self, after: int) -> AsyncGenerator[Messages, None]:
        command = (sys.executable, "-m", "abaco_projector.reader", str(after))
        environ = {**os.environ, "ABACO_NATS_URL": self._url, "ABACO_NATS_URL_FILE": ""}
        child = await asyncio.create_subprocess_exec(
            *command, env=environ, stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        try:
            while True:
                (length,) = _LENGTH.unpack(await child.stdout.readexactly(_LENGTH.size))
                yield _decode(await child.stdout.readexactly(length))
        except asyncio.IncompleteReadError:
            raise Unavailable("the process that reads the log has ended") from None
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()


def _recorded(message: Message) -> Recorded:
    return from_message(message.sequence, message.subject, message.headers, message.body)


# -- the process ---------------------------------------------------------------------------------


async def _read(url: str, after: int) -> None:
    """Write frames to the output, until nobody reads them."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, sys.stdout
    )
    output = asyncio.StreamWriter(transport, protocol, None, loop)
    connection = Connection(url, name="abaco-reader")
    await connection.open()
    async with aclosing(Archive(connection).follow(after=after)) as batches:
        async for batch in batches:
            frame = _encode(batch)
            output.write(_LENGTH.pack(len(frame)))
            output.write(frame)
            await output.drain()


def main() -> None:
    """Read behind the sequence that is the only argument."""
    config = settings.read(Config, os.environ)
    try:
        running.run(_read(config.nats_url, int(sys.argv[1])))
    except ConnectionError:
        return


if __name__ == "__main__":
    main()
