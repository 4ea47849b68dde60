"""Starts the NATS server anew when it cannot write any more, and there is room again.

Theory: nats-server takes a write that failed for final. The stream answers no append from then on,
also when there is room again, until the server is started anew; what it has acknowledged is on the
disk and it reads on. It says so in its log, again with every append. The supervisor hands every
line of that, and a tick each five seconds, to this process, an "event listener" in the words of
its manual. So no port is opened for it, and it needs no password.

``python -m abaco_local.healer <supervisor's socket> <folder of the streams>``
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

from supervisor import childutils

from abaco_local.control import Control
from abaco_local.status import RUNNING
from abaco_proto.errors import Unavailable

NAME = "healer"
PATIENT = "nats"
SIGNS = ("critical write error", "no space left on device")
ROOM_BYTES = 16 * 1024 * 1024
"""Twice the largest message. With less it would only fail again."""

PAUSE_SECONDS = 30.0
"""At least so long between two starts: not every failed write is for want of room."""


class Healer:
    """What it was told, and what it does about it."""

    def __init__(
        self,
        restart: Callable[[], None],
        room: Callable[[], int],
        clock: Callable[[], float],
        say: Callable[[str], object],
    ) -> None:
        """``room`` are bytes, ``clock`` seconds."""
        self._restart = restart
        self._room = room
        self._clock = clock
        self._say = say
        self._ill = self._waits = False
        self._not_before = float("-inf")

    def hear(self, line: str) -> None:
        """Take note of what the server says."""
        if not self._ill and any(sign in line for sign in SIGNS):
            self._ill = True
            self._say("nats cannot write to its disk: no command is accepted until it can again")

    def tick(self) -> None:
        """Do something about it, if that makes sense now."""
        if not self._ill or self._clock() < self._not_before:
            return
        if self._room() < ROOM_BYTES:
            if not self._waits:
                self._say(f"waiting until there are {ROOM_BYTES >> 20} MiB free for nats")
            self._waits = True
            return
        self._say("there is room: nats is started anew")
        self._ill = self._waits = False
        self._not_before = self._clock() + PAUSE_SECONDS
        self._restart()


def restart(control: Control) -> None:
    """Start the server anew, unless somebody has stopped it."""
    try:
        if control.process(PATIENT).state == RUNNING:
            control.stop(PATIENT)
            control.start(PATIENT)
    except Unavailable as error:
        say(str(error))


def room(folder: str) -> int:
    """How many bytes can be written."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def say(line: str) -> None:
    """Write to the log; what the supervisor reads is the other stream."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} WARNING {line}\n")


def take(healer: Healer, headers: Mapping[str, str], payload: str) -> None:
    """One event of the supervisor's."""
    if headers["eventname"].startswith("TICK"):
        healer.tick()
        return
    about, data = childutils.eventdata(payload)
    if about["processname"] == PATIENT:
        healer.hear(data)


def main(socket: str, folder: str) -> NoReturn:
    """Listen until the supervisor ends."""
    control = Control(socket)
    healer = Healer(lambda: restart(control), lambda: room(folder), time.monotonic, say)
    while True:
        headers, payload = childutils.listener.wait(sys.stdin, sys.stdout)
        take(healer, headers, payload)
        childutils.listener.ok(sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
