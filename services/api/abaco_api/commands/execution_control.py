"""Execution control: halt an execution, retry an abandoned one, purge an inbox.

These commands are decided on the log, so they work while the read models are unavailable. The
read models are asked only where they may have newer facts than the few events that are read.
"""

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from abaco_api.commands.actor_directory import ActorDirectory
from abaco_api.commands.command_handler import Cause, CommandHandler
from abaco_api.domain.commands import HaltExecution, PurgeInbox, RetryExecution
from abaco_api.domain.control_state import INITIAL, KINDS, ExecutionControlState, evolve
from abaco_api.domain.decide import decide_halt, decide_retry
from abaco_api.domain.messages import decide_purge
from abaco_api.queries.read_models import ReadModels
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.envelope import Expected, Recorded
from abaco_proto.errors import Unavailable, Unknown
from abaco_proto.execution import ExecutionStatus
from abaco_proto.names import event_subject, inbox_filter, type_filter

MAX_ACTORS = 1000
MAX_EXECUTIONS = 100_000
"""Executions of all cached actors together. A longer history is read for each command."""


@dataclass(slots=True)
class ControlEvents:
    """The control events of one actor up to ``position``, and the last sequence per subject.

    ``complete`` is false if there were too many to keep.
    """

    position: int = 0
    executions: dict[int, ExecutionControlState] = field(default_factory=dict)
    heads: dict[str, int] = field(default_factory=dict)
    complete: bool = True

    def take(self, recorded: Recorded, keep: int) -> None:
        """Fold one more event. If there are too many, only those of ordinal ``keep`` are kept."""
        self.position = self.heads[recorded.subject] = recorded.sequence
        execution_id = getattr(recorded.event, "execution_id", "")
        ordinal = names.execution_ordinal(execution_id, getattr(recorded.event, "actor_id", ""))
        if ordinal is None:
            return
        if ordinal in self.executions or ordinal == keep or len(self.executions) < MAX_EXECUTIONS:
            self.executions[ordinal] = evolve(self.executions.get(ordinal, INITIAL), recorded)
        else:
            self.complete = False


class ControlState(msgspec.Struct, frozen=True):
    """What a halt or a retry is decided on."""

    events: ControlEvents
    control: ExecutionControlState
    status: ExecutionStatus | None


class PurgeState(msgspec.Struct, frozen=True):
    """What a purge is decided on: the messages there were, those purged, and the last purge."""

    count: int
    purged: int
    head: int


class ExecutionControl:
    """Halts and retries executions, and purges inboxes."""

    def __init__(
        self,
        handler: CommandHandler,
        log: EventLog,
        directory: ActorDirectory,
        models: ReadModels,
        tenant: str,
    ) -> None:
        self._handler = handler
        self._sources = ControlSources(log, directory, models, tenant)

    async def halt(self, command: HaltExecution, ordinal: int, cause: Cause | None = None) -> int:
        """Request the end of an execution; the sequence of the request, or of an earlier one.

        A running execution of a deleted actor can be halted, too.

        Raises:
            Unknown: there never was such an actor, or there is no such execution.
            Refused: it has ended already.
        """
        history = HaltHistory(self._sources, command.actor_id, ordinal)
        executed = await self._handler.execute(
            history, lambda s: decide_halt(command, s.control, s.status), cause
        )
        for recorded in executed.events:
            return recorded.sequence
        return executed.state.control.halted_at

    async def retry(self, command: RetryExecution, ordinal: int, cause: Cause | None = None) -> int:
        """Retry an abandoned execution; the sequence of the request.

        Raises:
            Unknown: there is no such actor, or no such execution.
            Refused: it is not abandoned now.
        """
        history = RetryHistory(self._sources, command.actor_id, ordinal)
        executed = await self._handler.execute(
            history, lambda s: decide_retry(command, s.control, s.status), cause
        )
        [recorded] = executed.events
        return recorded.sequence

    async def purge(self, command: PurgeInbox, cause: Cause | None = None) -> int:
        """End all waiting messages; the sequence of the purge, or of an earlier one, or 0."""
        history = PurgeHistory(self._sources, command.actor_id)

        def purge(state: PurgeState) -> Sequence[ev.Event]:
            return decide_purge(command.actor_id, state.count, state.purged)

        executed = await self._handler.execute(history, purge, cause)
        return executed.state.head


