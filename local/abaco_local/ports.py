"""Free ports on this machine."""

import errno
import random
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from abaco_proto.errors import Refused

# Never a port the kernel gives to outgoing connections: a client that retries a dead server on
# such a port can be given that very port as its own, connect to itself, and keep the server out.
FIRST = 20_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
USUAL_EPHEMERAL = 32_768

LOOPBACK = "127.0.0.1"


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Tell whether a server could listen there now.

    Raises:
        OSError: if it could not listen there in any case: no address of this machine, or a port
            that is not for this account.
    """
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        # As servers do: what lingers of closed connections is in nobody's way, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True


def candidates() -> Iterable[int]:
    """Yield ports worth trying, in random order."""
    try:
        end = int(EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError):
        end = USUAL_EPHEMERAL
    room = range(FIRST, end) if end > FIRST + 1000 else range(FIRST, USUAL_EPHEMERAL)
    return random.sample(room, 200)


def choose(
    setting: str,
    wanted: int,
    remembered: int,
    free: Callable[[int], bool] = is_free,
    among: Callable[[], Iterable[int]] = candidates,
) -> int:
    """Return the port that was asked for, else the remembered one, else another free one.

    Raises:
        Refused: if the port that ``setting`` asks for is taken, or none is free.
    """
    if wanted:
        if not free(wanted):
            raise Refused(f"{setting}: port {wanted} is taken by another program")
        return wanted
    if remembered and free(remembered):
        return remembered
    for port in among():
        if free(port):
            return port
    raise Refused(f"{setting}: found no free port")
