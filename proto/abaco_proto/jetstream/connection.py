"""The connection to NATS: opened once, kept for good, and the border where errors change names."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StorageType, StreamConfig

from abaco_proto import permissions, streams
from abaco_proto.errors import Conflict, Unavailable
from abaco_proto.jetstream.client import QuickClient

logger = logging.getLogger(__name__)

WRONG_LAST_SEQUENCE = 10071
RECONNECT_PAUSE_SECONDS = 0.5

NATS_ERRORS = (nats.errors.Error, nats.js.errors.Error, OSError, asyncio.TimeoutError)


class Connection:
    """One connection to the NATS server, shared by all adapters of a process."""

    def __init__(self, url: str, *, name: str, timeout: float = 1.5) -> None:
        """Nothing is opened yet. ``timeout`` bounds every request, in seconds."""
        self._url = url
        self._name = name
        self.timeout = timeout
        self.client = Client()
        self.generation = 0
        self.connected_since = time.monotonic()
        self.waiting: set[asyncio.Event] = set()
        self._complained = False

    @property
    def connected(self) -> bool:
        """Whether requests have a chance now."""
        return self.client.is_connected

    @property
    def jetstream(self) -> JetStreamContext:
        """The JetStream interface of the client."""
        return self.client.jetstream(timeout=self.timeout)

    async def open(self) -> None:
        """Connect, however long it takes, and make sure that the streams are there."""
        while True:
            try:
                await self._connect()
                await self._ensure_streams()
            except NATS_ERRORS as error:
                await self._on_error(error)
                await asyncio.sleep(RECONNECT_PAUSE_SECONDS)
            else:
                logger.info("connected to NATS")
                return

    async def close(self) -> None:
        """Close the connection; what is under way fails."""
        if self.client.is_connected or self.client.is_reconnecting:
            await self.client.close()

    async def request(
        self, subject: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """One request to JetStream, answered in JSON.

        Nothing is sent while the connection is down: what is refused now must not happen later.

        Raises:
            Conflict: an expected last sequence did not hold.
            Unavailable: no connection, no answer in time, or the server could not do it.
        """
        if not self.connected:
            raise Unavailable("the log (NATS) is not connected")
        try:
            answer = await self.client.request(
                subject, body, timeout=self.timeout, headers=dict(headers or {}) or None
            )
        except NATS_ERRORS as error:
            raise Unavailable(f"the log (NATS) did not answer: {describe(error)}") from error
        return self._checked(json.loads(answer.data))

    @staticmethod
    def _checked(answer: dict[str, Any]) -> dict[str, Any]:
        error = answer.get("error")
        if error is None:
            return answer
        if error.get("err_code") == WRONG_LAST_SEQUENCE:
            raise Conflict(error.get("description", "wrong last sequence"))
        raise Unavailable(f"the log (NATS) refused: {error.get('description', error)}")

    async def _connect(self) -> None:
        if self.client.is_connected:
            return
        client = QuickClient()
        await client.connect(
            self._url,
            name=self._name,
            connect_timeout=2,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_PAUSE_SECONDS,  # type: ignore[arg-type]  # a float will do
            inbox_prefix=inbox_prefix(self._url),
            ping_interval=5,
            max_outstanding_pings=2,
            pending_size=0,  # nothing is kept back to be sent after a reconnection
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
        )
        self.client = client
        self.connected_since = time.monotonic()

    async def _ensure_streams(self) -> None:
        for stream in streams.ALL:
            try:
                await self.jetstream.stream_info(stream.name)
            except nats.js.errors.NotFoundError:
                await self.jetstream.add_stream(stream_config(stream))

    async def _on_error(self, error: Exception) -> None:
        """The client tries again by itself, and calls this each time: one word is enough."""
        level = logging.DEBUG if self._complained or self.connected else logging.WARNING
        self._complained |= level == logging.WARNING
        logger.log(level, "waiting for NATS: %s", describe(error))

    async def _on_disconnected(self) -> None:
        logger.warning("connection to NATS lost")

    async def _on_reconnected(self) -> None:
        self.generation += 1
        for event in self.waiting:  # what they wait for may be gone with the old connection
            event.set()
        self._complained = False
        self.connected_since = time.monotonic()
        logger.info("connected to NATS again")


def stream_config(stream: streams.Stream) -> StreamConfig:
    """What JetStream is told about one of our streams."""
    return StreamConfig(
        name=stream.name,
        description=stream.description,
        subjects=list(stream.subjects),
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=stream.max_age_seconds,
        max_bytes=stream.max_bytes or -1,
        deny_delete=stream.append_only,
        deny_purge=stream.append_only,
        allow_direct=True,
        duplicate_window=stream.duplicate_window_seconds,
    )


def inbox_prefix(url: str) -> str:
    """Where the server's answers to this user go, which no other user may listen to."""
    return permissions.inbox_prefix(unquote(urlsplit(url).username or ""))


def describe(error: BaseException) -> str:
    """An error in words; many of the library's have none of their own."""
    return str(error) or type(error).__name__
