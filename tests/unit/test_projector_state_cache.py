"""The state cache is bounded by size, too."""

import pytest

import builders as b
from abaco_projector.domain import state_cache
from abaco_projector.domain.batch_fold import Changes
from abaco_projector.domain.state_cache import LoadedRows, StateCache
from abaco_proto.actor import Actor
from abaco_proto.fold import States, Totals
from abaco_proto.state_keys import StateKeys

LARGE = "x" * 10_000


def changed(actors: dict[tuple[str, str], Actor]) -> Changes:
    totals = dict.fromkeys(actors, Totals())
    states = States(actors=actors, totals=totals)
    return Changes(
        states=states, inserted=set(), subscriptions={}, bulk_updates=[], unrecognized=[]
    )


def actor(number: int, state: str) -> dict[tuple[str, str], Actor]:
    actor_id = f"foo_{number}"
    return {("default", actor_id): Actor(actor_id=actor_id, definition=b.definition(), state=state)}


def cached(cache: StateCache) -> list[str]:
    keys = StateKeys(actors={("default", f"foo_{n}") for n in range(100)})
    return sorted(key[1] for key in cache.known(keys).actors)


def test_large_states_are_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_cache, "MAX_ACTOR_BYTES", 50_000)
    found = StateCache()
    for number in range(100):
        found.update(LoadedRows(States(), {}), changed(actor(number, LARGE)))
    assert cached(found) == ["foo_96", "foo_97", "foo_98", "foo_99"]
    for number in range(96, 100):  # they are small now
        found.update(LoadedRows(States(), {}), changed(actor(number, "")))
    for number in range(50):
        found.update(LoadedRows(States(), {}), changed(actor(number, "")))
    assert len(cached(found)) == 54
