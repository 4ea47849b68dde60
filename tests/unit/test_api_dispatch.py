"""Subscriptions over a log in memory: once each, in order, whoever dies and however many run."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import pytest
from msgspec.structs import replace

import builders as b
from abaco_api.api_settings import ApiSettings
from abaco_api.dependencies import Service, assemble
from abaco_api.domain import commands as cmd
from abaco_api.domain.event_message import MOST_BYTES, text
from abaco_api.domain.messages import decide_send
from abaco_api.streams.domain.encoded_event import encode_event
from abaco_api.subscriptions import dispatcher
from abaco_proto import events as ev
from abaco_proto.envelope import Draft, draft, encode, to_headers
from abaco_proto.errors import Unknown
from abaco_proto.names import event_subject
from abaco_telemetry.context import use_traceparent
from deadlines import LIMIT_SECONDS
from fakes import InMemoryEventLog, InMemoryOutputLog

STANDBY = 0.04
CONFIG = ApiSettings(append_timeout_seconds=2, max_hops=4)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "STANDBY_SECONDS", STANDBY)
    monkeypatch.setattr(dispatcher, "PAUSE_SECONDS", STANDBY)


@asynccontextmanager
async def process(log: InMemoryEventLog) -> AsyncGenerator[Service, None]:
    """A process until the end of the block, where it is killed."""
    tenants = assemble(CONFIG, log, InMemoryOutputLog())
    tasks = [asyncio.ensure_future(run()) for run in tenants.loops]
    try:
        yield tenants.service("default")
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def register(service: Service, name: str) -> None:
    await service.actors.register(cmd.RegisterActor(definition=b.definition(name=name)))


async def subscribe(service: Service, actor_id: str, pattern: str) -> str:
    command = cmd.Subscribe(actor_id=actor_id, event_pattern=pattern)
    [event] = (await service.actors.change(command)).events
    assert isinstance(event, ev.ActorSubscribed)
    return event.subscription_id


async def send(service: Service, actor_id: str, message: str) -> None:
    kind = "text/plain"
    command = cmd.SendMessage(actor_id=actor_id, message=message, content_type=kind, environment={})
    await service.inbox.accept(
        actor_id, lambda state: decide_send(state.actor, command, state.head.next_ordinal)
    )


def inbox(log: InMemoryEventLog, actor_id: str) -> list[ev.MessageReceived]:
    messages = [e for e in log.bodies() if isinstance(e, ev.MessageReceived)]
    return [e for e in messages if e.actor_id == actor_id]


async def arrived(log: InMemoryEventLog, actor_id: str, count: int) -> list[ev.MessageReceived]:
    async with asyncio.timeout(LIMIT_SECONDS):
        while len(inbox(log, actor_id)) < count:
            await asyncio.sleep(0.005)
    return inbox(log, actor_id)


async def settled(log: InMemoryEventLog) -> None:
    """Until nothing more comes of anything: longer than any process stands back."""
    while True:
        before = len(log.events)
        await asyncio.sleep(4 * STANDBY)
        if len(log.events) == before:
            return


async def test_a_message_made_of_an_event_goes_on_in_its_trace() -> None:
    log, traceparent = InMemoryEventLog(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with process(log) as api:
        await register(api, "src")
        await register(api, "dst")
        await subscribe(api, "dst_0", "src_*.message.received")
        with use_traceparent(traceparent):
            await send(api, "src_0", "traced")
        await arrived(log, "dst_0", 1)
        await send(api, "src_0", "not traced")
        await arrived(log, "dst_0", 2)
    received = [r for r in log.events if isinstance(r.event, ev.MessageReceived)]
    assert [r.traceparent for r in received] == [traceparent, traceparent, None, None]


async def test_an_event_becomes_a_message() -> None:
    log = InMemoryEventLog()
    async with process(log) as api:
        await register(api, "src")
        await register(api, "dst")
        await send(api, "src_0", "before")
        key = await subscribe(api, "dst_0", "src_*.message.received")
        await send(api, "src_0", "after")
        [message] = await arrived(log, "dst_0", 1)
    source, made = log.events[-2], log.events[-1]
    assert message == ev.MessageReceived(
        actor_id="dst_0",
        execution_id="dst_0_exc_0",
        ordinal=0,
        message=encode_event(source).json.decode(),
        content_type="application/json",
        sender="src_0",
        subscription_id=key,
        source_sequence=source.sequence,
    )
    assert msgspec.json.decode(message.message)["data"]["message"] == "after"
    assert made.causation_id == source.id
    assert made.correlation_id == source.correlation_id
    assert (source.hops, made.hops) == (0, 1)


async def test_people_and_subscriptions_share_an_inbox() -> None:
    log = InMemoryEventLog()
    async with process(log) as one, process(log) as other:
        await register(one, "src")
        await register(one, "dst")
        await subscribe(one, "dst_0", "src_0.message.received")
        sent = [
            send(p, a, "x") for p in (one, other) for a in ("src_0", "dst_0") for _ in range(20)
        ]
        await asyncio.gather(*sent)
        messages = await arrived(log, "dst_0", 80)
        await settled(log)
    assert [m.ordinal for m in inbox(log, "dst_0")] == list(range(80))
    sources = [m.source_sequence for m in messages if m.subscription_id is not None]
    assert len(sources) == 40
    assert sources == sorted(set(sources))


@pytest.mark.parametrize("seed", range(4))
async def test_once_each_and_in_order_whoever_dies(seed: int) -> None:
    chance, log, count = random.Random(seed), InMemoryEventLog(), 60
    keys = []
    async with process(log) as api:
        await register(api, "src")
        for n in range(3):
            await register(api, f"dst{n}")
            keys.append(await subscribe(api, f"dst{n}_0", "src_0.message.received"))
    async with process(log) as steady:
        writing = asyncio.create_task(write(steady, count))
        while not writing.done():
            async with process(log), process(log):
                await asyncio.sleep(chance.random() * 0.05)
        await writing
        for n in range(3):
            await arrived(log, f"dst{n}_0", count)
        await settled(log)
    sources = [r.sequence for r in log.events if r.subject.endswith("src_0.message.received")]
    for n, key in enumerate(keys):
        messages = inbox(log, f"dst{n}_0")
        assert {m.subscription_id for m in messages} == {key}
        assert [m.source_sequence for m in messages] == sources


async def write(service: Service, count: int) -> None:
    for n in range(count):
        await send(service, "src_0", str(n))
        await asyncio.sleep(0.005)


async def test_what_another_delivered_a_moment_before_is_found_in_the_inbox() -> None:
    """The other's message, and a person's behind it: the conflict must not deliver once more."""
    log = InMemoryEventLog()
    async with process(log) as api:
        await register(api, "src")
        await register(api, "dst")
        await subscribe(api, "dst_0", "src_0.execution.finished")
        await send(api, "dst_0", "first")

        def be_faster(drafted: Draft) -> None:
            if isinstance(drafted.event, ev.MessageReceived):
                log.before_append = lambda _: None
                put(log, replace(drafted, time=b.T0))
                put(log, b.envelope_of(b.received(2, "dst_0")))

        log.before_append = be_faster
        await log.append(b.envelope_of(b.finished(0, "src_0")))
        await arrived(log, "dst_0", 3)
        await settled(log)
    made = [m for m in inbox(log, "dst_0") if m.subscription_id is not None]
    assert len(made) == 1
    assert [m.ordinal for m in inbox(log, "dst_0")] == [0, 1, 2]


def put(log: InMemoryEventLog, drafted: Draft) -> None:
    log.put_raw(event_subject("default", drafted.event), to_headers(drafted), encode(drafted.event))


async def test_what_happened_while_nobody_ran_is_delivered_at_the_start() -> None:
    log = InMemoryEventLog()
    async with process(log) as api:
        await register(api, "src")
        await register(api, "dst")
        await subscribe(api, "dst_0", "src_0.execution.finished")
    for n in range(5):
        await log.append(b.envelope_of(b.finished(n, "src_0")))
    async with process(log):
        assert [m.ordinal for m in await arrived(log, "dst_0", 5)] == list(range(5))


async def test_two_subscriptions_of_one_actor_are_two() -> None:
    log = InMemoryEventLog()
    async with process(log) as api:
        await register(api, "src")
        await register(api, "dst")
        keys = [await subscribe(api, "dst_0", p) for p in ("src_0.>", "*.actor.state_set")]
        await api.actors.change(cmd.SetState(actor_id="src_0", state=1))
        messages = await arrived(log, "dst_0", 2)
    assert [m.subscription_id for m in messages] == keys


async def test_an_end_is_an_end() -> None:
    log = InMemoryEventLog()
    async with process(log) as api:
        await register(api, "src")
        for name in ("a", "b", "c"):
            await register(api, name)
        key = await subscribe(api, "a_0", "src_0.>")
        await subscribe(api, "b_0", "src_0.>")
        await subscribe(api, "c_0", "src_0.>")
        await api.actors.change(cmd.Unsubscribe(actor_id="a_0", subscription_id=key))
        with pytest.raises(Unknown, match="subscription_id"):
            await api.actors.change(cmd.Unsubscribe(actor_id="a_0", subscription_id=key))
        await api.actors.change(cmd.DeleteActor(actor_id="b_0"))
        await send(api, "src_0", "x")
        await arrived(log, "c_0", 1)
        await settled(log)
    async with process(log):
        await settled(log)
    assert [len(inbox(log, f"{name}_0")) for name in "abc"] == [0, 0, 1]


async def test_a_circle_of_subscriptions_stops() -> None:
    log = InMemoryEventLog()
    async with process(log) as one, process(log) as other:
        for name in ("a", "b"):
            await register(one, name)
        await subscribe(one, "a_0", "b_0.message.received")
        await subscribe(other, "b_0", "a_0.message.received")
        await send(one, "a_0", "go")
        await settled(log)
        assert one.dispatcher.dropped_chains >= 1
    hops = [r.hops for r in log.events if isinstance(r.event, ev.MessageReceived)]
    assert hops == [0, 1, 2, 3, 4]
    chain = {r.correlation_id for r in log.events if isinstance(r.event, ev.MessageReceived)}
    assert chain == {"a_0_exc_0.received"}


async def test_hops_go_through_executions() -> None:
    """What the scheduler and the worker write of a message carries its hops."""
    log = InMemoryEventLog()
    async with process(log) as api:
        for name in ("a", "b"):
            await register(api, name)
        await subscribe(api, "b_0", "a_0.execution.finished")
        for ordinal, hops in ((0, 3), (1, 4), (2, 2)):
            drafted = draft(
                b.finished(ordinal, "a_0"),
                tenant="default",
                time=b.T0,
                causation_id="x",
                correlation_id="chain",
                hops=hops,
            )
            await log.append(drafted)
        await arrived(log, "b_0", 2)
        await settled(log)
    made = [r for r in log.events if isinstance(r.event, ev.MessageReceived)]
    assert [(r.hops, r.correlation_id) for r in made] == [(4, "chain"), (3, "chain")]


async def test_an_outage_of_the_log_delays_and_loses_nothing() -> None:
    log = InMemoryEventLog()
    async with process(log) as api:
        await register(api, "src")
        await register(api, "dst")
        await subscribe(api, "dst_0", "src_0.execution.finished")
        await log.append(b.envelope_of(b.finished(0, "src_0")))
        await arrived(log, "dst_0", 1)
        raw = b.envelope_of(b.finished(1, "src_0"))
        await log.append(raw)
        log.available = False
        await asyncio.sleep(0.1)
        log.available = True
        await arrived(log, "dst_0", 2)
        await settled(log)
    assert len(inbox(log, "dst_0")) == 2


async def test_a_process_that_is_not_the_fastest_stands_back() -> None:
    """Whoever lost a race leaves the next events to the other, as long as that one delivers."""
    log, tries = InMemoryEventLog(), 0

    def count(drafted: object) -> None:
        nonlocal tries
        tries += isinstance(getattr(drafted, "event", None), ev.MessageReceived)

    async with process(log) as one, process(log):
        await register(one, "src")
        await register(one, "dst")
        await subscribe(one, "dst_0", "src_0.execution.finished")
        log.before_append = count
        for n in range(30):
            await log.append(b.envelope_of(b.finished(n, "src_0")))
            await arrived(log, "dst_0", n + 1)
        await settled(log)
    assert len(inbox(log, "dst_0")) == 30
    assert tries < 40


def test_what_does_not_fit_into_a_variable_comes_without_its_data() -> None:
    whole = b.record(b.received(0, "src_0", "x" * 1000), 7)
    assert msgspec.json.decode(text(encode_event(whole)))["data"]["message"] == "x" * 1000
    large = b.record(b.received(0, "src_0", "é" * 65_000 + "\\" * 500), 7)
    assert len(encode_event(large).json) > MOST_BYTES
    short = text(encode_event(large))
    assert len(short.encode()) <= MOST_BYTES
    event = msgspec.json.decode(short)
    assert (event["data"], event["data_omitted"], event["href"]) == (None, True, "/events/7")
    assert (event["seq"], event["type"]) == (7, "message.received")
