"""Attach a container to a bridge with netlink: a pair of links, an address and a route.

One link of the pair is the container's ``eth0``, the other is a port of a bridge of this host, as
an engine makes them. One request creates the pair as a whole, and the kernel removes it with the
container's namespace. So nothing is left behind, whichever process is killed. Sources: netlink(7),
rtnetlink(7), ``linux/if_link.h``, ``linux/veth.h``.
"""

import ctypes
import fcntl
import os
import re
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Protocol

import msgspec

from abaco_worker.network.unix_peer import peer_pid

HEADER = struct.Struct("=IHHII")  # length, type, flags, number, port
ATTRIBUTE = struct.Struct("=HH")  # length, type
LINK = struct.Struct("=BxHiII")  # family, kind, index, flags, which flags
ADDRESS = struct.Struct("=BBBBI")  # family, bits of the prefix, flags, scope, index of the link
ROUTE = struct.Struct("=BBBBBBBBI")  # family, bits to, from, tos, table, origin, scope, kind, flags
ERROR = struct.Struct("=i")

NLMSG_ERROR, RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE = 2, 16, 20, 24
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
CREATE = NLM_F_EXCL | NLM_F_CREATE

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER = 1, 3, 4, 10
IFLA_LINKINFO, IFLA_NET_NS_FD = 18, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
RTA_OIF, RTA_GATEWAY = 4, 5
RT_TABLE_MAIN, RTPROT_BOOT, RTN_UNICAST = 254, 3, 1
IFF_UP = 0x1
CLONE_NEWNET = 0x40000000

INSIDE = "eth0"
INSIDE_INDEX = 2
"""In a new namespace only ``lo`` has a lower index."""

ANSWER_BYTES = 16 * 1024
CONNECT_SECONDS = 1.0
REQUEST = struct.Struct("16s24x")  # struct ifreq: a name, and room for the answer
GET_ADDRESS, GET_NETMASK = 0x8915, 0x891B

EFFECTIVE_CAPABILITIES = re.compile(r"^CapEff:\s*([0-9a-f]+)$", re.MULTILINE)
REQUIRED_CAPABILITIES = 1 << 12 | 1 << 21
"""CAP_NET_ADMIN for the links, CAP_SYS_ADMIN to enter a namespace."""

OWN_NAMESPACE = Path("/proc/self/ns/net")
ROUTES = Path("/proc/thread-self/net/route")
DEFAULT_ROUTE = "00000000"
IPV6 = Path("/proc/sys/net/ipv6/conf")
IPV6_DEVICES = ("all", "default", "lo", INSIDE)
"""Where IPv6 can be disabled, in the order of writing: ``all`` also changes the others."""

_libc = ctypes.CDLL(None, use_errno=True)


class BridgePort(msgspec.Struct, frozen=True, kw_only=True):
    """A port of a bridge: its ``name`` on the host, and the settings of the container's link.

    ``disable_ipv6`` has the values of ``disable_ipv6`` for ``all``, ``default``, ``lo`` and
    ``eth0`` in the container; it is empty on a kernel without IPv6.
    """

    name: str
    bridge: str
    mtu: int
    address: IPv4Interface
    gateway: IPv4Address
    disable_ipv6: tuple[tuple[str, str], ...]

    @property
    def mac(self) -> bytes:
        """Derived from the address, as Docker does, so that other ARP caches stay valid."""
        return b"\x02\x42" + self.address.packed


class Kernel(Protocol):
    """The calls of this host's kernel that :mod:`.bridge_network` uses."""

    def has_capabilities(self) -> bool:
        """Return whether this process has the capabilities to attach containers."""
        ...

    def address(self, device: str) -> IPv4Interface:
        """Return the address of a device of this network namespace.

        Raises:
            OSError: there is none.
        """
        ...

    def engine_is_here(self, location: str) -> bool:
        """Return whether the listener at a ``unix://`` URL is in our network namespace."""
        ...

    def disable_ipv6(self, namespace: int) -> tuple[tuple[str, str], ...]:
        """Return where an attached namespace has IPv6 disabled: see :class:`BridgePort`.

        ``namespace`` is a descriptor. Call it in a thread.

        Raises:
            OSError: it is no namespace, or not attached.
        """
        ...

    def attached_address(self, namespace: int) -> IPv4Interface | None:
        """Return the address of an attached namespace (a descriptor); None if it has no route yet.

        Call it in a thread.

        Raises:
            OSError: it is no namespace.
        """
        ...

    def attach(self, namespace: int, port: BridgePort) -> None:
        """Attach a new namespace (a descriptor) to a bridge.

        Call it in a thread: the kernel handles one change of links at a time.

        Raises:
            FileExistsError: a port with this name exists.
            OSError: the kernel refuses.
        """
        ...


