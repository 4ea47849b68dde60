"""Requests with a key: once, whoever dies, is slow, or comes at the same time."""

import asyncio
import gc
import hashlib
import json
import re
import tracemalloc
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from starlette.requests import Request

import builders as b
from abaco_api.api_settings import ApiSettings
from abaco_api.commands import idempotency
from abaco_api.commands.idempotency import (
    MAX_BYTES,
    AlreadyExecuted,
    IdempotencyKey,
    KeyIndex,
    idempotency_key,
    key_of_event,
)
from abaco_api.routes import OPERATIONS, explain_routes
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, draft
from abaco_proto.events import Event
from abaco_proto.names import inbox_filter
from fakes import InMemoryEventLog
from idempotency_stage import CONFIG, STEP_SECONDS, Process, Side, World, world

KEY = "5c1b-0001"
STEPS = 12
"""No request takes more: the last of them find it finished."""

POSTS: dict[str, tuple[str, dict[str, str], type[Event]]] = {
    "register": ("/actors", {"image": "a/b", "name": "foo"}, ev.ActorRegistered),
    "message": ("/actors/foo_0/messages", {"message": "hi"}, ev.MessageReceived),
    "state": ("/actors/foo_0/state", {"state": "7"}, ev.ActorStateSet),
    "workers": ("/actors/foo_0/workers", {"num": "3"}, ev.ActorUpdated),
    "subscription": (
        "/actors/foo_0/subscriptions",
        {"event_pattern": "bar_0.execution.finished"},
        ev.ActorSubscribed,
    ),
    "retry": ("/actors/foo_0/executions/foo_0_exc_0/retry", {}, ev.ExecutionRetryRequested),
    "permission": (
        "/actors/foo_0/permissions",
        {"user": "bob", "level": "READ"},
        ev.PermissionSet,
    ),
    "token": ("/tokens", {"name": "ci", "owner": "bob"}, ev.TokenCreated),
    "nonce": ("/actors/foo_0/nonces", {"max_uses": "3"}, ev.NonceCreated),
}
NOTHING_TO_DO = ("workers", "permission")
"""Requests that change nothing the second time, with whatever key."""
SECRET_TEXT = re.compile(rb'"(token|nonce)":("abaco_[a-z]+_[0-9A-Za-z]+"|null)')


def told(answer: httpx.Response) -> tuple[int, bytes, str | None]:
    """What must be the same each time: all but the text of a credential, which is shown once."""
    content = SECRET_TEXT.sub(b"", answer.content)
    return answer.status_code, content, answer.headers.get("Abaco-Sequence")


async def prepare(stage: World) -> None:
    """An actor, and a message of it that was given up."""
    await stage.processes[0].post("/actors", None, image="a/b", name="foo")
    await stage.processes[0].post("/actors/foo_0/messages", None, message="first")
    await stage.log.append(b.envelope_of(b.abandoned(0)))


def led_to(stage: World, kind: type[Event]) -> int:
    """How many events of a type requests with keys have led to."""
    return sum(
        isinstance(r.event, kind) and r.causation_id.startswith("idem-") for r in stage.log.events
    )


async def send(process: Process, name: str, key: str = KEY) -> httpx.Response:
    path, form, _ = POSTS[name]
    return await process.post(path, key, **form)


def test_every_post_takes_a_key() -> None:
    posts = {o.path for o in OPERATIONS if o.kind == "command" and o.method == "POST"}
    assert posts == {o.path for o in OPERATIONS if o.repeated is not None}
    assert len(posts) == 10


# -- the same key again --------------------------------------------------------------------------


@pytest.mark.parametrize("name", POSTS)
async def test_the_same_key_has_the_same_answer_and_one_event(name: str) -> None:
    async with world() as stage:
        await prepare(stage)
        first = await send(stage.processes[0], name)
        assert first.status_code in (200, 201), first.text
        for process in (*stage.processes, *stage.processes):
            assert told(await send(process, name)) == told(first)
        assert led_to(stage, POSTS[name][2]) == 1
        other = await send(stage.processes[1], name, "another key")
        assert (told(other) == told(first)) is (name in NOTHING_TO_DO), "nothing to do is no event"


