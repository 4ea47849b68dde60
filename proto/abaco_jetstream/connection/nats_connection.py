"""One connection to NATS for a process: requests with a deadline, retries, and failover.

In a cluster, a request may find that there is no leader, or that a conflicting append is still
being replicated. Both last milliseconds to seconds, and nothing was stored; so :class:`Connection`
repeats the request until its timeout, and the caller sees an error only after that.

With several servers, one that does not answer is left for the next: see
:mod:`abaco_jetstream.connection.failover`, and for processes that only read
:mod:`abaco_jetstream.connection.leader_probe`.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
import nats.js.errors
from nats.js import JetStreamContext

from abaco_jetstream.connection.addresses import addresses, credentials, inbox_prefix
from abaco_jetstream.connection.connection_log import ConnectionLog
from abaco_jetstream.connection.failover import Failover
from abaco_jetstream.connection.leader_probe import PROBE_SUBJECT, check_leader
from abaco_jetstream.connection.nats_client import NatsClient
from abaco_jetstream.connection.nats_errors import (
    NATS_ERRORS,
    NOT_SENT_ERRORS,
    RETRYABLE_ERRORS,
    NotSent,
    checked,
    describe,
)
from abaco_jetstream.connection.reply_inbox import ReplyInbox
from abaco_jetstream.retry import Backoff
from abaco_jetstream.stream_setup import ensure_streams
from abaco_proto.errors import Unavailable

RECONNECT_PAUSE_SECONDS = 0.5
CONNECT_SECONDS = 2.0
"""The limit of each step of a connection: TCP, greeting, first answer."""

RETRY_BACKOFF = Backoff(first_seconds=0.002, max_seconds=0.1)
REJECTED_SHARE = 0.8
"""A request that is cancelled after this share of its timeout is logged as rejected."""

FAILOVER_SECONDS = 4.0
"""How long a request may stay unanswered before the client connects to the next server. Each client
adds up to a quarter, so that they do not all move at the same moment. During an election, which
takes up to nine seconds, moving costs nothing: no server answers then."""

PROBE_SECONDS = 3.0

T = TypeVar("T")

_random = random.SystemRandom()


class Connection:
    """One connection to NATS, shared by all adapters of a process.

    ``reconnects`` counts reconnections. Events in ``wake_on_reconnect`` are set at each one: what
    their owners wait for may have been lost with the old connection.
    """

    def __init__(
        self, url: str, *, name: str, timeout: float = 1.5, replicas: int | None = None
    ) -> None:
        """Connect with :meth:`open`. ``timeout`` bounds every request, in seconds.

        ``replicas`` is the number of replicas of streams that do not exist yet, 1 if it is None.
        """
        self._url = url
        self._replicas = replicas
        self._name = name
        self.timeout = timeout
        self.client = NatsClient()
        self._replies = ReplyInbox(self.client)
        self.reconnects = 0
        self.connected_since = time.monotonic()
        self.wake_on_reconnect: set[asyncio.Event] = set()
        self._log = ConnectionLog()
        self._failover = Failover(FAILOVER_SECONDS * _random.uniform(1, 1.25))
        self._probing: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self.client.is_connected

    @property
    def jetstream(self) -> JetStreamContext:
        """The JetStream interface of the client."""
        return self.client.jetstream(timeout=self.timeout)

    async def open(self) -> None:
        """Connect and create missing streams; retry until both succeed."""
        while True:
            try:
                await self._connect()
                await self.call(lambda: ensure_streams(self.jetstream, self._replicas), "streams")
            except NATS_ERRORS as error:
                await self._on_error(error)
            except Unavailable as error:
                if self.connected:
                    self._log.unusable(str(error))
            else:
                self._log.connected(self.client.server)
                break
            await asyncio.sleep(RECONNECT_PAUSE_SECONDS)
        self._probing = self._probing or asyncio.create_task(self._probe_regularly())

    async def close(self) -> None:
        """Close the connection. Requests in flight fail."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
            self._probing = None
        if self.client.is_connected or self.client.is_reconnecting:
            await self.client.close()

    async def request(
        self, subject: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Send a request to JetStream and return its JSON reply.

        Raises:
            Conflict: an expected last sequence did not match.
            Unavailable: as :meth:`call`.
        """
        prefix, begun = _prefix(subject), time.monotonic()
        try:
            reply = await self.call(lambda: self._request_once(subject, body, headers), prefix)
        except NotSent as error:
            raise NotSent(f"{error}: {len(body)} bytes to {subject}") from error
        except Unavailable as error:
            if self.connected:
                self._log.rejected(prefix, str(error))
            raise
        except asyncio.CancelledError:  # the caller's own timeout may be the shorter one
            waited = time.monotonic() - begun
            if self.connected and waited > REJECTED_SHARE * self.timeout:
                self._log.rejected(prefix, f"no answer in {waited:.1f} s")
            raise
        self._log.accepted(prefix)
        return reply

    async def call(self, operation: Callable[[], Awaitable[T]], kind: str = "") -> T:
        """Run an operation of JetStream, and repeat it while its error is retryable.

        Nothing is sent without a connection: a request that fails now must not be executed later.
        ``kind`` groups operations for failover: a server that is cut off still answers reads from
        its own disk, which does not show that it can store an event.

        Raises:
            Unavailable: no connection, no answer in time, or an error of the server.
        """
        clock = time.monotonic
        begun = clock()
        end, pauses = begun + self.timeout, RETRY_BACKOFF.pauses()
        cancelled = _cancellations()
        while True:
            if not self.connected:
                raise Unavailable("the log (NATS) is not connected")
            try:
                result = await operation()
            except RETRYABLE_ERRORS as error:
                pause = next(pauses)
                if clock() + pause > end:
                    raise await self._no_answer(error, kind, begun) from error
                await asyncio.sleep(pause)
            except NOT_SENT_ERRORS as error:
                raise NotSent(f"the request cannot be sent: {describe(error)}") from error
            except nats.js.errors.APIError as error:  # an answer of the leader
                raise Unavailable(f"the log (NATS) refused: {describe(error)}") from error
            except NATS_ERRORS as error:
                raise await self._no_answer(error, kind, begun) from error
            else:
                self._failover.answered(kind)
                _raise_if_cancelled(cancelled)
                return result

    async def _request_once(
        self, subject: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        reply = await self._replies.request(subject, body, headers, self.timeout)
        return checked(msgspec.json.decode(reply))

    async def _no_answer(self, error: Exception, kind: str, begun: float) -> Unavailable:
        """The error to raise. If it is time to, connect to the next server first."""
        now = time.monotonic()
        leave = self.connected and self._failover.unanswered(kind, begun, now)
        if leave and len(self.client.servers) > 1:
            self._log.failover(self.client.server, describe(error))
            self._failover.leave(self.client.server_id)
            await self.client.force_reconnect()
        return Unavailable(f"the log (NATS) did not answer: {describe(error)}")

    async def _probe_regularly(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            if self.connected and len(self.client.servers) > 1:
                with suppress(Unavailable):
                    await self.call(self._probe, "probe")

    async def _probe(self) -> None:
        async with asyncio.timeout(self.timeout):  # sending blocks on a full connection
            check_leader(await self._request_once(PROBE_SUBJECT, b""))

    async def _connect(self) -> None:
        if self.client.is_connected or self.client.is_reconnecting:
            return
        client, (user, password) = NatsClient(), credentials(self._url)
        await client.connect(
            _shuffled(addresses(self._url)),
            dont_randomize=True,  # nats-py then tries them in turn, never the same one again first
            name=self._name,
            connect_timeout=CONNECT_SECONDS,  # type: ignore[arg-type]  # a float works
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_PAUSE_SECONDS,  # type: ignore[arg-type]  # a float works
            inbox_prefix=inbox_prefix(self._url),
            user=user,
            password=password,
            ping_interval=5,
            max_outstanding_pings=2,
            pending_size=0,  # nothing is kept to be sent after a reconnection
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
        )
        replies = ReplyInbox(client)
        await replies.subscribe()
        self.client, self._replies = client, replies
        self._failover.connected(client.server_id, len(client.servers), time.monotonic())
        self.connected_since = time.monotonic()

    async def _on_error(self, error: Exception) -> None:
        self._log.unavailable(describe(error), connected=self.connected)

    async def _on_disconnected(self) -> None:
        self._log.lost()

    async def _on_reconnected(self) -> None:
        client = self.client
        if not self._failover.connected(client.server_id, len(client.servers), time.monotonic()):
            await client.force_reconnect()
            return
        self.reconnects += 1
        for event in self.wake_on_reconnect:
            event.set()
        self.connected_since = time.monotonic()
        self._log.reconnected(client.server)


def _shuffled(servers: list[str]) -> list[str]:
    """The servers in random order, so that processes spread over them."""
    return _random.sample(servers, len(servers))


def _prefix(subject: str) -> str:
    """The first two tokens of a subject: one stream may reject messages while others accept."""
    return ".".join(subject.split(".")[:2])


def _cancellations() -> int:
    """How often the cancellation of the current task was requested."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _raise_if_cancelled(before: int) -> None:
    """Raise ``CancelledError`` if the current task was cancelled more often than ``before``.

    nats-py uses ``asyncio.wait_for``, which on Python 3.11 swallows a cancellation that comes at
    the same moment as the result (CPython #86296).
    """
    if _cancellations() > before:
        raise asyncio.CancelledError
