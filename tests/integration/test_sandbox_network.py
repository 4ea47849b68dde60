"""A network namespace for each message, which the worker connects before the program starts."""

import os
import re
import signal
import socket
import struct
import uuid
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

import sandbox_stage
from abaco_worker.domain.run_request import RunRequest
from abaco_worker.launcher import build
from abaco_worker.network.netlink import BridgePort, LinuxKernel
from sandbox_stage import (
    CONNECTED_NETWORK,
    IMAGE,
    Ended,
    Slot,
    alive,
    build_image,
    docker_run,
    eventually,
)

BRIDGE = "docker0"
LINE_BYTES = 4096


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    build_image()


SEND = "ping -q -c 1 127.0.0.1 >/dev/null"
"""After a message that sends something, the next one gets another network."""


class Connected(Slot):
    """Plays the worker: it gets the next network with the line ``waiting``, and connects it."""

    command = "connected"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.network = -1
        self.attached = False
        self.address = IPv4Interface("0.0.0.0/0")
        self._received = b""

    def connect(self) -> list[str]:
        self._received = b""
        return super().connect()

    def read_line(self) -> str:
        while b"\n" not in self._received:
            data, files, _, _ = socket.recv_fds(self._socket, LINE_BYTES, 1)
            assert data
            self._received += data
            for file in files:
                assert data.endswith(b"waiting\n")
                again = self.network >= 0 and os.path.sameopenfile(self.network, file)
                self.attached = self.attached and again
                self.close_network()
                self.network = file
        line, _, self._received = self._received.partition(b"\n")
        return line.decode() + "\n"

    def attach(self) -> None:
        """As ``BridgeNetwork`` does, unless the network is that of the message before."""
        if self.attached:
            return
        kernel = LinuxKernel()
        gateway = kernel.address(BRIDGE)
        number = 2 + int.from_bytes(os.urandom(2)) % (gateway.network.num_addresses - 4)
        self.address = IPv4Interface(f"{gateway.network[number]}/{gateway.network.prefixlen}")
        port = BridgePort(
            name=f"vethtest{uuid.uuid4().hex[:6]}",
            bridge=BRIDGE,
            mtu=1500,
            address=self.address,
            gateway=gateway.ip,
            disable_ipv6=(),
        )
        kernel.attach(self.network, port)
        self.attached = True

    def connected(self, script: str, **more: Any) -> Ended:
        """A message in a connected network, with a line for its hosts."""
        self.attach()
        hosts = f"{self.address.ip}\tname-{self.address.ip}\n"
        return self.shell(script, flags=CONNECTED_NETWORK, hosts=hosts, **more)

    def close_network(self) -> None:
        if self.network >= 0:
            os.close(self.network)
        self.network = -1

    def remove(self) -> None:
        super().remove()
        self.close_network()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connected]:
    program = build.build()
    assert program is not None
    slot = Connected(tmp_path_factory.mktemp("slot") / "s", program, IMAGE, {})
    try:
        slot.start()
        yield slot
    finally:
        slot.remove()


def test_a_program_is_connected_when_it_starts(made: Connected) -> None:
    gateway = LinuxKernel().address(BRIDGE).ip
    run = made.connected(f"ip -4 addr show eth0; ping -c 1 {gateway}; cat /etc/hosts")
    assert f"inet {made.address}" in run.text
    assert "1 packets received" in run.text
    assert f"{made.address.ip}\tname-{made.address.ip}" in run.text
    assert run.report.network_bytes > 0


def test_nothing_of_a_network_is_left_for_the_next(made: Connected) -> None:
    first = made.connected(
        "probe connect; nc -l -p 5000 & sleep 1; cat /proc/net/tcp /proc/net/tcp6"
    )
    assert ":1388" in first.text  # listens at 5000
    assert re.search(r"0100007F:\w{4} \w{8}:\w{4} 06", first.text)  # TIME_WAIT
    address = made.address.ip
    second = made.connected("cat /proc/net/tcp /proc/net/tcp6 /proc/net/arp /etc/hosts; ip route")
    assert not re.search(r"(?m)^ +\d+: ", second.text)
    assert f"\tname-{address}" not in second.text
    assert second.report.network_bytes < first.report.network_bytes + 2000


def test_its_port_goes_with_it(made: Connected) -> None:
    ports = Path(f"/sys/class/net/{BRIDGE}/brif")
    names: list[str] = []

    def meanwhile() -> None:
        made.close_network()  # as a worker does when it has connected it
        names.extend(port.name for port in ports.glob("vethtest*"))

    made.connected(f"{SEND}; sleep 0.3", meanwhile=meanwhile)
    assert len(names) == 1
    eventually(lambda: not (ports / names[0]).exists())


def test_a_sandbox_that_is_made_again_keeps_the_network(made: Connected) -> None:
    children = Path(f"/proc/{made.launcher}/task/{made.launcher}/children").read_text().split()
    made.attach()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    eventually(lambda: not any(alive(int(child)) for child in children))
    run = made.shell("ip -4 addr show eth0", flags=CONNECTED_NETWORK, hosts="")
    assert f"inet {made.address}" in run.text


def test_a_new_connection_gets_the_network_of_the_sandbox_that_waits(made: Connected) -> None:
    made.attach()
    before = os.fstat(made.network).st_ino
    assert made.connect()[-1] == "waiting\n"
    assert os.fstat(made.network).st_ino == before
    text = made.shell("ip -4 addr show eth0", flags=CONNECTED_NETWORK, hosts="").text
    assert f"inet {made.address}" in text


def test_settings_of_the_containers_network_are_copied(made: Connected) -> None:
    script = "cd /proc/sys/net; cat ipv4/ip_unprivileged_port_start ipv4/ping_group_range"
    ours = made.connected(script, user="anna").text
    assert ours == docker_run(IMAGE, "/bin/sh", "-c", script, user="anna")[0].strip()


def test_many_networks_leave_as_much_as_one(made: Connected) -> None:
    def descriptors() -> int:
        return len(list(Path(f"/proc/{made.launcher}/fd").iterdir()))

    made.connected(SEND)
    before = descriptors()
    addresses = set()
    for _ in range(20):
        assert made.connected(f"{SEND}; echo on").text == "on"
        addresses.add(made.address)
    assert len(addresses) > 10
    assert descriptors() == before


def test_a_launcher_that_makes_no_networks_refuses(tmp_path: Path) -> None:
    with sandbox_stage.slot(tmp_path / "s") as slot:
        request = (
            b"x\0"
            b"0\x000\x000\x004\0"
            b"\0" + RunRequest(argv=["true"], environment={}, output_bytes=1).encode()
        )
        assert refusal(slot, request) == "refused x malformed request\n"
        assert slot.shell("echo on").text == "on"


def test_lines_that_do_not_end_are_refused(made: Connected) -> None:
    body = b"x\0" + b"0\x000\x000\x004\0" + b"no end"
    assert refusal(made, body) == "refused x malformed request\n"


def refusal(slot: Slot, body: bytes) -> str:
    with (slot.folder / "file").open("wb") as file:
        data = b"RUN2" + struct.pack("=I", len(body)) + body
        slot.send_files(data, file.fileno(), file.fileno())
    return slot.read_line()
