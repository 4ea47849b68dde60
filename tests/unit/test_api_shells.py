"""The shells over a log in memory: optimistic concurrency, turns, and a log that is away."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

import builders as b
from abaco_api.api_errors import Behind
from abaco_api.api_settings import ApiSettings
from abaco_api.commands.command_handler import KeyedQueue
from abaco_api.commands.inbox import Accepted
from abaco_api.dependencies import Service, assemble
from abaco_api.domain import commands as cmd
from abaco_api.domain.messages import decide_send
from abaco_api.queries.freshness import CheckpointPoller, Freshness
from abaco_proto import events as ev
from abaco_proto.envelope import Draft
from abaco_proto.errors import Refused, Unavailable, Unknown
from fakes import InMemoryEventLog, InMemoryOutputLog

CONFIG = ApiSettings(append_timeout_seconds=30)
HASTY = ApiSettings(append_timeout_seconds=0.3)
"""For who waits in vain."""


@asynccontextmanager
async def processes(log: InMemoryEventLog, count: int = 1) -> AsyncGenerator[list[Service], None]:
    processes = [assemble(CONFIG, log, InMemoryOutputLog()) for _ in range(count)]
    folds = [asyncio.create_task(loop()) for process in processes for loop in process.loops]
    try:
        yield [process.service("default") for process in processes]
    finally:
        for fold in folds:
            fold.cancel()
        await asyncio.gather(*folds, return_exceptions=True)


def register(name: str = "foo") -> cmd.RegisterActor:
    return cmd.RegisterActor(definition=b.definition(name=name))


def send(actor_id: str = "foo_0") -> cmd.SendMessage:
    return cmd.SendMessage(
        actor_id=actor_id, message="hi", content_type="text/plain", environment={}
    )


async def sent(service: Service) -> Accepted:
    """A message of a request."""
    return await service.inbox.accept(
        "foo_0", lambda state: decide_send(state.actor, send(), state.head.next_ordinal)
    )


async def test_many_registrations_of_one_name_leave_no_gap() -> None:
    log = InMemoryEventLog()
    async with processes(log, 2) as (one, other):
        outcomes = await asyncio.gather(
            *[p.actors.register(register()) for p in (one, other) for _ in range(25)]
        )
    assert {o.actor.actor_id for o in outcomes} == {f"foo_{n}" for n in range(50)}
    assert len(log.events) == 50


@pytest.mark.parametrize("knows", ["of no subscription", "of a subscription"])
async def test_a_message_that_nobody_can_read_holds_up_no_other(knows: str) -> None:
    log = InMemoryEventLog()
    none: dict[str, str] = {}
    poison = ("abaco.event.default.foo_0.message.received", none, b"\xff not json")
    since = 0 if knows == "of a subscription" else None

    async def accepted(process: Service) -> str:
        if since is not None:
            await process.inbox.prepare("foo_0", since=since)
        return (await sent(process)).execution_id

    async with processes(log) as [process]:
        await process.actors.register(register())
        log.put_raw(*poison)
        assert await accepted(process) == "foo_0_exc_0"
        log.put_raw(*poison)
        assert await accepted(process) == "foo_0_exc_1"
    for _ in range(3000):
        log.put_raw(*poison)
    async with processes(log) as [process]:
        assert await accepted(process) == "foo_0_exc_2"


async def test_many_messages_of_one_actor_have_ordinals_without_gaps() -> None:
    log = InMemoryEventLog()
    async with processes(log, 2) as (one, other):
        await one.actors.register(register())
        accepted = await asyncio.gather(*[sent(p) for p in (one, other) for _ in range(100)])
    assert {a.execution_id for a in accepted} == {f"foo_0_exc_{n}" for n in range(200)}
    ordinals = [
        e.ordinal for e in log.bodies(ev.MessageReceived) if isinstance(e, ev.MessageReceived)
    ]
    assert ordinals == list(range(200))


async def test_many_changes_of_one_actor_are_all_made() -> None:
    log = InMemoryEventLog()
    async with processes(log, 2) as (one, other):
        await one.actors.register(register())
        await asyncio.gather(
            *[
                p.actors.change(cmd.SetState(actor_id="foo_0", state=n))
                for p in (one, other)
                for n in range(20)
            ]
        )
    versions = [e.version for e in log.bodies() if isinstance(e, ev.ActorStateSet)]
    assert versions == list(range(1, 41))


async def test_an_actor_of_another_process_can_be_used_at_once() -> None:
    async with processes(InMemoryEventLog(), 2) as (one, other):
        await one.actors.register(register())
        assert (await sent(other)).execution_id == "foo_0_exc_0"


async def test_a_deleted_actor_is_gone_and_its_number_is_not_used_again() -> None:
    async with processes(InMemoryEventLog()) as (one,):
        await one.actors.register(register())
        await one.actors.change(cmd.DeleteActor(actor_id="foo_0"))
        for command in (cmd.DeleteActor(actor_id="foo_0"), cmd.SetState(actor_id="foo_0", state=1)):
            with pytest.raises(Unknown):
                await one.actors.change(command)
        with pytest.raises(Unknown):
            await sent(one)
        assert (await one.actors.register(register())).actor.actor_id == "foo_1"


async def test_an_update_shows_the_state_and_what_the_workers_said() -> None:
    log = InMemoryEventLog()
    async with processes(log) as (one,):
        await one.actors.register(register())
        await one.actors.change(cmd.SetState(actor_id="foo_0", state={"n": 1}))
        await log.append(b.envelope_of(b.requested()))
        await log.append(b.envelope_of(b.ready()))
        same = cmd.UpdateActor(actor_id="foo_0", changes={"description": "x"})
        actor = (await one.actors.change(same)).actor
        assert (actor.status, actor.state) == ("READY", {"n": 1})
        other = cmd.UpdateActor(actor_id="foo_0", changes={"image": "a/b"})
        assert (await one.actors.change(other)).actor.status == "SUBMITTED"


async def test_an_event_nobody_knows_does_not_block_an_actor() -> None:
    log = InMemoryEventLog()
    async with processes(log) as (one,):
        await one.actors.register(register())
        log.put_raw("abaco.event.default.foo_0.actor.painted", {}, b'{"type":"actor.painted"}')
        outcome = await one.actors.change(cmd.SetState(actor_id="foo_0", state=1))
        assert outcome.sequence == 3


async def test_what_a_request_leads_to_names_it_as_its_cause() -> None:
    log = InMemoryEventLog()
    async with processes(log) as (one,):
        await one.actors.register(register())
        await sent(one)
    causes = [r.causation_id for r in log.events]
    assert all(cause.startswith("req-") for cause in causes)
    assert len(set(causes)) == 2
    assert log.events[1].correlation_id == "foo_0_exc_0.received"


async def test_a_worker_is_asked_to_stop_once() -> None:
    log = InMemoryEventLog()
    command = cmd.StopWorker(actor_id="foo_0", worker_id="foo_0_wkr_1")
    async with processes(log) as (one,):
        await one.actors.register(register())
        for number in (0, 1):
            await log.append(b.envelope_of(b.requested(number)))
        await asyncio.gather(*[one.workers.stop(command) for _ in range(5)])
        assert len(log.bodies(ev.WorkerStopRequested)) == 1
        await log.append(b.envelope_of(b.stopped(1)))
        with pytest.raises(Refused):
            await one.workers.stop(command)


async def test_without_the_log_everybody_hears_it_soon_and_nothing_is_sent_later() -> None:
    log = InMemoryEventLog()
    async with processes(log) as (one,):
        await one.actors.register(register())
        log.available = False
        async with asyncio.timeout(CONFIG.append_timeout_seconds / 2):
            answers = await asyncio.gather(
                *[sent(one) for _ in range(20)],
                one.actors.register(register()),
                return_exceptions=True,
            )
        assert all(isinstance(a, Unavailable) for a in answers)
        log.available = True
        assert (await sent(one)).execution_id == "foo_0_exc_0"
        assert len(log.events) == 2


async def test_a_log_that_hangs_costs_everybody_one_timeout() -> None:
    log = InMemoryEventLog()
    async with processes(log) as (one,):
        await one.actors.register(register())
        hanging = HangingAppends(log)
        process = assemble(HASTY, hanging, InMemoryOutputLog())
        stuck = process.service("default")
        folds = [asyncio.create_task(loop()) for loop in process.loops]
        async with asyncio.timeout(20 * HASTY.append_timeout_seconds):
            answers = await asyncio.gather(
                *[sent(stuck) for _ in range(20)], return_exceptions=True
            )
        assert all(isinstance(a, Unavailable) for a in answers)
        assert hanging.tries == 1
        for fold in folds:
            fold.cancel()


class HangingAppends(InMemoryEventLog):
    """A log that can be read and never acknowledges."""

    def __init__(self, log: InMemoryEventLog) -> None:
        super().__init__()
        self.events = log.events
        self.tries = 0

    async def append(self, draft: Draft, *, expected: object = None) -> int:
        self.tries += 1
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_queue_forgets_a_failure() -> None:
    async def away() -> None:
        raise Unavailable("away")

    async def answers() -> str:
        return "yes"

    queue = KeyedQueue(0.2)
    with pytest.raises(Unavailable):
        await queue.run("a", away)
    assert await queue.run("a", answers) == "yes"


async def test_before_the_history_is_folded_commands_wait_and_then_say_so() -> None:
    service = assemble(HASTY, InMemoryEventLog(), InMemoryOutputLog()).service("default")
    with pytest.raises(Unavailable):
        await service.actors.register(register())


# -- freshness -----------------------------------------------------------------------------------


class Checkpoint:
    """The read models' place, moved by hand."""

    def __init__(self) -> None:
        self.position = 0
        self.asked = 0
        self.available = True

    async def __call__(self) -> int:
        self.asked += 1
        if not self.available:
            raise Unavailable("away")
        return self.position


