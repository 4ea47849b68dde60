from pathlib import Path

import pytest

import builders as b
from abaco_projector.adapters.schema_migrations import Migration, migrations, pending
from abaco_projector.adapters.sql_queries import QUERIES, parse
from abaco_projector.domain.sanitise import sanitise
from abaco_projector.projector_settings import ProjectorSettings
from abaco_proto import events as ev
from abaco_proto import settings
from abaco_proto.errors import Malformed, Refused


def test_nul_becomes_a_replacement_character_wherever_it_stands() -> None:
    dirty = b.record(b.registered(description="a\x00b", default_environment={"\x00": "\x00"}))
    event = sanitise(dirty).event
    assert isinstance(event, ev.ActorRegistered)
    assert event.definition.description == "a\ufffdb"
    assert event.definition.default_environment == {"\ufffd": "\ufffd"}


def test_nul_in_a_named_value_becomes_one_too() -> None:
    event = sanitise(b.record(b.started(start_kind=ev.StartKind("\x00")))).event
    assert isinstance(event, ev.ExecutionStarted)
    assert event.start_kind == "\ufffd"


def test_the_text_backslash_u0000_is_no_nul() -> None:
    assert sanitise(b.record(b.failed(reason="\\u0000"))).event == b.failed(reason="\\u0000")


@pytest.mark.parametrize("event", b.EXAMPLES, ids=ev.type_of)
def test_events_without_nul_are_unchanged(event: ev.Event) -> None:
    recorded = b.record(event)
    assert sanitise(recorded) is recorded


def test_a_state_keeps_its_nul() -> None:
    recorded = b.record(ev.ActorStateSet(actor_id="foo_0", state="\x00", version=1))
    assert sanitise(recorded) is recorded


def test_queries_are_found_by_name() -> None:
    text = "-- head\n\n-- name: one\nSELECT 1;\n\n-- name: two\n-- why\nSELECT\n  2;\n"
    assert parse(text) == {"one": "SELECT 1", "two": "-- why\nSELECT\n  2"}
    assert all(QUERIES.values())


def test_migrations_have_numbers_without_gaps() -> None:
    assert [m.number for m in migrations()] == list(range(1, len(migrations()) + 1))


def test_migrations_are_read_in_order(tmp_path: Path) -> None:
    for name in ("0010_ten.sql", "0002_two.sql", "notes.txt"):
        (tmp_path / name).write_text("SELECT 1")
    assert [(m.number, m.name) for m in migrations(tmp_path)] == [(2, "two"), (10, "ten")]


def test_only_what_was_not_applied_is_pending() -> None:
    one, two = Migration(1, "a", ""), Migration(2, "b", "")
    assert pending({1}, [one, two]) == [two]
    assert pending({1, 2}, [one, two]) == []


def test_a_later_database_is_refused_in_one_line() -> None:
    with pytest.raises(Refused, match=r"^the database has schema 0003, .* up to 0001: .*$"):
        pending({1, 2, 3}, [Migration(1, "a", "")])


def test_settings_have_defaults_and_descriptions() -> None:
    assert settings.read(ProjectorSettings, {}) == ProjectorSettings()
    assert settings.read(ProjectorSettings, {"ABACO_BATCH_EVENTS": "7"}).batch_events == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ABACO_BATCH_EVENTS", "0"),
        ("ABACO_BATCH_EVENTS", "many"),
        ("ABACO_LOG_LEVEL", "loud"),
        ("ABACO_POSTGRES_DSN", "mysql://x"),
        ("ABACO_BATCH_EVENT", "1"),
    ],
)
def test_a_bad_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(Malformed, match=rf"^{name}\b"):
        settings.read(ProjectorSettings, {name: value})
