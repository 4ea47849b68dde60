"""Messages: the decisions on an inbox, and the limits on the environment that a message runs in.

Linux accepts at most 131,071 bytes for one ``NAME=value`` (``MAX_ARG_STRLEN`` of 128 KiB with the
NUL at its end), in UTF-8, without NUL.
"""

from collections.abc import Mapping

from abaco_api.api_errors import BadParameter, TooLarge
from abaco_api.domain.commands import SendMessage
from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.actor import Actor
from abaco_proto.errors import Unknown

MAX_STRING_BYTES = 131_071
MAX_TOTAL_BYTES = 256 * 1024
MESSAGE_NAME = "MSG"
STATE_NAME = "_abaco_actor_state"
RESERVED_PREFIX = "_abaco_"


def decide_send(actor: Actor, command: SendMessage, ordinal: int) -> list[ev.MessageReceived]:
    """The ``ordinal``-th message of an inbox."""
    if not actor.exists:
        raise Unknown(f"actor_id: there is no actor {actor.actor_id!r}")
    if command.environment:
        whole = {**actor.definition.default_environment, **command.environment}
        check_environment_size("the query string", whole)
    return [
        ev.MessageReceived(
            actor_id=actor.actor_id,
            execution_id=names.execution_id(actor.actor_id, ordinal),
            ordinal=ordinal,
            message=command.message,
            content_type=command.content_type,
            environment=command.environment,
            sender=command.sender,
        )
    ]


def decide_purge(actor_id: str, next_ordinal: int, purged: int) -> list[ev.Event]:
    """The end of all messages that wait below ``next_ordinal``; none if they were ``purged``."""
    if purged >= next_ordinal:
        return []
    return [ev.InboxPurged(actor_id=actor_id, up_to_ordinal=next_ordinal - 1)]


def check_environment(parameter: str, environment: Mapping[str, str]) -> None:
    """Check names, values and total size of an environment. Raises ``Malformed``."""
    for name, value in environment.items():
        _check_name(parameter, name)
        check_variable(parameter, name, value)
    check_environment_size(parameter, environment)


def check_variable(parameter: str, name: str, value: str) -> None:
    """Check that a value fits into ``name=value``. Raises ``Malformed``."""
    if "\0" in value:
        raise BadParameter(parameter, "holds a NUL character, which no environment can")
    most = MAX_STRING_BYTES - len(name.encode()) - 1
    size = len(value.encode())
    if size > most:
        raise TooLarge(f"{parameter}: {size} bytes, but ${_short(name)} can hold {most}")


def check_environment_size(parameter: str, environment: Mapping[str, str]) -> None:
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