async def test_a_rerun_is_told_by_its_event() -> None:
    """What it answers with comes from the read models, which nobody has here."""
    again = ev.Rerun(execution_id="foo_0_exc_0", actor_sequence=1, state_sequence=0, image="i")
    recorded = b.record(b.received(7, rerun=again), 42)
    nothing: Any = None
    answer = await explain_routes.repeated_rerun(nothing, Request({"type": "http"}), recorded)
    assert (answer.status_code, answer.headers["Abaco-Sequence"]) == (201, "42")
    assert json.loads(bytes(answer.body))["result"] == {
        "execution_id": "foo_0_exc_7",
        "rerun_of": "foo_0_exc_0",
        "image": "i",
    }


async def test_another_request_with_the_key_is_refused() -> None:
    async with world() as stage:
        await prepare(stage)
        one, other = stage.processes
        await send(one, "message")
        before = len(stage.log.events)
        for path, form in (
            ("/actors/foo_0/messages", {"message": "ho"}),
            ("/actors/foo_0/messages?a=b", {"message": "hi"}),
        ):
            answer = await other.post(path, KEY, **form)
            assert answer.status_code == 409
            assert answer.json()["error"] == "idempotency_key_reused"
            assert "Idempotency-Key" in answer.json()["msg"]
        assert len(stage.log.events) == before


async def test_a_key_holds_for_one_operation_on_one_path() -> None:
    async with world() as stage:
        await prepare(stage)
        one, other = stage.processes
        await one.post("/actors", None, image="a/b", name="bar")
        await send(one, "message")
        elsewhere = await other.post("/actors/bar_0/messages", KEY, message="hi")
        assert elsewhere.json()["result"]["execution_id"] == "bar_0_exc_0"
        assert (await send(other, "state")).is_success
        assert led_to(stage, ev.MessageReceived) == 2
        assert led_to(stage, ev.ActorStateSet) == 1


async def test_what_a_body_says_counts_and_not_how() -> None:
    async with world() as stage:
        await prepare(stage)
        one, other = stage.processes
        path, headers = "/actors/foo_0/messages", {"Idempotency-Key": KEY}
        first = await one.http.post(path, headers=headers, files={"message": (None, "hi")})
        again = await other.http.post(path, headers=headers, files={"message": (None, "hi")})
        assert told(first) == told(again)
        whole = json.dumps({"message": "hi"})
        typed = {**headers, "Content-Type": "application/json"}
        assert (await one.http.post(path, headers=typed, content=whole)).status_code == 409


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9", "tab\there"])
async def test_a_key_that_is_none_is_refused(key: str) -> None:
    async with world() as stage:
        await prepare(stage)
        headers = [("Idempotency-Key", key.encode("latin-1"))]
        answer = await stage.processes[0].http.post(
            "/actors/foo_0/messages",
            data={"message": "hi"},
            headers=headers,  # type: ignore[arg-type]
        )
        assert answer.status_code == 400
        assert "Idempotency-Key" in answer.json()["msg"]


@pytest.mark.parametrize("key", ["x", "x" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "a b~!"])
async def test_a_key_is_any_printable_text(key: str) -> None:
    async with world() as stage:
        await prepare(stage)
        first = await send(stage.processes[0], "message", key)
        assert first.status_code == 200
        assert told(await send(stage.processes[1], "message", key)) == told(first)


async def test_two_keys_in_one_request_are_refused() -> None:
    async with world() as stage:
        answer = await stage.processes[0].http.post(
            "/actors", data={"image": "a/b"}, headers=[("Idempotency-Key", "a")] * 2
        )
        assert answer.status_code == 400


async def test_a_key_without_meaning_is_left_alone() -> None:
    async with world() as stage:
        await prepare(stage)
        headers = {"Idempotency-Key": "x" * 999}
        answer = await stage.processes[0].http.put("/actors/foo_0", data={}, headers=headers)
        assert answer.status_code == 200


# -- errors --------------------------------------------------------------------------------------


async def test_what_was_executed_is_answered_though_its_actor_is_gone() -> None:
    async with world() as stage:
        await prepare(stage)
        one, other = stage.processes
        first = {name: await send(one, name) for name in POSTS if name != "register"}
        assert (await one.http.delete("/actors/foo_0")).is_success
        for process in (one, other):
            for name, answer in first.items():
                assert told(await send(process, name)) == told(answer), name
            assert (await send(process, "message", "another key")).status_code == 404


