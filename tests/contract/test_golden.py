"""The bytes and the subject of every event type, as history holds them. A change here is a break.

A new type gets its file with ``GOLDEN=write pytest tests/contract/test_golden.py``; an existing
file is never written over. When a type gets a field, its file is renamed to the next
``<type>.<n>.golden`` and stays: bytes of that form are in history for good. A value or an optional
field that the example of its type does not have is in ``<type>.<name>.golden``.
"""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

import builders as b
from abaco_proto import envelope, names
from abaco_proto import events as ev

FOLDER = Path(__file__).parent / "golden"


def golden(event: ev.Event) -> bytes:
    drafted = b.envelope_of(event)
    headers = msgspec.json.encode(envelope.to_headers(drafted), order="sorted")
    subject = names.event_subject("default", event).encode()
    return b"\n".join([subject, headers, envelope.encode(event), b""])


EXAMPLES = {**{ev.type_of(event): event for event in b.EXAMPLES}, **b.VARIANTS}
every_example = pytest.mark.parametrize(("name", "event"), EXAMPLES.items(), ids=list(EXAMPLES))


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.golden"


def test_every_type_has_an_example() -> None:
    assert {type(event) for event in b.EXAMPLES} == set(ev.OWNERS)


def test_no_file_without_a_type() -> None:
    assert {".".join(path.name.split(".")[:2]) for path in FOLDER.iterdir()} == set(ev.TYPES)


@every_example
def test_the_bytes_are_those_in_history(name: str, event: ev.Event) -> None:
    path = path_of(name)
    if os.environ.get("GOLDEN") == "write" and not path.exists():
        path.write_bytes(golden(event))
    assert golden(event) == path.read_bytes()


@every_example
def test_history_is_read_as_the_same_event(name: str, event: ev.Event) -> None:
    body = path_of(name).read_bytes().splitlines()[2]
    assert envelope.decode(body) == event


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.*.[0-9]*.golden")), ids=lambda p: p.stem)
def test_an_older_form_is_read_with_the_defaults_of_what_it_did_not_know(path: Path) -> None:
    body = path.read_bytes().splitlines()[2]
    event = envelope.decode(body)
    assert not isinstance(event, ev.Unrecognized)
    assert known(msgspec.json.decode(body), msgspec.to_builtins(event))


def known(old: Any, new: Any) -> bool:
    """Whether all that ``old`` says is in ``new``, too."""
    if isinstance(old, dict):
        return all(key in new and known(value, new[key]) for key, value in old.items())
    return bool(old == new)
