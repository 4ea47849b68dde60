"""A kernel that attaches nothing: it records the calls, and raises the errors that a test sets."""

from ipaddress import IPv4Interface
from pathlib import Path

from abaco_worker.domain.engine_values import BridgeEndpoint, NetworkFiles
from abaco_worker.network.netlink import BridgePort

BRIDGE = IPv4Interface("172.17.0.1/16")
MODEL = "172.17.0.2/16"


class FakeKernel:
    """Implements ``netlink.Kernel``. ``taken`` is how many port names are in use."""

    def __init__(self, bridge: IPv4Interface = BRIDGE) -> None:
        self.bridge: IPv4Interface | None = bridge
        self.allowed = True
        self.here = True
        self.ports: list[BridgePort] = []
        self.tries: list[BridgePort] = []
        self.taken = 0
        self.attached: IPv4Interface | None = None
        self.refusal: OSError | None = None
        self.without_ipv6: tuple[tuple[str, str], ...] = (("all", "1"), ("lo", "0"))

    def has_capabilities(self) -> bool:
        return self.allowed

    def address(self, device: str) -> IPv4Interface:
        if self.bridge is None:
            raise OSError(f"{device}: no such device")
        return self.bridge

    def engine_is_here(self, location: str) -> bool:
        return self.here

    def disable_ipv6(self, namespace: int) -> tuple[tuple[str, str], ...]:
        return self.without_ipv6

    def attached_address(self, namespace: int) -> IPv4Interface | None:
        return self.attached

    def attach(self, namespace: int, port: BridgePort) -> None:
        self.tries.append(port)
        if self.refusal is not None:
            raise self.refusal
        if self.taken > 0:
            self.taken -= 1
            raise FileExistsError(port.name)
        self.ports.append(port)


def model(folder: Path, address: str = MODEL, gateway: str = str(BRIDGE.ip)) -> BridgeEndpoint:
    """Return how an engine has attached a container, with the files that it made."""
    hosts, resolv_conf = folder / "model-hosts", folder / "model-resolv.conf"
    hosts.write_text(f"127.0.0.1\tlocalhost\n{address.partition('/')[0]}\tmodel\n")
    resolv_conf.write_text("nameserver 10.0.0.1\n")
    return BridgeEndpoint(
        bridge="docker0",
        address=address,
        gateway=gateway,
        mtu=1400,
        files=NetworkFiles(hosts=str(hosts), resolv_conf=str(resolv_conf)),
    )
