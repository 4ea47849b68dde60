"""The inboxes: messages into the log, each with the next ordinal of its actor."""

from collections import OrderedDict

import msgspec

from abaco_api.appender import Appender, request_id
from abaco_api.decide import decide_send
from abaco_api.directory import Directory
from abaco_api.turns import Turns
from abaco_proto import events as ev
from abaco_proto import ids
from abaco_proto.actor import Actor
from abaco_proto.commands import SendMessage
from abaco_proto.errors import Conflict, Unavailable
from abaco_proto.log import EventLog, Expected
from abaco_proto.subjects import inbox_filter

REMEMBERED = 100_000


class Tip(msgspec.Struct, frozen=True):
    """The end of an inbox: where its last message stands, and the ordinal the next one gets."""

    sequence: int
    next_ordinal: int


class Accepted(msgspec.Struct, frozen=True):
    """A message that is in the log."""

    execution_id: str
    sequence: int


class Inbox:
    """All inboxes of a tenant. Remembers their tips; the log says when one is out of date."""

    def __init__(self, log: EventLog, directory: Directory, tenant: str, turns: Turns) -> None:
        self._log = log
        self._directory = directory
        self._tenant = tenant
        self._turns = turns
        self._appender = Appender(log, tenant)
        self._tips: OrderedDict[str, Tip] = OrderedDict()

    async def send(self, command: SendMessage) -> Accepted:
        """Accept a message: once this returns it is exactly one execution."""
        cause = request_id()
        async with self._turns.turn(f"inbox {command.actor_id}"):
            entry = await self._directory.find(command.actor_id)
            tip = self._tips.pop(command.actor_id, None)
            while True:
                tip = tip or await self._tip(command.actor_id)
                try:
                    return await self._append(entry.actor, command, tip, cause)
                except Conflict:
                    tip = None

    async def _append(self, actor: Actor, command: SendMessage, tip: Tip, cause: str) -> Accepted:
        [event] = decide_send(actor, command, tip.next_ordinal)
        expected = Expected(
            filter=inbox_filter(self._tenant, command.actor_id), sequence=tip.sequence
        )
        recorded = await self._appender.append(event, expected, cause)
        self._remember(command.actor_id, Tip(recorded.sequence, tip.next_ordinal + 1))
        execution_id = ids.execution_id(command.actor_id, tip.next_ordinal)
        return Accepted(execution_id, recorded.sequence)

    async def _tip(self, actor_id: str) -> Tip:
        last = await self._log.last(inbox_filter(self._tenant, actor_id))
        match last:
            case None:
                return Tip(0, 0)
            case _ if isinstance(last.event, ev.MessageReceived):
                return Tip(last.sequence, last.event.ordinal + 1)
        raise Unavailable(f"the last message of {actor_id} cannot be read")

    def _remember(self, actor_id: str, tip: Tip) -> None:
        self._tips[actor_id] = tip
        if len(self._tips) > REMEMBERED:
            self._tips.popitem(last=False)
