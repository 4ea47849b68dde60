"""What counts as written to disk: allocated blocks of all that a program can write to."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import docker
import pytest

import images
from abaco_proto import events as ev
from integration.worker_world import MODES, World, world_on
from servers import NatsServer

MEBIBYTE = 1024 * 1024
VOLUME = "abaco-test/volume"
RECIPE = """\
FROM scratch
COPY busybox /bin/busybox
COPY busybox /bin/sh
VOLUME /data
CMD ["/bin/sh", "-c", "eval \\"$MSG\\""]
"""
FILL = "while :; do busybox dd if=/dev/zero bs=1M count=2 >>{}; busybox sleep 0.3; done"


@pytest.fixture(params=MODES)
async def world(
    request: pytest.FixtureRequest, nats_server: NatsServer, tmp_path: Path
) -> AsyncGenerator[World, None]:
    await asyncio.to_thread(images.build, VOLUME, RECIPE, {})
    async with world_on(nats_server.url, tmp_path, request.param) as world:
        yield world


async def test_all_that_can_be_written_is_counted_and_holes_are_not(
    world: World, request: pytest.FixtureRequest
) -> None:
    """In a sandbox, ``/etc/hosts`` is in memory."""
    in_memory = "[sandbox]" in request.node.name
    world.start()
    sequence = await world.worker(VOLUME, max_disk_bytes=5 * MEBIBYTE)
    await world.request(sequence, 1)
    await world.request(sequence, 2)
    await world.send(FILL.format("/data/file"), 0, 0)
    await world.send(FILL.format("/file" if in_memory else "/etc/hosts"), 1, 1)
    hole = "busybox truncate -s 20G /hole && busybox truncate -s 20G /data/hole"
    await world.send(f"{hole} && busybox sleep 6 && exit 3", 2, 2)
    found = await world.seen(ev.ExecutionFinished, 3)
    ends = {int(end.execution_id.rpartition("_")[2]): end for end in found}
    by = [ends[ordinal].final_state.ended_by for ordinal in range(3)]
    assert by == [ev.EndedBy.MAX_DISK_BYTES, ev.EndedBy.MAX_DISK_BYTES, ev.EndedBy.ITSELF]
    assert ends[2].exit_code == 3


@pytest.mark.parametrize("world", ["container", "cold"], indirect=True)
async def test_a_volume_goes_with_its_container(world: World) -> None:
    world.start()
    await world.worker(VOLUME)
    await world.send("busybox touch /data/file; busybox sleep 1")
    await world.seen(ev.ExecutionStarted)
    client = docker.APIClient(version="auto")
    try:
        mounts = [mount for found in world.containers() for mount in found["Mounts"]]
        names = {mount["Name"] for mount in mounts if mount["Type"] == "volume"}
        assert names
        [started] = await world.seen(ev.ExecutionStarted)
        await world.seen(ev.ExecutionFinished)

        async def gone() -> bool:
            left = {container["Id"] for container in world.containers()}
            return started.container_id not in left

        await world.until(gone)
        used = {
            mount["Name"]
            for found in world.containers()
            for mount in found["Mounts"]
            if mount["Type"] == "volume"
        }
        left = {volume["Name"] for volume in client.volumes()["Volumes"] or []}
        assert not (names - used) & left
    finally:
        client.close()
