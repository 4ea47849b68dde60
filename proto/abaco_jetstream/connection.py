"""The connection to NATS: opened once, kept for good, and the border where errors change names.

Theory of a cluster: while it elects a leader nobody is responsible, and while an append is on its
way to the other servers nobody can say whether one that excludes it will hold. Both last
milliseconds to seconds, and nothing has happened yet; so the same thing is asked again until the
timeout, and whoever called learns of it only when it takes too long.

Where there are several servers, one that does not answer is left for the next: see ``failover``. So
that a process which only reads learns of it too, each asks every few seconds whether the leader of
the log is in touch with a majority.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
import nats.errors
import nats.js.errors
from nats.js import JetStreamContext

from abaco_jetstream.addresses import addresses, credentials, inbox_prefix
from abaco_jetstream.answers import Answers
from abaco_jetstream.client import QuickClient
from abaco_jetstream.failover import Failover
from abaco_jetstream.stream_setup import ensure_streams
from abaco_proto import streams
from abaco_proto.errors import Conflict, Unavailable

logger = logging.getLogger(__name__)

WRONG_LAST_SEQUENCE = 10071
NOT_YET = frozenset(
    {
        10008,  # no leader now
        10009,  # no leader any more
        10158,  # an event with this id is on its way to the other servers
        10164,  # one with the same condition is
    }
)
"""JetStream's error codes that say: nothing happened, and soon the answer will be another."""

RECONNECT_PAUSE_SECONDS = 0.5
LONG_WAIT = 0.8
"""Who gives up after this share of the timeout has waited in vain."""

SHORTEST_PAUSE_SECONDS = 0.002
LONGEST_PAUSE_SECONDS = 0.1
ELSEWHERE_SECONDS = 4.0
"""How long something may stay unanswered before the next server is asked. Each client waits up to
a quarter longer, so that not all of them turn at the same moment. During an election, which takes
up to nine seconds, turning costs nothing: nobody answers then."""

PROBE_SECONDS = 3.0
CONTACT_SECONDS = 4.0
"""A leader that has not heard from a majority for this long is taken for cut off. The servers speak
to each other every second."""

CONNECT_SECONDS = 2.0
"""For each step of a connection: TCP, greeting, first answer."""

PROBE = f"$JS.API.STREAM.INFO.{streams.EVENTS.name}"

NOT_SENT = (nats.errors.MaxPayloadError, nats.errors.BadSubjectError)
"""What the library refuses to send. It says nothing about the server."""

NATS_ERRORS = (nats.errors.Error, nats.js.errors.Error, OSError, asyncio.TimeoutError)

NANOSECONDS = 1_000_000_000

T = TypeVar("T")

_chance = secrets.SystemRandom()


class NotSent(Unavailable):
    """A request that no server was asked: it is too large, or not a request."""


class NotYet(Exception):
    """Nothing happened, and soon the answer may be another."""


ASK_AGAIN = (NotYet, nats.errors.NoRespondersError, nats.js.errors.ServiceUnavailableError)


