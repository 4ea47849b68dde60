"""Selections of events, by type, actor and time."""

import re
from datetime import datetime
from functools import lru_cache

import msgspec

from abaco_api.domain.wildcard import ANY, wildcard_matches
from abaco_api.streams.domain.encoded_event import EncodedEvent
from abaco_proto.names import history_filter, tenant_filter, type_filters


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """``since`` is included, ``until`` is not; ``actor_id`` and ``principal`` None are all."""

    type: str = ANY
    actor_id: str | None = None
    principal: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def matches(self, item: EncodedEvent) -> bool:
        """Whether an event is selected."""
        return (
            self.may_match(item.actor_id, item.type)
            and (self.principal is None or self._is_of_principal(item))
            and (self.since is None or item.time >= self.since)
            and (self.until is None or item.time < self.until)
        )

    def may_match(self, actor_id: str, kind: str) -> bool:
        """Whether events of an actor and a type can be selected."""
        return self.actor_id in (None, actor_id) and type_matches(self.type, kind)

    def filters(self, tenant: str) -> list[str]:
        """Filters of the log that select at least these events."""
        if ANY not in self.type:
            return type_filters(tenant, self.type, self.actor_id or ANY)
        return [history_filter(tenant, self.actor_id) if self.actor_id else tenant_filter(tenant)]

    def _is_of_principal(self, item: EncodedEvent) -> bool:
        assert self.principal is not None
        return item.principal is not None and wildcard_matches(self.principal, item.principal)


def like(pattern: str) -> str:
    """A pattern with ``*`` as one of SQL's ``LIKE``."""
    return re.sub(r"([\\%_])", r"\\\1", pattern).replace(ANY, "%")


@lru_cache(maxsize=4096)
def type_matches(pattern: str, kind: str) -> bool:
    """Whether a type matches a pattern, in which ``*`` stands for any characters, or none."""
    return wildcard_matches(pattern, kind)
