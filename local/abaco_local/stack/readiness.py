"""Waits until the stack is ready, and explains if it is not."""

import http.client
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable

from abaco_local.data_folder import DataFolder
from abaco_local.local_settings import LocalSettings
from abaco_local.polling import poll_until
from abaco_local.servers import nats_server, postgres_server
from abaco_local.stack.process_commands import SERVICES, START_ORDER
from abaco_local.stack.stack_status import RUNNING
from abaco_local.stack.supervisor_client import SupervisorClient
from abaco_local.stack_identity import StackIdentity
from abaco_proto.errors import Unavailable

LAST_LINES = 15
# A process that was started this often will not stay up: show its log.
MAX_STARTS = 5
# A proxy is not for this machine's own address.
DIRECT_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Readiness:
    """The readiness checks of one stack."""

    def __init__(self, folder: DataFolder, config: LocalSettings, identity: StackIdentity) -> None:
        """Check the processes of this stack."""
        self._folder = folder
        self._config = config
        self._identity = identity
        self._supervisor = SupervisorClient(identity.socket)

    def nats(self, seconds: float) -> None:
        """Wait for the NATS server."""
        self._wait("nats", lambda: nats_server.is_ready(self._identity), seconds)

    def postgres(self, seconds: float) -> None:
        """Wait for Postgres."""
        self._wait("postgres", self._postgres_is_ready, seconds)

    def services(self, seconds: float) -> None:
        """Wait until every service has stayed up for a moment."""
        for name in SERVICES:
            self.running(name, seconds)

    def running(self, name: str, seconds: float) -> None:
        """Wait until a process has stayed up for a moment, or has exited too often."""
        seen: set[int | None] = set()

        def is_settled() -> bool:
            process = self._supervisor.process(name)
            seen.add(process.pid)
            return process.state == RUNNING or len(seen - {None}) >= MAX_STARTS

        poll_until(is_settled, seconds)
        self._wait(name, lambda: self._supervisor.process(name).state == RUNNING, 0)

    def api(self, seconds: float) -> None:
        """Wait until the API reports that it is ready."""
        self._wait("api", lambda: not unready_reason(self._config.api_url), seconds)

    def _postgres_is_ready(self) -> bool:
        return postgres_server.is_ready(self._folder, self._identity)

    def _wait(self, name: str, ready: Callable[[], bool], seconds: float) -> None:
        if not poll_until(ready, seconds):
            raise Unavailable(self._failure(name))

    def _failure(self, name: str) -> str:
        states = {process.name: process.state for process in self._supervisor.processes()}
        down = [each for each in START_ORDER if states.get(each) != RUNNING]
        failed = down[0] if down else name
        reason = unready_reason(self._config.api_url) if name == "api" and not down else ""
        log = self._folder.log(failed)
        heading = f"{failed} is not ready{f' ({reason})' if reason else ''}; the end of {log}:"
        return "\n".join([heading, *last_lines(log.read_bytes() if log.exists() else b"")])


def unready_reason(api_url: str) -> str:
    """Return why the API is not ready; empty if it is."""
    try:
        with DIRECT_OPENER.open(f"{api_url}/readyz", timeout=5):
            return ""
    except urllib.error.HTTPError as error:
        return error.read(500).decode(errors="replace").strip() or str(error)
    except (OSError, http.client.HTTPException) as error:
        return str(error)


def last_lines(log: bytes) -> list[str]:
    """Return the end of a log."""
    return list(deque(log.decode(errors="replace").splitlines(), LAST_LINES))
