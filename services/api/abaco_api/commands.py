"""Commands on actors: decided on the directory, appended under optimistic concurrency."""

from collections.abc import Sequence

import msgspec

from abaco_api.appender import Appender, request_id
from abaco_api.decide import ActorCommand, decide, decide_register, decide_scale
from abaco_api.directory import Directory
from abaco_api.turns import Turns
from abaco_proto import events as ev
from abaco_proto import ids
from abaco_proto.actor import INITIAL, Actor, evolve
from abaco_proto.commands import RegisterActor, ScaleWorkers
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Conflict
from abaco_proto.log import EventLog, Expected
from abaco_proto.subjects import actor_filter, stop_requests_filter, type_filter


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a command: the actor after it, what was appended, and where that stands.

    ``sequence`` is that of the last event the decision rests on when nothing was appended.
    """

    actor: Actor
    events: Sequence[ev.Event]
    sequence: int


class Commands:
    """The shell around :mod:`abaco_api.decide`."""

    def __init__(self, log: EventLog, directory: Directory, tenant: str, turns: Turns) -> None:
        self._log = log
        self._directory = directory
        self._tenant = tenant
        self._turns = turns
        self._appender = Appender(log, tenant)

    async def register(self, command: RegisterActor) -> Outcome:
        """Register an actor under the next number of its name; the log arbitrates."""
        name, cause = command.definition.name, request_id()
        async with self._turns.turn(f"name {name}"):
            number = await self._directory.next_number(name)
            while True:
                try:
                    return await self._register(command, ids.actor_id(name, number), cause)
                except Conflict:
                    self._directory.used(name, number)
                    number += 1

    async def change(self, command: ActorCommand) -> Outcome:
        """Carry out a command on an actor that exists."""
        cause = request_id()
        async with self._turns.turn(f"actor {command.actor_id}"):
            while True:
                try:
                    return await self._change(command, cause)
                except Conflict:
                    await self._directory.refresh(command.actor_id)

    async def _register(self, command: RegisterActor, actor_id: str, cause: str) -> Outcome:
        [event] = decide_register(actor_id, command)
        unused = Expected(filter=actor_filter(self._tenant, actor_id), sequence=0)
        recorded = await self._appender.append(event, unused, cause)
        self._directory.learn(recorded)
        actor = evolve(INITIAL, recorded)
        return Outcome(actor=actor, events=[event], sequence=recorded.sequence)

    async def _change(self, command: ActorCommand, cause: str) -> Outcome:
        entry = await self._directory.find(command.actor_id)
        actor, head = entry.actor, entry.head
        events = decide(actor, command)
        if isinstance(command, ScaleWorkers) and not events:
            stopped = await self._stopped_since(actor)
            events = decide_scale(actor, command, stopped=stopped)
        for event in events:
            actor = await self._whole(actor) if isinstance(event, ev.ActorUpdated) else actor
            expected = Expected(filter=actor_filter(self._tenant, command.actor_id), sequence=head)
            recorded = await self._appender.append(event, expected, cause)
            self._directory.learn(recorded)
            actor, head = evolve(actor, recorded), recorded.sequence
        return Outcome(actor=actor, events=events, sequence=head)

    async def _stopped_since(self, actor: Actor) -> bool:
        """Whether any worker was asked to stop since the definition was set."""
        last = await self._log.last(stop_requests_filter(self._tenant, actor.actor_id))
        return last is not None and last.sequence > actor.definition_sequence

    async def _whole(self, actor: Actor) -> Actor:
        """The actor with what the directory does not keep: its state, its workers' last words."""
        found: list[Recorded] = []
        for kind in (ev.ActorStateSet, ev.WorkerReady, ev.WorkerFailed):
            last = await self._log.last(type_filter(self._tenant, actor.actor_id, kind))
            found += [last] if last is not None else []
        for recorded in sorted(found, key=lambda r: r.sequence):
            actor = evolve(actor, recorded)
        return actor
