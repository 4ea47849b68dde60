"""``ABACO_AUTH=on``, as a user turns it on: the first token, the quickstart, and its secrets."""

import asyncio
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import asyncpg
import docker
import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

import images
from servers import scratch_folder
from stack import Stack, eventually

ISSUER = "https://sso.example"
PLANTED = "planted-in-the-environment-of-an-actor"


class Collector(BaseHTTPRequestHandler):
    """Keeps the traces that the services export."""

    received: list[bytes]

    def do_POST(self) -> None:
        self.received.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def traces() -> Iterator[list[bytes]]:
    """What the services of the stack have exported so far."""
    received: list[bytes] = []
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (Collector,), {"received": received})
    )
    Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        url = f"http://127.0.0.1:{server.server_port}"
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        yield received
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})


@pytest.fixture(scope="module")
def stack(test_images: None, traces: list[bytes], key: RSAKey) -> Iterator[Stack]:
    with scratch_folder() as folder:
        keys = folder / "keys.json"
        keys.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
        issuer = {
            "issuer": ISSUER,
            "audience": "abaco",
            "jwks_file": str(keys),
            "tenant": "default",
        }
        made = Stack(
            folder / "data", auth="on", auth_issuers=json.dumps([issuer]), log_level="debug"
        )
        try:
            made.up()
            yield made
        finally:
            made.http.close()
            made.down()


@pytest.fixture(scope="module")
def token(stack: Stack) -> str:
    """The first administrator's token, made on the machine of the stack."""
    done = stack.abaco("admin", "token", "--owner", "alice")
    assert done.returncode == 0, done.stderr
    stack.log_in(done.stdout.strip())
    return stack.token


def test_the_quickstart_needs_a_token(stack: Stack, token: str, tmp_path: Path) -> None:
    for path in ("/actors", "/events", "/metrics", "/tokens"):
        answer = httpx.get(f"{stack.url}{path}")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="abaco"'
    refused = stack.abaco("demo")
    assert refused.returncode != 0
    assert "this needs a credential" in refused.stdout + refused.stderr

    file = tmp_path / "token"
    file.write_text(token)
    stack.change(token_file=str(file))
    done = stack.abaco("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Contents of MSG: execute yourself" in done.stdout


async def rows(dsn: str) -> str:
    """Everything in the database, as text."""
    connection = await asyncpg.connect(dsn)
    try:
        tables = await connection.fetch(
            "SELECT format('%I.%I', table_schema, table_name) AS name FROM"
            " information_schema.tables WHERE table_schema NOT IN"
            " ('pg_catalog', 'information_schema') AND table_type = 'BASE TABLE'"
        )
        texts = [
            await connection.fetch(f"SELECT t::text FROM {table['name']} AS t") for table in tables
        ]
    finally:
        await connection.close()
    return "\n".join(row[0] for found in texts for row in found)


def command_lines() -> str:
    """The arguments of every process of the machine, which everybody on it may read."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it has ended
            continue
    return "\n".join(found)


def container_labels(host_id: str) -> str:
    containers = docker.from_env().containers.list(
        all=True, filters={"label": f"abaco.host_id={host_id}"}
    )
    assert containers
    return "\n".join(json.dumps(container.labels) for container in containers)


def test_secrets_are_where_they_belong_and_nowhere_else(
    stack: Stack, token: str, key: RSAKey, traces: list[bytes]
) -> None:
    claims = {"iss": ISSUER, "aud": "abaco", "exp": int(time.time()) + 3600}
    header = {"alg": "RS256", "kid": "one"}
    login = jwt.encode(header, {**claims, "preferred_username": "bob"}, key, algorithms=["RS256"])
    made: dict[str, Any] = stack.call("POST", "/tokens", json={"name": "ci", "owner": "bob"})
    actor_id = stack.register("secret", images.QUICK, default_environment={"PASSWORD": PLANTED})
    stack.wait_complete([stack.send(actor_id, "x")])
    credentials = [token, made["token"], login, f"{made['token'][:-4]}0000", "planted-nonsense"]
    for text in credentials:
        headers = {"authorization": f"Bearer {text}"}
        for method in ("GET", "DELETE"):
            httpx.request(method, f"{stack.url}/actors/{actor_id}", headers=headers)
        httpx.get(f"{stack.url}/actors?token={text}", headers=headers)
    wrong = "wrong-password-planted"  # servers and libraries report what failed
    address = stack.status()["postgres_dsn"].rpartition("@")[2]
    with pytest.raises(asyncpg.PostgresError):
        asyncio.run(rows(f"postgresql://abaco:{wrong}@{address}"))
    credentials.append(wrong)
    identity = json.loads((stack.folder / "identity.json").read_text())
    status = stack.status()
    services = ("api", "scheduler", "projector", "worker")
    users = [status["nats_reader_url"].rpartition("@")[0].rpartition(":")[2]]
    passwords = [identity["nats_password"], identity["postgres_password"], *users]
    eventually(lambda: traces, what="the services have exported traces")

    metrics = stack.http.get("/metrics").text
    for service in status["services"]:
        if service.get("metrics_url") and service["name"] != "api":
            metrics += httpx.get(service["metrics_url"]).text
    assert metrics.count("abaco_nats_connected 1.0") == len(services)
    logs = "\n".join(
        path.read_text(errors="replace") for path in stack.folder.rglob("logs/*") if path.is_file()
    )
    assert "refused GET /actors/{actor_id} to user bob" in logs
    events = "\n".join(f"{r.event} {r.causation_id} {r.correlation_id}" for r in stack.events())
    places = {
        "log lines": logs,
        "events": events,
        "rows": asyncio.run(rows(status["postgres_dsn"])),
        "metrics": metrics,
        "traces": b"\n".join(traces).decode(errors="replace"),
        "arguments": command_lines(),
        "labels": container_labels(identity["host_id"]),
    }
    assert all(places.values()), {name: len(text) for name, text in places.items()}
    secrets = [text.removeprefix("abaco_pat_")[8:] for text in credentials] + passwords
    for secret in secrets:
        assert {name for name, text in places.items() if secret in text} == set(), secret[:4]
    # The environment of an actor is a part of its definition, for those who may read the actor.
    assert {name for name, text in places.items() if PLANTED in text} == {"events", "rows"}
