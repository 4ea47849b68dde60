"""An image's name moves to another image while sandboxes are idle, with a real engine."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

import images
from abaco_proto import events as ev
from integration.worker_world import MODES, World, world_on
from servers import NatsServer

RECIPE = """\
FROM scratch
COPY busybox /bin/busybox
CMD ["/bin/busybox", "echo", "{}"]
"""
VERSIONS = ("one", "two", "three")


@pytest.fixture(params=MODES)
async def world(
    request: pytest.FixtureRequest, nats_server: NatsServer, tmp_path: Path
) -> AsyncGenerator[World, None]:
    async with world_on(nats_server.url, tmp_path, request.param) as world:
        yield world


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    client = docker.APIClient(version="auto")
    yield client
    client.close()


@pytest.fixture
def name(client: docker.APIClient) -> Iterator[str]:
    """Return a unique name of the first version."""
    for version in VERSIONS:
        images.build(f"abaco-test/moves-{version}", RECIPE.format(version), {})
    name = f"abaco-test/moves-{uuid.uuid4().hex[:10]}"
    move(client, name, "one")
    yield name
    client.remove_image(name, noprune=True)


def move(client: docker.APIClient, name: str, version: str) -> None:
    client.tag(f"abaco-test/moves-{version}", name, force=True)


def image_id(client: docker.APIClient, version: str) -> str:
    found: Any = client.inspect_image(f"abaco-test/moves-{version}")  # type: ignore[no-untyped-call]
    return str(found["Id"])


async def test_a_message_after_the_move_runs_the_new_image(
    world: World, client: docker.APIClient, name: str
) -> None:
    world.start()
    await world.worker(name)
    await world.seen(ev.WorkerReady)
    for ordinal, version in enumerate(VERSIONS):
        await asyncio.to_thread(move, client, name, version)
        await world.send("", ordinal)
        await world.seen(ev.ExecutionFinished, ordinal + 1)
    ends = await world.seen(ev.ExecutionFinished, 3)
    assert [await world.output(end) for end in ends] == [f"{v}\n".encode() for v in VERSIONS]
    digests = [start.image_digest for start in await world.seen(ev.ExecutionStarted, 3)]
    assert digests == [image_id(client, version) for version in VERSIONS]


@pytest.mark.parametrize("isolation", ["sandbox", "container"])
async def test_what_waits_is_replaced_without_a_message(
    nats_server: NatsServer, tmp_path: Path, client: docker.APIClient, name: str, isolation: str
) -> None:
    async with world_on(nats_server.url, tmp_path, isolation) as world:
        world.start()
        await world.worker(name)
        await world.seen(ev.WorkerReady)
        await asyncio.to_thread(move, client, name, "two")
        wanted = image_id(client, "two")

        async def replaced() -> bool:
            return [found["ImageID"] for found in world.waiting()] == [wanted]

        await world.until(replaced)
        await world.send("")
        [end] = await world.seen(ev.ExecutionFinished)
        assert await world.output(end) == b"two\n"
