"""The network of the sandboxes: as the engine makes it, for far less.

Theory: what an engine does to connect a container is a pair of links, an address, a route and two
files, which takes the kernel a millisecond. The engine starts itself anew twice for it, and that is
half of all the CPU time of a container (docs/adr/0051). So one sandbox is connected by the engine
and looked at, and the next ones are connected to the same bridge after its pattern, until something
that the pattern depends on has changed. Where that cannot be, the engine goes on connecting them.
"""

import asyncio
import logging
import os
import secrets
import time
from contextlib import suppress
from ipaddress import IPv4Interface
from pathlib import Path

import msgspec

from abaco_proto.errors import AbacoError, Unavailable
from abaco_worker.domain.containers import Endpoint, NetworkFiles
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.engine.engine_port import Engine
from abaco_worker.network.netlink import Kernel, Port
from abaco_worker.sandbox.launcher_client import Launcher
from abaco_worker.sandbox.sandbox_directory import Place
from abaco_worker.worker_settings import Config

logger = logging.getLogger(__name__)

DEFAULT_MODES = ("bridge", "default")
"""What the engine calls the network whose bridge others may join."""

RESOLV_CONFS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""What an engine makes a container's ``/etc/resolv.conf`` from."""

AGE_SECONDS = 600.0
"""A pattern that is older is looked at again: the engine's own settings may have changed."""

LOOK_SECONDS = 30.0
"""How soon it is tried again to learn one."""

LONGEST_PREFIX = 24
"""A smaller network has no room for others beside the engine's own containers."""

TRIES = 16
"""How many addresses are tried before the network is said to be full."""

HOST_NAME = 12
"""How many digits of its id a container is called by."""


class Surroundings(msgspec.Struct, frozen=True):
    """What a pattern depends on, as far as it can be seen without asking the engine."""

    bridge: IPv4Interface
    resolv_confs: tuple[bytes, ...]


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """How the engine connects containers. ``hosts`` is without the line of the container itself."""

    bridge: str
    mtu: int
    hosts: str
    resolv_conf: str
    disable_ipv6: tuple[tuple[str, str], ...]
    surroundings: Surroundings
    learned_at: float

    @property
    def gateway(self) -> IPv4Interface:
        """The bridge's own address, by which everything else is reached."""
        return self.surroundings.bridge

    def files(self, place: Place) -> NetworkFiles:
        """The files of a container to be, made in its folder."""
        place.hosts.write_text(self.hosts)
        place.resolv_conf.write_text(self.resolv_conf)
        for path in (place.hosts, place.resolv_conf):
            path.chmod(0o644)
        return NetworkFiles(hosts=str(place.hosts), resolv_conf=str(place.resolv_conf))

    def draw(self) -> IPv4Interface:
        """An address out of the upper half; the engine gives away the lowest that is free."""
        network = self.gateway.network
        half = network.num_addresses // 2
        while True:
            drawn = network[half + secrets.randbelow(half - 1)]
            if drawn != self.gateway.ip:
                return IPv4Interface(f"{drawn}/{network.prefixlen}")


def refusal(config: Config, kernel: Kernel) -> str:
    """Why the engine is to connect all sandboxes, as far as it need not be asked; else empty."""
    if config.network_by != "auto":
        return f"ABACO_NETWORK_BY is {config.network_by}"
    if config.network_mode not in DEFAULT_MODES:
        return f"ABACO_NETWORK_MODE is {config.network_mode}"
    if not kernel.may():
        return "the worker may not (it takes CAP_NET_ADMIN and CAP_SYS_ADMIN)"
    return ""


