"""The worker attaches sandboxes by a bridge template; otherwise the engine does."""

import os
import socket
from collections.abc import Callable
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from abaco_proto.errors import Unavailable
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.network import bridge_network as module
from abaco_worker.network.bridge_network import (
    BridgeNetwork,
    BridgeTemplate,
    HostNetworkFingerprint,
    engine_only_reason,
)
from abaco_worker.sandbox.launcher_client import connect
from abaco_worker.sandbox.sandbox_directory import SandboxDirectory
from abaco_worker.worker_settings import WorkerSettings
from fake_engine import IMAGE, FakeEngine
from fake_kernel import BRIDGE, FakeKernel, model
from launcher_stage import process_of
from unit.test_worker_docker_json import SPEC

CONTAINER = "0123456789abcdef"


class FakeLauncher:
    """A launcher whose network namespace is any file."""

    def __init__(self, refusal: Unavailable | None = None) -> None:
        self._refusal = refusal

    def open_network_namespace(self) -> int:
        if self._refusal is not None:
            raise self._refusal
        return os.open("/dev/null", os.O_RDONLY)


class World:
    """An engine with one attached container, a kernel, and a clock that tests set."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.resolv_conf = folder / "resolv.conf"
        self.now = 1000.0
        self.engine = FakeEngine()
        self.engine.connected = model(folder)
        self.kernel = FakeKernel()
        self.network = BridgeNetwork(self.engine, self.kernel)
        self.launcher: Any = FakeLauncher()
        monkeypatch.setattr(module, "RESOLV_CONFS", (self.resolv_conf, folder / "not-there"))
        monkeypatch.setattr("abaco_worker.network.bridge_network.time.monotonic", lambda: self.now)

    async def learn(self) -> BridgeTemplate | None:
        """Return the template after the engine has attached a container."""
        container = await self.engine.create(replace(SPEC, image=IMAGE))
        await self.network.learn_template(container.container_id, self.launcher)
        return self.network.template()

    async def known(self) -> BridgeTemplate:
        pattern = await self.learn()
        assert pattern is not None
        return pattern

    def directory(self) -> SandboxDirectory:
        directory = SandboxDirectory(self.folder / "place")
        directory.create()
        return directory

    async def connect(self, pattern: BridgeTemplate, directory: SandboxDirectory) -> None:
        await self.network.attach(pattern, CONTAINER, self.launcher, directory)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


# -- the template


async def test_the_first_is_the_engines(world: World) -> None:
    assert world.network.template() is None


async def test_the_next_are_connected_as_the_first_was(world: World) -> None:
    pattern = await world.known()
    directory = world.directory()
    files = pattern.write_files(directory)
    assert Path(files.hosts).read_text() == "127.0.0.1\tlocalhost\n"
    assert Path(files.resolv_conf).read_text() == "nameserver 10.0.0.1\n"
    await world.connect(pattern, directory)
    [port] = world.kernel.ports
    assert (port.bridge, port.mtu, str(port.gateway)) == ("docker0", 1400, "172.17.0.1")
    assert port.name == f"veth{port.address.packed.hex()}"
    assert port.disable_ipv6 == world.kernel.without_ipv6
    assert directory.read_address() == str(port.address)
    assert Path(files.hosts).read_text().endswith(f"\n{port.address.ip}\t0123456789ab\n")


def test_a_containers_files_can_be_read_by_anyone_in_it(tmp_path: Path) -> None:
    directory = SandboxDirectory(tmp_path / "place")
    directory.create()
    before = os.umask(0o077)
    try:
        pattern_of(BRIDGE).write_files(directory)
    finally:
        os.umask(before)
    assert (
        directory.hosts.stat().st_mode & 0o777
        == directory.resolv_conf.stat().st_mode & 0o777
        == 0o644
    )


def pattern_of(bridge: IPv4Interface) -> BridgeTemplate:
    return BridgeTemplate(
        bridge="docker0",
        mtu=1500,
        hosts="",
        resolv_conf="",
        disable_ipv6=(),
        fingerprint=HostNetworkFingerprint(bridge, ()),
    )


@given(
    prefix=st.integers(8, module.MAX_PREFIX_LENGTH),
    number=st.integers(0, 2**32 - 1),
    near_end=st.integers(0, 3),
)
def test_addresses_are_of_the_upper_half_and_nobody_elses(
    prefix: int, number: int, near_end: int
) -> None:
    network = IPv4Interface(f"{number >> 24}.{number >> 16 & 255}.0.0/{prefix}").network
    gateway = network[-2 - near_end] if near_end else network[1]
    spec = pattern_of(IPv4Interface(f"{gateway}/{prefix}")).random_address()
    assert spec.network == network
    assert spec.ip >= network[network.num_addresses // 2]
    assert spec.ip not in (gateway, network.broadcast_address)


def test_every_address_of_the_upper_half_is_chosen_but_the_gateways() -> None:
    pattern = pattern_of(IPv4Interface("10.0.0.200/24"))
    spec = {str(pattern.random_address().ip) for _ in range(4000)}
    assert spec == {f"10.0.0.{n}" for n in range(128, 255)} - {"10.0.0.200"}


# -- what has changed since


def _bridge_has_another_address(world: World) -> None:
    world.kernel.bridge = IPv4Interface("172.18.0.1/16")
    world.engine.connected = model(world.folder, "172.18.0.2/16", "172.18.0.1")


def _names_are_asked_for_elsewhere(world: World) -> None:
    world.resolv_conf.write_text("nameserver 10.0.0.2\n")


def _the_engine_went_away(world: World) -> None:
    assert world.engine.connected is not None
    world.engine.connected = replace(world.engine.connected, mtu=9000)
    world.network.forget()


CHANGES = [_bridge_has_another_address, _names_are_asked_for_elsewhere, _the_engine_went_away]


@pytest.mark.parametrize("change", CHANGES)
async def test_after_a_change_the_engine_shows_again(
    world: World, change: Callable[[World], None]
) -> None:
    old = await world.known()
    world.now += module.LEARN_PAUSE_SECONDS + 1
    assert world.network.template() is not None
    change(world)
    assert world.network.template() is None
    new = await world.known()
    assert new != old


async def test_without_the_bridge_there_is_no_pattern(world: World) -> None:
    await world.known()
    world.kernel.bridge = None
    assert world.network.template() is None


# -- failures


async def test_a_name_that_is_taken_is_another_address(world: World) -> None:
    pattern, directory = await world.known(), world.directory()
    world.kernel.taken = 3
    await world.connect(pattern, directory)
    assert len(world.kernel.tries) == 4
    assert directory.read_address() == str(world.kernel.tries[-1].address)


async def test_a_full_network_is_the_engines_again(world: World) -> None:
    pattern, directory = await world.known(), world.directory()
    world.kernel.taken = 1000
    with pytest.raises(EngineFault, match="no address was free"):
        await world.connect(pattern, directory)
    assert (directory.read_address(), world.network.template()) == (None, None)


async def test_what_the_kernel_refuses_the_engine_does(world: World) -> None:
    pattern, directory = await world.known(), world.directory()
    world.kernel.refusal = PermissionError(1, "Operation not permitted")
    with pytest.raises(EngineFault, match=r"docker0.*not permitted"):
        await world.connect(pattern, directory)
    assert (directory.read_address(), world.network.template()) == (None, None)


async def test_a_launcher_that_went_away_says_nothing_of_the_network(world: World) -> None:
    pattern = await world.known()
    world.launcher = FakeLauncher(Unavailable("the launcher went away"))
    with pytest.raises(Unavailable, match="went away"):
        await world.connect(pattern, world.directory())
    assert world.network.template() is not None


@pytest.mark.parametrize("refusal", [None, OSError(16, "busy")])
async def test_no_file_stays_open(world: World, refusal: OSError | None) -> None:
    pattern = await world.known()
    directory = world.directory()
    await world.connect(pattern, directory)  # threads exist from now on

    def files_open() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = files_open()
    world.kernel.refusal = refusal
    for _ in range(5):
        try:
            await world.connect(pattern, directory)
        except EngineFault:
            assert refusal is not None
    assert files_open() == before


# -- the network of a message


ATTACHED = IPv4Interface("172.17.200.1/16")


def namespace() -> int:
    return os.open("/dev/null", os.O_RDONLY)


def files_of(world: World, template: BridgeTemplate) -> SandboxDirectory:
    """Return the directory of a container that was made from a template."""
    directory = world.directory()
    template.write_files(directory)
    return directory


async def test_the_network_of_a_message_is_attached_as_a_containers(world: World) -> None:
    directory = files_of(world, await world.known())
    assert world.network.can_attach(directory)
    opened = namespace()
    address = await world.network.attach_message(directory, opened, adopted=False)
    [port] = world.kernel.ports
    assert (port.bridge, port.mtu, port.address) == ("docker0", 1400, address)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened)


async def test_what_a_previous_process_attached_stays(world: World) -> None:
    directory = world.directory()
    world.kernel.attached = ATTACHED
    attached = await world.network.attach_message(directory, namespace(), adopted=True)
    assert (attached, world.kernel.ports) == (ATTACHED, [])


async def test_what_it_has_not_attached_is_attached(world: World) -> None:
    directory = files_of(world, await world.known())
    address = await world.network.attach_message(directory, namespace(), adopted=True)
    assert [port.address for port in world.kernel.ports] == [address]


async def test_a_container_with_other_files_is_not_attached(world: World) -> None:
    directory = files_of(world, await world.known())
    directory.resolv_conf.write_text("nameserver 10.0.0.3\n")
    assert not world.network.can_attach(directory)
    opened = namespace()
    with pytest.raises(Unavailable, match="network has changed"):
        await world.network.attach_message(directory, opened, adopted=False)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened)


async def test_what_the_kernel_refuses_of_a_message_the_engine_does(world: World) -> None:
    directory = files_of(world, await world.known())
    world.kernel.refusal = PermissionError(1, "Operation not permitted")
    with pytest.raises(EngineFault, match=r"docker0.*not permitted"):
        await world.network.attach_message(directory, namespace(), adopted=False)
    assert "not permitted" in world.network.engine_reason
    assert await world.learn() is None, "at once it would fail again"
    world.now += module.LEARN_PAUSE_SECONDS + 1
    assert await world.learn() is not None
    assert world.network.engine_reason == ""


# -- when the engine must attach them


def _not_on_its_bridge(world: World) -> None:
    world.engine.connected = None


def _engine_elsewhere(world: World) -> None:
    world.kernel.here = False


def _other_bridge(world: World) -> None:
    world.kernel.bridge = IPv4Interface("172.17.0.9/16")


def _small_network(world: World) -> None:
    world.kernel.bridge = IPv4Interface("172.17.0.1/28")
    world.engine.connected = model(world.folder, "172.17.0.2/28")


def _files_unseen(world: World) -> None:
    (world.folder / "model-hosts").unlink()


def _namespace_unseen(world: World) -> None:
    world.launcher = FakeLauncher(Unavailable("the launcher's network cannot be seen"))


def _an_address_that_is_none(world: World) -> None:
    assert world.engine.connected is not None
    world.engine.connected = replace(world.engine.connected, address="nonsense")


REASONS = {
    "no plain bridge": _not_on_its_bridge,
    "another network namespace": _engine_elsewhere,
    "docker0 here is 172.17.0.9/16": _other_bridge,
    "172.17.0.0/28 has no room": _small_network,
    "No such file": _files_unseen,
    "cannot be seen": _namespace_unseen,
    "nonsense": _an_address_that_is_none,
}


@pytest.mark.parametrize(("reason", "cause"), REASONS.items())
async def test_where_it_cannot_be_the_engine_goes_on_and_it_is_said_why(
    world: World, caplog: pytest.LogCaptureFixture, reason: str, cause: Callable[[World], None]
) -> None:
    caplog.set_level("INFO")
    cause(world)
    for _ in range(3):
        assert await world.learn() is None
        world.now += module.LEARN_PAUSE_SECONDS + 1
    [record] = caplog.records
    assert "attached to the network by the engine" in record.getMessage()
    assert reason in record.getMessage()


async def test_a_look_that_failed_is_not_tried_again_at_once(world: World) -> None:
    world.kernel.here = False
    assert await world.learn() is None
    world.kernel.here = True
    world.now += module.LEARN_PAUSE_SECONDS - 1
    assert await world.learn() is None
    world.now += 2
    assert await world.learn() is not None


async def test_a_refusal_stands(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world.network = BridgeNetwork(
        world.engine, world.kernel, engine_only="ABACO_NETWORK_BY is engine"
    )
    for _ in range(2):
        assert await world.learn() is None
        world.now += module.LEARN_PAUSE_SECONDS + 1
    [record] = caplog.records
    assert "ABACO_NETWORK_BY is engine" in record.getMessage()


@pytest.mark.parametrize(
    ("settings", "may", "reason"),
    [
        ({}, True, ""),
        ({"network_mode": "default"}, True, ""),
        ({"network_mode": "none"}, True, "ABACO_NETWORK_MODE is none"),
        ({"network_by": "engine"}, True, "ABACO_NETWORK_BY is engine"),
        ({}, False, "CAP_NET_ADMIN"),
    ],
)
def test_what_the_engine_need_not_be_asked_for(
    settings: dict[str, Any],
    may: bool,  # noqa: FBT001
    reason: str,
) -> None:
    kernel = FakeKernel()
    kernel.allowed = may
    found = engine_only_reason(WorkerSettings(**settings), kernel)
    assert reason in found
    assert bool(found) == bool(reason)


# -- the launcher's network namespace


async def test_a_process_that_no_longer_listens_may_be_another_by_now(tmp_path: Path) -> None:
    directory = SandboxDirectory(tmp_path / "place")
    directory.create()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory.socket))
        listening.listen()
        directory.write_launcher(process_of(os.getpid()))
        launcher = await connect(directory, 1)
        accepted, _ = listening.accept()
        opened = launcher.open_network_namespace()
        assert os.fstat(opened).st_ino == Path("/proc/self/ns/net").stat().st_ino
        os.close(opened)
        accepted.close()
        with pytest.raises(Unavailable, match="went away"):
            launcher.open_network_namespace()
        launcher.close()


async def test_the_last_network_that_a_launcher_sent_is_the_next_messages(tmp_path: Path) -> None:
    directory = SandboxDirectory(tmp_path / "place")
    directory.create()
    files = [tmp_path / "first", tmp_path / "second"]
    for file in files:
        file.touch()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory.socket))
        listening.listen()
        directory.write_launcher(process_of(os.getpid()))
        launcher = await connect(directory, 1)
        accepted, _ = listening.accept()

        def send(line: bytes, file: Path) -> None:
            with file.open() as opened:
                socket.send_fds(accepted, [line], [opened.fileno()])

        before = len(list(Path("/proc/self/fd").iterdir()))
        send(b"waiting\n", files[0])
        assert await launcher.read_greeting(stays=True)
        send(b"report x exit=0\nwaiting\n", files[1])
        await launcher.wait_idle()
        taken = launcher.take_network()
        assert os.fstat(taken).st_ino == files[1].stat().st_ino
        os.close(taken)
        with pytest.raises(Unavailable, match="no network"):
            launcher.take_network()
        send(b"waiting\n", files[0])
        await launcher.wait_idle()
        launcher.close()
        accepted.close()
        assert len(list(Path("/proc/self/fd").iterdir())) == before - 2
