"""Halts, purges and retries over a log in memory, with read models that may know or be away."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

import builders as b
from abaco_api.api_settings import ApiSettings
from abaco_api.commands.actor_directory import ActorDirectories
from abaco_api.commands.command_handler import CommandHandler
from abaco_api.commands.execution_control import ExecutionControl
from abaco_api.commands.idempotency import KeyIndex
from abaco_api.domain import commands as cmd
from abaco_api.domain import control_state
from abaco_proto import events as ev
from abaco_proto.errors import Refused, Unavailable, Unknown
from abaco_proto.fold import Fold
from fakes import InMemoryEventLog

CONFIG = ApiSettings(append_timeout_seconds=0.3)
HALT = cmd.HaltExecution(actor_id="foo_0", execution_id="foo_0_exc_0")
RETRY = cmd.RetryExecution(actor_id="foo_0", execution_id="foo_0_exc_0")
PURGE = cmd.PurgeInbox(actor_id="foo_0")


class Models:
    """Read models that have folded the log up to ``position``; None: they are away."""

    def __init__(self, log: InMemoryEventLog) -> None:
        self._log = log
        self.position: int | None = None

    async def checkpoint(self) -> int:
        if self.position is None:
            raise Unavailable("away")
        return self.position

    async def execution(self, actor_id: str, ordinal: int) -> dict[str, Any]:
        fold = Fold()
        for recorded in self._log.events[: await self.checkpoint()]:
            fold.apply(recorded)
        found = fold.executions.get(("default", actor_id, ordinal))
        if found is None:
            raise Unknown("not yet")
        return {"status": found.status.value}


class Stage:
    def __init__(self, log: InMemoryEventLog) -> None:
        self.log = log
        self.models = Models(log)
        self.directories = ActorDirectories(log)
        self.control = self.process()

    def process(self) -> ExecutionControl:
        keys = KeyIndex(self.log, CONFIG.idempotency_seconds)
        handler = CommandHandler(self.log, "default", keys, CONFIG.append_timeout_seconds)
        models: Any = self.models
        return ExecutionControl(
            handler, self.log, self.directories.of("default"), models, "default"
        )

    async def append(self, *events: ev.Event) -> None:
        for event in events:
            await self.log.append(b.envelope_of(event))

    def caught_up(self) -> None:
        self.models.position = len(self.log.events)


@pytest.fixture
async def stage() -> AsyncGenerator[Stage, None]:
    stage = Stage(InMemoryEventLog())
    fold = asyncio.create_task(stage.directories.run())
    await stage.append(b.registered(), b.received(0))
    yield stage
    fold.cancel()


# -- halt ----------------------------------------------------------------------------------------


async def test_a_halt_is_an_event_and_the_second_finds_it(stage: Stage) -> None:
    first = await stage.control.halt(HALT, 0)
    assert await stage.control.halt(HALT, 0) == first
    assert await stage.process().halt(HALT, 0) == first
    assert stage.log.bodies(ev.ExecutionHaltRequested) == [b.halt_requested(0)]


async def test_many_halts_at_once_are_one(stage: Stage) -> None:
    other = stage.process()
    halts = [control.halt(HALT, 0) for control in (stage.control, other) for _ in range(10)]
    assert len(set(await asyncio.gather(*halts))) == 1
    assert len(stage.log.bodies(ev.ExecutionHaltRequested)) == 1


async def test_what_does_not_exist_cannot_be_halted(stage: Stage) -> None:
    with pytest.raises(Unknown, match=r"^execution_id: "):
        await stage.control.halt(cmd.HaltExecution(actor_id="foo_0", execution_id="foo_0_exc_1"), 1)
    with pytest.raises(Unknown, match=r"^actor_id: "):
        await stage.control.halt(cmd.HaltExecution(actor_id="bar_0", execution_id="bar_0_exc_0"), 0)
    assert len(stage.log.events) == 2


async def test_what_a_deleted_actor_runs_can_be_halted_and_nothing_else(stage: Stage) -> None:
    await stage.append(b.assigned(0), b.started(0), ev.ActorDeleted(actor_id="foo_0"))
    stage.caught_up()
    assert await stage.control.halt(HALT, 0) == 6
    assert await stage.control.halt(HALT, 0) == 6
    with pytest.raises(Unknown, match=r"^execution_id: "):
        await stage.control.halt(cmd.HaltExecution(actor_id="foo_0", execution_id="foo_0_exc_1"), 1)
    for refused in (stage.control.retry(RETRY, 0), stage.control.purge(PURGE)):
        with pytest.raises(Unknown, match=r"^actor_id: "):
            await refused


async def test_what_ended_is_refused_where_that_is_known(stage: Stage) -> None:
    await stage.append(b.assigned(0), b.finished(0))
    stage.caught_up()
    with pytest.raises(Refused, match="COMPLETE"):
        await stage.control.halt(HALT, 0)
    stage.models.position = None
    assert await stage.control.halt(HALT, 0) == 5
    stage.caught_up()
    assert await stage.control.halt(HALT, 0) == 5


async def test_what_was_abandoned_is_refused_until_it_is_sent_again(stage: Stage) -> None:
    await stage.append(b.assigned(0), b.abandoned(0))
    with pytest.raises(Refused, match="abandoned"):
        await stage.control.halt(HALT, 0)
    stage.caught_up()  # they will say ERROR for a while
    await stage.append(b.retry_requested(0))
    await stage.control.halt(HALT, 0)
    assert len(stage.log.bodies(ev.ExecutionHaltRequested)) == 1


# -- purge ---------------------------------------------------------------------------------------


async def test_a_purge_is_up_to_the_last_message(stage: Stage) -> None:
    await stage.append(b.received(1), b.received(2))
    sequence = await stage.control.purge(PURGE)
    assert stage.log.bodies(ev.InboxPurged) == [ev.InboxPurged(actor_id="foo_0", up_to_ordinal=2)]
    assert await stage.control.purge(PURGE) == sequence
    await stage.append(b.received(3))
    assert await stage.control.purge(PURGE) > sequence
    assert len(stage.log.bodies(ev.InboxPurged)) == 2


async def test_an_inbox_without_messages_needs_no_purge(stage: Stage) -> None:
    await stage.append(b.registered("bar_0"))
    assert await stage.control.purge(cmd.PurgeInbox(actor_id="bar_0")) == 0
    assert not stage.log.bodies(ev.InboxPurged)
    with pytest.raises(Unknown):
        await stage.control.purge(cmd.PurgeInbox(actor_id="nobody_0"))


# -- retry ---------------------------------------------------------------------------------------


async def test_only_what_is_abandoned_now_is_tried_again(stage: Stage) -> None:
    with pytest.raises(Refused, match="not abandoned"):
        await stage.control.retry(RETRY, 0)
    await stage.append(b.assigned(0), b.abandoned(0, attempts=3))
    await stage.control.retry(RETRY, 0)
    assert stage.log.bodies(ev.ExecutionRetryRequested) == [b.retry_requested(0, attempts=3)]
    with pytest.raises(Refused):
        await stage.control.retry(RETRY, 0)
    await stage.append(b.abandoned(0, attempts=6))
    await stage.control.retry(RETRY, 0)
    assert b.retry_requested(0, attempts=6) in stage.log.bodies()


async def test_of_many_retries_at_once_one_gets_in(stage: Stage) -> None:
    await stage.append(b.abandoned(0))
    controls = (stage.control, stage.process())
    answers = await asyncio.gather(
        *[control.retry(RETRY, 0) for control in controls for _ in range(5)],
        return_exceptions=True,
    )
    assert sum(isinstance(answer, int) for answer in answers) == 1
    assert sum(isinstance(answer, Refused) for answer in answers) == 9


async def test_what_was_halted_before_it_was_abandoned_is_not_tried_again(stage: Stage) -> None:
    await stage.append(b.assigned(0), b.halt_requested(0), b.abandoned(0))
    with pytest.raises(Refused):
        await stage.control.retry(RETRY, 0)


async def test_a_halt_that_came_after_the_end_does_not_forbid_a_retry(stage: Stage) -> None:
    await stage.append(b.assigned(0), b.abandoned(0), b.halt_requested(0))
    await stage.control.retry(RETRY, 0)


async def test_read_models_that_are_behind_are_not_heard(stage: Stage) -> None:
    await stage.append(b.assigned(0))
    stage.caught_up()
    await stage.append(b.abandoned(0))
    await stage.control.retry(RETRY, 0)


def test_the_first_halt_is_the_one_that_holds() -> None:
    order = control_state.INITIAL
    for recorded in b.history(b.halt_requested(0), b.abandoned(0), b.halt_requested(0)):
        order = control_state.evolve(order, recorded)
    assert (order.halted_at, order.abandoned) == (1, False)


async def test_read_models_that_know_better_are_heard(stage: Stage) -> None:
    await stage.append(b.assigned(0), b.finished(0), b.abandoned(0))
    stage.models.position = 3
    with pytest.raises(Unknown):
        await stage.control.retry(cmd.RetryExecution(actor_id="foo_0", execution_id="x"), 9)
    stage.caught_up()
    with pytest.raises(Refused):
        await stage.control.retry(RETRY, 0)


async def test_without_the_log_orders_fail_soon(stage: Stage) -> None:
    await stage.control.halt(HALT, 0)
    stage.log.available = False
    given = (
        stage.control.halt(HALT, 0),
        stage.control.retry(RETRY, 0),
        stage.control.purge(PURGE),
    )
    async with asyncio.timeout(2):
        answers = await asyncio.gather(*given, return_exceptions=True)
    assert all(isinstance(answer, Unavailable) for answer in answers)


async def test_an_order_nobody_can_read_does_not_block_the_next(stage: Stage) -> None:
    stage.log.put_raw("abaco.event.default.foo_0.execution.halt_requested", {}, b"\xff")
    await stage.control.halt(HALT, 0)
    assert len(stage.log.bodies(ev.ExecutionHaltRequested)) == 1