class Network:
    """Connects the sandboxes of one host, where it may and knows how."""

    def __init__(self, engine: Engine, kernel: Kernel, *, refusal: str = "") -> None:
        """Nothing is known yet; ``refusal`` is why the engine is to connect them all."""
        self._engine = engine
        self._kernel = kernel
        self._refusal = refusal
        self._look_at = 0.0
        self._pattern: Pattern | None = None
        self._said = ""
        if refusal:
            self._say(f"the engine, since {refusal}")

    def pattern(self) -> Pattern | None:
        """How to connect the next one; None when the engine is to do it, and to be looked at."""
        pattern = self._pattern
        if pattern is None or time.monotonic() > pattern.learned_at + AGE_SECONDS:
            return None
        try:
            return pattern if self._surroundings(pattern.bridge) == pattern.surroundings else None
        except OSError:  # the bridge is gone
            return None

    async def learn(self, container_id: str, launcher: Launcher) -> None:
        """Look at how the engine has connected a sandbox."""
        if self._refusal or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_SECONDS
        try:
            endpoint = await self._engine.endpoint(container_id)
            self._pattern = await asyncio.to_thread(self._learned, endpoint, launcher)
        except (AbacoError, OSError, ValueError) as error:
            self._pattern = None
            self._say(f"the engine, since {error}")
        else:
            self._say(f"the worker, to {self._pattern.bridge}")

    async def connect(
        self, pattern: Pattern, container_id: str, launcher: Launcher, place: Place
    ) -> None:
        """Connect a sandbox.

        Raises:
            EngineFault: the kernel refuses; the next one will be connected by the engine.
            Unavailable: the launcher went away.
        """
        try:
            address = await asyncio.to_thread(self._joined, pattern, launcher)
        except OSError as error:
            self._pattern = None
            raise EngineFault(f"cannot connect it to {pattern.bridge}: {error}") from error
        with place.hosts.open("a") as hosts:
            hosts.write(f"{address.ip}\t{container_id[:HOST_NAME]}\n")
        place.connect(str(address))

    def _learned(self, endpoint: Endpoint | None, launcher: Launcher) -> Pattern:
        """Make sure that the next can be connected just so, in a thread."""
        if endpoint is None:
            raise Unavailable("it is no plain bridge of the engine's own")
        if not self._kernel.engine_is_here(self._engine.location):
            raise Unavailable("the engine is in another network namespace")
        disable_ipv6 = self._disable_ipv6(launcher)
        surroundings = self._surroundings(endpoint.bridge)
        own = IPv4Interface(endpoint.address)
        if surroundings.bridge != IPv4Interface(f"{endpoint.gateway}/{own.network.prefixlen}"):
            raise Unavailable(f"{endpoint.bridge} here is {surroundings.bridge}")
        if own.network.prefixlen > LONGEST_PREFIX:
            raise Unavailable(f"{own.network} has no room")
        return _pattern(endpoint, own, surroundings, disable_ipv6)

    def _disable_ipv6(self, launcher: Launcher) -> tuple[tuple[str, str], ...]:
        """Where the engine has left IPv6 out: some leave ``::1`` on ``lo``, and some do not."""
        namespace = launcher.network()
        try:
            return self._kernel.disable_ipv6(namespace)
        finally:
            os.close(namespace)

    def _surroundings(self, bridge: str) -> Surroundings:
        return Surroundings(self._kernel.address(bridge), tuple(_read(p) for p in RESOLV_CONFS))

    def _joined(self, pattern: Pattern, launcher: Launcher) -> IPv4Interface:
        """Connect a launcher's network, in a thread; its new address.

        The port's name is made from the address, so the kernel itself sees to it that nobody else
        has that, and forgets it with the container.
        """
        namespace = launcher.network()
        try:
            for _ in range(TRIES):
                address = pattern.draw()
                port = Port(
                    name=f"veth{address.packed.hex()}",
                    bridge=pattern.bridge,
                    mtu=pattern.mtu,
                    address=address,
                    gateway=pattern.gateway.ip,
                    disable_ipv6=pattern.disable_ipv6,
                )
                with suppress(FileExistsError):
                    self._kernel.connect(namespace, port)
                    return address
        finally:
            os.close(namespace)
        raise OSError("no address was free, or it is connected already")

    def _say(self, who: str) -> None:
        if who != self._said:
            logger.info("sandboxes are connected by %s", who)
        self._said = who


def _pattern(
    endpoint: Endpoint,
    own: IPv4Interface,
    surroundings: Surroundings,
    disable_ipv6: tuple[tuple[str, str], ...],
) -> Pattern:
    hosts = Path(endpoint.files.hosts).read_text().splitlines(keepends=True)
    return Pattern(
        bridge=endpoint.bridge,
        mtu=endpoint.mtu,
        hosts="".join(line for line in hosts if line.split()[:1] != [str(own.ip)]),
        resolv_conf=Path(endpoint.files.resolv_conf).read_text(),
        disable_ipv6=disable_ipv6,
        surroundings=surroundings,
        learned_at=time.monotonic(),
    )


def _read(path: Path) -> bytes:
    with suppress(OSError):
        return path.read_bytes()
    return b""
