"""The AsyncAPI 3.0 description of the event stream, made from the event types.

It is for clients that subscribe directly to NATS: one channel per event type, with the address, the
headers and the schema of the body. ``docs/reference/asyncapi.json`` is the same description.
"""

from typing import Any

import msgspec

from abaco_api import VERSION
from abaco_api.contract.json_schemas import schema_components
from abaco_proto import envelope as env
from abaco_proto import events as ev
from abaco_proto import streams
from abaco_proto.names import ADDRESSED, HOST_ACTOR_PREFIX, NONCE_ACTOR_PREFIX, TOKEN_ACTOR_PREFIX

Json = dict[str, Any]

SCHEMA = "#/components/schemas/{name}"
OF_A_HOST = (ev.HostJoined, ev.HostLost)
OF_A_TOKEN = (ev.TokenCreated, ev.TokenRevoked, ev.TokenUsed)
OF_A_NONCE = (ev.NonceCreated, ev.NonceRedeemed, ev.NonceDeleted)
PARAMETERS: dict[str, Json] = {
    "tenant": {"description": "The tenant of the events.", "default": "default"},
    "actor_id": {"description": "The actor.", "examples": ["foo_0"]},
    "host_id": {
        "description": "The host that the event is addressed to, or about.",
        "examples": ["h1"],
    },
    "token_id": {"description": "The API token, by its visible prefix.", "examples": ["AbCd1234"]},
    "nonce_id": {"description": "The nonce, by its visible prefix.", "examples": ["AbCd1234"]},
}
HEADERS: dict[str, Json] = {
    env.ID: {
        "type": "string",
        "description": "<tenant>.<event id>; no two events have the same id.",
    },
    env.TIME: {
        "type": "string",
        "format": "date-time",
        "description": "When its appender decided it. Sequences give the order, not times.",
    },
    env.CAUSATION: {
        "type": "string",
        "description": "The event, or the request (req-…), that caused it.",
    },
    env.CORRELATION: {"type": "string", "description": "The first event of its chain."},
    env.REVISION: {"type": "string", "pattern": "^[0-9]+$", "description": "The actor's revision."},
    env.HOPS: {
        "type": "string",
        "pattern": "^[0-9]+$",
        "description": "Subscriptions between the first event of its chain and it; absent for 0.",
    },
    env.PRINCIPAL: {
        "type": "string",
        "description": "Who did it: user:<user>, token:<id>:<owner>, nonce:<id>, service:<name>.",
    },
    env.TRACEPARENT: {"type": "string", "description": "W3C trace context."},
}
REQUIRED = [env.ID, env.TIME, env.CAUSATION, env.CORRELATION]


def encoded() -> bytes:
    """The description as indented JSON."""
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
            f"JetStream stream {streams.EVENTS.name}. Read it with your own consumer, as the user "
            "`reader`. Only the owner of a type appends events of it.",
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
    """The subject of a type, with its parameters in braces."""
    source = "{actor_id}"
    if kind in OF_A_HOST:
        source = f"{HOST_ACTOR_PREFIX}{{host_id}}"
    elif kind in OF_A_TOKEN:
        source = f"{TOKEN_ACTOR_PREFIX}{{token_id}}"
    elif kind in OF_A_NONCE:
        source = f"{NONCE_ACTOR_PREFIX}{{nonce_id}}"
    subject = f"abaco.event.{{tenant}}.{source}.{ev.type_of(kind)}"
    return f"{subject}.{{host_id}}" if kind in ADDRESSED else subject


def _channel(kind: type[ev.Event]) -> Json:
    name, where = ev.type_of(kind), address(kind)
    return {
        "address": where,
        "title": name,
        "description": _summary(kind),
        "servers": [{"$ref": "#/servers/nats"}],
        "parameters": {key: PARAMETERS[key] for key in PARAMETERS if f"{{{key}}}" in where},
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
        "summary": _summary(kind),
        "traits": [{"$ref": "#/components/messageTraits/envelope"}],
        "payload": {"$ref": SCHEMA.format(name=kind.__name__)},
    }


def _headers() -> Json:
    return {"type": "object", "required": REQUIRED, "properties": HEADERS}


def _summary(kind: type[ev.Event]) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())
