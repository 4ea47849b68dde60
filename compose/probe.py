"""The health checks of our own containers, with nothing but the standard library.

``probe.py http URL``        the address answers 200
``probe.py connected PORT…``  the process holds a connection to each of these ports: of all that a
                             service without an HTTP face does, this is what fails first
"""

import sys
import urllib.request
from pathlib import Path

ESTABLISHED = "01"
TIMEOUT_SECONDS = 4


def main(kind: str, *words: str) -> bool:
    """Whether all is well."""
    return answers(words[0]) if kind == "http" else set(map(int, words)) <= connected()


def answers(url: str) -> bool:
    """Whether ``url`` answers 200; the container's proxy is not for its own address."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_SECONDS):
            return True
    except OSError:
        return False


def connected(proc: Path = Path("/proc")) -> set[int]:
    """The remote ports of all open connections of this network namespace, which is ours alone."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in _rows(proc / "net" / name)]
    return {int(row[2].rpartition(":")[2], 16) for row in rows if row[3] == ESTABLISHED}


def _rows(table: Path) -> list[str]:
    return table.read_text().splitlines()[1:] if table.exists() else []


if __name__ == "__main__":
    sys.exit(not main(*sys.argv[1:]))
