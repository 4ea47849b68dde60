"""Each message of a worker has a network namespace of its own, which the worker attaches."""

import asyncio
import ipaddress
import json
import os
import re
import signal
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

import pytest

from abaco_proto import events as ev
from abaco_worker.network.netlink import LinuxKernel
from integration.test_worker_network import LOOK, connected_by_worker, without_own
from integration.worker_world import World, world_on
from sandbox_stage import docker_run
from servers import NatsServer

ADDRESS = "busybox ip -o -4 addr show eth0"
USED = f"busybox ping -q -c 1 127.0.0.1; {ADDRESS}"
"""It sends something, so the next message gets another network."""

USE = (
    "busybox nc -l -p 5000 & busybox nc -l -p 5001 -e busybox echo heard & busybox sleep 0.3; "
    "busybox nc 127.0.0.1 5001; busybox cat /proc/net/tcp /proc/net/tcp6"
)
"""Leaves a listener, and a connection in TIME_WAIT."""

TIME_WAIT = re.compile(r":\w{4} \w+:\w{4} 06 ")
PING = (
    "busybox ping -q -c 5 -i 0.2 -s 10000"
    " $(busybox ip route | busybox sed -n 's/^default via \\([^ ]*\\).*/\\1/p')"
)


UNTIL_HALTED = {
    1: "exit 0",
    3: "trap 'exit 0' TERM; while [ ! -e /never ]; do busybox sleep 0.1; done",
}


@pytest.fixture
async def world(nats_server: NatsServer, tmp_path: Path) -> AsyncGenerator[World, None]:
    async with world_on(nats_server.url, tmp_path, "sandbox") as world:
        yield world


async def said(world: World, count: int) -> list[str]:
    """Return the outputs of the first ``count`` runs, which ran one after another."""
    ends = await world.seen(ev.ExecutionFinished, count)
    return [(await world.output(end)).decode() for end in ends]


async def containers(world: World, count: int) -> set[str]:
    starts = await world.seen(ev.ExecutionStarted, count)
    return {start.container_id for start in starts}


def address_in(output: str) -> ipaddress.IPv4Interface:
    found = re.search(r"inet (\S+)", output)
    assert found is not None, output
    return ipaddress.IPv4Interface(found[1])


def port_of(output: str) -> Path:
    """Return the bridge's port of the network in which ``ADDRESS`` was run."""
    return Path("/sys/class/net", f"veth{address_in(output).packed.hex()}")


async def until_gone(world: World, port: Path) -> None:
    async def gone() -> bool:
        return not port.exists()

    await world.until(gone)


async def test_nothing_of_a_network_is_left_for_the_next_message(world: World) -> None:
    world.start(ABACO_NETWORK_MODE="bridge")
    await world.worker()
    await world.send(f"{USE}; {ADDRESS}; busybox hostname")
    await world.send(
        f"busybox cat /proc/net/tcp /proc/net/tcp6 /proc/net/arp /etc/hosts; {ADDRESS}", 1
    )
    first, second = await said(world, 2)
    assert ":1388" in first, "it listens at port 5000"
    assert TIME_WAIT.search(first)
    assert not re.search(r"(?m)^ +\d+: ", second), "there is no socket"
    before, now = address_in(first).ip, address_in(second).ip
    assert before != now
    host_name = first.split()[-1]
    assert f"{now}\t{host_name}\n" in second
    assert str(before) not in second
    [container] = await containers(world, 2)
    assert connected_by_worker(container)
    await until_gone(world, port_of(first))


async def test_a_network_in_which_nothing_was_sent_is_used_again(world: World) -> None:
    """A packet over loopback is something; a socket that only listened is not, and is gone."""
    world.start(ABACO_NETWORK_MODE="bridge")
    await world.worker()
    listen = f"busybox nc -l -p 5000 & busybox sleep 0.3; busybox cat /proc/net/tcp6; {ADDRESS}"
    look = f"busybox cat /proc/net/tcp /proc/net/tcp6; {ADDRESS}"
    scripts = [listen, look, USED, look, look]
    for ordinal, script in enumerate(scripts):
        await world.send(script, ordinal)
    outputs = await said(world, len(scripts))
    assert ":1388" in outputs[0]
    assert not re.search(r"(?m)^ +\d+: ", outputs[1])
    addresses = [address_in(output).ip for output in outputs]
    assert addresses[0] == addresses[1] == addresses[2]
    assert addresses[2] != addresses[3]
    assert addresses[3] == addresses[4]