async def test_a_request_that_was_refused_is_decided_anew() -> None:
    async with world() as stage:
        one, other = stage.processes
        assert (await send(one, "message")).status_code == 404
        await one.post("/actors", None, image="a/b", name="foo")
        answer = await send(other, "message")
        assert answer.status_code == 200
        assert told(await send(one, "message")) == told(answer)
        assert led_to(stage, ev.MessageReceived) == 1


async def test_a_key_of_a_request_that_never_began_can_be_used_again() -> None:
    async with world() as stage:
        await prepare(stage)
        one, other = stage.processes
        assert (await one.post("/actors/foo_0/messages", KEY, massage="hi")).status_code == 400
        assert (await one.post("/actors/foo_0/state", KEY)).status_code == 400
        assert (await send(other, "message")).status_code == 200
        assert led_to(stage, ev.MessageReceived) == 1


async def test_a_full_inbox_does_not_use_a_key_up() -> None:
    config = ApiSettings(max_inbox_messages=2, postgres_dsn=CONFIG.postgres_dsn)
    async with world(config=config) as stage:
        await prepare(stage)
        one, other = stage.processes
        await one.post("/actors/foo_0/messages", None, message="second")
        full = await send(one, "message")
        assert (full.status_code, full.json()["error"]) == (429, "inbox_full")
        await one.http.delete("/actors/foo_0/messages")
        assert (await send(other, "message")).status_code == 200


async def test_a_log_that_is_away_does_not_use_a_key_up() -> None:
    async with world() as stage:
        await prepare(stage)
        stage.log.available = False
        assert (await send(stage.processes[0], "message")).status_code == 503
        stage.log.available = True
        answers = [await send(process, "message") for process in stage.processes]
        assert [a.status_code for a in answers] == [200, 200]
        assert told(answers[0]) == told(answers[1])


async def test_a_key_whose_time_is_over_is_new() -> None:
    async with world() as stage:
        await prepare(stage)
        await send(stage.processes[0], "message")
        made = stage.log.events[-1]
        old = made.time - timedelta(seconds=CONFIG.idempotency_seconds + 1)
        stage.log.events[-1] = replace(made, time=old)
        stage.log.stored_at[-1] = old
        again = await send(stage.processes[1], "message")
        assert again.json()["result"]["execution_id"] == "foo_0_exc_2"


# -- who dies, and who is slow -------------------------------------------------------------------


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("name", POSTS)
async def test_a_process_that_dies_at_whatever_step(name: str, side: Side) -> None:
    finished = 0
    for step in range(1, STEPS):
        async with world(3) as stage:
            await prepare(stage)
            one, other, third = stage.processes
            one.gate.hold_at(step, side)
            finished += not await dies(one, asyncio.create_task(send(one, name)))
            answers = [await send(p, name) for p in (other, third, other)]
            assert len({told(a) for a in answers}) == 1, step
            assert answers[0].status_code in (200, 201), (step, answers[0].text)
            assert led_to(stage, POSTS[name][2]) == 1, step
    assert 0 < finished < STEPS - 1


async def dies(process: Process, request: "asyncio.Task[httpx.Response]") -> bool:
    """Whether it came to the step where it dies, before its answer."""
    reached = asyncio.create_task(process.gate.reached.wait())
    await asyncio.wait({reached, request}, return_when=asyncio.FIRST_COMPLETED)
    dead = not request.done()
    for task in (request, reached):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return dead


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("name", POSTS)
async def test_a_process_that_is_slow_at_whatever_step(name: str, side: Side) -> None:
    for step in range(1, STEPS):
        async with world() as stage:
            await prepare(stage)
            one, other = stage.processes
            one.gate.hold_at(step, side)
            slow = asyncio.create_task(send(one, name))
            reached = asyncio.create_task(one.gate.reached.wait())
            await asyncio.wait({reached, slow}, return_when=asyncio.FIRST_COMPLETED)
            reached.cancel()
            answer = await send(other, name)
            one.gate.go_on.set()
            assert told(await slow) == told(answer), step
            assert answer.status_code in (200, 201), (step, answer.text)
            assert led_to(stage, POSTS[name][2]) == 1, step


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_slow_process_whose_inbox_went_on(side: Side) -> None:
    """Others advance its inbox head: the condition alone would let a second one in."""
    for step in range(1, STEPS):
        async with world() as stage:
            await prepare(stage)
            one, other = stage.processes
            one.gate.hold_at(step, side)
            slow = asyncio.create_task(send(one, "message"))
            reached = asyncio.create_task(one.gate.reached.wait())
            await asyncio.wait({reached, slow}, return_when=asyncio.FIRST_COMPLETED)
            reached.cancel()
            answer = await send(other, "message")
            for n in range(3):
                await other.post("/actors/foo_0/messages", f"{KEY}{n}", message=str(n))
            one.gate.go_on.set()
            assert told(await slow) == told(answer), step
            assert led_to(stage, ev.MessageReceived) == 4, step


