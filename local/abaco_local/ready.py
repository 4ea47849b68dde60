"""Waiting until the stack is ready, and saying why it is not."""

import http.client
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable

from abaco_local import nats_server, postgres_server
from abaco_local.config import Config
from abaco_local.control import Control
from abaco_local.folder import Folder
from abaco_local.identity import Identity
from abaco_local.processes import SERVICES, START_ORDER
from abaco_local.status import RUNNING
from abaco_local.wait import until
from abaco_proto.errors import Unavailable

LAST_LINES = 15
# A process that had to be started so often will not stay up: its log says why, now.
TRIES = 5
# The caller's proxy is not for this machine's own address.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Readiness:
    """The checks, of one stack."""

    def __init__(self, folder: Folder, config: Config, identity: Identity) -> None:
        """Remember whom to ask."""
        self._folder = folder
        self._config = config
        self._identity = identity
        self._control = Control(identity.socket)

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
        """Wait until one process has stayed up for a moment, or has failed to too often."""
        seen: set[int | None] = set()

        def settled() -> bool:
            process = self._control.process(name)
            seen.add(process.pid)
            return process.state == RUNNING or len(seen - {None}) >= TRIES

        until(settled, seconds)
        self._wait(name, lambda: self._control.process(name).state == RUNNING, 0)

    def api(self, seconds: float) -> None:
        """Wait until the API says that all it needs is there."""
        self._wait("api", lambda: not unready(self._config.api_url), seconds)

    def _postgres_is_ready(self) -> bool:
        return postgres_server.is_ready(self._folder, self._identity)

    def _wait(self, name: str, ready: Callable[[], bool], seconds: float) -> None:
        if not until(ready, seconds):
            raise Unavailable(self._failure(name))

    def _failure(self, name: str) -> str:
        states = {process.name: process.state for process in self._control.processes()}
        down = [each for each in START_ORDER if states.get(each) != RUNNING]
        guilty = down[0] if down else name
        reason = unready(self._config.api_url) if name == "api" and not down else ""
        log = self._folder.log(guilty)
        ends = f"{guilty} is not ready{f' ({reason})' if reason else ''}; the end of {log}:"
        return "\n".join([ends, *last_lines(log.read_bytes() if log.exists() else b"")])


def unready(api_url: str) -> str:
    """Return why the API is not ready, or nothing if it is."""
    try:
        with DIRECT.open(f"{api_url}/readyz", timeout=5):
            return ""
    except urllib.error.HTTPError as error:
        return error.read(500).decode(errors="replace").strip() or str(error)
    except (OSError, http.client.HTTPException) as error:
        return str(error)


def last_lines(log: bytes) -> list[str]:
    """Return the end of a log."""
    return list(deque(log.decode(errors="replace").splitlines(), LAST_LINES))
