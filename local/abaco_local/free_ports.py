"""Free ports on this machine."""

import errno
import random
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from abaco_proto.errors import Refused

# Never a port that the kernel gives to outgoing connections: a client that retries a stopped server
# on such a port can be given that port as its own, connect to itself, and block the server.
FIRST_PORT = 20_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
DEFAULT_EPHEMERAL = 32_768

LOOPBACK = "127.0.0.1"


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Return whether a server could listen on the port now.

    Raises:
        OSError: it could never listen there: the address does not belong to this machine, or this
            account may not use the port.
    """
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        # As servers do: closed connections in TIME_WAIT do not block the port, a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True


def candidate_ports() -> Iterable[int]:
    """Yield ports to try, in random order."""
    try:
        end = int(EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError):
        end = DEFAULT_EPHEMERAL
    candidates = (
        range(FIRST_PORT, end) if end > FIRST_PORT + 1000 else range(FIRST_PORT, DEFAULT_EPHEMERAL)
    )
    return random.sample(candidates, 200)


def choose_port(
    setting: str,
    wanted: int,
    remembered: int,
    free: Callable[[int], bool] = is_free,
    candidates: Callable[[], Iterable[int]] = candidate_ports,
) -> int:
    """Return the wanted port, or else the remembered one, or else another free port.

    Raises:
        Refused: the wanted port of ``setting`` is taken, or no port is free.
    """
    if wanted:
        if not free(wanted):
            raise Refused(f"{setting}: port {wanted} is taken by another program")
        return wanted
    if remembered and free(remembered):
        return remembered
    for port in candidates():
        if free(port):
            return port
    raise Refused(f"{setting}: found no free port")
