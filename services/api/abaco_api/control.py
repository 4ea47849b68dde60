"""Control: orders about messages that were accepted already: end one, end all that wait, retry.

All are decided on the log, so they are taken with the read models away. Those are asked only
where they may know better than the few events that an order is decided on, and not waited for.
"""

from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass, field

from abaco_api.appender import Appender, request_id
from abaco_api.decide import decide_halt, decide_purge, decide_retry
from abaco_api.directory import Directory
from abaco_api.orders import INITIAL, KINDS, Order, evolve
from abaco_api.queries import ReadModels
from abaco_api.turns import Turns
from abaco_proto import events as ev
from abaco_proto import ids
from abaco_proto.commands import HaltExecution, PurgeInbox, RetryExecution
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Conflict, Unavailable, Unknown
from abaco_proto.execution import ExecutionStatus
from abaco_proto.log import EventLog, Expected
from abaco_proto.subjects import event_subject, inbox_filter, type_filter

REMEMBERED = 1000
MOST_ORDERS = 100_000
"""Of all histories together. A longer one is read for the occasion, with what is asked of it."""


@dataclass(slots=True)
class _History:
    """The orders of one actor up to ``position``; ``tips`` are the last events by subject."""

    position: int = 0
    orders: dict[int, Order] = field(default_factory=dict)
    tips: dict[str, int] = field(default_factory=dict)
    whole: bool = True

    def learn(self, recorded: Recorded, wanted: int) -> None:
        """Fold one more event. Of too many orders that of the ``wanted`` ordinal is kept."""
        self.position = self.tips[recorded.subject] = recorded.sequence
        execution_id = getattr(recorded.event, "execution_id", "")
        ordinal = ids.execution_ordinal(execution_id, getattr(recorded.event, "actor_id", ""))
        if ordinal is None:
            return
        if ordinal in self.orders or ordinal == wanted or len(self.orders) < MOST_ORDERS:
            self.orders[ordinal] = evolve(self.orders.get(ordinal, INITIAL), recorded)
        else:
            self.whole = False


class Control:
    """The shell around ``decide_halt``, ``decide_purge`` and ``decide_retry``."""

    def __init__(
        self, log: EventLog, directory: Directory, models: ReadModels, tenant: str, turns: Turns
    ) -> None:
        self._log = log
        self._directory = directory
        self._models = models
        self._tenant = tenant
        self._turns = turns
        self._appender = Appender(log, tenant)
        self._histories: OrderedDict[str, _History] = OrderedDict()

    async def halt(self, command: HaltExecution, ordinal: int) -> int:
        """Ask for the end of an execution; the sequence of the order, or of the one before it.

        The actor may be deleted: what it runs is halted anyway, and nobody is told that it is not
        there.

        Raises:
            Unknown: there never was such an actor, or there is no such execution.
            Refused: it has ended already.
        """
        cause, status = request_id(), await self._status(command.actor_id, ordinal)
        async with self._turns.turn(f"orders of {command.actor_id}"):
            await self._directory.known(command.actor_id)
            await self._check(command.actor_id, ordinal)
            while True:
                history = await self._read(command.actor_id, ordinal)
                order = history.orders.get(ordinal, INITIAL)
                events = decide_halt(command, order, status)
                try:
                    return await self._append(events, history, cause) or order.halted_at
                except Conflict:
                    continue

    async def retry(self, command: RetryExecution, ordinal: int) -> int:
        """Have an abandoned execution tried again; the sequence of the order.

        Raises:
            Unknown: there is no such actor, or no such execution.
            Refused: it is not abandoned now.
        """
        cause = request_id()
        async with self._turns.turn(f"orders of {command.actor_id}"):
            await self._directory.find(command.actor_id)
            await self._check(command.actor_id, ordinal)
            while True:
                history = await self._read(command.actor_id, ordinal)
                order = history.orders.get(ordinal, INITIAL)
                status = await self._status(command.actor_id, ordinal, since=order.abandoned_at)
                events = decide_retry(command, order, status)
                try:
                    return await self._append(events, history, cause)
                except Conflict:
                    continue

    async def purge(self, command: PurgeInbox) -> int:
        """End all that waits; the sequence of the order, of the one before it, or 0 for none."""
        actor_id, cause = command.actor_id, request_id()
        purges = type_filter(self._tenant, actor_id, ev.InboxPurged)
        async with self._turns.turn(f"orders of {actor_id}"):
            await self._directory.find(actor_id)
            while True:
                last = await self._log.last(purges)
                purged, head = (_purged(last), last.sequence) if last is not None else (0, 0)
                try:
                    for event in decide_purge(actor_id, await self._count(actor_id), purged):
                        expected = Expected(filter=purges, sequence=head)
                        head = (await self._appender.append(event, expected, cause)).sequence
                except Conflict:
                    continue
                return head

    # -- what orders are decided on --------------------------------------------------------------

    async def _check(self, actor_id: str, ordinal: int) -> None:
        if ordinal >= await self._count(actor_id):
            execution_id = ids.execution_id(actor_id, ordinal)
            raise Unknown(f"execution_id: {actor_id} has no execution {execution_id!r}")

    async def _count(self, actor_id: str) -> int:
        """How many messages the actor ever got."""
        last = await self._log.last(inbox_filter(self._tenant, actor_id))
        if last is None:
            return 0
        if not isinstance(last.event, ev.MessageReceived):
            raise Unavailable(f"the last message of {actor_id} cannot be read")
        return last.event.ordinal + 1

    async def _read(self, actor_id: str, ordinal: int) -> _History:
        """The orders up to now, that of an ordinal among them: what is not known yet is read."""
        history = self._histories.pop(actor_id, None) or _History()
        filters = [type_filter(self._tenant, actor_id, kind) for kind in KINDS]
        async with aclosing(self._log.read(filters, after=history.position)) as batches:
            async for batch in batches:
                for recorded in batch:
                    history.learn(recorded, ordinal)
        self._remember(actor_id, history)
        return history

    def _remember(self, actor_id: str, history: _History) -> None:
        """Keep a history for the next order, and not more than there is room for."""
        if not history.whole:
            return
        self._histories[actor_id] = history
        orders = sum(len(each.orders) for each in self._histories.values())
        while orders > MOST_ORDERS or len(self._histories) > REMEMBERED:
            _, forgotten = self._histories.popitem(last=False)
            orders -= len(forgotten.orders)

    async def _status(
        self, actor_id: str, ordinal: int, *, since: int = 0
    ) -> ExecutionStatus | None:
        """How an execution stands, if the read models can say so, and know of event ``since``."""
        try:
            if since and await self._models.checkpoint() < since:
                return None
            return ExecutionStatus((await self._models.execution(actor_id, ordinal))["status"])
        except (Unavailable, Unknown):
            return None

    async def _append(self, events: list[ev.Event], history: _History, cause: str) -> int:
        """Append the events, if nobody gave the same order meanwhile; 0 for none."""
        sequence = 0
        for event in events:
            subject = event_subject(self._tenant, event)
            expected = Expected(filter=subject, sequence=history.tips.get(subject, 0))
            sequence = (await self._appender.append(event, expected, cause)).sequence
        return sequence


def _purged(recorded: Recorded) -> int:
    """How many messages, from the first on, an earlier purge was for."""
    event = recorded.event
    return event.up_to_ordinal + 1 if isinstance(event, ev.InboxPurged) else 0
