"""What a store remembers of its rows, so that it need not load what it has just written.

Theory: one process at a time writes a generation (it holds the checkpoint), and it writes through:
what is remembered is what the rows hold. What has ended is forgotten at once, because its history
is over but for rare events; what a sweep ended behind our back is forgotten as a whole.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any, TypeVar

import msgspec

from abaco_projector.domain.batch_fold import Changes
from abaco_proto.actor import Actor
from abaco_proto.fold import States
from abaco_proto.keys import ActorKey, Keys

MOST_ACTORS = 20_000
MOST_OTHERS = 100_000
MOST_ACTOR_BYTES = 64 * 1024 * 1024
"""Of their states and definitions as JSON."""

K = TypeVar("K")
V = TypeVar("V")


class Loaded(msgspec.Struct, frozen=True):
    """What the rows hold of some keys; ``last`` is the highest ordinal of each actor, or -1."""

    states: States
    last: dict[ActorKey, int]


class Memory:
    """States by key, those used longest ago given up first.

    Of each actor it knows the highest ordinal, too: an execution beyond it is new.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._states = States()
        self._last: dict[ActorKey, int] = {}
        self._sizes: dict[ActorKey, int] = {}
        self._bytes = 0

    def missing(self, keys: Keys) -> Keys:
        """What of these must be loaded. What executions run where always is."""
        known, last = self._states, self._last
        return Keys(
            actors={key for key in keys.actors if key not in known.actors},
            executions={
                key
                for key in keys.executions
                if key not in known.executions and key[2] <= last.get(key[:2], key[2])
            },
            workers={key for key in keys.workers if key not in known.workers},
            runs=keys.runs,
        )

    def known(self, keys: Keys) -> States:
        """What is remembered of these."""
        known = self._states
        return States(
            actors=_those(known.actors, keys.actors),
            totals=_those(known.totals, keys.actors),
            executions=_those(known.executions, keys.executions),
            workers=_those(known.workers, keys.workers),
        )

    def take(self, loaded: Loaded, changes: Changes) -> None:
        """Remember what a batch started from, and what it was changed to."""
        states, changed = self._states, changes.states
        self._weigh(loaded.states.actors | changed.actors)
        for name in States.__struct_fields__:
            _put(getattr(states, name), getattr(loaded.states, name) | getattr(changed, name))
        last = self._last
        last |= {key: ordinal for key, ordinal in loaded.last.items() if key in states.actors}
        for *owner, ordinal in changed.executions:
            key = (owner[0], owner[1])
            if key in last and last[key] < ordinal:
                last[key] = ordinal
        _drop(states.executions, [k for k, e in changed.executions.items() if e.ended])
        _drop(states.workers, [k for k, w in changed.workers.items() if not w.live])
        for sweep in changes.sweeps:
            self._drop_actors([sweep.key])
            _drop(states.executions, [k for k in states.executions if k[:2] == sweep.key])
        self._shrink()

    def _weigh(self, fresh: dict[ActorKey, Actor]) -> None:
        """Know how large actors are; most have the state and the definition that they had."""
        for key, found in fresh.items():
            known = self._states.actors.get(key)
            if known is None or not _is_as_large(known, found):
                size = len(msgspec.json.encode((found.state, found.definition)))
                self._bytes += size - self._sizes.get(key, 0)
                self._sizes[key] = size

    def _shrink(self) -> None:
        self._drop_actors(_oldest(self._states.actors, MOST_ACTORS))
        while self._bytes > MOST_ACTOR_BYTES:
            self._drop_actors([next(iter(self._states.actors))])
        _drop(self._states.executions, _oldest(self._states.executions, MOST_OTHERS))
        _drop(self._states.workers, _oldest(self._states.workers, MOST_OTHERS))

    def _drop_actors(self, keys: list[ActorKey]) -> None:
        for known in (self._states.actors, self._states.totals, self._last):
            _drop(known, keys)
        self._bytes -= sum(self._sizes.pop(key, 0) for key in keys)


def merged(one: States, other: States) -> States:
    """All states of both; they are equal where they are of the same key."""
    return States(
        **{name: getattr(one, name) | getattr(other, name) for name in States.__struct_fields__}
    )


def _is_as_large(known: Actor, found: Actor) -> bool:
    return known.state is found.state and known.definition is found.definition


def _those(known: dict[K, V], keys: Iterable[K]) -> dict[K, V]:
    return {key: known[key] for key in keys if key in known}


def _put(known: dict[K, V], fresh: dict[K, V]) -> None:
    """Put these at the end, where what was used last is."""
    for key, value in fresh.items():
        known.pop(key, None)
        known[key] = value


def _drop(known: dict[K, Any], keys: Iterable[K]) -> None:
    for key in keys:
        known.pop(key, None)


def _oldest(known: dict[K, V], most: int) -> list[K]:
    """The keys beyond ``most``, from those used longest ago."""
    return list(islice(known, max(len(known) - most, 0)))
