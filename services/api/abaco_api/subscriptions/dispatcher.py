"""The dispatcher: events into the inboxes of the actors that subscribed to them, once each.

Theory: how far a subscription has come is in the log itself: the highest ``source_sequence``
among the messages it made. A message is appended under the condition that the inbox is still as
it was when that was read, so of two dispatchers that deliver the same event one gets it in, and
the other finds it there. Nothing else is stored, and nothing has to be agreed on.

So that several processes do not race for every event, one that sees another deliver what it had
not steps back: it leaves each event to the other for a moment, and acts only on what is still
undelivered then. See docs/adr/0021.
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
from abaco_api.streams.domain.encoded_event import Item
from abaco_api.streams.events.event_feed import Feed
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.errors import Unavailable, Unknown
from abaco_proto.subjects import type_filters

logger = logging.getLogger(__name__)

STEP_BACK_SECONDS = 0.2
"""How long an event is left to a process that was faster before."""

FORGET_SECONDS = 5.0
"""How long after that process was last seen to deliver."""

PAUSE_SECONDS = 0.5
WAITING_BATCHES = 64
REMEMBERED = 100_000
"""Of each kind. What is forgotten is found in the inbox: that costs a look, no second message."""
ACTORS_AT_ONCE = 32

Work = tuple[Subscription, Item]
T = TypeVar("T")


class Dispatcher:
    """One of a process; any number of processes may have one."""

    def __init__(  # noqa: PLR0913 - what it reads, and where it writes
        self,
        log: EventLog,
        feed: Feed,
        inbox: Inboxes,
        directory: ActorDirectory,
        *,
        tenant: str,
        max_hops: int,
    ) -> None:
        """Nothing runs yet; an event with ``max_hops`` subscriptions behind it makes no message."""
        self._log = log
        self._feed = feed
        self._inbox = inbox
        self._directory = directory
        self._tenant = tenant
        self._max_hops = max_hops
        self._arrived: asyncio.Queue[tuple[float, Sequence[Item]]] = asyncio.Queue(WAITING_BATCHES)
        self._subscriptions = Subscriptions()
        self._delivered: dict[str, int] = {}
        self._own: dict[tuple[str, int], datetime] = {}
        self._stands_back_until = float("-inf")
        self._actors = asyncio.Semaphore(ACTORS_AT_ONCE)
        self.cut = 0

    async def run(self) -> None:
        """Deliver from the moment that anybody subscribes, without end."""
        await self._directory.subscribed.wait()
        await self._patiently(self._read_subscriptions)
        after = await self._patiently(self._lowest)
        logger.info("%d subscriptions, from event %d on", len(self._subscriptions.active), after)
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
                    self._subscriptions.observe(recorded.sequence, recorded.event)

    async def _lowest(self) -> int:
        """How far the subscription that has come least far has come."""
        owners = self._subscriptions.by_actor()
        places = await asyncio.gather(*[self._place(a, own) for a, own in owners.items()])
        return min(places, default=self._subscriptions.sequence)

    async def _place(self, actor_id: str, own: list[Subscription]) -> int:
        async with self._actors:
            head = await self._inbox.prepare(actor_id, since=min(s.sequence for s in own))
        done = head.delivered or {}
        return min(max(s.sequence, done.get(s.subscription_id, 0)) for s in own)

    @staticmethod
    async def _patiently(step: Callable[[], Awaitable[T]]) -> T:
        """The answer of a step of the startup, however long the log is away."""
        while True:
            try:
                return await step()
            except Unavailable as error:
                logger.debug("subscriptions wait: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)

    # -- main loop -------------------------------------------------------------------------------

    async def _follow(self, after: int) -> None:
        async with aclosing(self._feed.items(after)) as batches:
            async for items in batches:
                for item in items:
                    self._observe(item)
                await self._arrived.put((_now(), items))

    def _observe(self, item: Item) -> None:
        """See what was delivered, ahead of what is to be: by whom does not matter to the log."""
        event = item.event
        if not isinstance(event, ev.MessageReceived) or event.subscription_id is None:
            return
        place = event.subscription_id, event.source_sequence
        self._delivered[place[0]] = max(place[1], self._delivered.pop(place[0], 0))
        _shrink(self._delivered)
        if self._own.pop(place, None) != item.time:
            self._stands_back_until = _now() + FORGET_SECONDS

    async def _main_loop(self) -> None:
        subscriptions = self._subscriptions
        while True:
            arrived_at, items = await self._arrived.get()
            if _now() < self._stands_back_until:
                await asyncio.sleep(arrived_at + STEP_BACK_SECONDS - _now())
            work: dict[str, list[Work]] = {}
            for item in items:
                subscriptions.observe(item.sequence, item.event)
                for found in subscriptions.matching(item.sequence, item.actor_id, item.type):
                    if self._may_go_on(found, item):
                        work.setdefault(found.actor_id, []).append((found, item))
            await asyncio.gather(*map(self._deliver_in_order, work.values()))

    def _may_go_on(self, subscription: Subscription, item: Item) -> bool:
        """Whether the chain that led to an event is short enough."""
        if item.hops < self._max_hops:
            return True
        self.cut += 1
        logger.warning(
            "event %d is no message to %s: %d subscriptions lie behind it already",
            item.sequence,
            subscription.actor_id,
            item.hops,
        )
        return False

    async def _deliver_in_order(self, work: list[Work]) -> None:
        async with self._actors:
            for subscription, item in work:
                await self._deliver(subscription, item)

    async def _deliver(self, subscription: Subscription, item: Item) -> None:
        key = subscription.subscription_id
        while self._delivered.get(key, 0) < item.sequence:
            if not self._directory.is_subscribed(subscription.actor_id, key):
                return
            try:
                await self._append(subscription, item)
            except Unknown:
                return
            except Unavailable as error:
                logger.debug("event %d waits: %s", item.sequence, error)
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return

    async def _append(self, subscription: Subscription, item: Item) -> None:
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
    """Forget what was put first, where there is too much."""
    while len(known) > REMEMBERED:
        del known[next(iter(known))]


def _now() -> float:
    return asyncio.get_running_loop().time()
