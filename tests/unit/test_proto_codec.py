"""Bytes, headers and names: what goes in comes out, and what is damaged harms nobody."""

from datetime import UTC, datetime
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import builders as b
from abaco_proto import envelope, names
from abaco_proto import events as ev
from abaco_proto.envelope import upcast

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
NAMED_VALUES: tuple[type[ev.OpenEnum], ...] = (ev.StartKind, ev.Isolation, ev.EndedBy)
NAME = st.from_regex(names.NAME_PATTERN.replace("$", r"\Z"))


def built(kind: type[ev.Event]) -> st.SearchStrategy[ev.Event]:
    """Events of one type with arbitrary content, straight from the types of the fields."""

    def convert(values: dict[str, Any]) -> ev.Event:
        return msgspec.convert({**values, "type": ev.type_of(kind)}, kind)

    return fields_of(kind).map(convert)


def of_type(annotation: Any) -> st.SearchStrategy[Any]:
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: TEXT,
        int: st.integers(0, 2**53),
        float: st.floats(0, 1e9),
        bool: st.booleans(),
        Any: JSON,
        str | None: st.none() | TEXT,
        ev.PermissionLevel: st.sampled_from(ev.PermissionLevel),
        tuple[str, ...]: st.lists(TEXT, max_size=3).map(tuple),
        tuple[str, ...] | None: st.none() | st.lists(TEXT, max_size=3).map(tuple),
        dict[str, str]: st.dictionaries(TEXT, TEXT, max_size=3),
        **{kind: st.sampled_from([*kind, "of a newer version"]) for kind in NAMED_VALUES},
    }
    if annotation in simple:
        return simple[annotation]
    optional = [part for part in get_args(annotation) if part is not type(None)]
    if optional:
        return st.none() | of_type(optional[0])
    return fields_of(annotation)


def fields_of(kind: Any) -> st.SearchStrategy[dict[str, Any]]:
    """The fields of a struct; one that may be absent is absent at times."""
    needed, absent = {}, {}
    for field in msgspec.structs.fields(kind):
        parts = get_args(field.type)
        if msgspec.UnsetType in parts:
            absent[field.name] = of_type(parts[0])
        else:
            needed[field.name] = of_type(field.type)
    return st.fixed_dictionaries(needed, optional=absent)


@pytest.mark.parametrize("kind", ev.OWNERS, ids=ev.type_of)
@given(data=st.data())
def test_every_event_survives_the_journey(kind: type[ev.Event], data: st.DataObject) -> None:
    event = data.draw(built(kind))
    assert envelope.decode(envelope.encode(event)) == event


@given(st.binary())
def test_no_bytes_can_stop_a_reader(raw: bytes) -> None:
    envelope.decode(raw)


def test_a_type_from_the_future_is_unrecognized() -> None:
    found = envelope.decode(b'{"type":"moon.landed"}')
    assert isinstance(found, ev.Unrecognized)
    assert "moon.landed" in found.reason


def test_a_field_from_the_future_is_passed_over() -> None:
    body = msgspec.json.decode(envelope.encode(b.stopped()))
    assert envelope.decode(msgspec.json.encode({**body, "mood": "good"})) == b.stopped()


@pytest.mark.parametrize("kind", ["sandbox", "snapshot"])
def test_a_value_from_the_future_is_kept_as_its_text(kind: str) -> None:
    body = {**msgspec.json.decode(envelope.encode(b.started())), "start_kind": kind}
    found = envelope.decode(msgspec.json.encode(body))
    assert isinstance(found, ev.ExecutionStarted)
    assert found.start_kind == kind
    assert found.start_kind is not ev.StartKind.COLD
    assert msgspec.json.decode(envelope.encode(found)) == body
    assert list(ev.StartKind) == ["sandbox", "pool", "cold"]


def test_a_named_value_is_a_text() -> None:
    body = {**msgspec.json.decode(envelope.encode(b.started())), "start_kind": 3}
    assert isinstance(envelope.decode(msgspec.json.encode(body)), ev.Unrecognized)


def test_an_isolation_is_in_the_event_only_if_the_actor_has_one() -> None:
    plain, chosen = b.registered(), b.registered(isolation=ev.Isolation.CONTAINER)
    assert b"isolation" not in envelope.encode(plain)
    assert b'"isolation":"container"' in envelope.encode(chosen)
    assert envelope.decode(envelope.encode(chosen)) == chosen != plain


def test_upcasts_chain_and_end() -> None:
    table = {
        "a.done": lambda body: {**body, "type": "b.done"},
        "b.done": lambda body: {**body, "type": "c.done", "more": 1},
        "loop.done": lambda body: body,
    }
    assert upcast({"type": "a.done"}, table) == {"type": "c.done", "more": 1}
    assert upcast({"type": "loop.done"}, table) == {"type": "loop.done"}


@pytest.mark.parametrize("event", b.EXAMPLES, ids=ev.type_of)
def test_the_envelope_survives_the_journey(event: ev.Event) -> None:
    drafted = b.envelope_of(event, tenant="t1")
    subject = names.event_subject("t1", event)
    found = envelope.from_message(5, subject, envelope.to_headers(drafted), envelope.encode(event))
    assert found.matches(drafted)
    assert (found.tenant, found.time, found.sequence) == ("t1", b.T0, 5)


def test_a_message_without_headers_is_still_an_event() -> None:
    found = envelope.from_message(5, "abaco.event.t1.foo_0.x.y", None, b"")
    assert (found.id, found.time) == ("", envelope.EPOCH)


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_survive_the_journey(time: datetime) -> None:
    assert envelope.parse_time(envelope.format_time(time)) == time


@given(NAME, st.integers(0, 10**9), st.integers(0, 10**9))
def test_ids_come_apart_as_they_were_put_together(name: str, number: int, ordinal: int) -> None:
    actor_id = names.actor_id(name, number)
    assert names.is_actor_id(actor_id)
    assert (names.actor_name(actor_id), names.actor_number(actor_id)) == (name, number)
    assert names.execution_ordinal(names.execution_id(actor_id, ordinal), actor_id) == ordinal
    assert names.worker_number(names.worker_id(actor_id, ordinal), actor_id) == ordinal
    assert names.execution_ordinal(names.execution_id(actor_id, ordinal), actor_id + "x") is None


@pytest.mark.parametrize("name", ["", "a.b", "a*", ">", "a b", "é", "-a", "_host", "a" * 65, "a\n"])
def test_what_would_break_a_subject_is_no_name(name: str) -> None:
    assert not names.is_name(name)


def test_what_is_for_a_host_ends_in_its_id() -> None:
    assert names.event_subject("default", b.assigned()).endswith(".execution.assigned.h1")
    assert names.event_subject("default", b.finished()).endswith(".execution.finished")
    assert names.event_subject("default", b.joined()) == (
        "abaco.event.default._host-h1.host.joined"
    )


def test_brackets_without_end_are_unrecognized() -> None:
    state = b'{"type":"actor.state_set","actor_id":"a_0","version":1,"state":%s}'
    assert isinstance(envelope.decode(state % (b"[" * 100_000 + b"]" * 100_000)), ev.Unrecognized)