async def test_a_message_sees_the_network_of_docker_run(world: World) -> None:
    world.start(ABACO_NETWORK_MODE="bridge")
    await world.worker()
    for ordinal in range(2):
        await world.send(LOOK, ordinal)
    argv = world.yard.image, "/bin/sh", "-c", LOOK
    theirs, _ = await asyncio.to_thread(docker_run, *argv, NetworkMode="bridge")
    ours = await said(world, 2)
    assert "1 packets received" in ours[1]
    assert "heard" in ours[1]
    assert [without_own(each) for each in ours] == [without_own(theirs)] * 2


async def test_bytes_are_those_of_the_message(world: World) -> None:
    world.start(ABACO_NETWORK_MODE="bridge")
    await world.worker()
    await world.send(PING)
    await world.send("exit 0", 1)
    first, second = await world.seen(ev.ExecutionFinished, 2)
    assert 100_000 < first.network_bytes < 130_000
    assert second.network_bytes < 5000


async def test_a_restarted_worker_attaches_the_messages_of_the_same_container(
    world: World,
) -> None:
    """It is killed between two messages, and during one."""
    worker = world.start(ABACO_NETWORK_MODE="bridge")
    await world.worker()
    await world.send(USED)
    await world.seen(ev.ExecutionFinished)
    for ordinal in (1, 3):
        await until_attached(world)
        worker.kill()
        worker = world.start(ABACO_NETWORK_MODE="bridge")
        await until_learned(world, 1 + (ordinal + 1) // 2)
        await world.send(f"{USED}; {UNTIL_HALTED[ordinal]}", ordinal)
        await world.until_recorded(b"inet", ordinal)
        if ordinal == 3:
            worker.kill()
            world.start(ABACO_NETWORK_MODE="bridge")
            await until_learned(world, 4)
            halt = ev.ExecutionHaltRequested(actor_id="foo_0", execution_id="foo_0_exc_3")
            await world.append(halt)
        await world.seen(ev.ExecutionFinished, ordinal + 1)
        await world.send(USED, ordinal + 1)
        await world.seen(ev.ExecutionFinished, ordinal + 2)
    outputs = await said(world, 5)
    assert len({address_in(output) for output in outputs}) == 5
    assert len(await containers(world, 5)) == 1
    for output in outputs:
        await until_gone(world, port_of(output))


async def until_attached(world: World) -> None:
    """Wait until the network of the next message is attached."""
    kernel = LinuxKernel()

    async def attached() -> bool:
        await world.until_clean(waiting=1)
        [file] = world.folder.glob("abaco-foo_0_wkr_0-[0-9a-f]*/launcher")
        pid = json.loads(file.read_text())["pid"]
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(link.readlink()).startswith("net:"):
                    namespace = os.open(link, os.O_RDONLY)
                    try:
                        if await asyncio.to_thread(kernel.attached_address, namespace):
                            return True
                    finally:
                        os.close(namespace)
        return False

    await world.until(attached)


async def until_learned(world: World, count: int) -> None:
    """Wait until as many worker processes know how to attach."""

    async def learned() -> bool:
        return world.said().count("attached to the network by the worker") == count

    await world.until(learned)


async def test_a_killed_launcher_leaves_no_network(world: World) -> None:
    world.start(ABACO_NETWORK_MODE="bridge")
    await world.worker()
    await world.send(f"{ADDRESS}; exec busybox sleep 300")
    await world.until_recorded(b"inet")
    run = (await world.seen(ev.ExecutionStarted))[0]
    [output] = [
        path.read_text() for path in world.folder.glob("*/runs/*/output") if path.stat().st_size
    ]
    assert port_of(output).exists()
    [file] = world.folder.glob(f"abaco-{run.worker_id}-*/launcher")
    os.kill(json.loads(file.read_text())["pid"], signal.SIGKILL)
    await world.seen(ev.ExecutionFailed)
    await until_gone(world, port_of(output))


async def test_a_network_that_only_the_engine_attaches_is_shared(world: World) -> None:
    world.start(ABACO_NETWORK_MODE="bridge", ABACO_NETWORK_BY="engine")
    await world.worker()
    for ordinal in range(2):
        await world.send(ADDRESS, ordinal)
    first, second = await said(world, 2)
    assert address_in(first) == address_in(second)
    [ready] = await world.seen(ev.WorkerReady)
    assert ready.isolation is ev.Isolation.SANDBOX
    assert "share" in str(ready.isolation_reason)
    assert "ABACO_NETWORK_BY is engine" in str(ready.isolation_reason)
