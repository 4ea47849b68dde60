"""The worker with a real engine: one container for all messages of a worker, a sandbox for each."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import docker
import pytest

import images
from abaco_proto import events as ev
from integration.worker_world import World, world_on
from servers import NatsServer

IMAGE = "abaco-test/reused"
RECIPE = """\
FROM scratch
COPY busybox /bin/busybox
COPY busybox /bin/sh
VOLUME /data
CMD ["/bin/sh", "-c", "eval \\"$MSG\\""]
"""
LEAVE = (
    "for place in / /dev/shm /data /etc; do echo secret >$place/left; done; "
    "echo 10.9.8.7 secret >>/etc/hosts; "
    "busybox nc -l -p 79 & busybox setsid busybox sleep 307 & echo written"
)
LOOK = (
    "busybox find / -xdev -name left; busybox cat /dev/shm/left /data/left 2>/dev/null; "
    "busybox grep secret /etc/hosts; busybox hostname; busybox ps; busybox netstat -an; ls /data"
)


@pytest.fixture
async def world(nats_server: NatsServer, tmp_path: Path) -> AsyncGenerator[World, None]:
    await asyncio.to_thread(images.build, IMAGE, RECIPE, {})
    async with world_on(nats_server.url, tmp_path, "sandbox") as world:
        yield world


async def containers_of(world: World, count: int) -> list[str]:
    """Return in which containers the first ``count`` runs were."""
    starts = await world.seen(ev.ExecutionStarted, count)
    return [start.container_id for start in starts]


async def until_restored(world: World, starts: int) -> None:
    """Wait until the worker process has given each worker its idle container back."""

    async def restored() -> bool:
        return world.said().count("live workers restored") == starts

    await world.until(restored)


async def test_a_message_finds_nothing_of_the_one_before(world: World) -> None:
    world.start()
    await world.worker(IMAGE)
    await world.send(LEAVE)
    await world.send(LOOK, 1)
    first, second = await world.seen(ev.ExecutionFinished, 2)
    assert await world.output(first) == b"written\n"
    seen = (await world.output(second)).decode()
    assert "PID" in seen
    assert not [word for word in ("secret", "left", "307", ":79") if word in seen], seen
    starts = await world.seen(ev.ExecutionStarted, 2)
    assert {start.start_kind for start in starts} == {ev.StartKind.SANDBOX}
    assert starts[0].container_id == starts[1].container_id


async def test_nothing_grows_from_message_to_message(world: World) -> None:
    world.start()
    await world.worker(IMAGE)

    async def left(count: int) -> list[str]:
        await world.seen(ev.ExecutionFinished, count)
        await world.until_clean(waiting=1)
        [container] = world.waiting()
        folder = world.folder / container["Names"][0].lstrip("/")
        return [path for path, _, _ in os.walk(folder)]  # ignores what is removed meanwhile

    script = "busybox mkdir -p /a/b; echo x >/a/b/c; echo y >/data/file"
    await world.send(script)
    before = await left(1)
    for ordinal in range(1, 25):
        await world.send(script, ordinal)
    assert len(await left(25)) < len(before) + 24
    assert len(set(await containers_of(world, 25))) == 1


async def test_a_container_outlives_its_worker_process(world: World) -> None:
    """It is killed between two messages, and then during one."""
    worker = world.start()
    await world.worker(IMAGE)
    await world.send("exit 3")
    await world.seen(ev.ExecutionFinished)
    worker.kill()
    worker = world.start()
    await until_restored(world, 2)
    await world.send("echo up; while [ ! -e /never ]; do busybox sleep 0.1; done", 1)
    await world.until_recorded(b"up\n", 1)
    worker.kill()
    world.start()
    halted = ev.ExecutionHaltRequested(actor_id="foo_0", execution_id="foo_0_exc_1")
    await world.append(halted)
    await world.seen(ev.ExecutionFinished, 2)
    await world.send("exit 4", 2)
    ends = await world.seen(ev.ExecutionFinished, 3)
    assert [end.final_state.ended_by for end in ends] == [
        ev.EndedBy.ITSELF,
        ev.EndedBy.HALT,
        ev.EndedBy.ITSELF,
    ]
    assert ends[2].exit_code == 4
    assert len(await world.seen(ev.ExecutionStarted, 3)) == 3
    assert len(set(await containers_of(world, 3))) == 1


@pytest.mark.parametrize("victim", ["launcher", "container"])
async def test_a_killed_launcher_or_container_ends_one_attempt(world: World, victim: str) -> None:
    world.start()
    await world.worker(IMAGE)
    await world.send("echo up; exec busybox sleep 300")
    await world.until_recorded(b"up\n")
    [start] = await world.seen(ev.ExecutionStarted)
    if victim == "launcher":
        [file] = world.folder.glob("*/launcher")
        os.kill(json.loads(file.read_text())["pid"], signal.SIGKILL)
    else:
        api = docker.APIClient(version="auto")
        api.kill(start.container_id)
        api.close()
    await world.seen(ev.ExecutionFailed)
    await world.until_clean(waiting=1)
    await world.send("exit 5", 1)
    [end] = await world.seen(ev.ExecutionFinished)
    assert end.exit_code == 5
    first, second = await containers_of(world, 2)
    assert first != second


async def test_a_container_that_is_killed_while_idle_is_replaced(world: World) -> None:
    world.start()
    await world.worker(IMAGE)
    await world.send("exit 0")
    await world.seen(ev.ExecutionFinished)
    [first] = await containers_of(world, 1)
    api = docker.APIClient(version="auto")
    api.kill(first)
    api.close()
    await world.send("exit 6", 1)
    ends = await world.seen(ev.ExecutionFinished, 2)
    assert ends[1].exit_code == 6
    assert not [c for c in await containers_of(world, 2) if c == first][1:]


async def test_files_of_programs_too_deep_for_python_go_with_the_container(world: World) -> None:
    """The container is killed during a run, so its launcher cannot remove them."""
    world.start()
    await world.worker(IMAGE)
    deep = "n=0; while [ $n -lt 1500 ]; do busybox mkdir d && cd d; n=$((n+1)); done; echo deep"
    await world.send(f"{deep}; exec busybox sleep 300")
    await world.until_recorded(b"deep\n")
    [start] = await world.seen(ev.ExecutionStarted)
    api = docker.APIClient(version="auto")
    api.kill(start.container_id)
    api.close()
    await world.seen(ev.ExecutionFailed)
    await world.until_clean(waiting=1)

    async def one_folder() -> bool:
        return len([path for path in world.folder.iterdir() if path.is_dir()]) == 1

    await world.until(one_folder)