async def test_another_registration_in_between_makes_no_second_one() -> None:
    for step in range(1, STEPS):
        async with world(3) as stage:
            one, other, third = stage.processes
            one.gate.hold_at(step, "before")
            slow = asyncio.create_task(send(one, "register"))
            reached = asyncio.create_task(one.gate.reached.wait())
            await asyncio.wait({reached, slow}, return_when=asyncio.FIRST_COMPLETED)
            reached.cancel()
            await send(third, "register", "another key")
            answer = await send(other, "register")
            await send(third, "register", "a third key")
            one.gate.go_on.set()
            assert told(await slow) == told(answer), step
            assert led_to(stage, ev.ActorRegistered) == 3, step


@settings(max_examples=15, deadline=None)
@given(st.data())
async def test_whatever_the_order_of_their_steps(data: st.DataObject) -> None:
    """Three processes, three keys, each sent to all, every step late by chance, one killed."""
    random = data.draw(st.randoms(use_true_random=False))
    async with world(3) as stage:
        await prepare(stage)
        for process in stage.processes:
            process.gate.delay = lambda: random.choice(
                (0, 0, 0, STEP_SECONDS / 3, 2 * STEP_SECONDS)
            )
        victim = stage.processes[0]
        names = [data.draw(st.sampled_from(["message", "register", "state"])) for _ in range(3)]
        requests = [
            asyncio.create_task(send(process, name, f"key {n}"))
            for n, name in enumerate(names)
            for process in stage.processes
        ]
        await asyncio.sleep(random.choice((0, STEP_SECONDS / 2, 2 * STEP_SECONDS)))
        for n in range(3):
            killed = requests[3 * n]
            killed.cancel()
        answers = await asyncio.gather(*requests, return_exceptions=True)
        for n, name in enumerate(names):
            again = await send(stage.processes[1], name, f"key {n}")
            alive = [a for a in answers[3 * n : 3 * n + 3] if isinstance(a, httpx.Response)]
            assert {told(a) for a in alive} == {told(again)}
            assert again.is_success
        wanted = Counter(POSTS[name][2] for name in names)
        assert {kind: led_to(stage, kind) for kind in wanted} == wanted
        assert victim is not stage.processes[1]


# -- what a key costs ----------------------------------------------------------------------------


async def test_while_the_first_is_under_way_the_second_waits_for_its_answer() -> None:
    async with world() as stage:
        await prepare(stage)
        one, other = stage.processes
        appended = asyncio.Event()
        stage.log.before_append = lambda _: appended.set()
        first = asyncio.create_task(send(one, "message"))
        await appended.wait()
        second = asyncio.create_task(send(other, "message"))
        same = asyncio.create_task(send(one, "message"))
        assert len({told(await task) for task in (first, second, same)}) == 1


async def test_a_key_costs_no_request_beside_the_append() -> None:
    async with world(1) as stage:
        await prepare(stage)
        [process] = stage.processes
        await send(process, "message", "the first reads the keys there are")
        for n in range(20):
            before = process.gate.steps
            assert (await send(process, "message", f"key {n}")).is_success
            assert process.gate.steps - before == 1


async def test_the_log_holds_no_key_in_clear() -> None:
    async with world(1) as stage:
        await prepare(stage)
        await send(stage.processes[0], "message", "secret-key")
        recorded = stage.log.events[-1]
        assert "secret" not in recorded.causation_id
        assert key_of_event(recorded.causation_id) is not None


