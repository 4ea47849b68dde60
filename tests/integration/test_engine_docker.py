"""The contract of the engine port, for Docker, and what only Docker can show."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from ipaddress import IPv4Interface
from pathlib import Path

import docker
import pytest

from abaco_proto.errors import Unavailable
from abaco_worker.domain.engine_errors import CannotStart, EngineFault
from abaco_worker.domain.engine_values import NetworkFiles
from abaco_worker.engine.docker_engine import DockerEngine
from abaco_worker.network.netlink import LinuxKernel
from contract.engine_suite import EngineSuite, read, spec_of, started
from deadlines import LIMIT_SECONDS
from fake_engine import Program
from integration.worker_images import DockerYard, docker_yard
from servers import free_port


@pytest.fixture(scope="module")
def yard() -> Iterator[DockerYard]:
    with docker_yard() as yard:
        yield yard


@pytest.fixture
async def engine() -> AsyncGenerator[DockerEngine, None]:
    engine = DockerEngine({}, capacity=4)
    yield engine
    engine.close()


class TestDockerEngine(EngineSuite):
    pass


async def test_an_engine_that_is_away_is_unavailable(yard: DockerYard) -> None:
    engine = DockerEngine({"DOCKER_HOST": f"tcp://127.0.0.1:{free_port()}"}, capacity=1)
    for call in (engine.find_image(yard.image), engine.create(spec_of(yard))):
        with pytest.raises(Unavailable, match="container engine"):
            await call
    with pytest.raises(Unavailable):
        await read(engine, "any", follow=True)
    assert engine.location.startswith("tcp://")
    engine.close()


async def test_bytes_that_are_no_text_become_replacement_characters(
    engine: DockerEngine, yard: DockerYard
) -> None:
    script = {"MSG": r"printf 'a\377b'; printf c >&2"}
    container_id = await started(engine, spec_of(yard, environment=script))
    await engine.wait(container_id, 10)
    output = await read(engine, container_id, follow=False)
    assert sorted(output.decode()) == sorted("a\ufffdbc")


async def test_limits_are_in_force(engine: DockerEngine, yard: DockerYard) -> None:
    script = {"MSG": "busybox cat /proc/self/status; busybox tail /dev/zero"}
    container_id = await started(engine, spec_of(yard, environment=script))
    container = await engine.wait(container_id, 30)
    assert container.oom_killed
    assert container.exit_code == 137
    status = (await read(engine, container_id, follow=False)).decode()
    assert "NoNewPrivs:\t1" in status


LIMIT = {"MSG": "ulimit -Sn; ulimit -Hn"}


async def test_open_files_have_a_limit(engine: DockerEngine, yard: DockerYard) -> None:
    container_id = await started(engine, spec_of(yard, environment=LIMIT, open_files=4096))
    await engine.wait(container_id, 30)
    assert await read(engine, container_id, follow=False) == b"4096\n4096\n"


async def test_an_engine_that_may_not_set_the_limit_keeps_its_own(
    engine: DockerEngine, yard: DockerYard, caplog: pytest.LogCaptureFixture
) -> None:
    spec = spec_of(yard, environment=LIMIT, open_files=2**30)  # more than a kernel has at all
    container = await engine.create(spec)
    with pytest.raises(EngineFault, match="rlimit"):
        await engine.start(container.container_id)
    assert "ABACO_CONTAINER_OPEN_FILES" in caplog.text
    container_id = await started(engine, spec_of(yard, environment=LIMIT, open_files=2**30))
    await engine.wait(container_id, 30)
    soft, hard = (await read(engine, container_id, follow=False)).split()
    assert 0 < int(soft) <= int(hard) < 2**30


async def test_a_network_that_is_not_there_is_no_fault_of_the_image(
    engine: DockerEngine, yard: DockerYard
) -> None:
    spec = spec_of(yard, environment={"MSG": ""}, network_mode="no-such-network")
    container = await engine.create(spec)
    with pytest.raises(Exception, match="no-such-network") as refusal:
        await engine.start(container.container_id)
    assert not isinstance(refusal.value, CannotStart)


async def test_how_a_container_on_the_bridge_is_connected(
    engine: DockerEngine, yard: DockerYard
) -> None:
    spec = spec_of(yard, Program(forever=True), network_mode="bridge")
    endpoint = await engine.endpoint(await started(engine, spec))
    assert endpoint is not None
    here = LinuxKernel().address(endpoint.bridge)
    assert IPv4Interface(endpoint.address).network == here.network
    assert endpoint.gateway == str(here.ip)
    own = endpoint.address.partition("/")[0]
    assert own in Path(endpoint.files.hosts).read_text()
    assert "nameserver" in Path(endpoint.files.resolv_conf).read_text()


async def test_a_network_with_names_of_its_own_is_no_bridge_to_join(
    engine: DockerEngine, yard: DockerYard
) -> None:
    api = docker.APIClient(version="auto")
    network = api.create_network(yard.host_id, driver="bridge")["Id"]
    try:
        for mode in (yard.host_id, "host"):
            spec = spec_of(yard, Program(forever=True), network_mode=mode)
            container_id = await started(engine, spec)
            assert await engine.endpoint(container_id) is None
            await engine.remove(container_id)
    finally:
        api.remove_network(network)
        api.close()


async def test_with_files_of_ours_a_container_is_connected_to_nothing(
    engine: DockerEngine, yard: DockerYard, tmp_path: Path
) -> None:
    hosts, resolv_conf = tmp_path / "hosts", tmp_path / "resolv.conf"
    hosts.write_text("hosts\n")
    resolv_conf.write_text("names\n")
    script = "busybox cat /etc/hosts /etc/resolv.conf; busybox ls /sys/class/net"
    files = NetworkFiles(hosts=str(hosts), resolv_conf=str(resolv_conf))
    spec = spec_of(yard, environment={"MSG": script}, network_mode="bridge", network_files=files)
    container_id = await started(engine, spec)
    await engine.wait(container_id, 10)
    assert await read(engine, container_id, follow=False) == b"hosts\nnames\nlo\n"
    assert await engine.endpoint(container_id) is None


async def test_what_the_engine_will_not_do_is_a_fault(
    engine: DockerEngine, yard: DockerYard
) -> None:
    with pytest.raises(EngineFault, match="emory"):
        await engine.create(spec_of(yard, memory_bytes=1))


async def test_endless_output_is_read_with_bounded_memory_and_then_dropped(
    engine: DockerEngine, yard: DockerYard
) -> None:
    script = {"MSG": "while true; do echo 0123456789012345678901234567890123456789; done"}
    spec = spec_of(yard, environment=script, kept_output_bytes=100_000)
    container_id = await started(engine, spec)
    pieces = engine.output(container_id, follow=True)
    async with asyncio.timeout(LIMIT_SECONDS):
        got = 0
        async for piece in pieces:
            got += len(piece)
            assert len(piece) < 400_000
            if got > 5_000_000:
                break
    await pieces.aclose()
    assert not (await engine.inspect(container_id)).ended
    await engine.remove(container_id)


async def test_many_containers_at_once(engine: DockerEngine, yard: DockerYard) -> None:
    async def run(n: int) -> int:
        container_id = await started(engine, spec_of(yard, Program(exit_code=n)))
        await read(engine, container_id, follow=True)
        return (await engine.wait(container_id, 30)).exit_code

    assert await asyncio.gather(*map(run, range(12))) == list(range(12))
