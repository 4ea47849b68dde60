"""What every ``EventLog`` promises. ``test_event_log.py`` runs it on the fake and on JetStream."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

import builders as b
from abaco_jetstream.ports import Batch, EventLog
from abaco_jetstream.retry import append_until_stored
from abaco_proto import events as ev
from abaco_proto.envelope import Draft, Expected, Recorded, draft
from abaco_proto.errors import Conflict
from abaco_proto.names import actor_filter, all_events_filter, history_filter, inbox_filter
from deadlines import LIMIT_SECONDS

INBOX = inbox_filter("default", "foo_0")


async def take(batches: AsyncGenerator[Batch, None], count: int) -> list[Recorded]:
    """The first ``count`` events of a follower."""
    taken: list[Recorded] = []
    async with asyncio.timeout(LIMIT_SECONDS), aclosing(batches):
        async for batch in batches:
            taken.extend(batch.events)
            if len(taken) >= count:
                return taken
    raise AssertionError("a follower never ends")


async def collect(log: EventLog, *filters: str, after: int = 0) -> list[Recorded]:
    return [r async for batch in log.read(filters, after=after) for r in batch]


def message(ordinal: int, causation_id: str = "req-1") -> Draft:
    return draft(b.received(ordinal), tenant="default", time=b.T0, causation_id=causation_id)


class EventLogSuite:
    async def test_what_was_appended_is_read_back_whole(self, log: EventLog) -> None:
        drafted = draft(
            b.requested(),
            tenant="default",
            time=b.T0,
            causation_id="foo_0.registered",
            correlation_id="req-9",
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        sequence = await log.append(drafted)
        found = await log.at(sequence)
        assert found is not None
        assert found.matches(drafted)
        assert found.time == b.T0
        assert found.correlation_id == "req-9"
        assert found.traceparent == drafted.traceparent
        assert found.tenant == "default"
        assert found.subject == "abaco.event.default.foo_0.worker.requested.h1"

    async def test_every_type_survives_the_journey(self, log: EventLog) -> None:
        for event in b.EXAMPLES:
            await log.append(b.envelope_of(event))
        found = await collect(log, all_events_filter())
        assert [r.event for r in found] == list(b.EXAMPLES)

    async def test_sequences_rise_by_one(self, log: EventLog) -> None:
        first = await log.append(message(0))
        second = await log.append(message(1))
        assert second == first + 1

    async def test_an_expectation_that_holds_lets_the_event_in(self, log: EventLog) -> None:
        first = await log.append(message(0), expected=Expected(filter=INBOX, sequence=0))
        await log.append(message(1), expected=Expected(filter=INBOX, sequence=first))

    async def test_an_expectation_that_fails_keeps_the_event_out(self, log: EventLog) -> None:
        await log.append(message(0), expected=Expected(filter=INBOX, sequence=0))
        with pytest.raises(Conflict):
            await log.append(message(0, "req-2"), expected=Expected(filter=INBOX, sequence=0))
        assert len(await collect(log, INBOX)) == 1

    async def test_an_expectation_may_span_subjects(self, log: EventLog) -> None:
        whole = actor_filter("default", "foo_0")
        first = await log.append(b.envelope_of(b.registered()))
        state = ev.ActorStateSet(actor_id="foo_0", state=1, version=1)
        second = await log.append(
            b.envelope_of(state), expected=Expected(filter=whole, sequence=first)
        )
        with pytest.raises(Conflict):
            await log.append(
                b.envelope_of(b.updated()), expected=Expected(filter=whole, sequence=first)
            )
        await log.append(
            b.envelope_of(b.updated()), expected=Expected(filter=whole, sequence=second)
        )

    async def test_other_subjects_do_not_disturb_an_expectation(self, log: EventLog) -> None:
        first = await log.append(message(0))
        await log.append(b.envelope_of(b.ready()))
        await log.append(message(1), expected=Expected(filter=INBOX, sequence=first))

    async def test_a_draft_appended_twice_is_there_once(self, log: EventLog) -> None:
        first = await log.append(message(0))
        assert await log.append(message(0)) == first
        assert len(await collect(log, INBOX)) == 1

    async def test_a_retry_with_a_stale_expectation_finds_its_own_event(
        self, log: EventLog
    ) -> None:
        expected = Expected(filter=INBOX, sequence=0)
        first = await log.append(message(0), expected=expected)
        assert await log.append(message(0), expected=expected) == first

    async def test_an_equal_draft_of_another_writer_is_a_conflict(self, log: EventLog) -> None:
        await log.append(message(0, "req-1"))
        with pytest.raises(Conflict):
            await log.append(message(0, "req-2"))

    async def test_tenants_do_not_share_ids(self, log: EventLog) -> None:
        await log.append(b.envelope_of(b.received(0), tenant="a"))
        await log.append(b.envelope_of(b.received(0), tenant="b"))
        assert len(await collect(log, all_events_filter())) == 2

    async def test_of_many_writers_with_one_expectation_one_wins(self, log: EventLog) -> None:
        expected = Expected(filter=INBOX, sequence=0)
        tries = [log.append(message(0, f"req-{n}"), expected=expected) for n in range(20)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(r, int) for r in results) == 1
        assert sum(isinstance(r, Conflict) for r in results) == 19

    async def test_read_selects_by_filter_and_position(self, log: EventLog) -> None:
        first = await log.append(message(0))
        await log.append(b.envelope_of(b.registered("bar_0")))
        await log.append(message(1))
        found = await collect(log, history_filter("default", "foo_0"), after=first)
        assert [r.event for r in found] == [b.received(1)]

    async def test_read_takes_several_filters_in_one_order(self, log: EventLog) -> None:
        for event in (b.registered("a_0"), b.registered("b_0"), b.registered("c_0")):
            await log.append(b.envelope_of(event))
        found = await collect(
            log, history_filter("default", "c_0"), history_filter("default", "a_0")
        )
        assert [r.event for r in found] == [b.registered("a_0"), b.registered("c_0")]

    async def test_read_of_headers_leaves_the_bodies_out(self, log: EventLog) -> None:
        for n in range(3):
            await log.append(message(n, f"req-{n}"))
        found = [r async for batch in log.read([INBOX], headers_only=True) for r in batch]
        assert [r.causation_id for r in found] == ["req-0", "req-1", "req-2"]
        assert [r.sequence for r in found] == [1, 2, 3]
        assert {r.raw for r in found} == {b""}
        assert {type(r.event) for r in found} == {ev.Unrecognized}

    async def test_read_since_a_time_begins_with_what_was_stored_then(self, log: EventLog) -> None:
        await log.append(message(0))
        await asyncio.sleep(0.01)
        between = datetime.now(UTC)
        await asyncio.sleep(0.01)
        await log.append(message(1))
        hour = timedelta(hours=1)
        for since, expected in ((between - hour, [1, 2]), (between, [2]), (between + hour, [])):
            async with asyncio.timeout(10):
                found = [r async for batch in log.read([INBOX], since=since) for r in batch]
            assert [r.sequence for r in found] == expected

    async def test_read_of_nothing_ends(self, log: EventLog) -> None:
        assert await collect(log, history_filter("default", "nobody_0")) == []

    async def test_a_long_history_is_read_whole(self, log: EventLog) -> None:
        for start in range(0, 2500, 250):  # a slow disk is given time for each part
            await asyncio.gather(*[log.append(message(start + n)) for n in range(250)])
        found = await collect(log, INBOX)
        assert [r.sequence for r in found] == list(range(1, 2501))

    async def test_follow_begins_with_a_batch_even_if_it_is_empty(self, log: EventLog) -> None:
        async with asyncio.timeout(LIMIT_SECONDS), aclosing(log.follow([INBOX])) as batches:
            batch = await anext(batches)
        assert list(batch.events) == []
        assert batch.caught_up

    async def test_follow_gives_history_then_new_events_without_a_gap(self, log: EventLog) -> None:
        for n in range(50):
            await log.append(message(n))
        follower = asyncio.create_task(take(log.follow([INBOX]), 200))
        for n in range(50, 200):
            await log.append(message(n))
        assert [r.event for r in await follower] == [b.received(n) for n in range(200)]

    async def test_follow_begins_behind_a_position(self, log: EventLog) -> None:
        first = await log.append(message(0))
        await log.append(message(1))
        [found] = await take(log.follow([INBOX], after=first), 1)
        assert found.event == b.received(1)

    async def test_last_of_a_filter(self, log: EventLog) -> None:
        assert await log.last(INBOX) is None
        await log.append(message(0))
        sequence = await log.append(message(1))
        await log.append(b.envelope_of(b.ready()))
        last = await log.last(INBOX)
        assert last is not None
        assert last.sequence == sequence

    async def test_nothing_stands_at_a_place_never_written(self, log: EventLog) -> None:
        assert await log.at(1_000_000) is None

    async def test_append_until_stored_writes_once(self, log: EventLog) -> None:
        first = await append_until_stored(log, message(0), after=0)
        assert await append_until_stored(log, message(0), after=0) == first
