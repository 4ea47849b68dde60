"""Identifiers: their forms, how to make them, and how to parse them.

=================  ==========================  =======================
id                 form                        example
=================  ==========================  =======================
``actor_id``       ``<name>_<n>``              ``foo_0``
``execution_id``   ``<actor_id>_exc_<n>``      ``foo_0_exc_7``
``worker_id``      ``<actor_id>_wkr_<n>``      ``foo_0_wkr_1``
``host_id``        ``[A-Za-z0-9-]``            ``h-1a2b3c4d``
=================  ==========================  =======================

Every id is also one token of a NATS subject, so it holds no dot, space, ``*`` or ``>``.
"""

import re
from functools import lru_cache

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
HOST_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9-]{0,62}$"
TENANT_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"

_ACTOR = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9_-]{0,63})_(?P<n>0|[1-9][0-9]{0,17})$")
MAX_DIGITS = 18
MAX_CACHED_IDS = 10_000
"""The size of the cache of execution ordinals, which a fold needs for every event."""

_NAME = re.compile(NAME_PATTERN)


def is_name(text: str) -> bool:
    """Whether ``text`` may name an actor."""
    return _NAME.fullmatch(text) is not None


def is_actor_id(text: str) -> bool:
    """Whether ``text`` has the form of an actor id. The actor need not exist."""
    return _ACTOR.fullmatch(text) is not None


def actor_id(name: str, number: int) -> str:
    """The id of the ``number``-th actor (from 0) registered under ``name``."""
    return f"{name}_{number}"


def actor_name(actor_id: str) -> str:
    """The name in an actor id."""
    return actor_id.rpartition("_")[0]


def actor_number(actor_id: str) -> int:
    """The number in an actor id."""
    return int(actor_id.rpartition("_")[2])


def execution_id(actor_id: str, ordinal: int) -> str:
    """The id of the execution of the ``ordinal``-th message (from 0) of an actor."""
    return f"{actor_id}_exc_{ordinal}"


@lru_cache(maxsize=MAX_CACHED_IDS)
def execution_ordinal(execution_id: str, actor_id: str) -> int | None:
    """The ordinal in an execution id of this actor; None if it is not one."""
    return _number(execution_id, f"{actor_id}_exc_")


def worker_id(actor_id: str, number: int) -> str:
    """The id of the ``number``-th worker (from 0) ever requested for an actor."""
    return f"{actor_id}_wkr_{number}"


def worker_number(worker_id: str, actor_id: str) -> int | None:
    """The number in a worker id of this actor; None if it is not one."""
    return _number(worker_id, f"{actor_id}_wkr_")


def _number(text: str, prefix: str) -> int | None:
    """The number after a prefix. Not a regular expression, as folds call it for every event."""
    if not text.startswith(prefix):
        return None
    digits = text[len(prefix) :]
    plain = digits.isascii() and digits.isdecimal() and len(digits) <= MAX_DIGITS
    return int(digits) if plain and (digits[0] != "0" or digits == "0") else None
