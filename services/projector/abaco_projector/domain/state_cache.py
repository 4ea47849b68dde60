"""A cache of the rows that a store wrote last, so that it need not load them again.

One process at a time writes a schema (it locks the checkpoint), and it writes through: the cache
equals the rows. Ended executions and workers are evicted at once, because few events follow. After
a bulk update, the actor's executions are evicted.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any, TypeVar

import msgspec

from abaco_projector.domain.batch_fold import Changes
from abaco_proto.actor import Actor
from abaco_proto.fold import States
from abaco_proto.state_keys import ActorKey, StateKeys

MAX_ACTORS = 20_000
MAX_OTHERS = 100_000
MAX_ACTOR_BYTES = 64 * 1024 * 1024
"""The limit for states and definitions of actors, as JSON."""

K = TypeVar("K")
V = TypeVar("V")


class LoadedRows(msgspec.Struct, frozen=True):
    """States of some keys; ``last_ordinals`` has each actor's highest ordinal, -1 if there is
    none.
    """

    states: States
    last_ordinals: dict[ActorKey, int]


class StateCache:
    """States by key; the least recently used are evicted first.

    It also keeps the highest ordinal of each actor: an execution with a higher one is new.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._states = States()
        self._last_ordinals: dict[ActorKey, int] = {}
        self._sizes: dict[ActorKey, int] = {}
        self._bytes = 0

    def missing(self, keys: StateKeys) -> StateKeys:
        """Return the keys that must be loaded. The executions that workers run are always
        loaded.
        """
        known, last_ordinals = self._states, self._last_ordinals
        return StateKeys(
            actors={key for key in keys.actors if key not in known.actors},
            executions={
                key
                for key in keys.executions
                if key not in known.executions and key[2] <= last_ordinals.get(key[:2], key[2])
            },
            workers={key for key in keys.workers if key not in known.workers},
            runs=keys.runs,
        )

    def known(self, keys: StateKeys) -> States:
        """Return the cached states of these keys."""
        known = self._states
        return States(
            actors=_select(known.actors, keys.actors),
            totals=_select(known.totals, keys.actors),
            executions=_select(known.executions, keys.executions),
            workers=_select(known.workers, keys.workers),
        )

    def update(self, loaded: LoadedRows, changes: Changes) -> None:
        """Add the states before and after a batch."""
        states, changed = self._states, changes.states
        self._measure(loaded.states.actors | changed.actors)
        for name in States.__struct_fields__:
            _put_last(getattr(states, name), getattr(loaded.states, name) | getattr(changed, name))
        last_ordinals = self._last_ordinals
        last_ordinals |= {
            key: ordinal for key, ordinal in loaded.last_ordinals.items() if key in states.actors
        }
        for *owner, ordinal in changed.executions:
            key = (owner[0], owner[1])
            if key in last_ordinals and last_ordinals[key] < ordinal:
                last_ordinals[key] = ordinal
        _drop(states.executions, [k for k, e in changed.executions.items() if e.ended])
        _drop(states.workers, [k for k, w in changed.workers.items() if not w.live])
        for update in changes.bulk_updates:
            self._drop_actors([update.key])
            _drop(states.executions, [k for k in states.executions if k[:2] == update.key])
        self._shrink()

    def _measure(self, fresh: dict[ActorKey, Actor]) -> None:
        """Keep the size of each actor; most keep their state and definition."""
        for key, found in fresh.items():
            known = self._states.actors.get(key)
            if known is None or not _has_same_size(known, found):
                size = len(msgspec.json.encode((found.state, found.definition)))
                self._bytes += size - self._sizes.get(key, 0)
                self._sizes[key] = size

    def _shrink(self) -> None:
        self._drop_actors(_oldest(self._states.actors, MAX_ACTORS))
        while self._bytes > MAX_ACTOR_BYTES:
            self._drop_actors([next(iter(self._states.actors))])
        _drop(self._states.executions, _oldest(self._states.executions, MAX_OTHERS))
        _drop(self._states.workers, _oldest(self._states.workers, MAX_OTHERS))

    def _drop_actors(self, keys: list[ActorKey]) -> None:
        for known in (self._states.actors, self._states.totals, self._last_ordinals):
            _drop(known, keys)
        self._bytes -= sum(self._sizes.pop(key, 0) for key in keys)


def merge(one: States, other: States) -> States:
    """Return all states of both; states of the same key are equal."""
    return States(
        **{name: getattr(one, name) | getattr(other, name) for name in States.__struct_fields__}
    )


def _has_same_size(known: Actor, found: Actor) -> bool:
    return known.state is found.state and known.definition is found.definition


def _select(known: dict[K, V], keys: Iterable[K]) -> dict[K, V]:
    return {key: known[key] for key in keys if key in known}


def _put_last(known: dict[K, V], fresh: dict[K, V]) -> None:
    """Put these at the end, where the most recently used are."""
    for key, value in fresh.items():
        known.pop(key, None)
        known[key] = value


def _drop(known: dict[K, Any], keys: Iterable[K]) -> None:
    for key in keys:
        known.pop(key, None)


def _oldest(known: dict[K, V], most: int) -> list[K]:
    """Return the least recently used keys, beyond the newest ``most``."""
    return list(islice(known, max(len(known) - most, 0)))
