"""Netlink with the real kernel, and network namespaces without containers."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec.structs import replace

from abaco_worker.network.netlink import BridgePort, LinuxKernel

BRIDGE = "docker0"
LISTEN = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()"
LO_UP = (
    "import fcntl, socket, struct; "
    "fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 1))"
)
MAY = (
    "from abaco_worker.network.netlink import LinuxKernel; print(LinuxKernel().has_capabilities())"
)


@pytest.fixture
def port() -> BridgePort:
    """Return a port of the engine's own bridge, with a free address."""
    gateway = LinuxKernel().address(BRIDGE)
    network = gateway.network
    address = IPv4Interface(f"{network[-3]}/{network.prefixlen}")
    return BridgePort(
        name=f"veth{uuid4().hex[:8]}",
        bridge=BRIDGE,
        mtu=1400,
        address=address,
        gateway=gateway.ip,
        disable_ipv6=(("all", "1"),),
    )


@contextmanager
def another_namespace(script: str = "", *words: str) -> Iterator[int]:
    """A process in a network namespace of its own, which ran a script of Python before."""
    script = f"{script}\nprint(flush=True)\nimport time\ntime.sleep(60)"
    command = ["unshare", "--net", "--", sys.executable, "-c", script, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


@contextmanager
def opened(pid: int) -> Iterator[int]:
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        yield namespace
    finally:
        os.close(namespace)


def seen(pid: int, name: str) -> str:
    """Return what the kernel reports to a process about its network."""
    return Path(f"/proc/{pid}/net/{name}").read_text()


def test_a_connected_namespace_has_a_link_an_address_and_a_route(port: BridgePort) -> None:
    with another_namespace() as pid, opened(pid) as namespace:
        assert LinuxKernel().attached_address(namespace) is None
        LinuxKernel().attach(namespace, port)
        assert LinuxKernel().attached_address(namespace) == port.address
        assert "eth0:" in seen(pid, "dev")
        assert str(port.address.ip) in seen(pid, "fib_trie")
        routes = [line.split()[:4] for line in seen(pid, "route").splitlines()[1:]]
        gateway = port.gateway.packed[::-1].hex().upper()
        assert ["eth0", "00000000", gateway, "0003"] in routes
        assert seen(pid, "if_inet6") == ""
        here = Path("/sys/class/net", port.name)
        assert (here / "master").resolve().name == BRIDGE
        assert (here / "mtu").read_text() == "1400\n"


@pytest.mark.parametrize(
    "values",
    [
        {"all": "1"},  # Docker 20 to 25: none anywhere
        {"all": "1", "lo": "0"},  # Docker 26: ``::1`` on ``lo``
        {"all": "0", "default": "0", "lo": "0", "eth0": "1"},  # later ones: none on ``eth0``
        {"all": "0"},
    ],
)
def test_ipv6_is_where_the_engine_has_left_it(port: BridgePort, values: dict[str, str]) -> None:
    """One namespace is configured as by an engine; the other is attached like it."""
    with another_namespace(LO_UP) as theirs, another_namespace(LO_UP) as ours:
        with opened(theirs) as namespace:
            LinuxKernel().attach(namespace, replace(port, name=f"{port.name}0", disable_ipv6=()))
            for name, value in values.items():
                write = f"echo {value} >/proc/sys/net/ipv6/conf/{name}/disable_ipv6"
                subprocess.run(["nsenter", "-t", str(theirs), "-n", "sh", "-c", write], check=True)
            learned = LinuxKernel().disable_ipv6(namespace)
        assert {name: dict(learned)[name] for name in values} == values
        with opened(ours) as namespace:
            LinuxKernel().attach(namespace, replace(port, disable_ipv6=learned))
            assert LinuxKernel().disable_ipv6(namespace) == learned
        assert loopback(ours) == loopback(theirs)
        assert bool(loopback(ours)) is (dict(learned)["lo"] == "0")


def loopback(pid: int) -> list[str]:
    """Return the IPv6 addresses of ``lo``."""
    return [line for line in seen(pid, "if_inet6").splitlines() if line.endswith(" lo")]


def test_a_name_is_one_port(port: BridgePort) -> None:
    with another_namespace() as first, another_namespace() as second:
        with opened(first) as namespace:
            LinuxKernel().attach(namespace, port)
        with opened(second) as namespace, pytest.raises(FileExistsError):
            LinuxKernel().attach(namespace, port)
        assert "eth0" not in seen(second, "dev")


def test_a_port_goes_with_its_namespace(port: BridgePort) -> None:
    with another_namespace() as pid, opened(pid) as namespace:
        LinuxKernel().attach(namespace, port)
    here = Path("/sys/class/net", port.name)
    deadline = time.monotonic() + 10
    while here.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_whatever_becomes_of_it_this_process_stays_where_it_is(port: BridgePort) -> None:
    def namespaces() -> set[int]:
        return {path.stat().st_ino for path in Path("/proc/self/task").glob("*/ns/net")}

    def files_open() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before, files = namespaces(), files_open()
    assert len(before) == 1
    with another_namespace() as pid:
        with opened(pid) as namespace:
            LinuxKernel().attach(namespace, port)
            with pytest.raises(OSError, match="File exists"):
                LinuxKernel().attach(namespace, replace(port, name=f"{port.name}2"))
            with pytest.raises(OSError, match="no interface"):
                LinuxKernel().attach(namespace, replace(port, bridge="no"))
        with Path("/dev/null").open() as nothing, pytest.raises(OSError, match="Invalid"):
            LinuxKernel().attach(nothing.fileno(), port)
    assert namespaces() == before
    assert files_open() == files


def test_the_address_of_a_device() -> None:
    assert LinuxKernel().address("lo") == IPv4Interface("127.0.0.1/8")
    with pytest.raises(OSError, match="No such device"):
        LinuxKernel().address("no")


def test_an_engine_is_here_or_in_another_namespace(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(here))
        listening.listen()
        assert LinuxKernel().engine_is_here(f"unix://{here}")
    with another_namespace(LISTEN, str(there)):
        assert not LinuxKernel().engine_is_here(f"unix://{there}")
    with pytest.raises(OSError, match="No such file"):
        LinuxKernel().engine_is_here(f"unix://{tmp_path}/nobody")


@pytest.mark.parametrize(
    ("without", "may"), [("", True), ("-net_admin", False), ("-sys_admin", False)]
)
def test_it_takes_two_capabilities(without: str, may: bool) -> None:  # noqa: FBT001
    drop = ["setpriv", f"--bounding-set={without}", "--"] if without else []
    asked = subprocess.run([*drop, sys.executable, "-c", MAY], check=True, capture_output=True)
    assert asked.stdout.decode().strip() == str(may)
