"""The description of the event stream: AsyncAPI 3.0, made of the catalogue of events.

It is for those who subscribe straight from NATS: one channel an event type, with the address,
the headers and the schema of the body. ``docs/reference/asyncapi.json`` is this very description.
"""

from typing import Any

import msgspec

from abaco_api import VERSION
from abaco_api.contract.json_schemas import schema_components
from abaco_proto import envelope as env
from abaco_proto import events as ev
from abaco_proto import streams
from abaco_proto.subjects import ADDRESSED, HOST_ACTOR_PREFIX

Json = dict[str, Any]

SCHEMA = "#/components/schemas/{name}"
OF_A_HOST = (ev.HostJoined, ev.HostLost)
PLACES: dict[str, Json] = {
    "tenant": {"description": "Whose events these are.", "default": "default"},
    "actor_id": {"description": "The actor.", "examples": ["foo_0"]},
    "host_id": {"description": "The host that it is meant for, or about.", "examples": ["h1"]},
}
HEADERS: dict[str, Json] = {
    env.ID: {
        "type": "string",
        "description": "<tenant>.<event id>; the same id never comes twice.",
    },
    env.TIME: {
        "type": "string",
        "format": "date-time",
        "description": "When its appender decided it. The order is the sequence's.",
    },
    env.CAUSATION: {"type": "string", "description": "The event, or req-… the request, before it."},
    env.CORRELATION: {"type": "string", "description": "The first of its chain."},
    env.REVISION: {"type": "string", "pattern": "^[0-9]+$", "description": "The actor's revision."},
    env.HOPS: {
        "type": "string",
        "pattern": "^[0-9]+$",
        "description": "Subscriptions between the start of its chain and it; left out for none.",
    },
    env.TRACEPARENT: {"type": "string", "description": "W3C trace context."},
}
REQUIRED = [env.ID, env.TIME, env.CAUSATION, env.CORRELATION]


def encoded() -> bytes:
    """The description as JSON, for people to read."""
    return msgspec.json.format(msgspec.json.encode(describe()), indent=1) + b"\n"


def describe() -> Json:
    """The whole description."""
    kinds = list(ev.OWNERS)
    _, schemas = schema_components(kinds, SCHEMA)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "abaco",
            "version": VERSION,
            "description": "Every state change of the platform, in one append-only log: the "
            f"JetStream stream {streams.EVENTS.name}. Read it with a consumer of your own, as the "
            "user `reader`; nobody but the owner of a type appends it.",
            "license": {"name": "BSD-3-Clause"},
        },
        "defaultContentType": "application/json",
        "servers": {"nats": {"host": "127.0.0.1:4222", "protocol": "nats"}},
        "channels": {ev.type_of(kind): _channel(kind) for kind in kinds},
        "operations": {f"append.{ev.type_of(kind)}": _operation(kind) for kind in kinds},
        "components": {
            "schemas": schemas,
            "messages": {ev.type_of(kind): _message(kind) for kind in kinds},
            "messageTraits": {"envelope": {"headers": _headers()}},
        },
    }


def address(kind: type[ev.Event]) -> str:
    """The subject of a type, with its places in braces."""
    source = f"{HOST_ACTOR_PREFIX}{{host_id}}" if kind in OF_A_HOST else "{actor_id}"
    subject = f"abaco.event.{{tenant}}.{source}.{ev.type_of(kind)}"
    return f"{subject}.{{host_id}}" if kind in ADDRESSED else subject


def _channel(kind: type[ev.Event]) -> Json:
    name, where = ev.type_of(kind), address(kind)
    return {
        "address": where,
        "title": name,
        "description": _says(kind),
        "servers": [{"$ref": "#/servers/nats"}],
        "parameters": {place: PLACES[place] for place in PLACES if f"{{{place}}}" in where},
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
    }


def _operation(kind: type[ev.Event]) -> Json:
    name, owner = ev.type_of(kind), ev.OWNERS[kind].value
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": f"Appended by the {owner}.",
        "tags": [{"name": owner}],
        "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
    }


def _message(kind: type[ev.Event]) -> Json:
    return {
        "name": ev.type_of(kind),
        "title": kind.__name__,
        "summary": _says(kind),
        "traits": [{"$ref": "#/components/messageTraits/envelope"}],
        "payload": {"$ref": SCHEMA.format(name=kind.__name__)},
    }


def _headers() -> Json:
    return {"type": "object", "required": REQUIRED, "properties": HEADERS}


def _says(kind: type[ev.Event]) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())
