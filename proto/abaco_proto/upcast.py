"""Upcasts: conversions of events that an older version wrote.

An entry maps a retired type to a function from its decoded JSON object to the object of the type
that replaced it, ``type`` included. Added fields need no entry: they have defaults.
"""

from collections.abc import Callable
from typing import Any

Upcast = Callable[[dict[str, Any]], dict[str, Any]]

UPCASTS: dict[str, Upcast] = {}
"""Empty: no type was retired so far."""


def upcast(body: dict[str, Any], upcasts: dict[str, Upcast] = UPCASTS) -> dict[str, Any]:
    """Apply upcasts until the type is a current one, each type once at most."""
    seen: set[str] = set()
    while (kind := str(body.get("type"))) in upcasts and kind not in seen:
        seen.add(kind)
        body = upcasts[kind](body)
    return body
