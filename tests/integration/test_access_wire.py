"""Requests without a credential, byte by byte: they are refused before their body is read."""

import re
import socket
from collections.abc import Iterator

import pytest

from api_stage import Api, running
from deadlines import LIMIT_SECONDS, prompt
from servers import LOOPBACK, NatsServer, scratch_folder

NO_DATABASE = "postgresql://abaco@127.0.0.1:9/none"
HEAD_SECONDS = 1.0
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with scratch_folder() as folder:
        nats = NatsServer(folder)
        api = Api(folder, nats.url, NO_DATABASE, auth="on", head_seconds=HEAD_SECONDS)
        try:
            nats.start()
            with running(api):
                yield api
        finally:
            nats.kill()


@pytest.fixture
def wire(api: Api) -> Iterator[socket.socket]:
    with socket.create_connection((LOOPBACK, api.port), timeout=LIMIT_SECONDS) as wire:
        yield wire


def head(*lines: str) -> bytes:
    first = ("POST /actors HTTP/1.1", "Host: x", "Content-Type: application/json")
    return "\r\n".join([*first, f"Content-Length: {MIB}", *lines, "", ""]).encode()


def statuses(wire: socket.socket, count: int) -> list[int]:
    """The statuses of the next answers, each with one envelope."""
    received = b""
    while received.count(b'"version"') < count:
        part = wire.recv(65_536)
        assert part, received
        received += part
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", received)]


@pytest.mark.parametrize("credential", [(), ("Authorization: Bearer nonsense",)])
def test_a_slow_body_without_a_credential_is_refused_at_once(
    wire: socket.socket, credential: tuple[str, ...]
) -> None:
    with prompt(0.25):
        wire.sendall(head(*credential) + b" " * 1000)
        assert statuses(wire, 1) == [401]
    # The rest has the time of a head, however much of it comes.
    with prompt(2 * HEAD_SECONDS):
        wire.settimeout(0.05)
        while True:
            try:
                wire.sendall(b" ")
                if not wire.recv(1):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break


def test_a_client_that_waits_for_a_continue_does_not_get_it(wire: socket.socket) -> None:
    wire.sendall(head("Expect: 100-continue"))
    assert statuses(wire, 1) == [401]


def test_the_connection_serves_on_after_a_body_that_was_not_read(wire: socket.socket) -> None:
    wire.sendall(head() + b" " * MIB + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert statuses(wire, 2) == [401, 200]
