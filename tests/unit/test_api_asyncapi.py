"""The description of the event stream says of each event what is true."""

from typing import Any

import pytest
from msgspec.structs import replace

import builders as b
from abaco_api.contract.asyncapi import HEADERS, REQUIRED, describe
from abaco_proto import events as ev
from abaco_proto.envelope import to_headers
from abaco_proto.names import event_subject

DOCUMENT = describe()


def resolved(reference: str) -> Any:
    found: Any = DOCUMENT
    for key in reference.removeprefix("#/").split("/"):
        found = found[key]
    return found


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [r for item in value.values() for r in references(item)]
    if isinstance(value, list):
        return [r for item in value for r in references(item)]
    return []


def test_every_reference_leads_somewhere() -> None:
    found = references(DOCUMENT)
    assert len(found) > 100
    assert all(resolved(reference) is not None for reference in found)


@pytest.mark.parametrize("event", b.EXAMPLES, ids=ev.type_of)
def test_an_event_is_where_and_as_it_is_described(event: ev.Event) -> None:
    channel = DOCUMENT["channels"][ev.type_of(event)]
    places = {"tenant": "default", "actor_id": "foo_0", "host_id": "h1", "token_id": "AbCd1234"}
    places["nonce_id"] = "AbCd1234"
    assert channel["address"].format(**places) == event_subject("default", event)
    assert all(f"{{{place}}}" in channel["address"] for place in channel["parameters"])
    [message] = channel["messages"].values()
    schema = resolved(resolved(message["$ref"])["payload"]["$ref"])
    assert schema["properties"]["type"]["enum"] == [ev.type_of(event)]
    assert set(event.__struct_fields__) <= set(schema["properties"])
    operation = DOCUMENT["operations"][f"append.{ev.type_of(event)}"]
    assert operation["tags"] == [{"name": ev.OWNERS[type(event)].value}]


def test_the_headers_are_those_that_are_written() -> None:
    written = to_headers(replace(b.envelope_of(b.registered(), hops=1), principal="user:anna"))
    assert set(REQUIRED) <= set(written) <= set(HEADERS)
