"""Three NATS servers that know each other over wires, so that one of them can be cut off.

Every ordered pair of servers has a wire of its own, and each server is told of the others by these
alone: `advertise` names a place where nobody listens, so that no two find a way past the wires.
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
from wires import Wire, laid

NOWHERE = f"{LOOPBACK}:9"


class Member(NatsServer):
    """One server of a cluster."""

    def __init__(self, folder: Path, name: str) -> None:
        """Nothing runs yet; :meth:`join` tells it of the others."""
        folder.mkdir()
        super().__init__(folder)
        self.name = name
        self.route_port = free_port()
        self.monitor_port = free_port()

    def join(self, wires: list[Wire]) -> None:
        """Write what it must know of the others."""
        routes = ", ".join(f'"nats-route://{LOOPBACK}:{wire.port}"' for wire in wires)
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
        """Whether it has all that the others have."""
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
        """Lose the disk."""
        shutil.rmtree(self.folder / "streams")


class Cluster:
    """Three members, named n1 to n3."""

    def __init__(self, folder: Path) -> None:
        """Nothing runs yet."""
        self.members = [Member(folder / f"n{i}", f"n{i}") for i in (1, 2, 3)]
        self.wires = {
            (one.name, other.name): Wire(other.route_port)
            for one in self.members
            for other in self.members
            if one is not other
        }
        for member in self.members:
            member.join([w for (one, _), w in self.wires.items() if one == member.name])

    @property
    def url(self) -> str:
        """All addresses."""
        return ",".join(member.url for member in self.members)

    def member(self, name: str) -> Member:
        """One of them."""
        return next(member for member in self.members if member.name == name)

    def cut_off(self, name: str) -> None:
        """Separate one from both others, in both directions."""
        for pair, wire in self.wires.items():
            if name in pair:
                wire.cut()

    def mend(self) -> None:
        """Connect all again."""
        for wire in self.wires.values():
            wire.mend()

    def wait_healthy(self, seconds: float = LIMIT_SECONDS) -> None:
        """Every member has everything."""
        for member in self.members:
            eventually(member.healthy, seconds=seconds, what=f"{member.name} is healthy")


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster that is up and healthy, and gone afterwards."""
    with scratch_folder() as folder, ExitStack() as closing:
        cluster = Cluster(folder)
        closing.enter_context(laid(list(cluster.wires.values())))
        try:
            for member in cluster.members:
                member.start()
            cluster.wait_healthy()
            yield cluster
        finally:
            for member in cluster.members:
                member.kill()
