"""Inboxes: messages into the log, each with the next ordinal of its actor.

An inbox is full when too many of its messages wait. Messages begin in the order of their inbox, so
all after the last one that was assigned to a worker wait. That one and the last purge are two
reads of the log, made only when an inbox seems full by what is cached. A retry of an old message is
assigned late and hides how far the inbox is; then the read models are more exact. They are queried
only before a message is refused, and at most once per second and actor.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from abaco_api.api_errors import InboxFull
from abaco_api.commands.actor_directory import ActorDirectory
from abaco_api.commands.command_handler import Cause, CommandHandler
from abaco_api.queries.read_models import ReadModels
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.actor import Actor
from abaco_proto.envelope import Expected, Recorded
from abaco_proto.errors import Unavailable, Unknown
from abaco_proto.names import assignments_filter, inbox_filter, type_filter

MAX_HEADS = 100_000
FIRST_SPAN, SPAN_FACTOR = 1000, 10
"""How much of the log is read, from its end, to find a message that can be decoded."""

MAX_INBOXES = 10_000
"""Inboxes whose number of begun messages is cached."""

ASK_SECONDS = 1.0
PAST_ANY_EXECUTION = 10**15
TOTALS_OF_ENDED = ("total_complete", "total_error", "total_halted", "total_purged")


class InboxHead(msgspec.Struct, frozen=True):
    """The end of an inbox: the sequence of its last message, and the ordinal of the next one.

    ``delivered`` is the source sequence that each subscription has been delivered up to; None
    if it was not read.
    """

    sequence: int
    next_ordinal: int
    delivered: dict[str, int] | None = None


class InboxState(msgspec.Struct, frozen=True):
    """What a message is decided on: the actor, and the head of its inbox."""

    actor: Actor
    head: InboxHead


MessageDecision = Callable[[InboxState], Sequence[ev.MessageReceived]]
"""The next message of an inbox; none if there is nothing to append."""


class Accepted(msgspec.Struct, frozen=True):
    """A message that is in the log."""

    execution_id: str
    sequence: int


class Inboxes:
    """All inboxes of a tenant, of at most ``capacity`` waiting messages each."""

    def __init__(
        self,
        handler: CommandHandler,
        log: EventLog,
        directory: ActorDirectory,
        tenant: str,
        capacity: "InboxCapacity",
    ) -> None:
        self._handler = handler
        self._capacity = capacity
        self._heads = InboxHeads(log, tenant)
        self._tenant = tenant
        self._directory = directory

    async def accept(
        self, actor_id: str, decide: MessageDecision, cause: Cause | None = None
    ) -> Accepted:
        """Append the message of a request, unless the inbox is full.

        Once this returns, the message is exactly one execution.

        Raises:
            InboxFull: it is.
            Unknown, Unavailable, AlreadyExecuted, KeyReused: as ``CommandHandler.execute``.
        """

        def decide_within_capacity(state: InboxState) -> Sequence[ev.MessageReceived]:
            events = decide(state)
            self._capacity.check(actor_id, state.head.next_ordinal)
            return events

        try:
            accepted = await self.append(actor_id, decide_within_capacity, cause)
        except InboxFull:
            await self._capacity.refresh(actor_id)
            accepted = await self.append(actor_id, decide_within_capacity, cause)
        assert accepted is not None
        return accepted

    async def append(
        self,
        actor_id: str,
        decide: MessageDecision,
        cause: Cause | None = None,
        *,
        since: int | None = None,
    ) -> Accepted | None:
        """Append the message that is decided on an inbox, if any.

        With ``since`` the head that is decided on has ``delivered`` for all subscriptions that
        began at this sequence or later.

        Raises:
            Unknown, Unavailable, AlreadyExecuted, KeyReused: as ``CommandHandler.execute``.
        """
        history = InboxHistory(
            self._heads, self._directory, actor_id, since, inbox_filter(self._tenant, actor_id)
        )
        executed = await self._handler.execute(history, decide, cause)
        for recorded in executed.events:
            assert isinstance(recorded.event, ev.MessageReceived)
            return Accepted(recorded.event.execution_id, recorded.sequence)
        return None

    async def prepare(self, actor_id: str, *, since: int) -> InboxHead:
        """Read ``delivered`` of an inbox before it is needed; a long inbox takes a while."""
        return await self._heads.load(actor_id, since)


@dataclass(frozen=True, slots=True)
class InboxHistory:
    """The messages of one actor."""

    _heads: "InboxHeads"
    _directory: ActorDirectory
    queue_key: str
    """The actor's id."""

    _since: int | None
    key_filter: str

    async def load(self) -> InboxState:
        """See ``History``."""
        entry = await self._directory.find(self.queue_key)
        return InboxState(entry.actor, await self._heads.load(self.queue_key, self._since))

    async def reload(self, state: InboxState) -> InboxState:
        """See ``History``."""
        return replace(state, head=await self._heads.reload(self.queue_key, state.head))

    async def head(self, state: InboxState) -> int:
        """See ``History``."""
        return state.head.sequence

    def expected(self, state: InboxState, _: ev.Event) -> Expected:
        """See ``History``."""
        return Expected(filter=self.key_filter, sequence=state.head.sequence)

    def evolve(self, state: InboxState, recorded: Recorded) -> InboxState:
        """See ``History``."""
        head = _after(state.head, recorded.sequence, recorded.event)
        return InboxState(state.actor, self._heads.cache(self.queue_key, head))


