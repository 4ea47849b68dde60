"""Make commands from parameters. All rules about the form of parameters are here.

Each error names the parameter and what was expected.
"""

import re
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from abaco_api.api_errors import BadParameter
from abaco_api.contract import request_schemas
from abaco_api.domain import commands, event_pattern, json_numbers, message_environment
from abaco_api.domain.actor_definition import Defaults, new
from abaco_api.domain.byte_size import parse_size
from abaco_api.domain.image_name import MAX_LENGTH, is_image
from abaco_api.http.request_body import JSON, Parameters, decode_json
from abaco_api.streams.domain.output_offset import OutputOffset, parse_offset
from abaco_proto import names
from abaco_proto.errors import Malformed, Unknown
from abaco_proto.events import TYPES, Isolation

T = TypeVar("T", bound=msgspec.Struct)

NAME_RULE = (
    "expected 1 to 64 letters, digits, '_' and '-', the first a letter or a digit ([A-Za-z0-9])"
)
MAX_DESCRIPTION = 10_000
MAX_EXECUTION_ID = 128
WHOLE_NUMBERS = (
    *("min_workers", "max_workers", "num"),
    *("mem_limit", "max_processes", "max_log_bytes", "max_disk_bytes", "log_ex"),
)
NOTHING = ("", "null")
KEPT_AS_SENT = ("message",)
LIMITS = (
    *("mem_limit", "max_cpus", "max_processes", "max_run_seconds"),
    *("max_log_bytes", "max_disk_bytes", "log_ex"),
)
DECIDED_BY_HOST = (*LIMITS, "isolation")
"""The parameters that may be null: the host's setting applies then."""

# -- commands ------------------------------------------------------------------------------------


def register(parameters: Parameters, defaults: Defaults) -> commands.RegisterActor:
    """``POST /actors``."""
    fields = _definition(parameters, request_schemas.Registration, defaults)
    return commands.RegisterActor(definition=new(fields, defaults))


def update(actor_id: str, parameters: Parameters, defaults: Defaults) -> commands.UpdateActor:
    """``PUT /actors/{actor_id}``."""
    changes = _definition(parameters, request_schemas.Update, defaults)
    return commands.UpdateActor(actor_id=actor_id, changes=changes)


def send(actor_id: str, parameters: Parameters, query: dict[str, str]) -> commands.SendMessage:
    """``POST /actors/{actor_id}/messages``; the query string is the environment."""
    message = _convert(parameters, request_schemas.Message).message
    kind = "text/plain"
    if not isinstance(message, str):
        message, kind = _text(message), JSON
    message_environment.check_string("message", message_environment.MESSAGE_NAME, message)
    for name, value in query.items():
        message_environment.check(name[:100] or "the query string", {name: value})
    if query:
        message_environment.check_total("the query string", query)
    return commands.SendMessage(
        actor_id=actor_id, message=message, content_type=kind, environment=query
    )


def set_state(actor_id: str, parameters: Parameters) -> commands.SetState:
    """``POST /actors/{actor_id}/state``."""
    state = _convert(parameters, request_schemas.State).state
    if _holds_nul(state):
        raise BadParameter("state", "holds a NUL character")
    text = _text(state)
    sent = parameters.values["state"]
    if (
        isinstance(sent, msgspec.Raw)
        and (lost := json_numbers.altered(_text(sent), text)) is not None
    ):
        raise BadParameter("state", f"the number {lost[:40]} would be altered: send it as a text")
    message_environment.check_string("state", message_environment.STATE_NAME, text)
    return commands.SetState(actor_id=actor_id, state=state)


def scale(actor_id: str, parameters: Parameters) -> commands.ScaleWorkers:
    """``POST /actors/{actor_id}/workers``."""
    return commands.ScaleWorkers(
        actor_id=actor_id, num=_convert(parameters, request_schemas.Scale).num
    )


def subscribe(actor_id: str, parameters: Parameters) -> commands.Subscribe:
    """``POST /actors/{actor_id}/subscriptions``."""
    body = _convert(parameters, request_schemas.Subscription)
    if body.event_pattern is UNSET and body.event_id is UNSET:
        raise BadParameter("event_pattern", "is missing, and so is event_id: one of them is needed")
    pattern = event_pattern.REST if body.event_pattern is UNSET else body.event_pattern
    if re.fullmatch(request_schemas.EVENT_PATTERN, pattern) is None:
        what = "expected 1 to 255 letters, digits and '_', '-', '.', '*', '>'"
        raise BadParameter("event_pattern", what)
    if (why_unmatchable := event_pattern.why_unmatchable(pattern)) is not None:
        raise BadParameter("event_pattern", why_unmatchable)
    if body.event_id is not UNSET:
        pattern = _of_type(pattern, body.event_id)
    return commands.Subscribe(actor_id=actor_id, event_pattern=pattern)


