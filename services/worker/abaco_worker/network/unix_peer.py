"""The process at the other end of a Unix socket."""

import socket
import struct

CREDENTIALS = struct.Struct("=3i")  # process, user, group


def peer_pid(connection: socket.socket) -> int:
    """Return the process that listens at the other end; 0 if it is in another PID namespace."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, _, _ = CREDENTIALS.unpack(credentials)
    return int(pid)