async def test_who_wrote_nothing_does_not_wait() -> None:
    checkpoint = Checkpoint()
    await Freshness(CheckpointPoller(checkpoint, 1)).reach("foo_0")
    assert checkpoint.asked == 0


async def test_a_query_waits_for_what_was_written() -> None:
    checkpoint = Checkpoint()
    freshness = Freshness(CheckpointPoller(checkpoint, 5))
    freshness.wrote(7, "foo_0")
    waiting = [asyncio.create_task(freshness.reach("foo_0")) for _ in range(100)]
    await freshness.reach("bar_0")
    checkpoint.position = 7
    await asyncio.gather(*waiting)
    assert checkpoint.asked < 5


async def test_a_query_that_waited_in_vain_says_where_the_read_models_are() -> None:
    freshness = Freshness(CheckpointPoller(Checkpoint(), 0.05))
    with pytest.raises(Behind, match="at 0, need 7"):
        await freshness.reach("foo_0", 7)


async def test_without_read_models_nobody_waits() -> None:
    checkpoint = Checkpoint()
    checkpoint.available = False
    freshness = Freshness(CheckpointPoller(checkpoint, 60))
    async with asyncio.timeout(30):
        with pytest.raises(Unavailable, match="away"):
            await freshness.reach("foo_0", 7)
    checkpoint.available, checkpoint.position = True, 7
    await freshness.reach("foo_0", 7)
