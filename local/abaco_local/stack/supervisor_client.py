"""A client of the supervisor: XML-RPC over its Unix socket."""

import http.client
import socket
import xmlrpc.client
from typing import Any

import msgspec

from abaco_proto.errors import Unavailable, Unknown

# Longer than the slowest stop.
TIMEOUT_SECONDS = 240
ALREADY_STARTED, NOT_RUNNING, BAD_NAME = 60, 70, 10


class SupervisedProcess(msgspec.Struct, frozen=True):
    """One supervised process."""

    name: str
    pid: int | None
    state: str


class SupervisorClient:
    """A client of the supervisor at one socket."""

    def __init__(self, path: str) -> None:
        """Store the path; every call opens a connection."""
        self._proxy: Any = xmlrpc.client.ServerProxy(
            "http://localhost/RPC2", transport=_Transport(path)
        )

    def is_available(self) -> bool:
        """Return whether the supervisor answers."""
        try:
            self._call("getState")
        except Unavailable:
            return False
        return True

    def processes(self) -> list[SupervisedProcess]:
        """Return all processes, running or not."""
        infos = self._call("getAllProcessInfo")
        return [SupervisedProcess(i["name"], i["pid"] or None, i["statename"]) for i in infos]

    def process(self, name: str) -> SupervisedProcess:
        """Return one process.

        Raises:
            Unknown: there is no process of that name.
        """
        info = self._call("getProcessInfo", name)
        return SupervisedProcess(info["name"], info["pid"] or None, info["statename"])

    def start(self, name: str) -> None:
        """Start a process without waiting; a running one is left as it is."""
        self._call("startProcess", name, False, ignore=ALREADY_STARTED)

    def stop(self, name: str) -> None:
        """Stop a process and wait until it has ended."""
        self._call("stopProcess", name, True, ignore=NOT_RUNNING)

    def shutdown(self) -> None:
        """Stop the supervisor itself."""
        self._call("shutdown")

    def _call(self, method: str, *arguments: object, ignore: int = 0) -> Any:
        try:
            return getattr(self._proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == ignore:
                return None
            if fault.faultCode == BAD_NAME:
                raise Unknown(f"there is no process {arguments[0]}") from None
            raise Unavailable(f"the supervisor: {fault.faultString}") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the supervisor does not answer: {error}") from None
        finally:
            self._proxy("close")()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: str) -> http.client.HTTPConnection:  # type: ignore[override]
        connection = _Connection(self._path)
        self._connection = host, connection  # `close` closes this one
        return connection
