"""``abaco events`` against a real api that goes away and comes back."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api_stage import Api, result_of, running, whole_stage
from servers import NatsServer, PostgresServer
from stack import ABACO, eventually

NO_DATABASE = "postgresql://abaco@127.0.0.1:9/none"


@pytest.fixture(scope="module")
def api(shared_postgres: PostgresServer) -> Iterator[Api]:
    with whole_stage(shared_postgres, "local_events") as running:
        eventually(lambda: httpx.get(f"{running.url}/readyz").status_code == 200)
        for name in ("foo", "bar"):
            actor = {"image": "a/b", "name": name}
            result_of(httpx.post(f"{running.url}/actors", data=actor), 201)
        for n in range(5):
            message = {"message": f"line\n{n}"}
            result_of(httpx.post(f"{running.url}/actors/foo_0/messages", json=message))
        yield running


def abaco(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ABACO, "events", *words],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def parsed(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_history(api: Api) -> None:
    done = abaco("--json", ABACO_API_PORT=str(api.port))
    assert done.returncode == 0, done.stderr
    assert [event["seq"] for event in parsed(done.stdout)] == list(range(1, 8))
    some = abaco("--url", api.url, "--actor", "foo_0", "--type", "message.*", "--after", "4")
    assert len(some.stdout.splitlines()) == 3
    assert "message.received" in some.stdout
    assert "message=line\\n4" in some.stdout


def test_what_is_wrong_is_said_in_a_line(api: Api) -> None:
    wrong = abaco("--url", api.url, "--type", "moon.landed")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("abaco: type: ")
    for url in ("ftp://x", "http://127.0.0.1:9"):
        failed = abaco("--url", url)
        assert failed.returncode in (1, 2)
        assert len(failed.stderr.splitlines()) == 1


def wait_for_lines(path: Path, count: int) -> None:
    eventually(lambda: len(path.read_bytes().splitlines()) >= count)


@contextmanager
def followed(api: Api, path: Path) -> Iterator[Path]:
    with path.open("wb") as output:
        words = [ABACO, "events", "--follow", "--json", "--url", api.url]
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.DEVNULL)
    try:
        yield path
    finally:
        process.terminate()
        process.wait(10)


def test_follow_goes_on_after_an_interruption(tmp_path: Path, nats_server: NatsServer) -> None:
    api = Api(tmp_path, nats_server.url, NO_DATABASE)

    def register(count: int) -> None:
        def registered() -> bool:
            actor = {"image": "a/b", "name": "foo"}
            return httpx.post(f"{api.url}/actors", data=actor).status_code == 201

        for _ in range(count):
            eventually(registered)

    with running(api):
        register(3)
        with followed(api, tmp_path / "events") as path:
            wait_for_lines(path, 3)
            for turn in range(2):
                api.kill()
                api.start()
                register(3)
                wait_for_lines(path, 6 + 3 * turn)
            sequences = [event["seq"] for event in parsed(path.read_text())]
            assert sequences == list(range(1, 10))
