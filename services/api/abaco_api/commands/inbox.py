"""Inboxes: messages into the log, each with the next ordinal of its actor."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import aclosing

import msgspec
from msgspec.structs import replace

from abaco_api.commands.actor_directory import Directory
from abaco_api.commands.command_handler import Cause, CommandHandler, request_cause
from abaco_api.commands.inbox_capacity import Room
from abaco_api.domain.commands import SendMessage
from abaco_api.domain.decide import decide_send
from abaco_api.http.http_errors import InboxFull
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.actor import Actor
from abaco_proto.append_condition import Expected
from abaco_proto.envelope import Recorded
from abaco_proto.subjects import inbox_filter

MAX_HEADS = 100_000
FIRST_SPAN, SPAN_FACTOR = 1000, 10
"""How much of the log is read, from its end, to find a message that can be decoded."""


class InboxHead(msgspec.Struct, frozen=True):
    """The end of an inbox: the sequence of its last message, and the ordinal of the next one.

    ``delivered`` is the source sequence that each subscription has been delivered up to; None
    where nobody has asked for it yet.
    """

    sequence: int
    next_ordinal: int
    delivered: dict[str, int] | None = None


class InboxState(msgspec.Struct, frozen=True):
    """What a message is decided on: the actor, and the head of its inbox."""

    actor: Actor
    head: InboxHead


MessageDecision = Callable[[Actor, InboxHead], ev.MessageReceived | None]
"""The next message of an inbox, or None for no message."""


class Accepted(msgspec.Struct, frozen=True):
    """A message that is in the log."""

    execution_id: str
    sequence: int


class Inboxes:
    """All inboxes of a tenant. Caches their heads; the log tells when one is out of date."""

    def __init__(
        self, handler: CommandHandler, log: EventLog, directory: Directory, tenant: str, room: Room
    ) -> None:
        self._handler = handler
        self._room = room
        self._heads = InboxHeads(log, tenant)
        self._directory = directory

    async def send(self, command: SendMessage) -> Accepted:
        """Accept a message: once this returns, it is exactly one execution."""

        def decide(actor: Actor, head: InboxHead) -> ev.MessageReceived:
            [event] = decide_send(actor, command, head.next_ordinal)
            return event

        return await self.accept(command.actor_id, decide)

    async def accept(
        self, actor_id: str, decide: Callable[[Actor, InboxHead], ev.MessageReceived]
    ) -> Accepted:
        """Append the message of a request, unless the inbox is full.

        Raises:
            InboxFull: it is.
            Unknown, Unavailable, AlreadyExecuted, KeyReused: as ``CommandHandler.execute``.
        """

        def decide_within_limit(actor: Actor, head: InboxHead) -> ev.MessageReceived:
            event = decide(actor, head)
            self._room.check(actor_id, head.next_ordinal)
            return event

        cause = request_cause()
        try:
            accepted = await self.append(actor_id, decide_within_limit, cause)
        except InboxFull:
            await self._room.look(actor_id)
            accepted = await self.append(actor_id, decide_within_limit, cause)
        assert accepted is not None
        return accepted

    async def append(
        self, actor_id: str, decide: MessageDecision, cause: Cause, *, since: int | None = None
    ) -> Accepted | None:
        """Append the message that is decided on an inbox, if any.

        With ``since`` the head that is decided on has ``delivered`` for all subscriptions that
        began at this sequence or later.

        Raises:
            Unknown, Unavailable, AlreadyExecuted, KeyReused: as ``CommandHandler.execute``.
        """

        def decide_events(state: InboxState) -> Sequence[ev.Event]:
            event = decide(state.actor, state.head)
            return () if event is None else (event,)

        history = InboxHistory(self._heads, self._directory, actor_id, since)
        executed = await self._handler.execute(history, decide_events, cause)
        for recorded in executed.events:
            assert isinstance(recorded.event, ev.MessageReceived)
            return Accepted(recorded.event.execution_id, recorded.sequence)
        return None

    async def prepare(self, actor_id: str, *, since: int) -> InboxHead:
        """Read ``delivered`` of an inbox ahead; a long inbox takes its time."""
        return await self._heads.load(actor_id, since)


class InboxHistory:
    """The messages of one actor."""

    def __init__(
        self, heads: "InboxHeads", directory: Directory, actor_id: str, since: int | None
    ) -> None:
        self._heads = heads
        self._directory = directory
        self._actor_id = actor_id
        self._since = since
        self.queue_key = actor_id
        self.key_filter = heads.filter(actor_id)

    async def load(self) -> InboxState:
        """See ``History``."""
        entry = await self._directory.find(self._actor_id)
        return InboxState(entry.actor, await self._heads.load(self._actor_id, self._since))

    async def reload(self, state: InboxState) -> InboxState:
        """See ``History``."""
        return replace(state, head=await self._heads.reload(self._actor_id, state.head))

    async def head(self, state: InboxState) -> int:
        """See ``History``."""
        return state.head.sequence

    def expected(self, state: InboxState, _: ev.Event) -> Expected:
        """See ``History``."""
        return Expected(filter=self.key_filter, sequence=state.head.sequence)

    def evolve(self, state: InboxState, recorded: Recorded) -> InboxState:
        """See ``History``."""
        return replace(state, head=self._heads.appended(self._actor_id, state.head, recorded))


class InboxHeads:
    """The heads of inboxes, read from the log and cached."""

    def __init__(self, log: EventLog, tenant: str) -> None:
        self._log = log
        self._tenant = tenant
        self._heads: OrderedDict[str, InboxHead] = OrderedDict()

    def filter(self, actor_id: str) -> str:
        """The subject of an inbox."""
        return inbox_filter(self._tenant, actor_id)

    async def load(self, actor_id: str, since: int | None) -> InboxHead:
        """The head as far as it is known, with ``delivered`` if ``since`` asks for it."""
        head = self._heads.get(actor_id)
        if head is None:
            head = self._cache(actor_id, await self._last(actor_id))
        if since is None or head.delivered is not None:
            return head
        if head.sequence <= since:
            return self._cache(actor_id, replace(head, delivered={}))
        return self._cache(
            actor_id, await self._read(actor_id, InboxHead(since, head.next_ordinal, {}))
        )

    async def reload(self, actor_id: str, head: InboxHead) -> InboxHead:
        """The head as it is in the log now."""
        if head.delivered is not None:
            return self._cache(actor_id, await self._read(actor_id, head))
        last = await self._last(actor_id)
        ordinal = max(last.next_ordinal, head.next_ordinal)
        return self._cache(actor_id, replace(last, next_ordinal=ordinal))

    def appended(self, actor_id: str, head: InboxHead, recorded: Recorded) -> InboxHead:
        """The head after a message that this process appended."""
        return self._cache(actor_id, _after(head, recorded.sequence, recorded.event))

    async def _read(self, actor_id: str, head: InboxHead) -> InboxHead:
        """The head after all messages behind it."""
        history = self._log.read([self.filter(actor_id)], after=head.sequence)
        async with aclosing(history) as batches:
            async for batch in batches:
                for recorded in batch:
                    head = _after(head, recorded.sequence, recorded.event)
        return head

    async def _last(self, actor_id: str) -> InboxHead:
        """The head by the last message. One that cannot be decoded is passed over."""
        last = await self._log.last(self.filter(actor_id))
        if last is None:
            return InboxHead(0, 0)
        head = _after(InboxHead(0, 0), last.sequence, last.event)
        begin, span = last.sequence, FIRST_SPAN
        while head.next_ordinal == 0 and begin > 0:
            begin, span = max(0, last.sequence - span), span * SPAN_FACTOR
            head = await self._read(actor_id, InboxHead(begin, 0))
        return head

    def _cache(self, actor_id: str, head: InboxHead) -> InboxHead:
        self._heads[actor_id] = head
        self._heads.move_to_end(actor_id)
        if len(self._heads) > MAX_HEADS:
            self._heads.popitem(last=False)
        return head


def _after(head: InboxHead, sequence: int, event: ev.Event) -> InboxHead:
    """The head after one more message; a damaged one takes a place in the log, but no ordinal."""
    delivered = head.delivered
    if not isinstance(event, ev.MessageReceived):
        return InboxHead(sequence, head.next_ordinal, delivered)
    if delivered is not None and event.subscription_id is not None:
        key = event.subscription_id
        delivered = {**delivered, key: max(event.source_sequence, delivered.get(key, 0))}
    return InboxHead(sequence, max(head.next_ordinal, event.ordinal + 1), delivered)
