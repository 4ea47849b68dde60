"""The inboxes: messages into the log, each with the next ordinal of its actor."""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing

import msgspec
from msgspec.structs import replace

from abaco_api.appender import Appender, Cause, request_id
from abaco_api.decide import decide_send
from abaco_api.directory import Directory
from abaco_api.errors import InboxFull
from abaco_api.lines import Lines
from abaco_api.once.attempt import Attempt, attempting, current
from abaco_api.room import Room
from abaco_proto import events as ev
from abaco_proto.actor import Actor
from abaco_proto.commands import SendMessage
from abaco_proto.errors import Conflict
from abaco_proto.log import EventLog, Expected
from abaco_proto.subjects import inbox_filter
from abaco_telemetry import spans

REMEMBERED = 100_000
FIRST_SPAN, BACKWARDS = 1000, 10
"""How much of the log is read, from its end, to find a message that can be read."""


class Tip(msgspec.Struct, frozen=True):
    """The end of an inbox: where its last message stands, and the ordinal the next one gets.

    ``delivered`` is how far each subscription has come, None when nobody needed to know so far.
    """

    sequence: int
    next_ordinal: int
    delivered: dict[str, int] | None = None


Decision = Callable[[Actor, Tip], ev.MessageReceived | None]
"""The next message of an inbox, None when there is nothing to say."""


class Accepted(msgspec.Struct, frozen=True):
    """A message that is in the log."""

    execution_id: str
    sequence: int


class Wish(msgspec.Struct, frozen=True):
    """A message that is to go into an inbox: see :meth:`Inbox.post`."""

    decide: Decision
    cause: Cause
    since: int | None
    attempt: Attempt | None


class Inbox:
    """All inboxes of a tenant. Remembers their tips; the log says when one is out of date."""

    def __init__(
        self, log: EventLog, directory: Directory, tenant: str, room: Room, seconds: float
    ) -> None:
        self._log = log
        self._directory = directory
        self._tenant = tenant
        self._room = room
        self._appender = Appender(log, tenant)
        self._tips: OrderedDict[str, Tip] = OrderedDict()
        self._lines: Lines[Wish, Accepted | None] = Lines(self._post, seconds)

    async def send(self, command: SendMessage) -> Accepted:
        """Accept a message: once this returns it is exactly one execution."""

        def decide(actor: Actor, tip: Tip) -> ev.MessageReceived:
            [event] = decide_send(actor, command, tip.next_ordinal)
            return event

        return await self.accept(command.actor_id, decide)

    async def accept(
        self, actor_id: str, decide: Callable[[Actor, Tip], ev.MessageReceived]
    ) -> Accepted:
        """Append what a client's request makes of an inbox, if there is room for it.

        Raises:
            InboxFull: there is none.
            Unknown, Unavailable: as ``post``.
        """

        def decide_with_room(actor: Actor, tip: Tip) -> ev.MessageReceived:
            event = decide(actor, tip)
            self._room.check(actor_id, tip.next_ordinal)
            return event

        cause = Cause(causation_id=request_id())
        try:
            accepted = await self.post(actor_id, decide_with_room, cause)
        except InboxFull:
            await self._room.look(actor_id)
            accepted = await self.post(actor_id, decide_with_room, cause)
        assert accepted is not None
        return accepted

    async def post(
        self, actor_id: str, decide: Decision, cause: Cause, *, since: int | None = None
    ) -> Accepted | None:
        """Append what is decided on an inbox, and decide again whenever somebody was faster.

        With ``since`` the tip that is decided on knows how far subscriptions have come that began
        there or later.

        Raises:
            Unknown: there is no such actor.
            Unavailable: no answer in time.
        """
        if cause.traceparent is None and (step := spans.current()) is not None:
            cause = replace(cause, traceparent=step)
        return await self._lines.stand(actor_id, Wish(decide, cause, since, current()))

    async def _post(self, actor_id: str, wish: Wish) -> Accepted | None:
        entry = await self._directory.find(actor_id)
        tip = self._tips.get(actor_id)
        while True:
            tip = await self._known(actor_id, tip, wish.since)
            event = wish.decide(entry.actor, tip)
            if event is None:
                self._remember(actor_id, tip)
                return None
            try:
                with attempting(wish.attempt):
                    return await self._append(event, tip, wish.cause)
            except Conflict:
                tip = await self._read_on(actor_id, tip)

    async def prepare(self, actor_id: str, *, since: int) -> Tip:
        """Know the tip, with how far subscriptions have come; a long inbox takes its time.

        Nobody waits for it: a tip that is overtaken meanwhile is brought up to date when used.
        """
        tip = await self._known(actor_id, self._tips.get(actor_id), since)
        self._remember(actor_id, tip)
        return tip

    async def _append(self, event: ev.MessageReceived, tip: Tip, cause: Cause) -> Accepted:
        inbox = inbox_filter(self._tenant, event.actor_id)
        expected = Expected(filter=inbox, sequence=tip.sequence)
        recorded = await self._appender.append(event, expected, cause)
        self._remember(event.actor_id, _after(tip, recorded.sequence, event))
        return Accepted(event.execution_id, recorded.sequence)

    async def _known(self, actor_id: str, tip: Tip | None, since: int | None) -> Tip:
        """A tip that knows what is asked of it."""
        if tip is not None and (since is None or tip.delivered is not None):
            return tip
        if tip is None:
            tip = await self._last(actor_id)
        if since is None or tip.sequence <= since:
            return replace(tip, delivered=None if since is None else {})
        return await self._read(actor_id, Tip(since, tip.next_ordinal, {}))

    async def _read_on(self, actor_id: str, tip: Tip) -> Tip:
        """The tip as it is now. One that knows of subscriptions takes in each message between."""
        if tip.delivered is not None:
            return await self._read(actor_id, tip)
        last = await self._last(actor_id)
        return replace(last, next_ordinal=max(last.next_ordinal, tip.next_ordinal))

    async def _read(self, actor_id: str, tip: Tip) -> Tip:
        """The tip after all messages behind it."""
        history = self._log.read([inbox_filter(self._tenant, actor_id)], after=tip.sequence)
        async with aclosing(history) as batches:
            async for batch in batches:
                for recorded in batch:
                    tip = _after(tip, recorded.sequence, recorded.event)
        return tip

    async def _last(self, actor_id: str) -> Tip:
        """The tip by the last message. One that nobody can read is passed over."""
        inbox = inbox_filter(self._tenant, actor_id)
        last = await self._log.last(inbox)
        if last is None:
            return Tip(0, 0)
        tip = _after(Tip(0, 0), last.sequence, last.event)
        begin, span = last.sequence, FIRST_SPAN
        while tip.next_ordinal == 0 and begin > 0:
            begin, span = max(0, last.sequence - span), span * BACKWARDS
            tip = await self._read(actor_id, Tip(begin, 0))
        return tip

    def _remember(self, actor_id: str, tip: Tip) -> None:
        self._tips[actor_id] = tip
        self._tips.move_to_end(actor_id)
        if len(self._tips) > REMEMBERED:
            self._tips.popitem(last=False)


def _after(tip: Tip, sequence: int, event: ev.Event) -> Tip:
    """The tip after one more message; damage takes a place in the log, and no ordinal."""
    delivered = tip.delivered
    if not isinstance(event, ev.MessageReceived):
        return Tip(sequence, tip.next_ordinal, delivered)
    if delivered is not None and event.subscription_id is not None:
        key = event.subscription_id
        delivered = {**delivered, key: max(event.source_sequence, delivered.get(key, 0))}
    return Tip(sequence, max(tip.next_ordinal, event.ordinal + 1), delivered)
