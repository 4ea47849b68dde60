"""Limits on the environment of a container, and names that are reserved.

Linux accepts at most 131,071 bytes for one ``NAME=value`` (``MAX_ARG_STRLEN`` of 128 KiB with the
NUL at its end), in UTF-8, without NUL.
"""

from collections.abc import Mapping

from abaco_api.api_errors import BadParameter, TooLarge

MAX_STRING_BYTES = 131_071
MAX_TOTAL_BYTES = 256 * 1024
MESSAGE_NAME = "MSG"
STATE_NAME = "_abaco_actor_state"
RESERVED_PREFIX = "_abaco_"


def check(parameter: str, environment: Mapping[str, str]) -> None:
    """Check names, values and total size of an environment. Raises ``Malformed``."""
    for name, value in environment.items():
        _check_name(parameter, name)
        check_string(parameter, name, value)
    check_total(parameter, environment)


def check_string(parameter: str, name: str, value: str) -> None:
    """Check that a value fits into ``name=value``. Raises ``Malformed``."""
    if "\0" in value:
        raise BadParameter(parameter, "holds a NUL character, which no environment can")
    most = MAX_STRING_BYTES - len(name.encode()) - 1
    size = len(value.encode())
    if size > most:
        raise TooLarge(f"{parameter}: {size} bytes, but ${_short(name)} can hold {most}")


def check_total(parameter: str, environment: Mapping[str, str]) -> None:
    """Check the total size of an environment. Raises ``TooLarge``."""
    total = sum(len(n.encode()) + len(v.encode()) + 2 for n, v in environment.items())
    if total > MAX_TOTAL_BYTES:
        raise TooLarge(f"{parameter}: {total} bytes of environment, at most {MAX_TOTAL_BYTES}")


def _check_name(parameter: str, name: str) -> None:
    if not name:
        raise BadParameter(parameter, "holds a variable without a name")
    if "=" in name or "\0" in name:
        raise BadParameter(parameter, f"the name {_short(name)!r} holds '=' or a NUL character")
    if name == MESSAGE_NAME or name.startswith(RESERVED_PREFIX):
        raise BadParameter(parameter, f"the name {_short(name)!r} is the platform's own")


def _short(name: str) -> str:
    return name if len(name) <= 64 else f"{name[:64]}…"
