"""Requests for workers on a real JetStream: one attempt to append for each new actor."""

from collections.abc import AsyncGenerator

import pytest

from abaco_jetstream import Connection, JetStreamEventLog
from scheduler_race import requests_for_new_actors


@pytest.fixture
async def connection(nats_url: str) -> AsyncGenerator[Connection, None]:
    connection = Connection(nats_url, name="test")
    await connection.open()
    yield connection
    await connection.close()


async def test_a_thousand_new_actors_cost_a_thousand_attempts(connection: Connection) -> None:
    assert await requests_for_new_actors(JetStreamEventLog(connection), 1000) == 1000


async def test_schedulers_that_race_try_each_worker_once(connection: Connection) -> None:
    actors = 300
    attempts = await requests_for_new_actors(JetStreamEventLog(connection), actors, racing=2)
    assert actors <= attempts <= 2 * actors
