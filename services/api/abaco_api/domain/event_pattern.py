"""Patterns of subscriptions: ``<source actor>.<entity>.<verb>``.

``*`` stands for any characters within its part, or none: ``foo_*.execution.*``. ``>`` as the last
part stands for all the rest: ``foo_0.>`` is every event of that actor, ``>`` every event there
is, except those about API tokens and nonces, which no actor gets. The source of a fact about a host
is ``_host-<host_id>``. Upper and lower case differ.

A pattern that no event can match is refused, with the reason.
"""

import re
from functools import lru_cache

from abaco_api.domain.wildcard import ANY, wildcard_matches
from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.names import CREDENTIAL_TYPE_PREFIXES, HOST_ACTOR_PREFIX

REST = ">"
PARTS = 3

_PART = re.compile(r"[A-Za-z0-9_*-]+", re.ASCII)
_BEGIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*)?", re.ASCII)
_END = re.compile(r"([A-Za-z0-9_-]*_)?(0|[1-9][0-9]{0,17})|[0-9]{0,18}", re.ASCII)
_HOST_PART = re.compile(r"[A-Za-z0-9-]*", re.ASCII)


@lru_cache(maxsize=10_000)
def matches(pattern: str, actor_id: str, kind: str) -> bool:
    """Whether an event of this source and type matches. An invalid pattern matches nothing."""
    if kind.startswith(CREDENTIAL_TYPE_PREFIXES):
        return False
    parts = _whole(pattern)
    subject = (actor_id, *kind.split("."))
    return (
        parts is not None
        and len(subject) == PARTS
        and all(_part_matches(p, s) for p, s in zip(parts, subject, strict=True))
    )


def why_unmatchable(pattern: str) -> str | None:
    """Why no event can match a pattern; None when one can."""
    parts = _whole(pattern)
    if parts is None:
        return "expected <actor_id>.<entity>.<verb>, with * for any characters and > for the rest"
    source, entity, verb = parts
    kinds = [k for k in ev.TYPES if _part_matches(f"{entity}.{verb}", k)]
    kinds = [k for k in kinds if not k.startswith(CREDENTIAL_TYPE_PREFIXES)]
    if not kinds:
        return f"there is no event {entity}.{verb}"
    of_hosts = [k for k in kinds if k.startswith("host.")]
    if (len(kinds) > len(of_hosts) and _may_be_actor(source)) or (
        of_hosts and _may_be_host(source)
    ):
        return None
    return f"{source!r} can be no source of {entity}.{verb}"


def of_type(pattern: str, kind: str) -> str:
    """The pattern of those events of a pattern that are of one type."""
    source = ANY if pattern == REST else pattern.partition(".")[0]
    return f"{source}.{kind}"


def may_be_type(pattern: str, kind: str) -> bool:
    """Whether a pattern can match events of a type, of any source."""
    parts = _whole(pattern)
    return parts is not None and _part_matches(f"{parts[1]}.{parts[2]}", kind)


def _whole(pattern: str) -> tuple[str, str, str] | None:
    """The three parts, with ``>`` expanded."""
    parts = pattern.split(".")
    if parts[-1] == REST and len(parts) <= PARTS:
        parts = [*parts[:-1], *[ANY] * (PARTS + 1 - len(parts))]
    if len(parts) != PARTS or not all(_PART.fullmatch(part) for part in parts):
        return None
    return parts[0], parts[1], parts[2]


def _part_matches(pattern: str, text: str) -> bool:
    """A star does not reach over a dot."""
    wanted, found = pattern.split("."), text.split(".")
    return len(wanted) == len(found) and all(map(wildcard_matches, wanted, found))


def _may_be_actor(source: str) -> bool:
    """Whether an actor's id can look like this: what is before the first ``*``, and after the
    last.
    """
    if ANY not in source:
        return names.is_actor_id(source)
    begin, end = source.partition(ANY)[0], source.rpartition(ANY)[2]
    return _BEGIN.fullmatch(begin) is not None and _END.fullmatch(end) is not None


def _may_be_host(source: str) -> bool:
    begin = source.partition(ANY)[0]
    if ANY in source and HOST_ACTOR_PREFIX.startswith(begin):
        return _HOST_PART.fullmatch(source.rpartition(ANY)[2].rpartition("_")[2]) is not None
    rest = source.removeprefix(HOST_ACTOR_PREFIX)
    return rest != source and re.fullmatch(r"[A-Za-z0-9*][A-Za-z0-9*-]*", rest) is not None
