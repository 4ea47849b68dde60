"""The Docker session, with an engine that only counts connections and echoes requests."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import requests
from docker.errors import APIError, NotFound

from abaco_worker.engine.docker_session import DockerSession

TIMEOUT_SECONDS = 5


class Engine(socketserver.ThreadingUnixStreamServer):
    """Records the requests."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.connections = 0
        self.asked: list[tuple[str, str, bytes]] = []
        self.hangs_up = False
        self.left = threading.Semaphore(0)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.left.release()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Engine

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def _answer(self) -> None:
        if "silent" in self.path:
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, body))
        status, said = 200, {"ApiVersion": "1.41", "Id": "c1"}
        if "gone" in self.path:
            status, said = 404, {"message": "No such container: gone"}
        if "broken" in self.path:
            status, said = 500, {"message": "it is broken"}
        text = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        self.close_connection = self.server.hangs_up

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - names of the library

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "engine") as engine:
        thread = threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield engine
        engine.shutdown()
        thread.join()


@contextmanager
def session(engine: Engine) -> Iterator[Any]:
    made = DockerSession(
        f"unix://{engine.server_address!s}", timeout=TIMEOUT_SECONDS, connections=4
    )
    try:
        yield made
    finally:
        made.close()


def test_calls_about_many_containers_share_a_connection(engine: Engine) -> None:
    with session(engine) as api:
        engine.connections = 0
        for number in range(20):
            api.start(f"c{number}")
        assert engine.connections == 1


def test_a_connection_that_is_gone_is_opened_again(engine: Engine) -> None:
    with session(engine) as api:
        engine.hangs_up = True
        for number in range(5):
            api.start(f"c{number}")
            assert engine.left.acquire(timeout=TIMEOUT_SECONDS)
    assert [path for _, path, _ in engine.asked[1:]] == [
        f"/v1.41/containers/c{number}/start" for number in range(5)
    ]


def test_parameters_and_bodies_arrive(engine: Engine) -> None:
    with session(engine) as api:
        api.remove_container("c1", v=True, force=True)
        assert api.create_container("an image", name="my name")["Id"] == "c1"
        api.containers(filters={"label": ["a=b"]})
    removal, creation, listing = engine.asked[-3:]
    assert removal[:2] == ("DELETE", "/v1.41/containers/c1?v=True&link=False&force=True")
    assert creation[:2] == ("POST", "/v1.41/containers/create?name=my+name")
    assert json.loads(creation[2])["Image"] == "an image"
    assert "filters=%7B%22label%22" in listing[1]
    assert "before" not in listing[1]  # None is not sent


def test_errors_are_those_of_docker_py(engine: Engine) -> None:
    with session(engine) as api:
        with pytest.raises(NotFound, match="No such container"):
            api.start("gone")
        with pytest.raises(APIError, match="it is broken"):
            api.start("broken")


def test_an_engine_that_does_not_answer_is_the_networks_fault(engine: Engine) -> None:
    with session(engine) as api, pytest.raises(requests.ConnectionError):
        api.start("silent")