def test_keys_of_tenants_operations_and_paths_are_apart() -> None:
    def scope(tenant: str = "a", method: str = "POST", path: str = "/p", key: str = "k") -> str:
        return idempotency_key(
            key, tenant=tenant, method=method, path=path, query="", parameters=None
        ).scope

    scopes = {
        scope(),
        scope(tenant="b"),
        scope(method="PUT"),
        scope(path="/q"),
        scope(key="l"),
        scope(path="/p\nk", key=""),
    }
    assert len(scopes) == 6


@pytest.mark.parametrize("text", ["", "req-1", "idem-0123456789abcdef-a1b2", "idem-" + "0" * 65])
def test_other_causes_are_no_keys(text: str) -> None:
    assert key_of_event(text) is None


# -- the index -----------------------------------------------------------------------------------


async def append_keyed(log: InMemoryEventLog, ordinal: int, actor: str = "foo") -> Recorded:
    """A message that a request with a key has led to."""
    key = idempotency_key(
        f"key {ordinal}", tenant="t", method="POST", path=actor, query="", parameters=None
    )
    event = replace(
        b.received(ordinal), actor_id=f"{actor}_0", execution_id=f"{actor}_0_exc_{ordinal}"
    )
    drafted = draft(
        event, tenant="default", time=datetime.now(UTC), causation_id=key.causation_id("0")
    )
    recorded = await log.at(await log.append(drafted))
    assert recorded is not None
    return recorded


async def is_known(index: KeyIndex, actor: str, head: int, recorded: Recorded) -> bool:
    key = key_of_event(recorded.causation_id)
    assert key is not None
    try:
        await index.check(inbox_filter("default", f"{actor}_0"), head, key)
    except AlreadyExecuted as executed:
        return executed.recorded.sequence == recorded.sequence
    return False


def room(*, histories: int, slices: int, keys: int) -> int:
    """The bytes that an index counts for what it holds."""
    taken = histories * idempotency.HISTORY_BYTES + slices * idempotency.SLICE_BYTES
    return taken + keys * idempotency.KEY_BYTES


async def test_an_index_reads_as_far_as_the_head_that_is_decided_on() -> None:
    log = InMemoryEventLog()
    index = KeyIndex(log, 60)
    for n in range(10):
        recorded = await append_keyed(log, n)
        assert await is_known(index, "foo", recorded.sequence, recorded)


async def test_an_index_takes_own_events_only_without_a_gap() -> None:
    log = InMemoryEventLog()
    index = KeyIndex(log, 60)
    history = inbox_filter("default", "foo_0")
    first = await append_keyed(log, 0)
    await index.prepare(history)
    foreign = await append_keyed(log, 1)
    own = await append_keyed(log, 2)
    index.add(history, foreign.sequence, own, key_of_event(own.causation_id))
    for recorded in (first, foreign, own):
        assert await is_known(index, "foo", own.sequence, recorded)


async def test_an_index_is_bounded_and_reads_again_what_it_dropped() -> None:
    log = InMemoryEventLog()
    index = KeyIndex(log, 60, max_bytes=room(histories=2, slices=2, keys=5))
    recorded = {(a, n): await append_keyed(log, n, a) for a in ("foo", "bar") for n in range(4)}
    for _ in range(2):
        for (actor, _), one in recorded.items():
            assert await is_known(index, actor, len(log.events), one)
            assert index.count <= 5
            assert index.bytes == room(histories=1, slices=1, keys=index.count)


class DroppingLog(InMemoryEventLog):
    """Drops a history of an index while it is read."""

    index: KeyIndex | None = None

    async def read(
        self,
        filters: Sequence[str],
        *,
        after: int = 0,
        since: datetime | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Recorded], None]:
        async for batch in super().read(filters, after=after, since=since):
            for recorded in batch:
                if self.index is not None and filters[0] in self.index._windows:
                    self.index._windows["another"] = idempotency._Window(timedelta(seconds=60))
                    self.index._drop()
                yield [recorded]


async def test_a_history_that_is_dropped_while_it_is_read_is_checked_whole() -> None:
    log = DroppingLog()
    index = KeyIndex(log, 60)
    recorded = [await append_keyed(log, n) for n in range(4)]
    await index.prepare(inbox_filter("default", "foo_0"))
    recorded += [await append_keyed(log, n) for n in range(4, 8)]
    log.index = index
    assert await is_known(index, "foo", 8, recorded[-1])
    assert len(index._windows) == 1
    assert index.count == 0


