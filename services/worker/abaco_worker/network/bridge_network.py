"""The network of sandboxes: attach containers to the engine's bridge, as the engine does.

To attach a container, an engine makes a pair of links, an address, a route and two files. The
kernel needs a millisecond for that. The engine starts two processes for it, which is half of all
the CPU time of a container (docs/adr/0051). So the engine attaches one sandbox, from which the
worker learns a bridge template. The worker attaches the next ones by the template, until the host
network fingerprint changes, or the engine goes away. Where the worker cannot attach them, the
engine does.

In a container that stays, each message has a network namespace of its own, which the worker
attaches in the same way.
"""

import asyncio
import logging
import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Interface
from pathlib import Path

import msgspec

from abaco_proto.errors import AbacoError, Unavailable
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.domain.engine_values import BridgeEndpoint, NetworkFiles
from abaco_worker.engine.engine_port import Engine
from abaco_worker.network.netlink import BridgePort, Kernel
from abaco_worker.sandbox.launcher_client import LauncherClient
from abaco_worker.sandbox.sandbox_directory import SandboxDirectory
from abaco_worker.worker_settings import WorkerSettings

logger = logging.getLogger(__name__)

DEFAULT_MODES = ("bridge", "default")
"""The network modes that mean the engine's default bridge."""

RESOLV_CONFS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""The files from which an engine makes a container's ``/etc/resolv.conf``."""

LEARN_PAUSE_SECONDS = 30.0
"""The pause after a failure, until a template is learned again."""

MAX_PREFIX_LENGTH = 24
"""A smaller network has no room for other containers than the engine's own."""

MAX_ADDRESS_ATTEMPTS = 16
"""The number of addresses that are tried before the network counts as full."""

HOSTNAME_DIGITS = 12
"""The number of digits of a container's id that are its host name."""


class HostNetworkFingerprint(msgspec.Struct, frozen=True):
    """What a template depends on, as far as the worker can read it without the engine."""

    bridge: IPv4Interface
    resolv_confs: tuple[bytes, ...]


class BridgeTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """How the engine attaches containers. ``hosts`` is without the line of the container itself."""

    bridge: str
    mtu: int
    hosts: str
    resolv_conf: str
    disable_ipv6: tuple[tuple[str, str], ...]
    fingerprint: HostNetworkFingerprint

    @property
    def gateway(self) -> IPv4Interface:
        """The bridge's own address, which is the gateway of the containers."""
        return self.fingerprint.bridge

    def write_files(self, directory: SandboxDirectory) -> NetworkFiles:
        """Write the container's files to its directory, and return their paths."""
        directory.hosts.write_text(self.hosts)
        directory.resolv_conf.write_text(self.resolv_conf)
        for path in (directory.hosts, directory.resolv_conf):
            path.chmod(0o644)
        return NetworkFiles(hosts=str(directory.hosts), resolv_conf=str(directory.resolv_conf))

    def is_of(self, directory: SandboxDirectory) -> bool:
        """Return whether a container has the files of this template, so that it can be attached."""
        try:
            hosts, resolv_conf = directory.hosts.read_text(), directory.resolv_conf.read_text()
        except OSError:
            return False
        return hosts == self.hosts and resolv_conf == self.resolv_conf

    def random_address(self) -> IPv4Interface:
        """Return an address of the upper half; the engine assigns the lowest one that is free."""
        network = self.gateway.network
        half = network.num_addresses // 2
        while True:
            address = network[half + secrets.randbelow(half - 1)]
            if address != self.gateway.ip:
                return IPv4Interface(f"{address}/{network.prefixlen}")


def engine_only_reason(config: WorkerSettings, kernel: Kernel) -> str:
    """Return why the engine must attach all sandboxes; empty if the settings allow the worker."""
    if config.network_by != "auto":
        return f"ABACO_NETWORK_BY is {config.network_by}"
    if config.network_mode not in DEFAULT_MODES:
        return f"ABACO_NETWORK_MODE is {config.network_mode}"
    if not kernel.has_capabilities():
        return "the worker lacks CAP_NET_ADMIN or CAP_SYS_ADMIN"
    return ""


