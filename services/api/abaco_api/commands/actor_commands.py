"""Commands on actors: register one, and change, scale, subscribe or delete one that exists."""

from collections.abc import Callable, Sequence

import msgspec

from abaco_api.access.domain.principal import Principal
from abaco_api.commands.actor_directory import ActorDirectory
from abaco_api.commands.command_handler import Cause, CommandHandler
from abaco_api.domain.commands import RegisterActor, ScaleWorkers, UpdateActor
from abaco_api.domain.decide import ActorCommand, decide, decide_register
from abaco_api.domain.quotas import check_actors
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.actor import INITIAL, Actor, evolve
from abaco_proto.envelope import Expected, Recorded
from abaco_proto.events import Definition
from abaco_proto.names import actor_filter, stop_requests_filter, type_filter


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The actor after a command, its events, and the sequence of the last one of its history."""

    actor: Actor
    events: Sequence[ev.Event]
    sequence: int


DefinitionCheck = Callable[[Principal, Definition | None, Definition], None]
"""Raises ``Forbidden`` if a principal may not replace a definition (None: register) by another."""


class ActorCommands:
    """Registers actors, and changes those that exist."""

    def __init__(  # noqa: PLR0913 - where it reads and writes, and what it checks
        self,
        handler: CommandHandler,
        log: EventLog,
        directory: ActorDirectory,
        tenant: str,
        *,
        most: int,
        check: DefinitionCheck,
    ) -> None:
        """A tenant has at most about ``most`` actors: processes count the others' a little late."""
        self._most = most
        self._check = check
        self._handler = handler
        self._log = log
        self._directory = directory
        self._tenant = tenant

    async def register(self, command: RegisterActor, cause: Cause | None = None) -> Outcome:
        """Register an actor under the next number of its name.

        Raises:
            QuotaExceeded: the tenant has as many as it may have.
        """
        name = command.definition.name
        history = NameHistory(self._log, self._directory, self._tenant, name)

        principal = None if cause is None else cause.principal
        owner = "" if principal is None else principal.user
        if principal is not None:
            self._check(principal, None, command.definition)

        def register(number: int) -> Sequence[ev.Event]:
            check_actors(self._directory.count, self._most)
            return decide_register(names.actor_id(name, number), command, owner)

        executed = await self._handler.execute(history, register, cause)
        [recorded] = executed.events
        return Outcome(
            actor=evolve(INITIAL, recorded), events=[recorded.event], sequence=recorded.sequence
        )

    async def change(self, command: ActorCommand, cause: Cause | None = None) -> Outcome:
        """Execute a command on an actor that exists."""
        history = ActorHistory(self._log, self._directory, self._tenant, command)
        principal = None if cause is None else cause.principal

        def change(state: ActorState) -> Sequence[ev.Event]:
            events = decide(state.actor, command, stopped=state.stopped)
            for event in events:
                if isinstance(event, ev.ActorUpdated) and principal is not None:
                    self._check(principal, state.actor.definition, event.definition)
            return events

        executed = await self._handler.execute(history, change, cause)
        events = [recorded.event for recorded in executed.events]
        return Outcome(actor=executed.state.actor, events=events, sequence=executed.state.head)


class ActorState(msgspec.Struct, frozen=True):
    """What a command on an actor is decided on.

    ``stopped``: a worker was stopped since the definition was set; read for ``ScaleWorkers`` only.
    """

    actor: Actor
    head: int
    stopped: bool = False


class ActorHistory:
    """The history of one actor's definition, as the directory has folded it.

    The response to an update shows the whole actor, so for an update the actor is completed with
    what the directory does not keep.
    """

    def __init__(
        self, log: EventLog, directory: ActorDirectory, tenant: str, command: ActorCommand
    ) -> None:
        self._log = log
        self._directory = directory
        self._tenant = tenant
        self._actor_id = command.actor_id
        self._command = command
        self.queue_key = f"actor {command.actor_id}"
        self.key_filter = actor_filter(tenant, command.actor_id)

    async def load(self) -> ActorState:
        """See ``History``."""
        entry = await self._directory.find(self._actor_id)
        match self._command:
            case UpdateActor():
                return ActorState(await self._completed(entry.actor), entry.head)
            case ScaleWorkers():
                return ActorState(entry.actor, entry.head, await self._stopped(entry.actor))
        return ActorState(entry.actor, entry.head)

    async def reload(self, _: ActorState) -> ActorState:
        """See ``History``."""
        await self._directory.refresh(self._actor_id)
        return await self.load()

    async def head(self, state: ActorState) -> int:
        """See ``History``."""
        return state.head

    def expected(self, state: ActorState, _: ev.Event) -> Expected:
        """See ``History``."""
        return Expected(filter=self.key_filter, sequence=state.head)

    def evolve(self, state: ActorState, recorded: Recorded) -> ActorState:
        """See ``History``."""
        self._directory.apply(recorded)
        return ActorState(evolve(state.actor, recorded), recorded.sequence)

    async def _stopped(self, actor: Actor) -> bool:
        last = await self._log.last(stop_requests_filter(self._tenant, actor.actor_id))
        return last is not None and last.sequence > actor.definition_sequence

    async def _completed(self, actor: Actor) -> Actor:
        """The actor with its state and the last reports of its workers."""
        found: list[Recorded] = []
        for kind in (ev.ActorStateSet, ev.WorkerReady, ev.WorkerFailed):
            last = await self._log.last(type_filter(self._tenant, actor.actor_id, kind))
            found += [last] if last is not None else []
        for recorded in sorted(found, key=lambda r: r.sequence):
            actor = evolve(actor, recorded)
        return actor


class NameHistory:
    """The registrations of one name; the state is the first number that is free."""

    def __init__(self, log: EventLog, directory: ActorDirectory, tenant: str, name: str) -> None:
        self._log = log
        self._directory = directory
        self._tenant = tenant
        self._name = name
        self.queue_key = f"name {name}"
        self.key_filter = type_filter(tenant, "*", ev.ActorRegistered)

    async def load(self) -> int:
        """See ``History``."""
        return await self._directory.next_number(self._name)

    async def reload(self, state: int) -> int:
        """See ``History``."""
        self._directory.take_number(self._name, state)
        return await self._directory.next_number(self._name)

    async def head(self, _: int) -> int:
        """The last registration of any name: no filter selects those of one name."""
        last = await self._log.last(self.key_filter)
        return 0 if last is None else last.sequence

    def expected(self, state: int, _: ev.Event) -> Expected:
        """See ``History``."""
        actor_id = names.actor_id(self._name, state)
        return Expected(filter=actor_filter(self._tenant, actor_id), sequence=0)

    def evolve(self, state: int, recorded: Recorded) -> int:
        """See ``History``."""
        self._directory.apply(recorded)
        return state + 1
