"""A cluster of three NATS servers, connected by proxies, so that one can be cut off.

Every ordered pair of servers has its own proxy, and a server connects to the others only through
them: `advertise` is an address without a server, so that no connection bypasses the proxies.
"""

import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from deadlines import LIMIT_SECONDS
from servers import LOOPBACK, NatsServer, free_port, scratch_folder
from stack import eventually
from tcp_proxies import TcpProxy, running_proxies

NOWHERE = f"{LOOPBACK}:9"


class Member(NatsServer):
    """One server of a cluster."""

    def __init__(self, folder: Path, name: str) -> None:
        """Not started yet. :meth:`join` configures the addresses of the others."""
        folder.mkdir()
        super().__init__(folder)
        self.name = name
        self.route_port = free_port()
        self.monitor_port = free_port()

    def join(self, proxies: list[TcpProxy]) -> None:
        """Write the configuration of the cluster."""
        routes = ", ".join(f'"nats-route://{LOOPBACK}:{proxy.port}"' for proxy in proxies)
        with self.config.open("a") as config:
            config.write(f"""
            server_name: {self.name}
            http: "{LOOPBACK}:{self.monitor_port}"
            cluster: {{
              name: abaco, host: {LOOPBACK}, port: {self.route_port}
              advertise: "{NOWHERE}", no_advertise: true, routes: [{routes}]
            }}
            """)

    def healthy(self) -> bool:
        """Whether its streams are up to date with the others."""
        try:
            answer = httpx.get(f"http://{LOOPBACK}:{self.monitor_port}/healthz", timeout=2)
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wipe(self) -> None:
        """Delete its streams."""
        shutil.rmtree(self.folder / "streams")


class Cluster:
    """Three members, named n1 to n3."""

    def __init__(self, folder: Path) -> None:
        """Not started yet."""
        self.members = [Member(folder / f"n{i}", f"n{i}") for i in (1, 2, 3)]
        self.proxies = {
            (one.name, other.name): TcpProxy(other.route_port)
            for one in self.members
            for other in self.members
            if one is not other
        }
        for member in self.members:
            member.join([proxy for (one, _), proxy in self.proxies.items() if one == member.name])

    @property
    def url(self) -> str:
        """All addresses."""
        return ",".join(member.url for member in self.members)

    def member(self, name: str) -> Member:
        """The member with this name."""
        return next(member for member in self.members if member.name == name)

    def cut_off(self, name: str) -> None:
        """Separate one member from both others, in both directions."""
        for pair, proxy in self.proxies.items():
            if name in pair:
                proxy.cut()

    def mend(self) -> None:
        """Connect all members again."""
        for proxy in self.proxies.values():
            proxy.mend()

    def wait_healthy(self, seconds: float = LIMIT_SECONDS) -> None:
        """Wait until every member is up to date."""
        for member in self.members:
            eventually(member.healthy, seconds=seconds, what=f"{member.name} is healthy")


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster that runs and is healthy inside the block."""
    with scratch_folder() as folder, ExitStack() as closing:
        cluster = Cluster(folder)
        closing.enter_context(running_proxies(list(cluster.proxies.values())))
        try:
            for member in cluster.members:
                member.start()
            cluster.wait_healthy()
            yield cluster
        finally:
            for member in cluster.members:
                member.kill()
