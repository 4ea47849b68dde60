"""nats-py's client, with some things done faster: what it reads is parsed, and delivered.

Each message has six headers, always the same ones. nats-py checks their names character by
character, which is a third of the time it takes to read an event; here a name is checked when it
is first seen. How messages are cut out of what came is in ``parser``. What comes for a
subscription that is taken straight (:meth:`QuickClient.straight`) goes there at once, not through
a queue, a task and a callback that is awaited for each message.

The methods are private ones: should they go, their places are simply not taken any more (what
should come straight then comes by the callback), and tests that compare the two say so.
"""

from collections.abc import Callable

from nats.aio.client import Client, Srv
from nats.aio.subscription import Subscription

from abaco_jetstream.parser import QuickParser

MOST_NAMES = 256
PLAIN, END = b"NATS/1.0\r\n", b"\r\n\r\n"
"""Around the lines of headers that come without a status."""

BLANKS = " \t\n\r\x0b\x0c"
"""What the library strips: it strips bytes."""

FLUSH_SECONDS = 2

Take = Callable[[str, str, dict[str, str] | None, bytes], None]
"""Takes a message: its subject, its reply subject, its headers and its body."""


class QuickClient(Client):
    """Reads the same as its parent."""

    def __init__(self) -> None:
        """Not connected yet."""
        super().__init__()
        self._ps = QuickParser(self)
        self._straight: dict[int, Take] = {}

    @property
    def server(self) -> str:
        """The address of the server that is connected, without user and password."""
        url = self.connected_url
        return f"{url.hostname}:{url.port}" if url is not None else "(none)"

    @property
    def server_id(self) -> str:
        """What the server calls itself, whatever its address."""
        return str(self._server_info.get("server_id", ""))

    async def flush(self, timeout: int = FLUSH_SECONDS) -> None:  # noqa: ASYNC109 - the parent's
        """Wait until the server has answered all that was sent. The parent waits ten seconds."""
        await super().flush(timeout)

    async def force_reconnect(self) -> None:
        """Leave this server for the next one, though it may take nothing any more."""
        if self.is_connected:
            self._abort()
        await super().force_reconnect()

    async def _process_op_err(self, e: Exception) -> None:
        if self.is_connected:
            self._abort()
        await super()._process_op_err(e)

    async def _connect_to_server(self, s: Srv) -> None:
        self._abort()  # what is left of an attempt that failed
        await super()._connect_to_server(s)

    def _abort(self) -> None:
        """Close the connection at once. A peer that is silent takes nothing of what is unsent.

        An orderly close waits until it has, which can be a quarter of an hour.
        """
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    def straight(self, subscription: Subscription, take: Take) -> None:
        """From now on ``take`` gets what comes for this subscription, as it comes."""
        self._straight[subscription._id] = take  # noqa: SLF001 - there is no other name for it

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._straight.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        take = self._straight.get(sid)
        if take is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        if headers and headers.startswith(PLAIN):  # without any there is None
            found = self._parse_header_lines(headers[len(PLAIN) :].removesuffix(END)) or None
        else:
            found = await self._process_headers(headers)
        take(subject.decode(), reply.decode(), found, data)

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in raw.decode("utf-8", "replace").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon and (known := _names[name]) is not None:
                found[known] = value.strip(BLANKS)
        return found


class _Names(dict[str, str | None]):
    """Headers' names as they stand there, and as they are meant; None for what is none."""

    def __missing__(self, raw: str) -> str | None:
        name = raw.strip(BLANKS)
        plain = name.isascii() and not any(character.isspace() for character in name)
        meant = name if plain else None
        if len(self) < MOST_NAMES:
            self[raw] = meant
        return meant


_names = _Names()
