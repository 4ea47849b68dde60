"""Requests for workers: one attempt to append for each, by each scheduler."""

import pytest

from fakes import InMemoryEventLog
from scheduler_race import requests_for_new_actors


@pytest.mark.parametrize("actors", [10, 100, 400])
async def test_a_worker_for_each_new_actor_costs_one_attempt(actors: int) -> None:
    assert await requests_for_new_actors(InMemoryEventLog(), actors) == actors


async def test_schedulers_that_race_try_each_worker_once() -> None:
    """Both may have planned all of them before the first append is seen."""
    actors = 200
    attempts = await requests_for_new_actors(InMemoryEventLog(), actors, racing=2)
    assert actors <= attempts <= 2 * actors
