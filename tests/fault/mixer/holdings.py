"""What a stack holds: memory, connections, consumers, containers. So that a leak can be seen."""

import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import docker
import msgspec
import psutil

from abaco_jetstream import Connection
from abaco_local import stack_identity
from abaco_local.data_folder import DataFolder
from abaco_local.stack.supervisor_client import SupervisorClient
from abaco_proto import streams
from engine_server import EngineServer

MEBIBYTE = 1024 * 1024
ADDED = "mixer"
"""Who holds what is none of the stack's."""


class Holdings(msgspec.Struct, frozen=True, kw_only=True):
    """Memory in MiB by service; connections by server and client; consumers by stream."""

    memory: dict[str, float]
    connections: dict[str, int]
    consumers: dict[str, int]


class Books:
    """Looks at one stack and its engine."""

    def __init__(self, folder: Path, engine: EngineServer) -> None:
        """``folder`` is the data folder of the stack."""
        known = stack_identity.load(DataFolder(folder))
        assert known is not None
        self._known = known
        self._control = SupervisorClient(known.socket)
        self._engine = engine
        self._worker_dir = folder / "worker"

    async def look(self, connection: Connection) -> Holdings:
        """All that is held now, but for what ``connection`` itself is."""
        trees = self._trees()
        return Holdings(
            memory={name: _private(pids) / MEBIBYTE for name, pids in trees.items()},
            connections=dict(self._connections(trees)),
            consumers=await _consumers(connection),
        )

    def containers(self) -> list[str]:
        """Every container of the engine, running or not, with its actor."""
        client = docker.APIClient(base_url=self._engine.url, version="1.40", timeout=30)
        try:
            found = client.containers(all=True)
            return sorted(f"{c['Labels'].get('abaco.actor_id')} {c['Status']}" for c in found)
        finally:
            client.close()

    def folders(self) -> list[str]:
        """The folders of sandboxes."""
        return sorted(path.name for path in self._worker_dir.iterdir() if path.is_dir())

    def mounts(self) -> list[str]:
        """What the machine has mounted below the folders of sandboxes."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line for line in lines if line.split()[4].startswith(f"{self._worker_dir}/")]

    def launchers(self) -> list[int]:
        """The process ids of the launchers and what they forked, without that of the helper."""
        command = launcher_command(self._worker_dir)
        found = {
            each.pid: each.info["ppid"]
            for each in psutil.process_iter(["cmdline", "ppid"])
            if (each.info["cmdline"] or [])[1:] == command
        }
        return sorted(pid for pid, parent in found.items() if parent in found)

    def running(self) -> bool:
        """Whether every process of the stack is up."""
        return all(process.state == "RUNNING" for process in self._control.processes())

    def _trees(self) -> dict[str, list[psutil.Process]]:
        """The processes of each service: Postgres has many."""
        trees: dict[str, list[psutil.Process]] = {}
        for supervised in self._control.processes():
            with suppress(psutil.Error):
                process = psutil.Process(supervised.pid)
                trees[supervised.name] = [process, *process.children(recursive=True)]
        return trees

    def _connections(self, trees: Mapping[str, list[psutil.Process]]) -> Counter[str]:
        """Established connections to the servers, by who is at the other end."""
        names = {process.pid: name for name, tree in trees.items() for process in tree}
        names[os.getpid()] = ADDED
        established = [
            (each.laddr, each.raddr, each.pid)
            for each in psutil.net_connections("tcp4")
            if each.status == psutil.CONN_ESTABLISHED and each.laddr and each.raddr
        ]
        clients = {local: names.get(pid or 0, "nobody") for local, _, pid in established}
        ports = {self._known.nats_port: "nats", self._known.postgres_port: "postgres"}
        held: Counter[str] = Counter()
        for local, remote, _ in established:
            server = ports.get(local.port)
            client = clients.get(remote, "nobody")
            if server and client != ADDED:
                held[f"{server} from {client}"] += 1
        return held


def launcher_command(worker_dir: Path) -> list[str]:
    """The arguments of the helper, which those that it forks keep."""
    return ["helper", str(worker_dir)]


def control_groups(container_ids: Collection[str]) -> list[str]:
    """The control groups of containers, which should not outlive them."""
    names = {name for each in container_ids for name in (each, f"docker-{each}.scope")}
    folders = (folder for folder, _, _ in os.walk("/sys/fs/cgroup"))
    return sorted(folder for folder in folders if folder.rpartition("/")[2] in names)


def grown(before: Mapping[str, float], after: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """By how much each has become larger than it was: 0.2 is a fifth more."""
    for name, was in before.items():
        yield name, after.get(name, 0.0) / was - 1


def _private(processes: list[psutil.Process]) -> int:
    """Bytes that would be free if they ended: what is shared is counted nowhere."""
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            total += process.memory_full_info().uss
    return total


async def _consumers(connection: Connection) -> dict[str, int]:
    """How many consumers each stream has."""
    names = [stream.name for stream in streams.ALL]
    info: Callable[[str], str] = "$JS.API.STREAM.INFO.{}".format
    answers = {
        name: await connection.request(info(name), json.dumps({}).encode()) for name in names
    }
    return {name: int(answer["state"]["consumer_count"]) for name, answer in answers.items()}