class ControlSources:
    """What control commands read: the log, and the read models where those may be newer."""

    def __init__(
        self, log: EventLog, directory: ActorDirectory, models: ReadModels, tenant: str
    ) -> None:
        self._log = log
        self._directory = directory
        self._models = models
        self._cached: OrderedDict[str, ControlEvents] = OrderedDict()
        self.tenant = tenant

    async def check(self, actor_id: str, ordinal: int, *, deleted: bool) -> None:
        """Check that an execution exists, perhaps of an actor that is ``deleted``.

        Raises:
            Unknown: it does not.
        """
        await (self._directory.check_registered if deleted else self._directory.find)(actor_id)
        if ordinal >= await self.count(actor_id):
            execution_id = names.execution_id(actor_id, ordinal)
            raise Unknown(f"execution_id: {actor_id} has no execution {execution_id!r}")

    async def exists(self, actor_id: str) -> None:
        """Check that an actor exists. Raises ``Unknown``."""
        await self._directory.find(actor_id)

    async def count(self, actor_id: str) -> int:
        """How many messages an actor ever received."""
        last = await self._log.last(inbox_filter(self.tenant, actor_id))
        if last is None:
            return 0
        if not isinstance(last.event, ev.MessageReceived):
            raise Unavailable(f"the last message of {actor_id} cannot be read")
        return last.event.ordinal + 1

    async def events(self, actor_id: str, ordinal: int) -> ControlEvents:
        """The control events up to now, with those of one ordinal; events not cached are read."""
        events = self._cached.pop(actor_id, None) or ControlEvents()
        filters = [type_filter(self.tenant, actor_id, kind) for kind in KINDS]
        async with aclosing(self._log.read(filters, after=events.position)) as batches:
            async for batch in batches:
                for recorded in batch:
                    events.take(recorded, ordinal)
        self._cache(actor_id, events)
        return events

    def _cache(self, actor_id: str, events: ControlEvents) -> None:
        if not events.complete:
            return
        self._cached[actor_id] = events
        count = sum(len(each.executions) for each in self._cached.values())
        while count > MAX_EXECUTIONS or len(self._cached) > MAX_ACTORS:
            _, dropped = self._cached.popitem(last=False)
            count -= len(dropped.executions)

    async def status(
        self, actor_id: str, ordinal: int, *, since: int = 0
    ) -> ExecutionStatus | None:
        """The status of an execution in the read models, if they have folded event ``since``."""
        try:
            if since and await self._models.checkpoint() < since:
                return None
            return ExecutionStatus((await self._models.execution(actor_id, ordinal))["status"])
        except (Unavailable, Unknown):
            return None

    async def last_purge(self, actor_id: str) -> tuple[int, int]:
        """How many messages, from the first on, were purged, and the sequence of the purge."""
        last = await self._log.last(type_filter(self.tenant, actor_id, ev.InboxPurged))
        if last is None:
            return 0, 0
        event = last.event
        purged = event.up_to_ordinal + 1 if isinstance(event, ev.InboxPurged) else 0
        return purged, last.sequence


class _ControlHistory:
    """The control events of one execution's actor."""

    kind: type[ev.Event]
    deleted: bool
    """Whether the actor may be deleted."""

    def __init__(self, sources: ControlSources, actor_id: str, ordinal: int) -> None:
        self._sources = sources
        self._actor_id = actor_id
        self._ordinal = ordinal
        self.queue_key = f"control of {actor_id}"
        self.key_filter = type_filter(sources.tenant, actor_id, self.kind)

    async def load(self) -> ControlState:
        """See ``History``."""
        await self._sources.check(self._actor_id, self._ordinal, deleted=self.deleted)
        events = await self._sources.events(self._actor_id, self._ordinal)
        control = events.executions.get(self._ordinal, INITIAL)
        return ControlState(events, control, await self._status(control))

    async def reload(self, _: ControlState) -> ControlState:
        """See ``History``."""
        return await self.load()

    async def head(self, state: ControlState) -> int:
        """See ``History``."""
        return state.events.heads.get(self.key_filter, 0)

    def expected(self, state: ControlState, event: ev.Event) -> Expected:
        """See ``History``."""
        subject = event_subject(self._sources.tenant, event)
        return Expected(filter=subject, sequence=state.events.heads.get(subject, 0))

    def evolve(self, state: ControlState, _: Recorded) -> ControlState:
        """The state is unchanged: the next command reads the event from the log."""
        return state

    async def _status(self, control: ExecutionControlState) -> ExecutionStatus | None:
        raise NotImplementedError


class HaltHistory(_ControlHistory):
    """What a halt is decided on."""

    kind = ev.ExecutionHaltRequested
    deleted = True

    async def _status(self, _: ExecutionControlState) -> ExecutionStatus | None:
        return await self._sources.status(self._actor_id, self._ordinal)


class RetryHistory(_ControlHistory):
    """What a retry is decided on."""

    kind = ev.ExecutionRetryRequested
    deleted = False

    async def _status(self, control: ExecutionControlState) -> ExecutionStatus | None:
        return await self._sources.status(self._actor_id, self._ordinal, since=control.abandoned_at)


class PurgeHistory:
    """The purges of one actor's inbox."""

    def __init__(self, sources: ControlSources, actor_id: str) -> None:
        self._sources = sources
        self._actor_id = actor_id
        self.queue_key = f"control of {actor_id}"
        self.key_filter = type_filter(sources.tenant, actor_id, ev.InboxPurged)

    async def load(self) -> PurgeState:
        """See ``History``."""
        await self._sources.exists(self._actor_id)
        count = await self._sources.count(self._actor_id)
        purged, head = await self._sources.last_purge(self._actor_id)
        return PurgeState(count, purged, head)

    async def reload(self, _: PurgeState) -> PurgeState:
        """See ``History``."""
        return await self.load()

    async def head(self, state: PurgeState) -> int:
        """See ``History``."""
        return state.head

    def expected(self, state: PurgeState, _: ev.Event) -> Expected:
        """See ``History``."""
        return Expected(filter=self.key_filter, sequence=state.head)

    def evolve(self, state: PurgeState, recorded: Recorded) -> PurgeState:
        """See ``History``."""
        return PurgeState(state.count, state.count, recorded.sequence)