class InboxHeads:
    """The heads of inboxes, read from the log and cached."""

    def __init__(self, log: EventLog, tenant: str) -> None:
        self._log = log
        self._tenant = tenant
        self._heads: OrderedDict[str, InboxHead] = OrderedDict()

    async def load(self, actor_id: str, since: int | None) -> InboxHead:
        """The head as far as it is cached, with ``delivered`` if ``since`` is given."""
        head = self._heads.get(actor_id)
        if head is None:
            head = self.cache(actor_id, await self._last(actor_id))
        if since is None or head.delivered is not None:
            return head
        if head.sequence <= since:
            return self.cache(actor_id, replace(head, delivered={}))
        return self.cache(
            actor_id, await self._read(actor_id, InboxHead(since, head.next_ordinal, {}))
        )

    async def reload(self, actor_id: str, head: InboxHead) -> InboxHead:
        """The head as it is in the log now."""
        if head.delivered is not None:
            return self.cache(actor_id, await self._read(actor_id, head))
        last = await self._last(actor_id)
        ordinal = max(last.next_ordinal, head.next_ordinal)
        return self.cache(actor_id, replace(last, next_ordinal=ordinal))

    def cache(self, actor_id: str, head: InboxHead) -> InboxHead:
        """Cache a head, and return it."""
        self._heads[actor_id] = head
        self._heads.move_to_end(actor_id)
        if len(self._heads) > MAX_HEADS:
            self._heads.popitem(last=False)
        return head

    async def _read(self, actor_id: str, head: InboxHead) -> InboxHead:
        """The head after all messages that follow it."""
        history = self._log.read([inbox_filter(self._tenant, actor_id)], after=head.sequence)
        async with aclosing(history) as batches:
            async for batch in batches:
                for recorded in batch:
                    head = _after(head, recorded.sequence, recorded.event)
        return head

    async def _last(self, actor_id: str) -> InboxHead:
        """The head by the last message. A message that cannot be decoded is skipped."""
        last = await self._log.last(inbox_filter(self._tenant, actor_id))
        if last is None:
            return InboxHead(0, 0)
        head = _after(InboxHead(0, 0), last.sequence, last.event)
        begin, span = last.sequence, FIRST_SPAN
        while head.next_ordinal == 0 and begin > 0:
            begin, span = max(0, last.sequence - span), span * SPAN_FACTOR
            head = await self._read(actor_id, InboxHead(begin, 0))
        return head


def _after(head: InboxHead, sequence: int, event: ev.Event) -> InboxHead:
    """The head after one more message; one that cannot be decoded has no ordinal."""
    delivered = head.delivered
    if not isinstance(event, ev.MessageReceived):
        return InboxHead(sequence, head.next_ordinal, delivered)
    if delivered is not None and event.subscription_id is not None:
        key = event.subscription_id
        delivered = {**delivered, key: max(event.source_sequence, delivered.get(key, 0))}
    return InboxHead(sequence, max(head.next_ordinal, event.ordinal + 1), delivered)


class InboxCapacity:
    """How many more messages the inboxes of a tenant take, up to ``most`` waiting ones each."""

    def __init__(self, log: EventLog, models: ReadModels, tenant: str, most: int) -> None:
        self._log = log
        self._models = models
        self._tenant = tenant
        self._most = most
        self._begun: OrderedDict[str, int] = OrderedDict()
        self._asked_at: OrderedDict[str, float] = OrderedDict()

    def check(self, actor_id: str, next_ordinal: int) -> None:
        """Check that one more message may wait, by what is cached.

        Raises:
            InboxFull: too many wait.
        """
        waiting = next_ordinal - self._begun.get(actor_id, 0)
        if waiting >= self._most:
            raise InboxFull(f"{waiting} messages wait for {actor_id}, at most {self._most}")

    async def refresh(self, actor_id: str) -> None:
        """Read how many messages of an inbox have begun, and cache it."""
        counts = (
            self._begun.pop(actor_id, 0),
            await self._assigned(actor_id),
            await self._purged(actor_id),
            await self._ended(actor_id),
        )
        self._begun[actor_id] = max(counts)
        if len(self._begun) > MAX_INBOXES:
            self._begun.popitem(last=False)

    async def _assigned(self, actor_id: str) -> int:
        """How many messages, from the first on, were assigned to workers; retries mislead."""
        last = await self._log.last(assignments_filter(self._tenant, actor_id))
        execution_id = getattr(last.event, "execution_id", "") if last is not None else ""
        ordinal = names.execution_ordinal(execution_id, actor_id)
        return 0 if ordinal is None else ordinal + 1

    async def _purged(self, actor_id: str) -> int:
        last = await self._log.last(type_filter(self._tenant, actor_id, ev.InboxPurged))
        event = last.event if last is not None else None
        return event.up_to_ordinal + 1 if isinstance(event, ev.InboxPurged) else 0

    async def _ended(self, actor_id: str) -> int:
        """How many executions have ended; 0 if asked too soon, or Postgres does not answer."""
        now = asyncio.get_running_loop().time()
        if now - self._asked_at.get(actor_id, float("-inf")) < ASK_SECONDS:
            return 0
        self._asked_at[actor_id] = now
        self._asked_at.move_to_end(actor_id)
        if len(self._asked_at) > MAX_INBOXES:
            self._asked_at.popitem(last=False)
        with suppress(Unavailable, Unknown):
            row = await self._models.executions(actor_id, 1, PAST_ANY_EXECUTION)
            return sum(row[total] for total in TOTALS_OF_ENDED)
        return 0