class LinuxKernel:
    """Implements :class:`Kernel`."""

    def has_capabilities(self) -> bool:
        """See :meth:`Kernel.has_capabilities`."""
        status = Path("/proc/self/status").read_text()
        found = EFFECTIVE_CAPABILITIES.search(status)
        return (
            found is not None and int(found[1], 16) & REQUIRED_CAPABILITIES == REQUIRED_CAPABILITIES
        )

    def address(self, device: str) -> IPv4Interface:
        """See :meth:`Kernel.address`."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            query = REQUEST.pack(device.encode())
            answers = [
                fcntl.ioctl(connection, request, query) for request in (GET_ADDRESS, GET_NETMASK)
            ]
        address, mask = (socket.inet_ntoa(answer[20:24]) for answer in answers)
        return IPv4Interface(f"{address}/{mask}")

    def engine_is_here(self, location: str) -> bool:
        """See :meth:`Kernel.engine_is_here`."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(CONNECT_SECONDS)
            connection.connect(location.removeprefix("unix://"))
            pid = peer_pid(connection)
        try:
            return Path(f"/proc/{pid}/ns/net").stat().st_ino == OWN_NAMESPACE.stat().st_ino
        except OSError:
            return False

    def disable_ipv6(self, namespace: int) -> tuple[tuple[str, str], ...]:
        """See :meth:`Kernel.disable_ipv6`."""
        with _entered(namespace):
            if not IPV6.exists():
                return ()
            return tuple((name, _disable_ipv6(name).read_text().strip()) for name in IPV6_DEVICES)

    def attached_address(self, namespace: int) -> IPv4Interface | None:
        """See :meth:`Kernel.attached_address`. The route is the last thing that is attached."""
        with _entered(namespace):
            routes = ROUTES.read_text().splitlines()[1:]
            if not any(line.split()[:2] == [INSIDE, DEFAULT_ROUTE] for line in routes):
                return None
            return self.address(INSIDE)

    def attach(self, namespace: int, port: BridgePort) -> None:
        """See :meth:`Kernel.attach`."""
        bridge = socket.if_nametoindex(port.bridge)
        with closing(_channel()) as here, _entered(namespace), closing(_channel()) as inside:
            _set_ipv6([pair for pair in port.disable_ipv6 if pair[0] != INSIDE])
            _request(here, [_pair(port, bridge, namespace)])
            _set_ipv6([pair for pair in port.disable_ipv6 if pair[0] == INSIDE])
            _request(inside, [_up(), _address(port.address), _default_route(port.gateway)])


@contextmanager
def _entered(namespace: int) -> Iterator[None]:
    """Run this thread in a namespace; sockets and files opened in the block stay in it.

    Afterwards the thread returns to the main thread's namespace, which never changes.
    """
    own = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(namespace)
        try:
            yield
        finally:
            _enter(own)
    finally:
        os.close(own)


def _disable_ipv6(name: str) -> Path:
    return IPV6 / name / "disable_ipv6"


def _set_ipv6(values: Sequence[tuple[str, str]]) -> None:
    """Write what differs: ``all`` changes the others, and a write takes the lock of all links."""
    for name, value in values:
        setting = _disable_ipv6(name)
        if setting.read_text().strip() != value:
            setting.write_text(value)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _channel() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)


def _pair(port: BridgePort, bridge_index: int, namespace: int) -> bytes:
    up = LINK.pack(socket.AF_UNSPEC, 0, 0, IFF_UP, IFF_UP)
    mtu = struct.pack("=I", port.mtu)
    inside = [
        LINK.pack(socket.AF_UNSPEC, 0, INSIDE_INDEX, 0, 0),
        _attribute(IFLA_IFNAME, INSIDE.encode() + b"\0"),
        _attribute(IFLA_MTU, mtu),
        _attribute(IFLA_ADDRESS, port.mac),
        _attribute(IFLA_NET_NS_FD, struct.pack("=I", namespace)),
    ]
    kind = [
        _attribute(IFLA_INFO_KIND, b"veth"),
        _attribute(IFLA_INFO_DATA, _attribute(VETH_INFO_PEER, b"".join(inside))),
    ]
    outside = [
        up,
        _attribute(IFLA_IFNAME, port.name.encode() + b"\0"),
        _attribute(IFLA_MTU, mtu),
        _attribute(IFLA_MASTER, struct.pack("=I", bridge_index)),
        _attribute(IFLA_LINKINFO, b"".join(kind)),
    ]
    return _message(RTM_NEWLINK, b"".join(outside), CREATE)


def _up() -> bytes:
    """Set the inner link up. It cannot be created up, because the outer one is created after it."""
    return _message(RTM_NEWLINK, LINK.pack(socket.AF_UNSPEC, 0, INSIDE_INDEX, IFF_UP, IFF_UP))


def _address(address: IPv4Interface) -> bytes:
    network = address.network
    parts = [
        ADDRESS.pack(socket.AF_INET, network.prefixlen, 0, 0, INSIDE_INDEX),
        _attribute(IFA_LOCAL, address.packed),
        _attribute(IFA_ADDRESS, address.packed),
        _attribute(IFA_BROADCAST, network.broadcast_address.packed),
    ]
    return _message(RTM_NEWADDR, b"".join(parts), CREATE)


def _default_route(gateway: IPv4Address) -> bytes:
    parts = [
        ROUTE.pack(socket.AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0),
        _attribute(RTA_GATEWAY, gateway.packed),
        _attribute(RTA_OIF, struct.pack("=I", INSIDE_INDEX)),
    ]
    return _message(RTM_NEWROUTE, b"".join(parts), CREATE)


def _message(kind: int, body: bytes, flags: int = 0) -> bytes:
    flags |= NLM_F_REQUEST | NLM_F_ACK
    return HEADER.pack(HEADER.size + len(body), kind, flags, 0, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    padding = b"\0" * (-len(value) % 4)
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + padding


def _request(channel: socket.socket, messages: Sequence[bytes]) -> None:
    """Send messages. The kernel answers each one, in order, before the send returns."""
    for message in messages:
        channel.send(message)
        answer = channel.recv(ANSWER_BYTES)
        kind = HEADER.unpack_from(answer)[1]
        assert kind == NLMSG_ERROR, f"unexpected answer of type {kind}"
        (number,) = ERROR.unpack_from(answer, HEADER.size)
        if number:
            raise OSError(-number, os.strerror(-number))
