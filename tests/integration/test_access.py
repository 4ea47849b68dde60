"""Access control with real servers: two api processes, one log, and an OpenID provider."""

import asyncio
import base64
import hashlib
import json
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from abaco_api import admin_token
from abaco_api.access.domain.principal import Role
from abaco_api.access.domain.token_requests import TokenRequest
from abaco_api.api_settings import ApiSettings
from api_stage import Api, Json, becomes_ready, error_of, eventually, projector, result_of, running
from deadlines import LIMIT_SECONDS, prompt
from servers import LOOPBACK, free_port

CLIENT = "abaco-client"
STREAMS = 50


class Provider:
    """``oidc-provider-mock`` as a process; each start has a new key."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self._log = folder / "provider.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        users = [
            {
                "sub": name,
                "preferred_username": name,
                "org": tenant,
                "realm_access": {"roles": roles},
            }
            for name, tenant, roles in (
                ("alice", "default", ["abaco-developer"]),
                ("mallory", "another", ["abaco-admin"]),
            )
        ]
        arguments = [word for user in users for word in ("--user-claims", json.dumps(user))]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "oidc_provider_mock", "--port", str(self.port), *arguments],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/jwks").status_code == 200:
                    return
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def token_of(self, user: str) -> str:
        """The ID token of a user, by the code flow with PKCE."""
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": CLIENT,
            "redirect_uri": "http://127.0.0.1:1/callback",
            "scope": "openid profile",
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        with httpx.Client(base_url=self.url) as http:
            sent = http.post("/oauth2/authorize", params=asked, data={"sub": user})
            [code] = parse_qs(urlsplit(sent.headers["location"]).query)["code"]
            answer = http.post(
                "/oauth2/token",
                data={
                    "grant_type": "authorization_code",
                    "code": code,
                    "redirect_uri": asked["redirect_uri"],
                    "code_verifier": verifier,
                },
                auth=(CLIENT, "any"),
            )
        token: str = answer.json()["id_token"]
        return token


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    provider = Provider(tmp_path)
    provider.start()
    yield provider
    provider.stop()


def issuers(provider: Provider) -> str:
    issuer = {
        "issuer": provider.url,
        "audience": CLIENT,
        "jwks_url": f"{provider.url}/jwks",
        "tenant_claim": "org",
        "retry_seconds": 0.1,
    }
    return json.dumps([issuer])


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


@contextmanager
def apis(folder: Path, nats_url: str, dsn: str, count: int = 1, **more: Any) -> Iterator[list[Api]]:
    found = [Api(folder, nats_url, dsn, auth="on", **more) for _ in range(count)]
    with running(projector(folder, nats_url, dsn), *found):
        yield found


async def admin(api: Api) -> str:
    """The token of the first administrator, made on the machine of the stack."""
    settings = ApiSettings(nats_url=api.nats_url, append_timeout_seconds=30)
    request = TokenRequest(name="first", owner="root", roles=[Role.ADMIN])
    return await admin_token.create(settings, request, settings.tenant)


@pytest.fixture
async def client() -> AsyncGenerator[httpx.AsyncClient, None]:
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(timeout=LIMIT_SECONDS, limits=limits) as client:
        yield client


async def token_for(
    client: httpx.AsyncClient, api: Api, root: str, owner: str, **more: Any
) -> Json:
    body = {"name": "test", "owner": owner, "roles": ["developer"], **more}

    answers: list[httpx.Response] = []

    async def is_made() -> bool:
        answers.append(await client.post(f"{api.url}/tokens", json=body, headers=bearer(root)))
        return answers[-1].status_code == 201

    await eventually(is_made)
    made: Json = result_of(answers[-1], 201)
    return made


async def test_a_provider_for_real(
    tmp_path: Path, nats_url: str, postgres_dsn: str, provider: Provider, client: httpx.AsyncClient
) -> None:
    with apis(tmp_path, nats_url, postgres_dsn, auth_issuers=issuers(provider)) as [api]:
        alice = bearer(provider.token_of("alice"))
        body = {"image": "a/b", "name": "foo"}
        error_of(await client.post(f"{api.url}/actors", json=body), 401)
        result_of(await client.post(f"{api.url}/actors", json=body, headers=alice), 201)
        levels = await client.get(f"{api.url}/actors/foo_0/permissions", headers=alice)
        assert result_of(levels) == {"alice": "UPDATE"}

        # The tenant is in the token: there is no actor in this one, and then one with the same id.
        mallory = bearer(provider.token_of("mallory"))
        error_of(await client.get(f"{api.url}/actors/foo_0/permissions", headers=mallory), 404)
        made = await client.post(f"{api.url}/actors", json=body, headers=mallory)
        assert result_of(made, 201)["id"] == "foo_0"
        levels = await client.get(f"{api.url}/actors/foo_0/permissions", headers=mallory)
        assert result_of(levels) == {"mallory": "UPDATE"}

        # A new key is found with the first token that it signs, and the old one is gone.
        provider.stop()
        provider.start()
        renewed = bearer(provider.token_of("alice"))
        assert renewed != alice
        await asyncio.sleep(0.2)  # ``retry_seconds``: two fetches are at least so far apart
        result_of(await client.get(f"{api.url}/actors/foo_0/permissions", headers=renewed))
        error_of(await client.get(f"{api.url}/actors/foo_0/permissions", headers=alice), 401)

        # Without the provider, the last keys are used.
        provider.stop()
        result_of(await client.get(f"{api.url}/actors/foo_0/permissions", headers=renewed))


async def test_a_provider_that_never_answered_is_no_access(
    tmp_path: Path, nats_url: str, postgres_dsn: str, provider: Provider, client: httpx.AsyncClient
) -> None:
    alice = bearer(provider.token_of("alice"))
    provider.stop()
    with apis(tmp_path, nats_url, postgres_dsn, auth_issuers=issuers(provider)) as [api]:
        answer = await client.get(f"{api.url}/actors", headers=alice)
        error_of(answer, 503)
        assert answer.headers["retry-after"]


async def test_lists_and_events_show_what_may_be_read(
    tmp_path: Path, nats_url: str, postgres_dsn: str, client: httpx.AsyncClient
) -> None:
    with apis(tmp_path, nats_url, postgres_dsn) as [api]:
        client.base_url = httpx.URL(api.url)
        await becomes_ready(client)
        root = await admin(api)
        made = await token_for(client, api, root, "alice")
        alice = bearer(made["token"])
        bob = bearer((await token_for(client, api, root, "bob"))["token"])
        for owner, name in ((alice, "foo"), (bob, "bar"), (alice, "baz")):
            body = {"image": "a/b", "name": name}
            result_of(await client.post("/actors", json=body, headers=owner), 201)

        async def listed(path: str, who: dict[str, str], field: str) -> list[str]:
            return [item[field] for item in result_of(await client.get(path, headers=who))]

        assert await listed("/actors", alice, "id") == ["foo_0", "baz_0"]
        assert await listed("/actors", bob, "id") == ["bar_0"]
        assert await listed("/actors?offset=1", alice, "id") == ["baz_0"]
        assert await listed("/actors", bearer(root), "id") == ["foo_0", "bar_0", "baz_0"]
        head = result_of(await client.get("/audit/head", headers=bearer(root)))["sequence"]
        assert await listed(f"/actors?as_of={head}", alice, "id") == ["foo_0", "baz_0"]

        assert set(await listed("/events", alice, "actor_id")) == {"foo_0", "baz_0"}
        assert set(await listed("/events?type=actor.registered", bob, "actor_id")) == {"bar_0"}
        types = set(await listed("/events", bearer(root), "type"))
        assert {"token.created", "actor.registered"} <= types
        error_of(await client.get("/events?actor=bar_0", headers=alice), 404)
        error_of(await client.get("/actors/bar_0/events", headers=alice), 404)

        by_alice = "/events?principal=*:alice"
        assert await listed(by_alice, alice, "actor_id") == ["foo_0", "baz_0"]
        whose = await listed(by_alice, bearer(root), "principal")
        assert set(whose) == {f"token:{made['id']}:alice"}
        assert await listed(by_alice, bob, "actor_id") == []
        creators = await listed("/events?type=token.created", bearer(root), "principal")
        assert creators[0] == "service:admin-token"
        assert set(creators[1:]) == {f"token:{root[10:18]}:root"}
        of_api = await listed("/events?principal=service:api", bearer(root), "type")
        assert set(of_api) <= {"token.used"}

        everything = result_of(await client.get("/events", headers=bearer(root)))
        [seq] = [item["seq"] for item in everything if item["actor_id"] == "bar_0"]
        result_of(await client.get(f"/events/{seq}", headers=bob))
        hidden = await client.get(f"/events/{seq}", headers=alice)
        missing = await client.get("/events/99999", headers=alice)
        assert hidden.text.replace(str(seq), "99999") == missing.text

        body = {"user": "alice", "level": "READ"}
        result_of(await client.post("/actors/bar_0/permissions", json=body, headers=bob))
        assert await listed("/actors", alice, "id") == ["foo_0", "bar_0", "baz_0"]
        error_of(await client.delete("/actors/bar_0", headers=alice), 403)


async def test_a_revocation_ends_streams_and_requests_in_both_processes(
    tmp_path: Path, nats_url: str, postgres_dsn: str, client: httpx.AsyncClient
) -> None:
    with apis(tmp_path, nats_url, postgres_dsn, count=2) as both:
        one, other = both
        root = await admin(one)
        made = await token_for(client, one, root, "alice")
        reader = await token_for(client, one, root, "bob", roles=[])
        body = {"image": "a/b", "name": "foo"}
        alice, bob = bearer(made["token"]), bearer(reader["token"])
        result_of(await client.post(f"{one.url}/actors", json=body, headers=alice), 201)
        share = {"user": "bob", "level": "READ"}
        path = f"{one.url}/actors/foo_0/permissions"
        result_of(await client.post(path, json=share, headers=alice))

        ended: list[str] = []
        opened = asyncio.Semaphore(0)

        async def read(api: Api, url: str, who: dict[str, str]) -> None:
            headers = {**who, "accept": "text/event-stream"}
            with suppress(httpx.TransportError):
                async with client.stream("GET", f"{api.url}{url}", headers=headers) as answer:
                    assert answer.status_code == 200
                    async for _ in answer.aiter_bytes():
                        opened.release()
            ended.append(url)

        async def all_end(url: str, who: dict[str, str], revoke: Any) -> None:
            ended.clear()
            reads = [asyncio.create_task(read(both[n % 2], url, who)) for n in range(STREAMS)]
            for _ in reads:
                await opened.acquire()
            assert not ended
            with prompt(0.25):  # a second at most
                await revoke()
                async with asyncio.timeout(LIMIT_SECONDS):
                    await asyncio.gather(*reads)
            for api in both:
                answer = await client.get(f"{api.url}{url}", headers=who)
                assert answer.status_code in (401, 404)

        async def forget_bob() -> None:
            await client.post(path, json={"user": "bob", "level": "NONE"}, headers=alice)

        async def revoke_alice() -> None:
            url = f"{other.url}/tokens/{made['id']}"
            result_of(await client.delete(url, headers=bearer(root)))

        await all_end("/actors/foo_0/events", bob, forget_bob)
        await all_end("/events", alice, revoke_alice)


async def test_a_stream_shows_what_may_be_read_when_it_is_sent(
    tmp_path: Path, nats_url: str, postgres_dsn: str, client: httpx.AsyncClient
) -> None:
    with apis(tmp_path, nats_url, postgres_dsn) as [api]:
        root = await admin(api)
        alice = bearer((await token_for(client, api, root, "alice"))["token"])
        bob = bearer((await token_for(client, api, root, "bob"))["token"])
        seen: list[str] = []

        async def read() -> None:
            headers = {**alice, "accept": "text/event-stream"}
            url = f"{api.url}/events?after=0"
            async with client.stream("GET", url, headers=headers) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        seen.append(json.loads(line[6:])["actor_id"])  # noqa: PERF401

        reading = asyncio.create_task(read())
        for who, name in ((bob, "bar"), (alice, "foo"), (bob, "bar"), (alice, "foo")):
            body = {"image": "a/b", "name": name}
            result_of(await client.post(f"{api.url}/actors", json=body, headers=who), 201)

        async def has_all() -> bool:
            return len(seen) >= 2

        await eventually(has_all)
        reading.cancel()
        assert seen == ["foo_0", "foo_1"]


async def test_secrets_are_in_no_log_event_or_metric(
    tmp_path: Path, nats_url: str, postgres_dsn: str, provider: Provider, client: httpx.AsyncClient
) -> None:
    of_provider = issuers(provider)
    with apis(tmp_path, nats_url, postgres_dsn, auth_issuers=of_provider, log_level="debug") as [
        api
    ]:
        client.base_url = httpx.URL(api.url)
        await becomes_ready(client)
        root = await admin(api)
        made = (await token_for(client, api, root, "alice"))["token"]
        jwt = provider.token_of("alice")
        body = {"image": "a/b", "name": "foo"}
        result_of(await client.post("/actors", json=body, headers=bearer(made)), 201)
        answer = await client.post("/actors/foo_0/nonces", headers=bearer(made))
        nonce = result_of(answer, 201)["nonce"]
        for path in ("/actors/foo_0", "/tokens"):
            await client.get(path, headers={"x-nonce": nonce})
        planted = [root, made, nonce, jwt, "planted-and-invalid", made[:-3] + "zzz"]
        for text in planted:
            for method, path in (("GET", "/actors"), ("DELETE", "/audit/head"), ("GET", "/tokens")):
                await client.request(method, path, headers=bearer(text))
        metrics = await client.get("/metrics", headers=bearer(root))
        assert "abaco_access_refusals" in metrics.text
        events = await client.get("/events?limit=10000", headers=bearer(root))
        tokens = await client.get("/tokens", headers=bearer(root))
        written = f"{api.log}{metrics.text}{events.text}{tokens.text}"
        assert "refused GET /actors to nobody" in api.log
        for text in planted:
            secret = text.removeprefix("abaco_pat_").removeprefix("abaco_nonce_")[8:]
            assert secret not in written


def test_without_authentication_the_api_is_for_this_machine(tmp_path: Path, nats_url: str) -> None:
    exposed = Api(tmp_path, nats_url, "postgresql://abaco@127.0.0.1:9/none", api_host="0.0.0.0")
    super(Api, exposed).start()
    assert exposed.wait() == 2
    [line] = exposed.log.splitlines()
    assert "ABACO_AUTH is off" in line
