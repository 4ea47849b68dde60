"""The whole system as a user runs it, on a data folder and a port of its own.

What a test sees of it is what anybody sees: the command ``abaco``, the API over HTTP, and the log.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx

from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, draft
from abaco_proto.names import all_events_filter
from deadlines import LIMIT_SECONDS
from servers import LOOPBACK, free_port

ABACO = str(Path(sys.executable).with_name("abaco"))

T = TypeVar("T")


def eventually(check: Callable[[], T], *, seconds: float = LIMIT_SECONDS, what: str = "") -> T:
    """The first answer of ``check`` that is true; an error that says what was seen last."""
    deadline = time.monotonic() + seconds
    while True:
        seen = check()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or check} (last: {seen!r})")
        time.sleep(0.05)


class Stack:
    """One embedded stack."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """Nothing runs yet; ``settings`` are further ``ABACO_*`` variables, without the prefix."""
        self.folder = folder
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self._environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith("ABACO_")},
            "ABACO_DATA_DIR": str(folder),
            "ABACO_API_PORT": str(self.port),
            **{f"ABACO_{name.upper()}": value for name, value in settings.items()},
        }
        self.http = httpx.Client(base_url=self.url, timeout=30)
        self.token = ""

    def log_in(self, token: str) -> None:
        """Send this API token with every request from now on."""
        self.token = token
        self.http.headers["authorization"] = f"Bearer {token}"

    def change(self, **settings: str) -> None:
        """Set variables for the next ``up``, as at the beginning."""
        self._environ |= {f"ABACO_{name.upper()}": value for name, value in settings.items()}

    # -- the command --

    def abaco(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``abaco`` to its end."""
        return subprocess.run(
            [ABACO, *words],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def up(self) -> None:
        done = self.abaco("up")
        assert done.returncode == 0, done.stdout + done.stderr

    def down(self) -> None:
        done = self.abaco("down")
        assert done.returncode == 0, done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.abaco("status", "--json").stdout)
        return answer

    def pid(self, name: str) -> int | None:
        services = {service["name"]: service for service in self.status()["services"]}
        found: int | None = services[name]["pid"]
        return found

    def kill(self, name: str) -> None:
        """Kill a process with SIGKILL."""
        pid = self.pid(name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def refused(self) -> list[str]:
        """What the NATS server did not let one of our services say or hear."""
        log = (self.folder / "logs" / "nats.log").read_text()
        return [line for line in log.splitlines() if "Violation" in line]

    # -- the API --

    def call(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        """One request that must work; the ``result`` of its answer."""
        answer = self.http.request(method, path, **how)
        assert answer.status_code in (200, 201), answer.text
        result: dict[str, Any] = answer.json()["result"]
        return result

    def try_get(self, path: str) -> dict[str, Any]:
        """The result of a query; nothing while it cannot be answered."""
        try:
            answer = self.http.get(path)
        except httpx.TransportError:
            return {}
        return answer.json()["result"] or {} if answer.status_code == 200 else {}

    def try_list(self, path: str) -> list[dict[str, Any]]:
        """The same of a query whose result is a list."""
        found: Any = self.try_get(path)
        return found or []

    def register(self, name: str, image: str, **more: Any) -> str:
        answer = self.call("POST", "/actors", json={"name": name, "image": image, **more})
        return str(answer["id"])

    def actor_status(self, actor_id: str) -> str:
        return str(self.try_get(f"/actors/{actor_id}").get("status", ""))

    def send(self, actor_id: str, message: str) -> str:
        answer = self.call("POST", f"/actors/{actor_id}/messages", json={"message": message})
        return str(answer["execution_id"])

    def status_of(self, execution_id: str) -> str:
        actor_id = execution_id.rpartition("_exc_")[0]
        path = f"/actors/{actor_id}/executions/{execution_id}"
        return str(self.try_get(path).get("status", ""))

    def wait_ready(self, actor_id: str) -> None:
        eventually(lambda: self.actor_status(actor_id) == "READY", what=f"{actor_id} is READY")

    def wait_complete(self, execution_ids: list[str], *, seconds: float = 120) -> None:
        waiting = list(execution_ids)

        def all_complete() -> bool:
            waiting[:] = [e for e in waiting if self.status_of(e) != "COMPLETE"]
            return not waiting

        try:
            eventually(all_complete, seconds=seconds, what=f"{len(execution_ids)} COMPLETE")
        except AssertionError as error:
            left = {each: self.status_of(each) for each in waiting}
            raise AssertionError(f"{error}; left: {left}") from None

    def logs(self, execution_id: str) -> str:
        actor_id = execution_id.rpartition("_exc_")[0]
        path = f"/actors/{actor_id}/executions/{execution_id}/logs"
        return str(self.http.get(path).json()["result"])

    @contextmanager
    def second_api(self) -> Iterator[httpx.Client]:
        """One more API process on the same log and the same read models."""
        status, port = self.status(), free_port()
        environ = {
            **self._environ,
            "ABACO_NATS_URL": status["nats_url"],
            "ABACO_POSTGRES_DSN": status["postgres_dsn"],
            "ABACO_API_PORT": str(port),
        }
        process = subprocess.Popen([sys.executable, "-m", "abaco_api"], env=environ)
        try:
            with httpx.Client(base_url=f"http://{LOOPBACK}:{port}", timeout=30) as client:
                eventually(lambda: _answers(client), what="the second API is ready")
                yield client
        finally:
            process.terminate()
            process.wait(60)

    # -- the log --

    def events(self) -> list[Recorded]:
        """The whole log."""
        return read_log(self.status()["nats_url"])

    def host_id(self) -> str:
        """The only host there is."""
        [host_id] = {r.event.host_id for r in self.events() if isinstance(r.event, ev.HostJoined)}
        return host_id

    def messages(self, actor_id: str) -> dict[str, str]:
        """What an actor's executions were sent."""
        events = (r.event for r in self.events())
        mine = (e for e in events if isinstance(e, ev.MessageReceived) and e.actor_id == actor_id)
        return {event.execution_id: event.message for event in mine}

    def finished(self) -> Counter[str]:
        """How often each execution is reported finished in the log."""
        events = (r.event for r in self.events())
        return Counter(e.execution_id for e in events if isinstance(e, ev.ExecutionFinished))


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def read_log(url: str) -> list[Recorded]:
    """The whole log, as who the address says."""

    async def read(log: JetStreamEventLog) -> list[Recorded]:
        return [r async for batch in log.read([all_events_filter()]) for r in batch]

    return asyncio.run(_with_log(url, read))


def try_append(url: str, event: ev.Event) -> int:
    """Append an event as who the address says, against the will of its owner."""
    drafted = draft(event, tenant="default", time=datetime.now(UTC), causation_id="test")
    return asyncio.run(_with_log(url, lambda log: log.append(drafted)))


async def _with_log(url: str, use: Callable[[JetStreamEventLog], Awaitable[T]]) -> T:
    connection = Connection(url, name="test", timeout=5)
    await connection.open()
    try:
        return await use(JetStreamEventLog(connection))
    finally:
        await connection.close()
