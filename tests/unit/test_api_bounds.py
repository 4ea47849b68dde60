"""What a process of the api remembers has a bound, and what is forgotten is found again."""

import asyncio
from typing import Any

import pytest

import builders as b
from abaco_api.api_errors import InboxFull
from abaco_api.commands import execution_control
from abaco_api.commands.actor_directory import ActorDirectories
from abaco_api.commands.command_handler import CommandHandler
from abaco_api.commands.execution_control import ExecutionControl
from abaco_api.commands.idempotency import KeyIndex
from abaco_api.commands.inbox import InboxCapacity
from abaco_api.domain import commands as cmd
from abaco_api.domain import subscription_fold as subscriptions_module
from abaco_api.domain.subscription_fold import Subscriptions
from abaco_api.subscriptions import dispatcher as dispatcher_module
from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.errors import Refused, Unavailable, Unknown
from fakes import InMemoryEventLog


async def appended(log: InMemoryEventLog, *events: ev.Event) -> None:
    for event in events:
        await log.append(b.envelope_of(event))


class Away:
    """Read models that do not answer."""

    async def checkpoint(self) -> int:
        raise Unavailable("away")

    async def execution(self, actor_id: str, ordinal: int) -> Any:
        raise Unavailable("away")

    async def executions(self, actor_id: str, limit: int, offset: int) -> Any:
        raise Unavailable("away")


async def test_nothing_is_kept_of_actors_that_were_deleted() -> None:
    log = InMemoryEventLog()
    directories = ActorDirectories(log)
    directory = directories.of("default")
    folding = asyncio.create_task(directories.run())
    for n in range(50):
        actor_id = f"foo_{n}"
        await appended(log, b.registered(actor_id), ev.ActorDeleted(actor_id=actor_id))
    await appended(log, b.registered("foo_50"))
    await directory.refresh("foo_50")
    assert [*directory._entries] == ["foo_50"]
    await directory.check_registered("foo_3")
    for find in (directory.find("foo_3"), directory.check_registered("bar_0")):
        with pytest.raises(Unknown):
            await find
    assert await directory.next_number("foo") == 51
    for recorded in log.events[:2]:  # this process had appended them, and hears of it late
        directory.apply(recorded)
    assert [*directory._entries] == ["foo_50"]
    folding.cancel()


async def test_orders_are_remembered_up_to_a_bound_and_right_beyond_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(execution_control, "MAX_EXECUTIONS", 4)
    log, models = InMemoryEventLog(), Away()
    directories = ActorDirectories(log)
    directory = directories.of("default")
    folding = asyncio.create_task(directories.run())
    reads: Any = models
    handler = CommandHandler(log, "default", KeyIndex(log, 60), seconds=5)
    control = ExecutionControl(handler, log, directory, reads, "default")
    for actor_id, count in (("foo_0", 10), ("bar_0", 3), ("baz_0", 3)):
        await appended(log, b.registered(actor_id))
        for ordinal in range(count):
            await appended(log, b.received(ordinal, actor_id))
            await appended(log, b.assigned(ordinal, actor_id), b.abandoned(ordinal, actor_id))
    for actor_id, ordinal in (("bar_0", 2), ("baz_0", 2), ("foo_0", 9), ("foo_0", 5)):
        execution_id = names.execution_id(actor_id, ordinal)
        again = cmd.RetryExecution(actor_id=actor_id, execution_id=execution_id)
        with pytest.raises(Refused, match="abandoned already"):
            await control.halt(
                cmd.HaltExecution(actor_id=actor_id, execution_id=execution_id), ordinal
            )
        await control.retry(again, ordinal)
        with pytest.raises(Refused, match="not abandoned"):
            await control.retry(again, ordinal)
        assert sum(len(each.executions) for each in control._sources._cached.values()) <= 4
    assert [*control._sources._cached] == ["baz_0"]
    folding.cancel()


def test_who_gets_an_event_is_remembered_by_how_many_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscriptions_module, "MAX_CACHED", 100)
    known = Subscriptions()
    for n in range(30):
        event = ev.ActorSubscribed(actor_id="foo_0", subscription_id=f"s{n}", event_pattern="*.>")
        known.observe(n + 1, event, None)
    for n in range(50):
        assert len(known.matching(100, f"bar_{n}", "execution.finished")) == 30
        assert sum(1 + len(found) for found in known._found.values()) <= 100 + 31


def test_what_was_delivered_is_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher_module, "MAX_CACHED", 3)
    known = {n: n for n in range(3)}
    known[3] = 3
    dispatcher_module._shrink(known)
    assert known == {1: 1, 2: 2, 3: 3}


async def test_whose_room_was_looked_at_is_remembered_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("abaco_api.commands.inbox.MAX_INBOXES", 3)
    models: Any = Away()
    capacity = InboxCapacity(InMemoryEventLog(), models, "default", 1)
    for n in range(10):
        await capacity.refresh(f"foo_{n}")
    assert (len(capacity._begun), len(capacity._asked_at)) == (3, 3)
    with pytest.raises(InboxFull):
        capacity.check("foo_0", 1)
