"""The health checks of our containers, with only the standard library.

``probe.py http URL``         the URL answers 200
``probe.py connected PORT…``  the process has a connection to each of these ports, which a service
                              without an HTTP server loses first when it fails
"""

import sys
import urllib.request
from pathlib import Path

ESTABLISHED = "01"
TIMEOUT_SECONDS = 4


def main(kind: str, *arguments: str) -> bool:
    """Return whether the check succeeds."""
    return (
        answers_200(arguments[0])
        if kind == "http"
        else set(map(int, arguments)) <= connected_ports()
    )


def answers_200(url: str) -> bool:
    """Return whether ``url`` answers 200, without the container's proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_SECONDS):
            return True
    except OSError:
        return False


def connected_ports(proc: Path = Path("/proc")) -> set[int]:
    """Return the remote ports of all open connections of this container."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in _rows(proc / "net" / name)]
    return {int(row[2].rpartition(":")[2], 16) for row in rows if row[3] == ESTABLISHED}


def _rows(table: Path) -> list[str]:
    return table.read_text().splitlines()[1:] if table.exists() else []


if __name__ == "__main__":
    sys.exit(not main(*sys.argv[1:]))
