"""What nginx does with the API's answers and silences, configured as in ``compose.yaml``."""

import itertools
import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Any

import docker
import httpx
import pytest
import yaml

from compose_stack import ROOT, need_images
from deadlines import LIMIT_SECONDS
from servers import LOOPBACK, free_port
from stack import eventually

PYTHON = "python:3.11-slim-bookworm"
FAKE = ROOT / "tests" / "support" / "fake" / "fake_api.py"


class Front:
    """nginx before two fake APIs."""

    def __init__(self, http: httpx.Client, apis: list[Any]) -> None:
        self.http = http
        self._apis = apis

    def asked(self, *paths: str) -> list[tuple[int, ...]]:
        """How often each API was asked, for each path."""
        counts = [Counter(notes(api)) for api in self._apis]
        return [tuple(count[path] for count in counts) for path in paths]


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    need_images()
    client = docker.from_env()
    port, name = free_port(), f"abaco-test-{secrets.token_hex(4)}"
    network = client.networks.create(name)
    started: list[Any] = []
    try:
        apis = [fake_api(client, network, alias, started) for alias in ("api-1", "api-2")]
        service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["nginx"]
        mounts = [volume.replace("./", f"{ROOT}/") for volume in service["volumes"]]
        nginx = client.containers.create(
            service["image"],
            entrypoint=service["entrypoint"],
            user=service["user"],
            environment={"ABACO_MAX_BODY_BYTES": "2048"},
            volumes=mounts,
            tmpfs={"/tmp": ""},
            read_only=True,
            network=name,
            ports={"8000/tcp": (LOOPBACK, port)},
        )
        started.append(nginx)
        nginx.start()
        with httpx.Client(base_url=f"http://{LOOPBACK}:{port}", timeout=LIMIT_SECONDS) as http:
            front = Front(http, apis)
            eventually(lambda: answers(http), what=nginx.logs().decode())
            yield front
    finally:
        for container in started:
            container.remove(force=True)
        network.remove()


def fake_api(client: Any, network: Any, alias: str, started: list[Any]) -> Any:
    mount = [f"{FAKE}:/fake_api.py:ro"]
    made = client.containers.create(PYTHON, ["python", "/fake_api.py"], volumes=mount)
    started.append(made)
    network.connect(made, aliases=[alias])
    made.start()
    # nginx would count it as a failure to be asked before.
    eventually(lambda: "listening" in notes(made), what=f"{alias} listens")
    return made


def notes(api: Any) -> list[str]:
    return list(api.exec_run(["cat", "/tmp/notes"]).output.decode().splitlines())


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_one_actor_has_one_process(front: Front) -> None:
    paths = [f"/actors/actor_{n}/x" for n in range(20)]
    for path in paths * 3:
        assert front.http.get(path).status_code == 200
    assert {*front.asked(*paths)} == {(3, 0), (0, 3)}


def test_what_may_have_arrived_is_not_sent_again(front: Front) -> None:
    answer = front.http.post("/actors/a/hang-up")
    assert answer.status_code == 502
    assert answer.json() == {
        "status": "error",
        "msg": "the api did not answer: try again",
        "result": None,
        "version": "0.1.0",
        "error": "unavailable",
    }
    [counts] = front.asked("/actors/a/hang-up")
    assert sum(counts) == 1


@pytest.mark.parametrize("path", ["/actors/b/hang-up", "/actors/d/hang-up?follow=true"])
def test_a_query_is_asked_of_the_other(front: Front, path: str) -> None:
    answer = front.http.get(path)
    assert answer.status_code == 502
    assert answer.json()["error"] == "unavailable"
    assert front.asked(path) == [(1, 1)]


@pytest.mark.parametrize("headers", [{}, {"Accept": "text/event-stream"}])
@pytest.mark.parametrize("query", ["", "?follow=true"])
def test_a_stream_arrives_as_it_is_sent(front: Front, headers: dict[str, str], query: str) -> None:
    with front.http.stream("GET", f"/actors/c/stream{query}", headers=headers) as answer:
        parts = answer.iter_text()
        assert next(parts) == "first"
        front.http.post("/actors/c/release")
        assert "".join(parts) == "last"


@pytest.mark.parametrize("path", ["/metrics", "//metrics/", "/%6detrics", "/metrics?x=1"])
def test_metrics_are_for_who_is_inside(front: Front, path: str) -> None:
    answer = front.http.get(str(front.http.base_url).rstrip("/") + path)
    assert answer.status_code == 404
    assert answer.json()["error"] == "unknown"


def test_the_limit_on_bodies_is_the_setting(front: Front) -> None:
    assert front.http.post("/actors", content=b"x" * 2048).status_code == 200
    assert front.http.post("/actors", content=b"x" * 2049).status_code == 413


def test_what_has_a_key_is_sent_again_with_its_body(front: Front) -> None:
    rounds = itertools.count()

    def both_are_in_use() -> bool:
        """What failed in the tests before is forgotten after two seconds."""
        paths = [f"/actors/e_{next(rounds)}/x" for _ in range(20)]
        assert all(front.http.get(path).status_code == 200 for path in paths)
        return {*front.asked(*paths)} == {(1, 0), (0, 1)}

    eventually(both_are_in_use, what="both are in use")
    keyed, body = {"Idempotency-Key": "k"}, b"x" * 2048
    answer = front.http.post("/actors/f/hang-up", headers=keyed, content=body)
    assert answer.status_code == 502
    assert front.asked("/actors/f/hang-up") == [(1, 1)]
    assert front.http.post("/actors/f/x", headers=keyed, content=body).text == "ok"
    assert front.http.post("/actors/f/x", headers=keyed, content=body + b"x").status_code == 413
