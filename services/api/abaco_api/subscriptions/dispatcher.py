"""The dispatcher: appends events to the inboxes of the actors that subscribe, once each.

The progress of a subscription is in the log itself: the highest ``source_sequence`` of the messages
that it made. A message is appended under the condition that the inbox has not changed since that
was read. So of two dispatchers that deliver the same event one succeeds, and the other finds the
message. Nothing else is stored, and the processes need not agree on anything.

So that processes do not race for every event, one that sees another deliver is on standby for a
while: it leaves each event to the other for a moment, and delivers only what is still undelivered
then. See docs/adr/0021.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, TypeVar

from abaco_api.commands.actor_directory import ActorDirectory
from abaco_api.commands.command_handler import Cause
from abaco_api.commands.inbox import Inboxes, InboxState
from abaco_api.domain.event_message import message
from abaco_api.domain.subscription_fold import Subscription, Subscriptions
from abaco_api.streams.domain.encoded_event import EncodedEvent
from abaco_api.streams.events.event_feed import EventFeed
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.errors import Unavailable, Unknown
from abaco_proto.names import type_filters

logger = logging.getLogger(__name__)

STANDBY_SECONDS = 0.2
"""How long a dispatcher on standby leaves an event to the others."""

STANDBY_TIMEOUT_SECONDS = 5.0
"""How long a dispatcher stays on standby after another one delivered."""

PAUSE_SECONDS = 0.5
WAITING_BATCHES = 64
MAX_CACHED = 100_000
"""Of each kind. What is not cached is read from the inbox: it costs a read, no second message."""
ACTORS_AT_ONCE = 32

Work = tuple[Subscription, EncodedEvent]

MayRead = Callable[[str, str | None, str], Awaitable[bool]]
"""Whether, in a tenant, a principal as in an envelope may read the events of a source, as of now.
Raises ``Unavailable``."""

T = TypeVar("T")


class Dispatcher:
    """Delivers the events of a tenant to its subscribers; each api process has one."""

    def __init__(  # noqa: PLR0913 - what it reads, and where it writes
        self,
        log: EventLog,
        feed: EventFeed,
        inbox: Inboxes,
        directory: ActorDirectory,
        may_read: MayRead,
        *,
        tenant: str,
        max_hops: int,
    ) -> None:
        """Nothing runs yet; an event with ``max_hops`` hops makes no message.

        ``may_read`` is asked before each delivery.
        """
        self._log = log
        self._feed = feed
        self._inbox = inbox
        self._directory = directory
        self._may_read = may_read
        self._tenant = tenant
        self._max_hops = max_hops
        self._arrived: asyncio.Queue[tuple[float, Sequence[EncodedEvent]]] = asyncio.Queue(
            WAITING_BATCHES
        )
        self._subscriptions = Subscriptions()
        self._delivered: dict[str, int] = {}
        self._own: dict[tuple[str, int], datetime] = {}
        self._refused: dict[str, None] = {}
        self._standby_until = float("-inf")
        self._actors = asyncio.Semaphore(ACTORS_AT_ONCE)
        self.dropped_chains = 0

    async def run(self) -> None:
        """Deliver without end. There is a subscription."""
        await self._when_available(self._read_subscriptions)
        after = await self._when_available(self._first_undelivered)
        logger.info(
            "%d subscriptions: delivering events after %d", len(self._subscriptions.active), after
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(after))
            tasks.create_task(self._main_loop())

    # -- startup ---------------------------------------------------------------------------------

    async def _read_subscriptions(self) -> None:
        filters = [
            type_filters(self._tenant, f"actor.{verb}")[0]
            for verb in ("subscribed", "unsubscribed", "deleted")
        ]
        async with aclosing(self._log.read(filters)) as batches:
            async for batch in batches:
                for recorded in batch:
                    self._subscriptions.observe(
                        recorded.sequence, recorded.event, recorded.principal
                    )

    async def _first_undelivered(self) -> int:
        """The progress of the slowest subscription."""
        owners = self._subscriptions.by_actor()
        places = await asyncio.gather(*[self._progress(a, own) for a, own in owners.items()])
        return min(places, default=self._subscriptions.sequence)

    async def _progress(self, actor_id: str, own: list[Subscription]) -> int:
        async with self._actors:
            head = await self._inbox.prepare(actor_id, since=min(s.sequence for s in own))
        done = head.delivered or {}
        return min(max(s.sequence, done.get(s.subscription_id, 0)) for s in own)

    @staticmethod
    async def _when_available(step: Callable[[], Awaitable[T]]) -> T:
        """The result of a step of the startup, repeated until the log is available."""
        while True:
            try:
                return await step()
            except Unavailable as error:
                logger.debug("subscriptions wait for the log: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)

    # -- main loop -------------------------------------------------------------------------------

    async def _follow(self, after: int) -> None:
        async with aclosing(self._feed.items(after)) as batches:
            async for items in batches:
                for item in items:
                    self._observe(item)
                await self._arrived.put((_now(), items))

    def _observe(self, item: EncodedEvent) -> None:
        """Note what this or another dispatcher delivered."""
        event = item.event
        if not isinstance(event, ev.MessageReceived) or event.subscription_id is None:
            return
        place = event.subscription_id, event.source_sequence
        self._delivered[place[0]] = max(place[1], self._delivered.pop(place[0], 0))
        _shrink(self._delivered)
        if self._own.pop(place, None) != item.time:
            self._standby_until = _now() + STANDBY_TIMEOUT_SECONDS

    async def _main_loop(self) -> None:
        subscriptions = self._subscriptions
        while True:
            arrived_at, items = await self._arrived.get()
            if _now() < self._standby_until:
                await asyncio.sleep(arrived_at + STANDBY_SECONDS - _now())
            work: dict[str, list[Work]] = {}
            for item in items:
                subscriptions.observe(item.sequence, item.event, item.principal)
                for found in subscriptions.matching(item.sequence, item.actor_id, item.type):
                    if self._is_within_max_hops(found, item):
                        work.setdefault(found.actor_id, []).append((found, item))
            await asyncio.gather(*map(self._deliver_in_order, work.values()))

    def _is_within_max_hops(self, subscription: Subscription, item: EncodedEvent) -> bool:
        """Whether the chain of an event has fewer hops than the limit."""
        if item.hops < self._max_hops:
            return True
        self.dropped_chains += 1
        logger.warning(
            "event %d is not delivered to %s: its chain has %d hops, the limit (ABACO_MAX_HOPS)."
            " Break the cycle of subscriptions, or raise the limit",
            item.sequence,
            subscription.actor_id,
            item.hops,
        )
        return False

    async def _deliver_in_order(self, work: list[Work]) -> None:
        async with self._actors:
            for subscription, item in work:
                await self._deliver(subscription, item)

    async def _deliver(self, subscription: Subscription, item: EncodedEvent) -> None:
        key = subscription.subscription_id
        while self._delivered.get(key, 0) < item.sequence:
            if not self._directory.is_subscribed(subscription.actor_id, key):
                return
            try:
                if not await self._is_readable(subscription, item):
                    return
                await self._append(subscription, item)
            except Unknown:
                return
            except Unavailable as error:
                logger.debug("event %d is not delivered yet: %s", item.sequence, error)
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return

    async def _is_readable(self, subscription: Subscription, item: EncodedEvent) -> bool:
        """Whether who made a subscription may read an event now; if not, report it once."""
        key = subscription.subscription_id
        if await self._may_read(self._tenant, subscription.principal, item.actor_id):
            self._refused.pop(key, None)
            return True
        if key not in self._refused:
            logger.warning(
                "events of %s are not delivered to %s any more: %s, who made the subscription %s,"
                " may not read them; give it the right again, or end the subscription",
                *(item.actor_id, subscription.actor_id, subscription.principal, key),
            )
        self._refused[key] = None
        _shrink(self._refused)
        return False

    async def _append(self, subscription: Subscription, item: EncodedEvent) -> None:
        actor_id, key = subscription.actor_id, subscription.subscription_id
        time = datetime.now(UTC)

        def decide(state: InboxState) -> list[ev.MessageReceived]:
            if (state.head.delivered or {}).get(key, 0) >= item.sequence:
                return []
            self._own[key, item.sequence] = time
            _shrink(self._own)
            return [message(subscription, item, state.head.next_ordinal)]

        cause = Cause(
            causation_id=item.id,
            correlation_id=item.correlation_id or None,
            hops=item.hops + 1,
            traceparent=item.traceparent,
            time=time,
        )
        since = self._subscriptions.since(actor_id)
        await self._inbox.prepare(actor_id, since=since)
        await self._inbox.append(actor_id, decide, cause, since=since)


def _shrink(known: dict[Any, Any]) -> None:
    """Remove the oldest entries beyond ``MAX_CACHED``."""
    while len(known) > MAX_CACHED:
        del known[next(iter(known))]


def _now() -> float:
    return asyncio.get_running_loop().time()