class Connection:
    """One connection to NATS, shared by all adapters of a process."""

    def __init__(
        self, url: str, *, name: str, timeout: float = 1.5, replicas: int | None = None
    ) -> None:
        """Nothing is opened yet. ``timeout`` bounds every request, in seconds.

        ``replicas`` is on how many servers a stream is put that has to be made: for who has a
        setting that says so.
        """
        self._url = url
        self._replicas = replicas
        self._name = name
        self.timeout = timeout
        self.client = QuickClient()
        self._answers = Answers(self.client)
        self.generation = 0
        self.connected_since = time.monotonic()
        self.waiting: set[asyncio.Event] = set()
        self._complained = False
        self._mute: set[str] = set()
        self._reported = ""
        self._failover = Failover(ELSEWHERE_SECONDS * _chance.uniform(1, 1.25))
        self._probing: asyncio.Task[None] | None = None

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
                await self.ask(lambda: ensure_streams(self.jetstream, self._replicas), "streams")
            except NATS_ERRORS as error:
                await self._on_error(error)
            except Unavailable as error:
                self._report(str(error))
            else:
                logger.info("connected to NATS")
                break
            await asyncio.sleep(RECONNECT_PAUSE_SECONDS)
        self._probing = self._probing or asyncio.create_task(self._probe_for_good())

    def _report(self, why: str) -> None:
        """Say once why the streams are not there: nothing works before, and nobody else says it."""
        if self.connected and why != self._reported:
            logger.warning("cannot use NATS yet: %s", why)
            self._reported = why

    async def close(self) -> None:
        """Close the connection; what is under way fails."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
            self._probing = None
        if self.client.is_connected or self.client.is_reconnecting:
            await self.client.close()

    async def request(
        self, subject: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """One request to JetStream, answered in JSON.

        Raises:
            Conflict: an expected last sequence did not hold.
            Unavailable: as :meth:`ask`.
        """

        async def call() -> dict[str, Any]:
            answer = await self._answers.ask(subject, body, headers, self.timeout)
            return self._checked(msgspec.json.decode(answer))

        begun = time.monotonic()
        try:
            answer = await self.ask(call, _kind(subject))
        except NotSent as error:
            raise NotSent(f"{error}: {len(body)} bytes to {subject}") from error
        except Unavailable as error:
            self._say_mute(_kind(subject), str(error))
            raise
        except asyncio.CancelledError:  # whoever asked has waited as long as anybody does
            if (waited := time.monotonic() - begun) > LONG_WAIT * self.timeout:
                self._say_mute(_kind(subject), f"no answer in {waited:.1f} s")
            raise
        if self._mute:
            self._say_heard(_kind(subject))
        return answer

    def _say_mute(self, kind: str, why: str) -> None:
        """One word for a server that is there and takes nothing: its disk may be full."""
        if self.connected and kind not in self._mute:
            logger.warning("NATS takes nothing of %s.>: %s", kind, why)
            self._mute.add(kind)

    def _say_heard(self, kind: str) -> None:
        if kind in self._mute:
            logger.info("NATS takes %s.> again", kind)
            self._mute.discard(kind)

    async def ask(self, call: Callable[[], Awaitable[T]], kind: str = "") -> T:
        """Do what asks JetStream something, and again while the answer is "not yet".

        Nothing is sent while the connection is down: what is refused now must not happen later.
        ``kind`` is what it is about: a server that is cut off still answers what it can read on its
        own disk, and that says nothing about whether it will ever take an event.

        Raises:
            Unavailable: no connection, no answer in time, or the server could not do it.
        """
        clock = time.monotonic
        begun = clock()
        end, pause = begun + self.timeout, SHORTEST_PAUSE_SECONDS
        cancelled = cancellations()
        while True:
            if not self.connected:
                raise Unavailable("the log (NATS) is not connected")
            try:
                answer = await call()
            except ASK_AGAIN as error:
                if clock() + pause > end:
                    raise await self._unanswered(error, kind, begun) from error
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            except NOT_SENT as error:
                raise NotSent(f"the request cannot be sent: {describe(error)}") from error
            except nats.js.errors.APIError as error:  # an answer, from whoever leads
                raise Unavailable(f"the log (NATS) refused: {describe(error)}") from error
            except NATS_ERRORS as error:
                raise await self._unanswered(error, kind, begun) from error
            else:
                self._failover.answered(kind)
                heed_cancellation(cancelled)
                return answer

    async def _unanswered(self, error: Exception, kind: str, begun: float) -> Unavailable:
        """What to raise; and where there is another server, turn to it in time."""
        now = time.monotonic()
        leave = self.connected and self._failover.unanswered(kind, begun, now)
        if leave and len(self.client.servers) > 1:
            logger.warning(
                "NATS server %s does not answer (%s): connecting to the next one",
                *(self.client.server, describe(error)),
            )
            self._failover.leave(self.client.server_id)
            await self.client.force_reconnect()
        return Unavailable(f"the log (NATS) did not answer: {describe(error)}")

    async def _probe_for_good(self) -> None:
        """Ask again and again whether the log can be written, for a process that does not write."""
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            if self.connected and len(self.client.servers) > 1:
                with suppress(Unavailable):
                    await self.ask(self._probe, "probe")

    async def _probe(self) -> None:
        async with asyncio.timeout(self.timeout):  # a full connection does not even take a request
            answer = await self._answers.ask(PROBE, b"", None, self.timeout)
        info = self._checked(msgspec.json.decode(answer))
        if not has_majority(info.get("cluster") or {}):
            raise NotYet("the leader of the log is cut off from the other servers")

    @staticmethod
    def _checked(answer: dict[str, Any]) -> dict[str, Any]:
        error = answer.get("error")
        if error is None:
            return answer
        said = error.get("description", str(error))
        if error.get("err_code") == WRONG_LAST_SEQUENCE:
            raise Conflict(said)
        if error.get("err_code") in NOT_YET:
            raise NotYet(said)
        raise Unavailable(f"the log (NATS) refused: {said}")

    async def _connect(self) -> None:
        if self.client.is_connected or self.client.is_reconnecting:
            return
        client, (user, password) = QuickClient(), credentials(self._url)
        await client.connect(
            _mixed(addresses(self._url)),
            dont_randomize=True,  # it tries them in turn, so that the next is never the same again
            name=self._name,
            connect_timeout=CONNECT_SECONDS,  # type: ignore[arg-type]  # a float will do
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_PAUSE_SECONDS,  # type: ignore[arg-type]  # a float will do
            inbox_prefix=inbox_prefix(self._url),
            user=user,
            password=password,
            ping_interval=5,
            max_outstanding_pings=2,
            pending_size=0,  # nothing is kept back to be sent after a reconnection
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
        )
        answers = Answers(client)
        await answers.listen()
        self.client, self._answers = client, answers
        self._failover.connected(client.server_id, len(client.servers), time.monotonic())
        self.connected_since = time.monotonic()

    async def _on_error(self, error: Exception) -> None:
        """The client tries again by itself, and calls this each time: one word is enough."""
        level = logging.DEBUG if self._complained or self.connected else logging.WARNING
        self._complained |= level == logging.WARNING
        logger.log(level, "waiting for NATS: %s", describe(error))

    async def _on_disconnected(self) -> None:
        logger.warning("connection to NATS lost")

    async def _on_reconnected(self) -> None:
        client = self.client
        if not self._failover.connected(client.server_id, len(client.servers), time.monotonic()):
            await client.force_reconnect()
            return
        self.generation += 1
        for event in self.waiting:  # what they wait for may be gone with the old connection
            event.set()
        self._complained = False
        self.connected_since = time.monotonic()
        logger.info("connected to NATS again")


def _mixed(servers: list[str]) -> list[str]:
    """In some order, so that not all processes go to the same server."""
    return _chance.sample(servers, len(servers))


def has_majority(cluster: Mapping[str, Any]) -> bool:
    """Whether the leader of a stream has heard from enough others, from ``STREAM.INFO``.

    A stream on one server has no others, and no majority to lose.
    """
    others = cluster.get("replicas") or []
    heard = [
        other
        for other in others
        if not other.get("offline") and other.get("active", 0) < CONTACT_SECONDS * NANOSECONDS
    ]
    return 2 * (1 + len(heard)) > 1 + len(others)


def cancellations() -> int:
    """How often the task at hand was told to end."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def heed_cancellation(before: int = 0) -> None:
    """End the task at hand if it was told to more often than ``before``.

    A request that is answered as its task is cancelled swallows that on Python 3.11: the library
    waits with ``asyncio.wait_for`` (CPython #86296). The task still knows of it.
    """
    if cancellations() > before:
        raise asyncio.CancelledError


def _kind(subject: str) -> str:
    """What of the log a subject is about: one stream may be stuck, and another not."""
    return ".".join(subject.split(".")[:2])


def describe(error: BaseException) -> str:
    """An error in words; many of the library's have none of their own."""
    return str(error) or type(error).__name__
