"""Definitions of actors: new ones, with defaults, and changes of existing ones."""

from typing import Any

import msgspec
from msgspec.structs import replace

from abaco_api.api_errors import BadParameter
from abaco_proto.events import Definition


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """The values of parameters that a registration omits, and what registrations may ask for."""

    init_count: int
    max_workers: int
    allow_privileged: bool = False
    allow_new_privileges: bool = False


def new(fields: dict[str, Any], defaults: Defaults) -> Definition:
    """The definition of a new actor; ``fields`` has only fields of ``Definition``."""
    stateless = fields.get("stateless", True)
    most = fields.get("max_workers")
    least = fields.get("min_workers")
    if least is None:
        least = min(defaults.init_count, most or defaults.init_count)
        least = least if stateless else min(least, 1)
    if most is None:
        most = max(defaults.max_workers, least) if stateless else 1
    return _checked(Definition(**{**fields, "min_workers": least, "max_workers": most}))


def changed(definition: Definition, changes: dict[str, Any]) -> Definition:
    """The definition with some fields replaced."""
    if changes.get("name", definition.name) != definition.name:
        raise BadParameter("name", f"cannot be changed: it is {definition.name!r} for good")
    if changes.get("stateless") is False:
        one_worker = {"min_workers": min(definition.min_workers, 1), "max_workers": 1}
        changes = {**one_worker, **changes}
    return _checked(replace(definition, **changes))


def scaled(definition: Definition, num: int) -> Definition:
    """The definition with at least ``num`` workers, and a maximum that is not below."""
    if num > 1 and not definition.stateless:
        raise BadParameter("num", f"{num}, but an actor with a state has at most one worker")
    most = max(definition.max_workers, num)
    return replace(definition, min_workers=num, max_workers=most)


def _checked(definition: Definition) -> Definition:
    least, most = definition.min_workers, definition.max_workers
    if not definition.stateless:
        for name, value in (("min_workers", least), ("max_workers", most)):
            if value > 1:
                raise BadParameter(name, f"{value}, but stateless=false allows at most one worker")
    if least > most:
        raise BadParameter("min_workers", f"{least} is more than max_workers, {most}")
    return definition
