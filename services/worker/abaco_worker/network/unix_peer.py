"""The process at the other end of a Unix socket."""

import socket
import struct

CREDENTIALS = struct.Struct("=3i")  # process, user, group


def listener(connected: socket.socket) -> int:
    """The process that listens at the other end of a Unix socket; 0 when it cannot be seen."""
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, _, _ = CREDENTIALS.unpack(credentials)
    return int(pid)