async def test_a_single_history_forgets_its_oldest_keys(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "SLICE_KEYS", 1)
    log = InMemoryEventLog()
    index = KeyIndex(log, 60, max_bytes=room(histories=1, slices=5, keys=5))
    recorded = [await append_keyed(log, n) for n in range(8)]
    known = [await is_known(index, "foo", 8, one) for one in recorded]
    assert known == [False] * 3 + [True] * 5
    assert "the oldest are forgotten" in caplog.text


async def test_keys_whose_time_is_over_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "SLICE_KEYS", 2)
    log = InMemoryEventLog()
    index = KeyIndex(log, 60)
    history, head = inbox_filter("default", "foo_0"), 0
    await index.prepare(history)
    for n in range(20):
        recorded = await append_keyed(log, n)
        old = n < 15
        time = recorded.time - timedelta(seconds=61 if old else 0)
        key = key_of_event(recorded.causation_id)
        index.add(history, head, replace(recorded, time=time), key)
        head = recorded.sequence
    assert 5 <= index.count < 10


async def test_a_key_that_is_used_again_after_its_time_is_found_by_its_last_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(idempotency, "SLICE_KEYS", 100)
    log = InMemoryEventLog()
    index = KeyIndex(log, 60)
    history, head = inbox_filter("default", "foo_0"), 0
    await index.prepare(history)
    first = await append_keyed(log, 0)
    again = replace(await append_keyed(log, 1), causation_id=first.causation_id)
    log.events[-1] = again
    for recorded in (first, again):
        index.add(history, head, recorded, key_of_event(recorded.causation_id))
        head = recorded.sequence
    assert await is_known(index, "foo", head, again)


def keyed(number: int, sequence: int, time: datetime) -> tuple[Recorded, IdempotencyKey]:
    """An event that is appended with the ``number``-th key."""
    scope = hashlib.md5(b"%d" % number, usedforsecurity=False).hexdigest()
    key = IdempotencyKey(scope=scope, digest="0" * 32)
    recorded = replace(PLAIN, sequence=sequence, time=time, causation_id=key.causation_id("0"))
    return recorded, key


PLAIN = Recorded(
    sequence=1,
    subject="",
    tenant="default",
    event=b.received(0),
    id="",
    time=datetime.now(UTC),
)


class CountingLog(InMemoryEventLog):
    """Counts how often a history is read."""

    reads = 0

    async def read(
        self,
        filters: Sequence[str],
        *,
        after: int = 0,
        since: datetime | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Recorded], None]:
        self.reads += 1
        async for batch in super().read(
            filters, after=after, since=since, headers_only=headers_only
        ):
            yield batch


async def test_the_keys_of_busy_histories_fit_and_no_history_is_read_again() -> None:
    """A twentieth of a million keys in a twentieth of the memory, in five histories in turn."""
    part, histories = 20, [f"history {n}" for n in range(5)]
    log = CountingLog()
    index = KeyIndex(log, 60, max_bytes=MAX_BYTES // part)
    for history in histories:
        await index.prepare(history)
    now, heads = datetime.now(UTC), dict.fromkeys(histories, 0)
    for number in range(1_000_000 // part):
        history = histories[number % len(histories)]
        recorded, key = keyed(number, number + 1, now)
        if number % 100 == 0:
            await index.prepare(history)
            await index.check(history, heads[history], key)
        index.add(history, heads[history], recorded, key)
        heads[history] = recorded.sequence
    assert log.reads == len(histories)
    assert index.count == 1_000_000 // part


async def test_an_index_takes_no_more_memory_than_it_counts() -> None:
    histories = [f"abaco.event.default.foo_{n}.message.received" for n in range(20)]
    now = datetime.now(UTC)
    events = [keyed(number, number + 1, now) for number in range(10_000)]
    tracemalloc.start()
    try:
        index = KeyIndex(InMemoryEventLog(), 60)
        for each in histories:
            history = each.replace("foo", "bar")
            await index.prepare(history)
            head = 0
            for recorded, key in events[: 500 * (1 + len(index._windows))]:
                index.add(history, head, recorded, key)
                head = recorded.sequence
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken < index.bytes