class BridgeNetwork:
    """Attaches the sandboxes of one host, where it has a template and the capabilities."""

    def __init__(self, engine: Engine, kernel: Kernel, *, engine_only: str = "") -> None:
        """``engine_only`` is the reason why the engine must attach all sandboxes, or empty."""
        self._engine = engine
        self._kernel = kernel
        self._engine_only = engine_only
        self._failure = ""
        self._learn_not_before = 0.0
        self._template: BridgeTemplate | None = None
        self._logged = ""
        # One thread: the kernel changes one link at a time, and who waits for that uses CPU time.
        self._thread = ThreadPoolExecutor(1, "attach")
        if engine_only:
            self._log_change(f"the engine, since {engine_only}")

    def template(self) -> BridgeTemplate | None:
        """Return how to attach the next sandbox; None if the engine must attach it."""
        template = self._template
        if template is None:
            return None
        try:
            current = self._fingerprint(template.bridge)
        except OSError:  # the bridge is gone
            return None
        return template if current == template.fingerprint else None

    @property
    def engine_reason(self) -> str:
        """Why the engine attaches all sandboxes; empty if the worker does or has still to learn."""
        return self._engine_only or self._failure

    def forget(self) -> None:
        """Learn the template anew: the engine went away, and may return with other settings."""
        self._template, self._failure, self._learn_not_before = None, "", 0.0

    async def learn_template(self, container_id: str, launcher: LauncherClient) -> None:
        """Learn a template from a sandbox that the engine has attached."""
        if self._engine_only or time.monotonic() < self._learn_not_before:
            return
        try:
            endpoint = await self._engine.endpoint(container_id)
            self._template = await asyncio.to_thread(self._read_template, endpoint, launcher)
        except (AbacoError, OSError, ValueError) as error:
            self._note_failure(str(error))
            self._log_change(f"the engine, since {error}")
        else:
            self._failure = ""
            self._log_change(f"the worker, to {self._template.bridge}")

    async def attach(
        self,
        template: BridgeTemplate,
        container_id: str,
        launcher: LauncherClient,
        directory: SandboxDirectory,
    ) -> None:
        """Attach a sandbox to the bridge.

        Raises:
            EngineFault: the kernel refuses; the engine attaches the next sandbox.
            Unavailable: the launcher exited.
        """
        try:
            loop = asyncio.get_running_loop()
            address = await loop.run_in_executor(self._thread, self._attach, template, launcher)
        except OSError as error:
            raise self._refused(template, error) from error
        with directory.hosts.open("a") as hosts:
            hosts.write(hosts_line(address, container_id))
        directory.write_address(str(address))

    def can_attach(self, directory: SandboxDirectory) -> bool:
        """Return whether the messages of a container can be attached now."""
        template = self.template()
        return template is not None and template.is_of(directory)

    async def attach_message(
        self, directory: SandboxDirectory, namespace: int, *, adopted: bool
    ) -> IPv4Interface:
        """Attach the network namespace of a message to the bridge; return its address.

        ``namespace`` is a descriptor, and is closed. If it is ``adopted``, a previous process may
        have attached it. Then it is left as it is.

        Raises:
            EngineFault: the kernel refuses; the engine attaches the next container.
            Unavailable: the host's network is not as it was when the container was made.
        """
        attach = partial(self._attach_message, directory, namespace, adopted=adopted)
        attaching = asyncio.get_running_loop().run_in_executor(self._thread, attach)
        return await asyncio.shield(attaching)  # it closes the descriptor

    def _attach_message(
        self, directory: SandboxDirectory, namespace: int, *, adopted: bool
    ) -> IPv4Interface:
        try:
            if adopted and (found := self._attached_address(namespace)) is not None:
                return found
            template = self.template()
            if template is None or not template.is_of(directory):
                raise Unavailable("the host's network has changed, or is not known yet")
            try:
                return self._attach_namespace(template, namespace)
            except OSError as error:
                raise self._refused(template, error) from error
        finally:
            os.close(namespace)

    def _attached_address(self, namespace: int) -> IPv4Interface | None:
        try:
            return self._kernel.attached_address(namespace)
        except OSError as error:
            raise Unavailable(f"its network cannot be seen: {error}") from error

    def _refused(self, template: BridgeTemplate, error: OSError) -> EngineFault:
        """Let the engine attach the next sandboxes, until a template is learned again."""
        fault = EngineFault(f"cannot attach it to {template.bridge}: {error}")
        self._note_failure(str(fault))
        return fault

    def _note_failure(self, reason: str) -> None:
        self._template, self._failure = None, reason
        self._learn_not_before = time.monotonic() + LEARN_PAUSE_SECONDS

    def _read_template(
        self, endpoint: BridgeEndpoint | None, launcher: LauncherClient
    ) -> BridgeTemplate:
        """Check that others can be attached in the same way. Call it in a thread."""
        if endpoint is None:
            raise Unavailable("it is no plain bridge of the engine's own")
        if not self._kernel.engine_is_here(self._engine.location):
            raise Unavailable("the engine is in another network namespace")
        disable_ipv6 = self._disable_ipv6(launcher)
        fingerprint = self._fingerprint(endpoint.bridge)
        own = IPv4Interface(endpoint.address)
        if fingerprint.bridge != IPv4Interface(f"{endpoint.gateway}/{own.network.prefixlen}"):
            raise Unavailable(f"{endpoint.bridge} here is {fingerprint.bridge}")
        if own.network.prefixlen > MAX_PREFIX_LENGTH:
            raise Unavailable(f"{own.network} has no room")
        return _template(endpoint, own, fingerprint, disable_ipv6)

    def _disable_ipv6(self, launcher: LauncherClient) -> tuple[tuple[str, str], ...]:
        """Return where the engine disabled IPv6: some engines leave ``::1`` on ``lo``."""
        namespace = launcher.open_network_namespace()
        try:
            return self._kernel.disable_ipv6(namespace)
        finally:
            os.close(namespace)

    def _fingerprint(self, bridge: str) -> HostNetworkFingerprint:
        resolv_confs = tuple(_read(path) for path in RESOLV_CONFS)
        return HostNetworkFingerprint(self._kernel.address(bridge), resolv_confs)

    def _attach(self, template: BridgeTemplate, launcher: LauncherClient) -> IPv4Interface:
        """Attach a container, and return its address. Call it in a thread."""
        namespace = launcher.open_network_namespace()
        try:
            return self._attach_namespace(template, namespace)
        finally:
            os.close(namespace)

    def _attach_namespace(self, template: BridgeTemplate, namespace: int) -> IPv4Interface:
        """Attach a namespace, and return its address.

        The port's name contains the address. So the kernel refuses an address that is in use, and
        frees it with the namespace.
        """
        for _ in range(MAX_ADDRESS_ATTEMPTS):
            address = template.random_address()
            port = BridgePort(
                name=f"veth{address.packed.hex()}",
                bridge=template.bridge,
                mtu=template.mtu,
                address=address,
                gateway=template.gateway.ip,
                disable_ipv6=template.disable_ipv6,
            )
            with suppress(FileExistsError):
                self._kernel.attach(namespace, port)
                return address
        raise OSError("no address was free, or it is attached already")

    def _log_change(self, by: str) -> None:
        if by != self._logged:
            logger.info("sandboxes are attached to the network by %s", by)
        self._logged = by


def hosts_line(address: IPv4Interface, container_id: str) -> str:
    """Return the line of ``/etc/hosts`` with a container's own address and host name."""
    return f"{address.ip}\t{container_id[:HOSTNAME_DIGITS]}\n"


def _template(
    endpoint: BridgeEndpoint,
    own: IPv4Interface,
    fingerprint: HostNetworkFingerprint,
    disable_ipv6: tuple[tuple[str, str], ...],
) -> BridgeTemplate:
    hosts = Path(endpoint.files.hosts).read_text().splitlines(keepends=True)
    return BridgeTemplate(
        bridge=endpoint.bridge,
        mtu=endpoint.mtu,
        hosts="".join(line for line in hosts if line.split()[:1] != [str(own.ip)]),
        resolv_conf=Path(endpoint.files.resolv_conf).read_text(),
        disable_ipv6=disable_ipv6,
        fingerprint=fingerprint,
    )


def _read(path: Path) -> bytes:
    with suppress(OSError):
        return path.read_bytes()
    return b""
