"""The hash chain: every part of an event is in it, and nothing else."""

import hashlib
import struct
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import builders as b
from abaco_projector.domain.event_rows import event_rows
from abaco_projector.domain.hash_chain import GENESIS_HASH, canonical, next_hash
from abaco_proto.envelope import EPOCH, MAX_HOPS, Recorded, decode

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def recorded(**changes: object) -> Recorded:
    return replace(b.record(b.received(0), 7), **changes)


words = st.text(max_size=20)
any_recorded = st.builds(
    recorded,
    sequence=st.integers(1, 2**62),
    subject=words.map(lambda word: f"abaco.event.default.{word}"),
    id=words,
    causation_id=words,
    correlation_id=words,
    traceparent=st.none() | words,
    principal=st.none() | words,
    hops=st.integers(0, MAX_HOPS),
    time=st.datetimes(timezones=st.timezones()),
    raw=st.binary(max_size=40),
)


def test_one_event_by_hand() -> None:
    event = recorded(
        subject="abaco.event.default.foo_0.message.received",
        id="foo_0_exc_0.received",
        causation_id="req-1",
        correlation_id="é",
        traceparent=None,
        hops=2,
        time=datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC),
        raw=b'{"type":"message.received"}',
    )
    by_hand = (
        struct.pack(">qqq", 7, 1_000_005, 2)
        + struct.pack(">iiiii", 42, 20, 5, 2, -1)
        + "abaco.event.default.foo_0.message.receivedfoo_0_exc_0.receivedreq-1é".encode()
        + b'{"type":"message.received"}'
    )
    assert canonical(event) == by_hand
    assert next_hash(GENESIS_HASH, event) == hashlib.sha256(bytes(32) + by_hand).digest()


def test_a_principal_is_before_what_an_event_without_one_is() -> None:
    event = recorded(principal="user:anna")
    head = struct.pack(">qI", -2, 9) + b"user:anna"
    assert canonical(event) == head + canonical(replace(event, principal=None))


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 8},
        {"subject": "abaco.event.default.foo_1.message.received"},
        {"id": "foo_0_exc_1.received"},
        {"causation_id": "req-2"},
        {"correlation_id": "req-2"},
        {"hops": 1},
        {"traceparent": TRACE},
        {"traceparent": ""},
        {"principal": "user:anna"},
        {"principal": ""},
        {"time": b.T0 + timedelta(microseconds=1)},
        {"raw": b"{}"},
        {"id": "foo_0_exc_0.receivedr", "causation_id": "eq-1"},
    ],
)
def test_every_part_counts(change: dict[str, object]) -> None:
    first = recorded(id="foo_0_exc_0.received", causation_id="req-1")
    assert next_hash(GENESIS_HASH, replace(first, **change)) != next_hash(GENESIS_HASH, first)
    second = replace(first, principal="user:bob")
    assert next_hash(GENESIS_HASH, replace(second, **change)) != next_hash(GENESIS_HASH, second)


def test_what_went_before_counts() -> None:
    one, other = event_rows(GENESIS_HASH, [recorded(), recorded(sequence=8)])
    assert other.hash == next_hash(one.hash, recorded(sequence=8))
    assert other.hash != next_hash(GENESIS_HASH, recorded(sequence=8))


@given(any_recorded, any_recorded)
def test_different_events_have_different_bytes(one: Recorded, other: Recorded) -> None:
    rows = [event_rows(GENESIS_HASH, [each])[0]._replace(hash=b"") for each in (one, other)]
    assert (canonical(one) == canonical(other)) == (rows[0] == rows[1])


@given(any_recorded)
def test_a_row_holds_the_body_once_and_whole(event: Recorded) -> None:
    event = replace(event, event=decode(event.raw))
    (row,) = event_rows(GENESIS_HASH, [event])
    assert (row.data is None) != (row.body is None)
    assert (row.body if row.data is None else row.data.encode()) == event.raw
    (body_as_bytes,) = event_rows(GENESIS_HASH, [event], body_as_bytes=True)
    assert (body_as_bytes.data, body_as_bytes.body, body_as_bytes.hash) == (
        None,
        event.raw,
        row.hash,
    )


@pytest.mark.parametrize(
    ("subject", "columns"),
    [
        ("abaco.event.t.foo_0.message.received", ("t", "foo_0", "message.received")),
        ("abaco.event.t.foo_0.worker.requested.h1", ("t", "foo_0", "worker.requested")),
        ("abaco.event.t._host-h1.host.joined", ("t", "_host-h1", "host.joined")),
        ("abaco.event.t.foo_0", ("t", "foo_0", "")),
        ("abaco.event.t", ("t", "", "")),
    ],
)
def test_columns_come_from_the_subject(subject: str, columns: tuple[str, str, str]) -> None:
    (row,) = event_rows(GENESIS_HASH, [recorded(subject=subject)])
    assert (row.tenant, row.actor_id, row.type) == columns


def test_what_no_column_holds_is_replaced_before_it_is_hashed() -> None:
    (row,) = event_rows(GENESIS_HASH, [recorded(principal="\x00\ud800")])
    assert row.principal == "\ufffd?"
    assert row.hash == next_hash(GENESIS_HASH, recorded(principal="\ufffd?"))
    strange = recorded(id="a\x00b\ud800", traceparent="\x00")
    (row,) = event_rows(GENESIS_HASH, [strange])
    assert (row.id, row.traceparent) == ("a\ufffdb?", "\ufffd")
    assert row.hash == next_hash(GENESIS_HASH, recorded(id="a\ufffdb?", traceparent="\ufffd"))
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    (row,) = event_rows(GENESIS_HASH, [recorded(time=early)])
    assert row.time == EPOCH
