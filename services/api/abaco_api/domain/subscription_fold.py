"""The active subscriptions: a fold of the log."""

import msgspec

from abaco_api.domain.event_pattern import matches
from abaco_proto import events as ev

MAX_CACHED = 100_000
"""Cached results, and the subscriptions in them, all counted."""


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription of an actor. Only events after ``sequence``, where it began, match it.

    ``principal`` is who made it, as in the envelope of its event.
    """

    actor_id: str
    subscription_id: str
    event_pattern: str
    sequence: int
    principal: str | None


class Subscriptions:
    """The subscriptions that have not ended, and a cache of those that match a source and type."""

    def __init__(self) -> None:
        self.active: dict[str, Subscription] = {}
        self.sequence = 0
        self._found: dict[tuple[str, str], list[Subscription]] = {}
        self._size = 0

    def observe(self, sequence: int, event: ev.Event, principal: str | None) -> None:
        """Apply the next event; one that was applied before changes nothing."""
        if sequence <= self.sequence:
            return
        self.sequence = sequence
        match event:
            case ev.ActorSubscribed():
                self.active[event.subscription_id] = Subscription(
                    actor_id=event.actor_id,
                    subscription_id=event.subscription_id,
                    event_pattern=event.event_pattern,
                    sequence=sequence,
                    principal=principal,
                )
            case ev.ActorUnsubscribed():
                self.active.pop(event.subscription_id, None)
            case ev.ActorDeleted():
                kept = {k: s for k, s in self.active.items() if s.actor_id != event.actor_id}
                self.active = kept
            case _:
                return
        self._forget()

    def _forget(self) -> None:
        self._found.clear()
        self._size = 0

    def matching(self, sequence: int, actor_id: str, kind: str) -> list[Subscription]:
        """Those that an event matches, the oldest first."""
        found = self._found.get((actor_id, kind))
        if found is None:
            if self._size >= MAX_CACHED:
                self._forget()
            every = self.active.values()
            found = [s for s in every if matches(s.event_pattern, actor_id, kind)]
            self._found[actor_id, kind] = found
            self._size += 1 + len(found)
        return [s for s in found if s.sequence < sequence]

    def since(self, actor_id: str) -> int:
        """The sequence at which the oldest of an actor began; 0 when it has none."""
        own = (s.sequence for s in self.active.values() if s.actor_id == actor_id)
        return min(own, default=0)

    def by_actor(self) -> dict[str, list[Subscription]]:
        """All of them, by actor."""
        found: dict[str, list[Subscription]] = {}
        for subscription in self.active.values():
            found.setdefault(subscription.actor_id, []).append(subscription)
        return found
