"""Orphans: processes of this data folder whose supervisor was killed.

The supervisor sets its socket's path in their environment. The path belongs to this data folder, so
no other process is mistaken for an orphan.
"""

import os
import signal
from pathlib import Path

from abaco_local.polling import poll_until
from abaco_local.stack.process_commands import START_ORDER, stop_method
from abaco_proto.errors import Unavailable

STOP_SECONDS = 30
PROC = Path("/proc")


def find(socket: str, proc: Path = PROC) -> dict[int, str]:
    """Return the processes started by the supervisor at ``socket``: pid and name."""
    found = {}
    for path in proc.glob("[0-9]*/environ"):
        try:
            variables = path.read_bytes().split(b"\0")
        except OSError:  # it has exited, or belongs to another account
            continue
        if b"SUPERVISOR_SERVER_URL=unix://" + os.fsencode(socket) in variables:
            found[int(path.parent.name)] = _name(variables)
    return found


def _name(variables: list[bytes]) -> str:
    prefix = b"SUPERVISOR_PROCESS_NAME="
    names = [
        os.fsdecode(item.removeprefix(prefix)) for item in variables if item.startswith(prefix)
    ]
    return names[0] if names and names[0] in START_ORDER else ""


def stop(socket: str) -> int:
    """Stop all orphans and return their number.

    Raises:
        Unavailable: a process cannot be stopped.
    """
    found = find(socket)
    for pid, name in found.items():
        send(pid, signal.Signals[f"SIG{stop_method(name).signal}"])
    if not poll_until(lambda: not find(socket), STOP_SECONDS):
        for pid in find(socket):
            send(pid, signal.SIGKILL)
        if not poll_until(lambda: not find(socket), STOP_SECONDS):
            left = ", ".join(map(str, find(socket)))
            raise Unavailable(f"processes of an earlier start cannot be stopped: {left}")
    return len(found)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have exited."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