def _of_type(pattern: str, event_id: str) -> str:
    if event_id not in TYPES:
        what = "expected the type of an event, as in docs/reference/events.md"
        raise BadParameter("event_id", what)
    both = event_pattern.of_type(pattern, event_id)
    if event_pattern.why_unmatchable(both) is not None or not event_pattern.may_be_type(
        pattern, event_id
    ):
        raise BadParameter("event_id", f"{event_id} is not among the events of {pattern}")
    return both


# -- names in paths and numbers in queries -------------------------------------------------------


def actor_id(text: str) -> str:
    """An actor id from a path. Raises ``Unknown`` for a text that cannot be one."""
    if not names.is_actor_id(text):
        raise Unknown(f"actor_id: there is no actor {text[:100]!r}")
    return text


def execution_ordinal(actor_id: str, text: str) -> int:
    """The ordinal in an execution id from a path."""
    # names.execution_ordinal caches its arguments, so it gets no long text.
    ordinal = names.execution_ordinal(text, actor_id) if len(text) <= MAX_EXECUTION_ID else None
    if ordinal is None:
        raise Unknown(f"execution_id: {actor_id} has no execution {text[:100]!r}")
    return ordinal


def worker_id(actor_id: str, text: str) -> str:
    """A worker id from a path."""
    if names.worker_number(text, actor_id) is None:
        raise Unknown(f"worker_id: {actor_id} has no worker {text[:100]!r}")
    return text


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a long list that a client asks for."""

    limit: int
    offset: int


MAX_LIMIT = 10_000
MAX_OFFSET = 10**15
SWITCHES = {"true": True, "false": False, "1": True, "0": False}


def page(query: dict[str, str], *known: str, default: int) -> Page:
    """``limit`` and ``offset`` of a query string; other parameters must be ``known``."""
    nothing_else(query, "limit", "offset", *known)
    return Page(
        limit=whole_number("limit", query.get("limit", str(default)), least=1, most=MAX_LIMIT),
        offset=whole_number("offset", query.get("offset", "0"), least=0, most=MAX_OFFSET),
    )


def nothing_else(query: dict[str, str], *known: str) -> None:
    """Refuse unknown parameters, so that a misspelt one is not ignored."""
    for name in query:
        if name not in known:
            what = f"is not a parameter here; known: {', '.join(known) or 'none'}"
            raise BadParameter(name[:100] or "the query string", what)


def whole_number(name: str, text: str, *, least: int, most: int) -> int:
    """A number in a query string or a header."""
    if re.fullmatch("[0-9]{1,18}", text) is None or not least <= int(text) <= most:
        raise BadParameter(name, f"expected a whole number from {least} to {most}")
    return int(text)


def flag(name: str, query: dict[str, str]) -> bool | None:
    """A boolean in a query string; None if it is absent."""
    if name not in query:
        return None
    if query[name] not in SWITCHES:
        raise BadParameter(name, f"expected one of {', '.join(SWITCHES)}")
    return SWITCHES[query[name]]


def resumed(text: str | None, attempt: int) -> OutputOffset:
    """The output offset to resume from; without ``Last-Event-ID`` the beginning of an attempt."""
    found = OutputOffset(attempt) if text is None else parse_offset(text, attempt)
    if found is None:
        raise BadParameter("Last-Event-ID", "expected <attempt>:<offset>, or an offset alone")
    return found


# -- the rules -----------------------------------------------------------------------------------


def _definition(
    parameters: Parameters,
    kind: type[request_schemas.Registration | request_schemas.Update],
    defaults: Defaults,
) -> dict[str, Any]:
    """The fields of ``Definition`` that a client sent."""
    fields = _sent(_convert(_with_environment(_with_nothing(parameters)), kind))
    if isinstance(fields.get("mem_limit"), str):
        fields["mem_limit"] = _memory(fields["mem_limit"])
    if fields.get("privileged") and not defaults.allow_privileged:
        what = "is not allowed here: the setting ABACO_ALLOW_PRIVILEGED is not true"
        raise BadParameter("privileged", what)
    if fields.get("no_new_privileges") is False and not defaults.allow_new_privileges:
        what = "false is not allowed here: the setting ABACO_ALLOW_NEW_PRIVILEGES is not true"
        raise BadParameter("no_new_privileges", what)
    if "isolation" in fields:
        fields["isolation"] = _isolation(fields["isolation"])
    _check_definition(fields)
    return fields


def _with_nothing(parameters: Parameters) -> Parameters:
    """In a form, an empty text stands for the host's setting, as null does in JSON."""
    if not parameters.form:
        return parameters
    null = {k: None for k, v in parameters.values.items() if k in DECIDED_BY_HOST and v in NOTHING}
    return Parameters({**parameters.values, **null}, form=True)


