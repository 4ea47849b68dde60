"""An embedded stack of the bench's own: a scratch folder, a free port, a host id of its own.

It goes away with everything it made, whatever ends the bench.
"""

import http.client
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import images
from abaco_bench.baselines.raw_docker import RawDocker
from abaco_bench.load.subscriber import ExecutionRecord, Subscriber
from abaco_bench.results.machine import sync_interval
from abaco_worker.launcher import build as launcher
from servers import scratch_folder
from stack import Stack

ANSWER_SECONDS = 30
RUN_SECONDS = 60.0
SECONDS_EACH = 3.0
"""How long the engine may take for a container, when many are made."""

QUIET_SECONDS = 0.15
LOOK_SECONDS = 0.05
HOST = "abaco.host_id"

IDLE_TOO_LONG = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
"""How it shows that the server closed a connection which was not used for some seconds."""


class Posted:
    """A message that was sent; times are seconds since 1970."""

    def __init__(self, execution_id: str, posted: float, answered: float) -> None:
        self.execution_id = execution_id
        self.posted = posted
        self.answered = answered


class Stage:
    """What a measurement needs: the API, the log, and a look at the engine."""

    def __init__(
        self, stack: Stack, subscriber: Subscriber, engine: RawDocker, sync_interval: str
    ) -> None:
        self.url = url = stack.url
        self.services = {service["name"]: service["pid"] for service in stack.status()["services"]}
        self.subscriber = subscriber
        self.sync_interval = sync_interval
        self.worker_dir = stack.folder / "worker"
        self._engine = engine
        where = urlsplit(url)
        # Not the clients' library: what it costs in this process would be counted as ours.
        self._http = http.client.HTTPConnection(
            where.hostname or "", where.port, timeout=ANSWER_SECONDS
        )

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The ``result`` of a request that must work."""
        data = None if body is None else json.dumps(body).encode()
        try:
            status, text = self._exchange(method, path, data)
        except IDLE_TOO_LONG:
            self._http.close()  # opened again by itself
            status, text = self._exchange(method, path, data)
        assert status in (200, 201), text
        return json.loads(text)["result"]

    def _exchange(self, method: str, path: str, data: bytes | None) -> tuple[int, bytes]:
        self._http.request(method, path, data, {"Content-Type": "application/json"})
        answer = self._http.getresponse()
        return answer.status, answer.read()

    def register(self, name: str, image: str, *, least: int, most: int, isolation: str) -> str:
        """A new actor's id."""
        workers = {"min_workers": least, "max_workers": most}
        body = {"name": name, "image": image, "isolation": isolation, **workers}
        return str(self.call("POST", "/actors", body)["id"])

    def delete(self, actor_id: str) -> None:
        """Delete an actor, and wait until none of its containers is left."""
        self.call("DELETE", f"/actors/{actor_id}")
        deadline = time.monotonic() + RUN_SECONDS
        while self._engine.waiting(actor_id) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)

    def containers(self, actor_id: str) -> int:
        """How many containers of the actor there are, in whatever state."""
        return len(self._engine.waiting(actor_id))

    def unconnected(self, actor_id: str) -> list[bool]:
        """Of each container of the actor, whether the engine has connected it to nothing."""
        return self._engine.unconnected(actor_id)

    def wait_ready(self, actor_id: str) -> None:
        """Wait until the actor is READY."""
        deadline = time.monotonic() + RUN_SECONDS
        while self.call("GET", f"/actors/{actor_id}")["status"] != "READY":
            assert time.monotonic() < deadline, f"{actor_id} is not READY"
            time.sleep(LOOK_SECONDS)

    def wait_workers(self, actor_id: str, count: int) -> None:
        """Wait until so many workers of the actor are READY."""
        deadline = time.monotonic() + RUN_SECONDS + SECONDS_EACH * count
        path = f"/actors/{actor_id}/workers"
        while [worker["status"] for worker in self.call("GET", path)].count("READY") < count:
            assert time.monotonic() < deadline, f"{actor_id} has not {count} workers"
            time.sleep(LOOK_SECONDS)

    def post(self, actor_id: str, message: str) -> Posted:
        """Send a message, over a connection that is open."""
        posted = time.time()
        result = self.call("POST", f"/actors/{actor_id}/messages", {"message": message})
        return Posted(str(result["execution_id"]), posted, time.time())

    def finished(self, sent: Posted) -> ExecutionRecord:
        """The record of a message that was sent, once it is finished."""
        return self.subscriber.finished(sent.execution_id, RUN_SECONDS)

    def visible(self, actor_id: str, sent: Posted) -> float:
        """When the first answer of GET came that shows a message's end, in seconds since 1970.

        One request follows the other: up to the time of one is part of it.
        """
        path = f"/actors/{actor_id}/executions/{sent.execution_id}"
        while self.call("GET", path)["status"] != "COMPLETE":
            if time.time() > sent.answered + RUN_SECONDS:
                raise TimeoutError(f"{sent.execution_id} is not complete after {RUN_SECONDS:g} s")
        return time.time()

    def warm(self, actor_id: str) -> None:
        """See to it that the connection is open, as a client's is that sends more than once."""
        self.call("GET", f"/actors/{actor_id}")

    def wait_waiting(self, actor_id: str, count: int, seconds: float) -> bool:
        """Wait until just ``count`` containers of the actor exist, all running, and a little more.

        False when it does not come to that, as where nothing waits in advance.
        """
        deadline = time.monotonic() + seconds
        while self._engine.waiting(actor_id) != ["running"] * count:
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS)
        time.sleep(QUIET_SECONDS)
        return True


@contextmanager
def running(**settings: str) -> Iterator[Stage]:
    """A stage on a stack that runs; the stack is down and its containers are gone afterwards.

    ``settings`` are those of the stack, beside its own.
    """
    images.build_scripts()
    launcher.build()
    host_id = f"bench-{os.getpid()}"
    engine = RawDocker(host_id)
    with scratch_folder() as folder:
        stack = Stack(folder / "data", host_id=host_id, **{"host_capacity": "64", **settings})
        try:
            stack.up()
            durability = sync_interval(folder / "data" / "run" / "nats.conf")
            with Subscriber(stack.status()["nats_reader_url"]) as subscriber:
                yield Stage(stack, subscriber, engine, durability)
        finally:
            stack.http.close()
            stack.abaco("down")
            engine.remove_all(f"{HOST}={host_id}")
            engine.close()
