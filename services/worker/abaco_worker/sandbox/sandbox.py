"""One sandbox: a container, its launcher, and the connection to the launcher.

A container is used for one run, or it stays, and the launcher makes a new sandbox for each run. In
one that stays, each run can have a network namespace of its own. The launcher makes it, and the
worker attaches it before the run.
"""

import asyncio
import os
from ipaddress import IPv4Interface

from msgspec.structs import replace

from abaco_proto.errors import Unavailable
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.domain.run_request import SandboxLimits
from abaco_worker.domain.sandbox_record import SandboxRecord
from abaco_worker.network.bridge_network import BridgeNetwork, hosts_line
from abaco_worker.sandbox.container_garbage_collector import UnusedContainer
from abaco_worker.sandbox.launcher_client import LauncherClient, connect
from abaco_worker.sandbox.sandbox_directory import SandboxDirectory

ANSWER_SECONDS = 10.0
"""The timeout for a launcher in a container that has just been started."""

RECONNECT_SECONDS = 1.0
"""The timeout for a launcher that a previous process started: it is idle, or it is gone."""


IDLE_SECONDS = 10.0
"""How long a launcher may take to remove what a run has left, and to make the next sandbox. After
that the container is replaced, so that the next message need not wait longer."""


class Sandbox:
    """A container with a launcher beside it. ``launcher`` is None while not connected."""

    def __init__(
        self,
        directory: SandboxDirectory,
        record: SandboxRecord,
        network: BridgeNetwork,
        *,
        adopted: bool,
    ) -> None:
        """``adopted`` is whether a previous process or connection may have attached its network."""
        self.directory = directory
        self.record = record
        self.launcher: LauncherClient | None = None
        self._network = network
        self._adopted = adopted
        self._hosts: str | None = None
        self._namespace = -1
        self._address: IPv4Interface | None = None

    @property
    def alive(self) -> bool:
        """Whether the launcher's connection is open. It can be open although the launcher died."""
        return self.launcher is not None and self.launcher.alive

    @property
    def reusable(self) -> bool:
        """Whether it can be given back after a run: the network of the next one can be attached."""
        if self.record.connected:
            return self._network.can_attach(self.directory)
        return self.record.stays

    @property
    def message_limits(self) -> SandboxLimits | None:
        """What the next message may use; None if the container is used once."""
        if not self.record.stays:
            return None
        return replace(self.record.spec.message_limits, hosts=self._hosts)

    @property
    def unused_container(self) -> UnusedContainer:
        """What the garbage collector is to remove after the run."""
        return UnusedContainer(self.record.container_id, self.directory.path)

    async def connect(self, timeout_seconds: float) -> bool:
        """Connect to the launcher, and return whether it is idle.

        Raises:
            Unavailable: there is no launcher, or it exited.
        """
        launcher = await connect(self.directory, timeout_seconds)
        try:
            idle = await launcher.read_greeting(stays=self.record.stays)
        except BaseException:
            launcher.close()
            raise
        self.close()
        self.launcher = launcher
        return idle

    async def attach_network(self) -> None:
        """Attach the network of the next message, if it has one of its own. The launcher is idle.

        Raises:
            Unavailable: the launcher exited, or the network cannot be attached.
        """
        if not self.record.connected or self._hosts is not None:
            return
        assert self.launcher is not None
        namespace = self.launcher.take_network()
        if self._address is None or not self._is_attached(namespace):
            self._forget_namespace()
            try:
                self._address = await self._network.attach_message(
                    self.directory, os.dup(namespace), adopted=self._adopted
                )
            except EngineFault as error:
                raise Unavailable(str(error)) from error
            finally:
                self._namespace = namespace
        else:
            os.close(namespace)
        self._adopted = False
        self._hosts = hosts_line(self._address, self.record.container_id)

    def _is_attached(self, namespace: int) -> bool:
        """Return whether it is that of the message before, in which nothing was sent.

        The descriptor of that one is open, so its number cannot belong to another.
        """
        return self._namespace >= 0 and os.path.sameopenfile(self._namespace, namespace)

    def _forget_namespace(self) -> None:
        if self._namespace >= 0:
            os.close(self._namespace)
        self._namespace, self._address = -1, None

    async def wait_idle(self) -> None:
        """Wait until the launcher accepts the next request, after the report of a run.

        Raises:
            Unavailable: it exited, runs something, or needs too long.
        """
        self._hosts = None
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                if self.launcher is not None:
                    await self.launcher.wait_idle()
                elif not await self.connect(RECONNECT_SECONDS):
                    raise Unavailable("the launcher is not idle after a run")
                await self.attach_network()
        except TimeoutError as error:
            raise Unavailable(
                f"the launcher did not remove a run's files in {IDLE_SECONDS:g} s"
            ) from error

    def close(self) -> None:
        """Close the connection; the launcher and its program continue."""
        if self._namespace >= 0:
            self._adopted = True  # the launcher may send the same namespace again
        self._forget_namespace()
        if self.launcher is not None:
            self.launcher.close()
            self.launcher = None