def _memory(text: str) -> int:
    found = parse_size(text)
    if found is None or not request_schemas.MIN_MEMORY_BYTES <= found <= request_schemas.MAX_BYTES:
        what = "expected at least 6m: a number of bytes, or one with k, m or g behind it"
        raise BadParameter("mem_limit", what)
    return found


def _isolation(text: str | None) -> Isolation | UnsetType:
    if text is None:
        return UNSET
    if text not in list(Isolation):
        raise BadParameter("isolation", f"expected {' or '.join(Isolation)}, or null")
    return Isolation(text)


def _check_definition(fields: dict[str, Any]) -> None:
    if not names.is_name(fields.get("name", "any")):
        raise BadParameter("name", NAME_RULE)
    if not is_image(fields.get("image", "any")):
        what = f"expected the name of a container image, at most {MAX_LENGTH} characters"
        raise BadParameter("image", what)
    description = fields.get("description") or ""
    if "\0" in description or len(description) > MAX_DESCRIPTION:
        what = f"expected at most {MAX_DESCRIPTION} characters, none of them NUL"
        raise BadParameter("description", what)
    message_environment.check("default_environment", fields.get("default_environment", {}))


def _holds_nul(value: Any) -> bool:
    match value:
        case str():
            return "\0" in value
        case list():
            return any(map(_holds_nul, value))
        case dict():
            return any("\0" in key or _holds_nul(item) for key, item in value.items())
    return False


def _text(value: Any) -> str:
    """The JSON text of a value; a value from JSON keeps the text that was sent."""
    return (bytes(value) if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)).decode()


def _with_environment(parameters: Parameters) -> Parameters:
    """Decode the default environment, which in a form is a JSON text."""
    text = parameters.values.get("default_environment")
    if not parameters.form or not isinstance(text, str):
        return parameters
    value = decode_json(text, "default_environment")
    return Parameters({**parameters.values, "default_environment": value}, form=True)


def _sent(body: msgspec.Struct) -> dict[str, Any]:
    """The fields that a client sent, or that have a default."""
    return {k: v for k, v in msgspec.structs.asdict(body).items() if v is not UNSET}


def _convert(parameters: Parameters, kind: type[T]) -> T:
    known = kind.__struct_fields__
    values = {
        name: _value(name, value) if name in known else None
        for name, value in parameters.values.items()
    }
    try:
        return msgspec.convert(values, kind, strict=not parameters.form)
    except msgspec.ValidationError as error:
        raise _named(str(error), kind) from None


def _value(name: str, value: Any) -> Any:
    """The decoded value of a parameter; a message that is no JSON string is kept as it was sent."""
    if isinstance(value, msgspec.Raw):
        if name in KEPT_AS_SENT and not bytes(value).startswith(b'"'):
            return value
        try:
            value = msgspec.json.decode(value)
        except ValueError as error:
            raise BadParameter(name, f"cannot be read: {error}") from None
    if name in WHOLE_NUMBERS and isinstance(value, float) and value.is_integer():
        return int(value)  # in JSON, 3.0 is the number 3
    return value


def _named(text: str, kind: type[msgspec.Struct]) -> Malformed:
    """The error that begins with the parameter's name, made from msgspec's message."""
    if found := re.fullmatch(r"Object missing required field `(.*)`", text, re.DOTALL):
        return BadParameter(found[1], "is missing")
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", text, re.DOTALL):
        known = ", ".join(kind.__struct_fields__)
        return BadParameter(found[1][:100] or "''", f"is not a parameter here; known: {known}")
    what, _, where = text.partition(" - at `$.")
    name = re.split(r"[.\[`]", where)[0]
    return BadParameter(name or "the body", what[:1].lower() + what[1:])
