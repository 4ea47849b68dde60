"""A container engine of a test's own: to kill, and to start again, without harm to anybody's.

It has its own folder, socket, containerd and images, and network devices of its own: in the
machine's it would share the bridge and the firewall with the engine that is there (and, told to
have no bridge, delete that one's). It takes root, and Docker's programs on this machine.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
import psutil
import pytest
from docker.errors import DockerException

from abaco_local.servers.container_engine import remove_stale_pid_file
from servers import Server, scratch_folder


class EngineServer(Server):
    """A dockerd at a socket of its own, which keeps its containers over ``stop`` and ``start``."""

    def __init__(self, folder: Path) -> None:
        """Everything of the engine is below ``folder``."""
        super().__init__(folder, start_new_session=True)
        self.exec_root = folder / "exec"
        self.pid_file = folder / "docker.pid"

    @property
    def url(self) -> str:
        """What ``DOCKER_HOST`` has to say."""
        return f"unix://{self.folder}/docker.sock"

    @property
    def pid(self) -> int:
        """The process id of dockerd."""
        assert self._process is not None
        return self._process.pid

    def argv(self) -> list[str]:
        """The command line."""
        places = {
            "data-root": self.folder / "data",
            "exec-root": self.exec_root,
            "pidfile": self.pid_file,
            "host": self.url,
        }
        options = [f"--{name}={value}" for name, value in places.items()]
        return ["unshare", "--net", "dockerd", *options]  # unshare becomes dockerd

    def answers(self) -> bool:
        """Whether it takes work."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(self.url.removeprefix("unix://"))
                client.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
                return client.recv(64).startswith(b"HTTP/1.0 200")
        except OSError:
            return False

    def start(self) -> None:
        """Start it; what an engine that was killed says of itself is forgotten first."""
        if not self.running:
            self._share_root()
            remove_stale_pid_file("dockerd", self.pid_file)
            remove_stale_pid_file("containerd", self.exec_root / "containerd" / "containerd.pid")
        super().start()

    def _share_root(self) -> None:
        """Make the data folder a shared mount, as all are where systemd has mounted them.

        Where it is none dockerd makes one, and takes that away as it stops, while containers that
        it is still starting are mounted in its place: below the next one's, so that they stay for
        good.
        """
        root = self.folder / "data"
        if str(root) not in self._mounts():
            root.mkdir(exist_ok=True)
            subprocess.run(["mount", "--bind", root, root], check=True)
            subprocess.run(["mount", "--make-shared", root], check=True)

    def kill(self) -> None:
        """Kill dockerd, and the containerd that goes with it; what runs in containers lives on."""
        if self.running:
            self._end(signal.SIGKILL, [p.pid for p in psutil.Process(self.pid).children()])

    def close(self) -> None:
        """Leave nothing: no container, no process, no mount."""
        with suppress(DockerException, OSError):
            self._remove_containers()
        with suppress(subprocess.TimeoutExpired):
            self.stop()
        for process in self._processes():
            with suppress(psutil.Error):
                process.kill()
        for mount in reversed(self._mounts()):
            subprocess.run(["umount", "--lazy", mount], check=False)

    def _remove_containers(self) -> None:
        client = docker.APIClient(base_url=self.url, version="1.40", timeout=30)
        try:
            for container in client.containers(all=True):
                client.remove_container(container["Id"], force=True, v=True)
        finally:
            client.close()

    def _processes(self) -> list[psutil.Process]:
        """The engine's programs, and what runs below them: all name our folder, or descend."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(str(self.exec_root) in word for word in process.cmdline()):
                    found += [*process.children(recursive=True), process]
        return found

    def _mounts(self) -> list[str]:
        below = f"{self.folder}/"
        lines = Path("/proc/self/mounts").read_text().splitlines()
        return [place for place in (line.split()[1] for line in lines) if place.startswith(below)]


@contextmanager
def running_engine() -> Iterator[EngineServer]:
    """An engine for the time of a test, or no test where there can be none."""
    if os.geteuid() or not shutil.which("dockerd"):
        assert not os.environ.get("CI"), "an engine to be killed takes root, and dockerd"
        pytest.skip("an engine to be killed takes root, and dockerd")
    with scratch_folder() as folder:
        engine = EngineServer(folder)
        try:
            engine.start()
            yield engine
        finally:
            engine.close()
