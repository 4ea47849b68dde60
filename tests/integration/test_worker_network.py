"""The network of a sandbox that the worker attached equals that of one the engine attached."""

import ipaddress
import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import NotFound

import builders as b
from abaco_proto import events as ev
from integration.worker_world import World, world_on
from servers import NatsServer

LOOK = """
busybox cat /etc/resolv.conf /etc/hosts /etc/hostname
busybox hostname
busybox ip -o addr | busybox cut -d ' ' -f 2-
busybox ip link show eth0 | busybox grep -o 'mtu [0-9]*\\|<[^>]*>\\|link/ether.*'
busybox ip route
busybox cat /proc/net/if_inet6
for name in ipv4/ip_unprivileged_port_start ipv4/ping_group_range ipv6/conf/all/disable_ipv6 \
            ipv6/conf/default/disable_ipv6 ipv6/conf/lo/disable_ipv6 \
            ipv6/conf/eth0/disable_ipv6 ipv4/ip_forward; do
    echo $name $(busybox cat /proc/sys/net/$name)
done
busybox ping -q -c 1 $(busybox ip route | busybox sed -n 's/^default via \\([^ ]*\\).*/\\1/p') |
    busybox grep received
busybox nc -l -p 79 -e busybox echo heard & busybox sleep 0.2; busybox nc 127.0.0.1 79
"""
"""Everything that a program can read about its network."""


@pytest.fixture
async def world(nats_server: NatsServer, tmp_path: Path) -> AsyncGenerator[World, None]:
    async with world_on(nats_server.url, tmp_path, "container") as world:
        yield world


def connected_by_worker(container_id: str) -> bool:
    """Return whether the engine has attached the container to no network."""
    api = docker.APIClient(version="auto")
    try:
        found = api.inspect_container(container_id)
        return bool(found["Config"].get("NetworkDisabled"))
    finally:
        api.close()


async def next_is_by_worker(world: World) -> bool:
    """Whether the worker has attached the container of the only idle sandbox."""

    async def idle() -> list[bool] | None:
        await world.until_clean(waiting=1)
        try:
            return [connected_by_worker(each["Id"]) for each in world.waiting()]
        except NotFound:  # it was listed while it was removed with its directory
            return None

    [by_worker] = await world.until(idle)
    return bool(by_worker)


async def said(world: World, count: int) -> str:
    """Return the output of the last of ``count`` runs."""
    ends = await world.seen(ev.ExecutionFinished, count)
    return (await world.output(ends[count - 1])).decode()


def without_own(seen: str) -> str:
    """Return the output with this container's addresses and name replaced."""
    [address] = re.findall(r"inet (\d+\.\d+\.\d+\.\d+)/\d+ brd", seen)
    [name] = re.findall(r"^([0-9a-f]{12})$", seen.partition("\nlo ")[0], re.MULTILINE)[-1:]
    seen = seen.replace(address, "ADDRESS").replace(name, "NAME")
    seen = re.sub(r"eth0@if\d+", "eth0", seen)
    return re.sub(r"02:42(:[0-9a-f]{2}){4}", "MAC", seen)


async def test_a_run_sees_the_network_the_engine_would_have_made(world: World) -> None:
    world.start(ABACO_NETWORK_MODE="bridge")
    await world.worker()
    await world.send(LOOK)
    by_engine = await said(world, 1)
    assert await next_is_by_worker(world)
    await world.send(LOOK, 1)
    by_worker = await said(world, 2)
    assert "1 packets received" in by_worker
    assert "heard" in by_worker
    assert without_own(by_worker) == without_own(by_engine)
    assert by_worker != by_engine


async def test_the_engine_goes_on_where_it_is_told_to(world: World) -> None:
    world.start(ABACO_NETWORK_MODE="bridge", ABACO_NETWORK_BY="engine")
    await world.worker()
    for ordinal in range(2):
        assert not await next_is_by_worker(world)
        await world.send("busybox ip route", ordinal)
        assert "default via" in await said(world, ordinal + 1)


async def test_no_network_stays_none(world: World) -> None:
    world.start(ABACO_NETWORK_MODE="none")
    await world.worker()
    for ordinal in range(2):
        assert not await next_is_by_worker(world)
        await world.send("busybox ls /sys/class/net", ordinal)
        assert await said(world, ordinal + 1) == "lo\n"


async def test_runs_reach_each_other_whoever_connected_them(world: World) -> None:
    """The engine attaches the first of three; each serves one and is a client of another."""
    world.start(ABACO_NETWORK_MODE="bridge")
    sequence = await world.worker()
    for number in range(3):
        await world.request(sequence, number)
        await world.seen(ev.WorkerReady, number + 1)
    by_worker = {worker(found): connected_by_worker(found["Id"]) for found in world.waiting()}
    assert [by_worker[f"foo_0_wkr_{number}"] for number in range(3)] == [False, True, True]
    serve = "busybox ip -o -4 addr show eth0; busybox nc -l -p 8080 -e busybox echo served"
    for server in range(3):
        await world.send(serve, server, server)
        await world.until_recorded(b"inet", server)
        found = re.search(rb"inet (\S+)/", await world.output(b.finished(server)))
        assert found is not None
        ask = f"until busybox nc {found[1].decode()} 8080; do busybox sleep 0.1; done"
        await world.send(ask, 3 + server, (server + 1) % 3)
        await world.until_recorded(b"served", 3 + server)


async def test_nothing_is_left_of_the_network_of_a_run_that_is_over(world: World) -> None:
    world.start(ABACO_NETWORK_MODE="bridge")
    await world.worker()
    await world.send("exit 0")
    await world.seen(ev.ExecutionFinished)
    assert await next_is_by_worker(world)

    async def connected() -> list[Path]:
        return ports_of(world)  # the container is attached a moment after it is started

    [port] = await world.until(connected)
    assert port.exists()
    await world.send("exit 0", 1)
    await world.seen(ev.ExecutionFinished, 2)

    async def replaced() -> bool:
        return not port.exists() and any(another.exists() for another in ports_of(world))

    await world.until(replaced)


def worker(container: Any) -> str:
    return str(container["Labels"]["abaco.worker_id"])


def ports_of(world: World) -> list[Path]:
    """Return the bridge's ports of the idle sandboxes."""
    addresses = [json.loads(path.read_text()) for path in world.folder.glob("*/address")]
    packed = [ipaddress.ip_interface(address).packed for address in addresses]
    return [Path("/sys/class/net", f"veth{name.hex()}") for name in packed]
