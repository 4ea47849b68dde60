"""Processes of this data folder whose supervisor is gone: killed, it could not stop them.

The supervisor gives each of them its socket's path in the environment. The path is this data
folder's alone, so nobody else's process is ever taken for an orphan.
"""

import os
import signal
from pathlib import Path

from abaco_local.processes import START_ORDER, stop_of
from abaco_local.wait import until
from abaco_proto.errors import Unavailable

PATIENCE_SECONDS = 30
PROC = Path("/proc")


def find(socket: str, proc: Path = PROC) -> dict[int, str]:
    """Return the processes started by the supervisor at ``socket``: pid and name."""
    found = {}
    for path in proc.glob("[0-9]*/environ"):
        try:
            variables = path.read_bytes().split(b"\0")
        except OSError:  # gone meanwhile, or another account's
            continue
        if b"SUPERVISOR_SERVER_URL=unix://" + os.fsencode(socket) in variables:
            found[int(path.parent.name)] = _name(variables)
    return found


def _name(variables: list[bytes]) -> str:
    mark = b"SUPERVISOR_PROCESS_NAME="
    names = [os.fsdecode(item.removeprefix(mark)) for item in variables if item.startswith(mark)]
    return names[0] if names and names[0] in START_ORDER else ""


def stop(socket: str) -> int:
    """Stop them all and return how many there were.

    Raises:
        Unavailable: if one cannot be stopped.
    """
    found = find(socket)
    for pid, name in found.items():
        send(pid, signal.Signals[f"SIG{stop_of(name).signal}"])
    if not until(lambda: not find(socket), PATIENCE_SECONDS):
        for pid in find(socket):
            send(pid, signal.SIGKILL)
        if not until(lambda: not find(socket), PATIENCE_SECONDS):
            left = ", ".join(map(str, find(socket)))
            raise Unavailable(f"processes of an earlier start cannot be stopped: {left}")
    return len(found)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
