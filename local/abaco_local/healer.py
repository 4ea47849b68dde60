"""The healer: restarts the NATS server after a failed write, once there is free space.

nats-server treats a failed write as final: its stream rejects every append from then on, even when
there is free space again, until the server restarts. Acknowledged events are on the disk and stay
readable. The server logs the failure with each append. The supervisor passes every log line of the
server, and a tick every five seconds, to this process, an "event listener" in its manual. So the
healer needs no port and no password.

``python -m abaco_local.healer <supervisor's socket> <folder of the streams>``. Running supervisors
have this name in their configuration.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

from supervisor import childutils

from abaco_local.stack.stack_status import RUNNING
from abaco_local.stack.supervisor_client import SupervisorClient
from abaco_proto.errors import Unavailable

NAME = "healer"
SERVER = "nats"
WRITE_FAILURES = ("critical write error", "no space left on device")
MIN_FREE_BYTES = 16 * 1024 * 1024
"""Twice the largest message. With less space the next write would fail."""

PAUSE_SECONDS = 30.0
"""The shortest time between two restarts: not every failed write is caused by a full disk."""


class Healer:
    """Detects failed writes in log lines, and restarts the server."""

    def __init__(
        self,
        restart: Callable[[], None],
        free_bytes: Callable[[], int],
        clock: Callable[[], float],
        log: Callable[[str], object],
    ) -> None:
        """``free_bytes`` returns bytes, ``clock`` seconds."""
        self._restart = restart
        self._free_bytes = free_bytes
        self._clock = clock
        self._log = log
        self._write_failed = self._waiting = False
        self._next_restart = float("-inf")

    def read_line(self, line: str) -> None:
        """Look for a failed write in a line of the server's log."""
        if not self._write_failed and any(text in line for text in WRITE_FAILURES):
            self._write_failed = True
            self._log(
                "NATS cannot write to its disk, so commands are rejected. Free at least"
                f" {MIN_FREE_BYTES >> 20} MiB; NATS is then restarted"
            )

    def on_tick(self) -> None:
        """Restart the server if a write has failed and there is free space."""
        if not self._write_failed or self._clock() < self._next_restart:
            return
        if self._free_bytes() < MIN_FREE_BYTES:
            if not self._waiting:
                self._log(f"waiting until {MIN_FREE_BYTES >> 20} MiB are free for NATS")
            self._waiting = True
            return
        self._log("there is free space again: restarting NATS")
        self._write_failed = self._waiting = False
        self._next_restart = self._clock() + PAUSE_SECONDS
        self._restart()


def restart(supervisor: SupervisorClient) -> None:
    """Restart the server, unless it is stopped."""
    try:
        if supervisor.process(SERVER).state == RUNNING:
            supervisor.stop(SERVER)
            supervisor.start(SERVER)
    except Unavailable as error:
        log(str(error))


def free_bytes(folder: str) -> int:
    """Return how many bytes can be written."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def log(line: str) -> None:
    """Write a line to the log. The supervisor reads the other stream."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} WARNING {line}\n")


def handle_event(healer: Healer, headers: Mapping[str, str], payload: str) -> None:
    """Handle one event of the supervisor."""
    if headers["eventname"].startswith("TICK"):
        healer.on_tick()
        return
    process, data = childutils.eventdata(payload)
    if process["processname"] == SERVER:
        healer.read_line(data)


def main(socket: str, folder: str) -> NoReturn:
    """Handle events until the supervisor ends."""
    supervisor = SupervisorClient(socket)
    healer = Healer(lambda: restart(supervisor), lambda: free_bytes(folder), time.monotonic, log)
    while True:
        headers, payload = childutils.listener.wait(sys.stdin, sys.stdout)
        handle_event(healer, headers, payload)
        childutils.listener.ok(sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
