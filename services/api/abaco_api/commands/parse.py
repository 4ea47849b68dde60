"""Make commands on actors from parameters, by the rules about their form.

Each error names the parameter and what was expected. The command that sends a message is made by
its route.
"""

import re
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from abaco_api.access.domain.nonce_requests import NonceRequest
from abaco_api.access.domain.principal import WORLD, is_user_name
from abaco_api.access.domain.token_requests import TokenRequest
from abaco_api.api_errors import BadParameter
from abaco_api.contract import request_schemas
from abaco_api.domain import commands, event_pattern, json_numbers
from abaco_api.domain.actor_definition import Defaults, new
from abaco_api.domain.byte_size import parse_size
from abaco_api.domain.image_name import MAX_LENGTH, is_image
from abaco_api.domain.messages import STATE_NAME, check_environment, check_variable
from abaco_api.http.parameters import Parameters, convert, decode_json, json_text
from abaco_proto import names
from abaco_proto.events import TYPES, Isolation

NAME_RULE = (
    "expected 1 to 64 letters, digits, '_' and '-', the first a letter or a digit ([A-Za-z0-9])"
)
MAX_DESCRIPTION = 10_000
NOTHING = ("", "null")
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


def set_state(actor_id: str, parameters: Parameters) -> commands.SetState:
    """``POST /actors/{actor_id}/state``."""
    state = convert(parameters, request_schemas.State).state
    if _holds_nul(state):
        raise BadParameter("state", "holds a NUL character")
    text = json_text(state)
    sent = parameters.values["state"]
    if (
        isinstance(sent, msgspec.Raw)
        and (lost := json_numbers.altered(json_text(sent), text)) is not None
    ):
        raise BadParameter("state", f"the number {lost[:40]} would be altered: send it as a text")
    check_variable("state", STATE_NAME, text)
    return commands.SetState(actor_id=actor_id, state=state)


def scale(actor_id: str, parameters: Parameters) -> commands.ScaleWorkers:
    """``POST /actors/{actor_id}/workers``."""
    return commands.ScaleWorkers(
        actor_id=actor_id, num=convert(parameters, request_schemas.Scale).num
    )


def subscribe(actor_id: str, parameters: Parameters) -> commands.Subscribe:
    """``POST /actors/{actor_id}/subscriptions``."""
    body = convert(parameters, request_schemas.Subscription)
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


def permission(parameters: Parameters) -> request_schemas.Permission:
    """``POST /actors/{actor_id}/permissions``."""
    body = convert(parameters, request_schemas.Permission)
    if body.user != WORLD and not is_user_name(body.user):
        raise BadParameter("user", "expected the name of a user: 1 to 255 printable characters")
    return body


def token(parameters: Parameters) -> TokenRequest:
    """``POST /tokens``; in a form, lists are separated by commas."""
    values = dict(parameters.values)
    for name in ("roles", "actors"):
        if parameters.form and isinstance(text := values.get(name), str):
            values[name] = [part.strip() for part in text.split(",") if part.strip()]
    body = convert(Parameters(values, form=parameters.form), request_schemas.TokenParameters)
    return TokenRequest(**msgspec.structs.asdict(body))


def nonce(parameters: Parameters) -> NonceRequest:
    """``POST /actors/{actor_id}/nonces``."""
    body = convert(parameters, request_schemas.NonceParameters)
    return NonceRequest(**msgspec.structs.asdict(body))


# -- the rules -----------------------------------------------------------------------------------


def _definition(
    parameters: Parameters,
    kind: type[request_schemas.Registration | request_schemas.Update],
    defaults: Defaults,
) -> dict[str, Any]:
    """The fields of ``Definition`` that a client sent."""
    fields = _sent(convert(_with_environment(_with_nothing(parameters)), kind))
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
        what = "expected at least 6m: a number of bytes, or one followed by k, m or g"
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
    check_environment("default_environment", fields.get("default_environment", {}))


def _holds_nul(value: Any) -> bool:
    match value:
        case str():
            return "\0" in value
        case list():
            return any(map(_holds_nul, value))
        case dict():
            return any("\0" in key or _holds_nul(item) for key, item in value.items())
    return False


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
