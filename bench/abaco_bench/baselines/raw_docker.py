"""Docker without us: ``docker run`` by its command line, and its API from Python.

The containers are as ``docker run`` makes them. Every call is bounded: Docker 20.10 can lock up
when two containers end at the same time (docs/adr/0008), and the benchmark then stops.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import docker
from docker.errors import NotFound
from requests.exceptions import ConnectionError as NoConnection
from requests.exceptions import ReadTimeout

from images import QUICK

CALL_SECONDS = 30
LABEL = "abaco.bench"
HELD = ["/bin/sh", "-c", 'echo "got $MSG"; exec /bin/sleep 600']


class EngineStuck(Exception):
    """A call of the engine did not return in time."""


class RawDocker:
    """One client of the engine; its containers bear a label with ``run``."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._api = docker.APIClient(version="auto", timeout=CALL_SECONDS)

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def command_line(self) -> dict[str, float]:
        """``docker run --rm``: ms to the first byte of output, and to its end."""
        argv = ["docker", "run", "--rm", "--label", f"{LABEL}={self._run}", "-e", "MSG=x", QUICK]
        begun = time.perf_counter()
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.read(1), "docker run printed nothing"
            first = time.perf_counter()
            process.stdout.read()
            try:
                code = process.wait(CALL_SECONDS)
            except subprocess.TimeoutExpired as late:
                process.kill()
                raise EngineStuck("docker run did not end") from late
        assert code == 0, code
        ended = time.perf_counter()
        return {"first output": (first - begun) * 1e3, "finished": (ended - begun) * 1e3}

    def by_api(self) -> dict[str, float]:
        """Create, start, wait, logs: ms without and with the removal."""
        with bounded():
            begun = time.perf_counter()
            container = self._api.create_container(
                QUICK, environment={"MSG": "x"}, labels={LABEL: self._run}
            )["Id"]
            self._api.start(container)
            self._api.wait(container, timeout=CALL_SECONDS)
            assert self._api.logs(container), "no output"
            record = time.perf_counter()
            self._api.remove_container(container, v=True)
            removed = time.perf_counter()
        return {"finished": (record - begun) * 1e3, "removed": (removed - begun) * 1e3}

    def start_held(self) -> str:
        """The id of a new container that has printed its line, and stays until it is removed."""
        with bounded():
            container = str(
                self._api.create_container(
                    QUICK, HELD, environment={"MSG": "x"}, labels={LABEL: self._run}
                )["Id"]
            )
            self._api.start(container)
            return container

    def end_held(self, container: str) -> None:
        """Read what a container has printed, and remove it."""
        deadline = time.monotonic() + CALL_SECONDS
        with bounded():
            while not self._api.logs(container):
                assert time.monotonic() < deadline, "no output"
            self._api.remove_container(container, force=True, v=True)

    def waiting(self, actor_id: str) -> list[str]:
        """The states of an actor's containers, such as ``running``."""
        with bounded():
            found = self._api.containers(
                all=True, filters={"label": [f"abaco.actor_id={actor_id}"]}
            )
        return [str(c["State"]) for c in found]

    def unconnected(self, actor_id: str) -> list[bool]:
        """Of each of an actor's containers, whether the engine has connected it to nothing."""
        found = []
        with bounded():
            label = {"label": [f"abaco.actor_id={actor_id}"]}
            for container in self._api.containers(all=True, filters=label):
                with suppress(NotFound):
                    config = self._api.inspect_container(container["Id"])["Config"]
                    found.append(bool(config.get("NetworkDisabled")))
        return found

    def remove_all(self, label: str) -> None:
        """Remove what bears a label, one by one."""
        with bounded():
            for found in self._api.containers(all=True, filters={"label": [label]}):
                self._api.remove_container(found["Id"], force=True, v=True)

    def clean(self) -> None:
        """Remove what this run left."""
        self.remove_all(f"{LABEL}={self._run}")


@contextmanager
def bounded() -> Iterator[None]:
    """Calls within are the engine's fault when they take for ever."""
    try:
        yield
    except (ReadTimeout, NoConnection) as error:
        raise EngineStuck(f"the container engine did not answer in {CALL_SECONDS} s") from error


def exported(image: str) -> tuple[bytes, dict[str, Any]]:
    """An image's files as a tar, and its configuration."""
    api = docker.APIClient(version="auto", timeout=CALL_SECONDS)
    try:
        with bounded():
            container = api.create_container(image)["Id"]
            try:
                files = b"".join(api.export(container))
            finally:
                api.remove_container(container, v=True)
            config: dict[str, Any] = api.inspect_image(image)["Config"]  # type: ignore[no-untyped-call]
        return files, config
    finally:
        api.close()
