"""Every operation with every kind of credential, made from the routes: who gets which answer."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

import builders as b
from abaco_api.access.domain import api_token
from abaco_api.access.domain.principal import LEVELS, WORLD, Role
from abaco_api.access.domain.rules import ROLE_LEVELS, RULES, Rule
from abaco_api.api_settings import ApiSettings
from abaco_api.dependencies import assemble
from abaco_api.http.application import DOCUMENTS, create_app
from abaco_api.routes import OPERATIONS
from abaco_proto import envelope
from abaco_proto import events as ev
from abaco_proto.envelope import format_time
from abaco_proto.events import PermissionLevel
from fakes import InMemoryEventLog, InMemoryOutputLog
from servers import LOOPBACK, free_port

NONE, READ, EXECUTE, UPDATE = LEVELS
NOW = datetime.now(UTC)
EVERYTHING = [(o.method, o.path) for o in OPERATIONS] + [("GET", path) for path in DOCUMENTS]

BODIES: dict[str, Any] = {
    "/actors": {"image": "jstubbs/abaco_test", "name": "bar"},
    "/actors/{actor_id}": {"description": "new"},
    "/actors/{actor_id}/messages": {"message": {"queue": "x", "status": "y", "privileged": True}},
    "/actors/{actor_id}/state": {"state": 1},
    "/actors/{actor_id}/workers": {"num": 1},
    "/actors/{actor_id}/subscriptions": {"event_pattern": "foo_0.execution.finished"},
    "/actors/{actor_id}/permissions": {"user": "carol", "level": "READ"},
    "/actors/{actor_id}/nonces": {"max_uses": 3},
    "/tokens": {"name": "laptop"},
}
IDS = {
    "actor_id": "foo_0",
    "execution_id": "foo_0_exc_0",
    "worker_id": "foo_0_wkr_0",
    "subscription_id": "foo_0_sub_1",
    "token_id": "AbCd1234",
    "nonce_id": "AbCd1234",
    "sequence": "1",
}


class Caller:
    """A credential: a token of ``alice`` with these rights, a nonce that she made, or a text that
    is no valid one.
    """

    def __init__(
        self,
        *roles: Role,
        level: PermissionLevel = NONE,
        world: PermissionLevel = NONE,
        sent: str | None = None,
        tenant: str = "default",
        nonce: dict[str, Any] | None = None,
        **token: Any,
    ) -> None:
        self.roles, self.level, self.world = roles, level, world
        self.sent, self.tenant, self.token, self.nonce = sent, tenant, token, nonce

    @property
    def authenticated(self) -> bool:
        if self.nonce is not None:
            return not {"deleted", "text"} & self.nonce.keys()
        return self.sent is None and not {"expires_at", "revoked"} & self.token.keys()

    @property
    def headers(self) -> dict[str, str]:
        if self.nonce is not None:
            return {"x-nonce": self.nonce.get("text", NONCE.text)}
        sent = f"Bearer {SECRET.text}" if self.sent is None else self.sent
        return {"authorization": sent} if sent else {}


SECRET = api_token.generate(bytes(range(32)))
FORGED = api_token.generate(bytes(range(31)) + b"x")
"""With the id of the other, which everybody may see, and a secret of its own."""

NONCE = api_token.generate(bytes(range(1, 33)), api_token.NONCE_PREFIX)
FORGED_NONCE = api_token.generate(bytes(range(1, 32)) + b"x", api_token.NONCE_PREFIX)

LIMITS = ("read_only", "actors")
EXPIRED: dict[str, Any] = {"expires_at": format_time(NOW - timedelta(seconds=1))}
CALLERS = {
    "no credential": Caller(sent=""),
    "not a bearer token": Caller(sent="Basic YTpi"),
    "nonsense": Caller(sent="Bearer nonsense"),
    "a forged token": Caller(Role.ADMIN, level=UPDATE, sent=f"Bearer {FORGED.text}"),
    "an unknown token": Caller(sent=f"Bearer {api_token.generate(bytes(31) + b'x').text}"),
    "a mistyped token": Caller(sent=f"Bearer {api_token.generate(bytes(32)).text[:-1]}!"),
    "an expired token": Caller(Role.ADMIN, level=UPDATE, **EXPIRED),
    "a revoked token": Caller(Role.ADMIN, level=UPDATE, revoked=True),
    "a read-only token": Caller(Role.ADMIN, level=UPDATE, read_only=True),
    "a token for this actor": Caller(level=UPDATE, actors=("foo_0",)),
    "a token for another actor": Caller(Role.ADMIN, level=UPDATE, actors=("foo_1",)),
    **{f"the level {level}": Caller(level=level) for level in LEVELS},
    **{f"the level {level} of everybody": Caller(world=level) for level in LEVELS},
    **{f"the role {role}": Caller(role) for role in Role},
    "the developer who owns it": Caller(Role.DEVELOPER, level=UPDATE),
    "another tenant": Caller(level=UPDATE, world=UPDATE, tenant="another"),
    "the admin of another tenant": Caller(Role.ADMIN, level=UPDATE, tenant="another"),
    # The one who made the nonce is an admin, and everybody may change the actor.
    **{
        f"a nonce with the level {level}": Caller(
            Role.ADMIN, level=UPDATE, world=UPDATE, nonce={"level": level}
        )
        for level in LEVELS
    },
    "a nonce for another actor": Caller(nonce={"level": UPDATE, "actor_id": "foo_1"}),
    "a nonce that is used up": Caller(nonce={"level": UPDATE, "used_up": True}),
    "a deleted nonce": Caller(nonce={"level": UPDATE, "deleted": True}),
    "a forged nonce": Caller(nonce={"level": UPDATE, "text": FORGED_NONCE.text}),
    "a mistyped nonce": Caller(nonce={"level": UPDATE, "text": NONCE.text[:-1] + "!"}),
    "a token as a nonce": Caller(Role.ADMIN, nonce={"level": UPDATE, "text": SECRET.text}),
    "a nonce as a token": Caller(level=UPDATE, sent=f"Bearer {NONCE.text}"),
}


def expected(method: str, path: str, caller: Caller) -> int | None:
    """The status of a refusal, from the table; None if the operation is executed."""
    rule = RULES[method, path]
    if rule.public:
        return None
    if not caller.authenticated:
        return 401
    if caller.nonce is not None:
        return expected_of_nonce(rule, caller.nonce)
    actors = caller.token.get("actors")
    read_only = caller.token.get("read_only", False)
    has_role = bool(rule.roles & set(caller.roles))
    if (method, path) == ("POST", "/tokens"):  # these callers are tokens
        return None if Role.ADMIN in caller.roles and not set(LIMITS) & set(caller.token) else 403
    is_home = caller.tenant == "default"
    if rule.level is None:
        allowed = is_home or not rule.installation
        allowed = allowed and (has_role or not rule.roles) and (actors is None or rule.filtered)
        return 403 if not allowed or (read_only and method != "GET") else None
    own = [caller.level, caller.world] if is_home else []
    levels = [NONE, *own, *(ROLE_LEVELS[role] for role in caller.roles)]
    level = max(map(LEVELS.index, levels))
    if level == 0 or (actors is not None and "foo_0" not in actors):
        return 404
    if read_only:
        return None if method == "GET" else 403
    return None if level >= LEVELS.index(rule.level) or has_role else 403


def expected_of_nonce(rule: Rule, nonce: dict[str, Any]) -> int | None:
    allowed = 401 if "used_up" in nonce else None
    if rule.level is None:
        return allowed if rule.filtered else 403
    if nonce["level"] is NONE or "actor_id" in nonce:
        return 404
    levels = LEVELS.index(nonce["level"]), LEVELS.index(rule.level)
    return 403 if rule.shares or levels[0] < levels[1] else allowed


def log_of(caller: Caller) -> InMemoryEventLog:
    log = InMemoryEventLog()

    def put(event: ev.Event, tenant: str = "default") -> None:
        drafted = b.envelope_of(event, at=NOW, tenant=tenant)
        log.put_raw(drafted.subject, envelope.to_headers(drafted), envelope.encode(event))

    put(b.registered())
    put(b.registered("foo_1"))
    put(b.received())
    put(b.updated(revision=1, image="jstubbs/abaco_test"))  # an event that is not folded
    for user, level in (("alice", caller.level), (WORLD, caller.world)):
        put(ev.PermissionSet(actor_id="foo_0", user=user, level=level))
    changes = {name: value for name, value in caller.token.items() if name != "revoked"}
    put(
        b.token_created(
            SECRET.token_id,
            **{
                "sha256": api_token.digest(SECRET.text),
                "roles": tuple(caller.roles),
                "actors": None,
                "expires_at": format_time(NOW + timedelta(days=1)),
                **changes,
            },
        ),
        caller.tenant,
    )
    nonce = caller.nonce or {}
    put(
        b.nonce_created(
            NONCE.token_id,
            sha256=api_token.digest(NONCE.text),
            actor_id=nonce.get("actor_id", "foo_0"),
            level=nonce.get("level", UPDATE),
            max_uses=1 if "used_up" in nonce else -1,
        )
    )
    if "used_up" in nonce:
        put(ev.NonceRedeemed(nonce_id=NONCE.token_id, use=1))
    if "deleted" in nonce:
        put(ev.NonceDeleted(nonce_id=NONCE.token_id, uses=0))
    if "revoked" in caller.token:
        put(ev.TokenRevoked(token_id=SECRET.token_id))
    return log


@asynccontextmanager
async def served(caller: Caller) -> AsyncGenerator[httpx.AsyncClient, None]:
    """The api over a log in memory, without Postgres: a query that is allowed gets 503."""

    settings = ApiSettings(
        auth="on",
        postgres_dsn=f"postgresql://abaco@{LOOPBACK}:{free_port()}/abaco",
        read_wait_seconds=0,
        query_timeout_seconds=5,
        append_timeout_seconds=30,
    )
    tenants = assemble(settings, log_of(caller), InMemoryOutputLog())
    folds = [asyncio.create_task(run()) for run in tenants.loops]
    transport = httpx.ASGITransport(create_app(tenants))
    try:
        async with httpx.AsyncClient(
            transport=transport,
            base_url="http://test",
            headers=caller.headers,
        ) as client:
            yield client
    finally:
        for fold in folds:
            fold.cancel()
        await asyncio.gather(*folds, return_exceptions=True)
        tenants.pool.close()


class Body:
    """A body in JSON, and whether the api has read any of it."""

    def __init__(self, value: Any) -> None:
        self._text = json.dumps(value).encode()
        self.is_read = False

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        self.is_read = True
        yield self._text


async def ask(client: httpx.AsyncClient, method: str, path: str, **ids: str) -> httpx.Response:
    """The answer; ``body_is_read`` in its extensions is whether the api read the body."""
    url = path.format(**{**IDS, **ids})
    if method not in ("POST", "PUT"):
        return await client.request(method, url)
    body = Body(BODIES.get(path, {}))
    headers = {"content-type": "application/json"}
    answer = await client.request(method, url, content=body, headers=headers)
    answer.extensions["body_is_read"] = body.is_read
    return answer


@pytest.mark.parametrize(("method", "path"), EVERYTHING, ids=[" ".join(e) for e in EVERYTHING])
async def test_every_credential_gets_its_answer(method: str, path: str) -> None:
    for name, caller in CALLERS.items():
        async with served(caller) as client:
            answer = await ask(client, method, path)
            status = expected(method, path, caller)
            if status is None:
                assert answer.status_code not in (401, 403), (name, answer.text)
                if caller.tenant == "default":
                    assert "there is no actor 'foo_0'" not in answer.text, (name, answer.text)
                elif "{actor_id}" in path:  # 503: a query, without Postgres
                    assert answer.status_code in (404, 503), (name, answer.text)
                    assert "jstubbs" not in answer.text
                assert answer.status_code != 500, (name, answer.text)
                assert answer.extensions.get("body_is_read", True), name
                continue
            assert answer.status_code == status, (name, answer.text)
            body = answer.json()
            assert (body["status"], body["result"]) == ("error", None)
            assert ("www-authenticate" in answer.headers) == (status == 401)
            assert "jstubbs" not in answer.text
            is_used_up = "used_up" in (caller.nonce or {})  # its uses are counted at its execution
            if path != "/tokens" and not is_used_up:  # a token may be refused for what it asks for
                assert not answer.extensions.get("body_is_read", False), name
            if status == 404:
                unknown = await ask(client, method, path, actor_id="bar_7")
                assert unknown.status_code == 404
                assert unknown.text.replace("bar_7", "foo_0") == answer.text


def test_a_forged_token_differs_in_its_secret_alone() -> None:
    assert FORGED.token_id == SECRET.token_id
    assert FORGED.text != SECRET.text
    assert not api_token.matches(FORGED.text, api_token.digest(SECRET.text))


async def test_without_a_credential_the_challenge_names_no_error() -> None:
    async with served(CALLERS["no credential"]) as client:
        answer = await client.get("/actors/foo_0")
        assert answer.headers["www-authenticate"] == 'Bearer realm="abaco"'
    async with served(CALLERS["nonsense"]) as client:
        answer = await client.get("/actors/foo_0")
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


async def test_a_line_is_written_only_of_refusals_that_are_limited(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with served(CALLERS["no credential"]) as client:
        for sent, refused in (("", 0), ("Bearer nonsense", 1)):
            caplog.clear()
            await client.get("/actors", headers={"authorization": sent} if sent else {})
            assert caplog.text.count("refused GET /actors to nobody") == refused


async def test_a_credential_that_is_too_long_is_not_an_error_of_ours() -> None:
    async with served(Caller(sent="Bearer " + "a" * 16 * 1024)) as client:
        answer = await client.get("/actors/foo_0")
        assert (answer.status_code, answer.json()["error"]) == (431, "too_large")


@pytest.mark.parametrize("sent", ["Bearer", "Bearer ", "bearer a b", "Bearer \xe9", "abaco_pat_x"])
async def test_a_malformed_header_is_a_bad_credential(sent: str) -> None:
    async with served(Caller(sent="")) as client:
        headers = {"authorization": sent.encode("latin-1")}
        assert (await client.get("/tokens", headers=headers)).status_code == 401  # type: ignore[arg-type]


async def test_two_credentials_are_none() -> None:
    async with served(Caller(Role.ADMIN)) as client:
        headers = [("Authorization", f"Bearer {SECRET.text}")] * 2
        assert (await client.get("/tokens", headers=headers)).status_code == 401


async def test_a_header_names_no_tenant_and_a_path_gives_no_role() -> None:
    """Holes of Abaco: the tenant of a header, and any path with the text admin."""
    async with served(Caller()) as client:
        headers = {"X-Tapis-Tenant": "other", "X-Jwt-Assertion-other": "x", "tenant": "other"}
        assert (await client.get("/actors/foo_0", headers=headers)).status_code == 404
        assert (await client.get("/actors/admin_0")).status_code == 404
        assert (await client.get("/actors/admin")).status_code == 404


async def test_a_right_on_one_name_is_none_on_a_name_with_it_inside() -> None:
    """A hole of Abaco: names were matched by a part of them."""
    for caller in (Caller(level=UPDATE), Caller(Role.ADMIN, actors=("foo_0",))):
        async with served(caller) as client:
            assert (await client.get("/actors/foo_0/permissions")).status_code == 200
            for actor_id in ("foo_00", "foo_01", "foo", "oo_0", "xfoo_0", "foo_0x_0"):
                answer = await client.get(f"/actors/{actor_id}/permissions")
                assert answer.status_code == 404, (actor_id, answer.text)


async def test_what_the_server_decides_is_no_parameter() -> None:
    """A hole of Abaco: uid, gid, status and owner were taken from clients."""
    async with served(Caller(Role.DEVELOPER)) as client:
        for name in ("uid", "gid", "status", "owner", "tenant"):
            body = {"image": "jstubbs/abaco_test", "name": "bar", name: "1"}
            answer = await client.post("/actors", json=body)
            assert answer.status_code == 400, answer.text
            assert answer.json()["msg"].startswith(f"{name}:")


async def test_a_message_may_hold_any_key() -> None:
    """A hole of Abaco: messages with the keys of privileged parameters were refused."""
    async with served(Caller(level=EXECUTE)) as client:
        for key in ("queue", "privileged", "max_workers", "uid"):
            body = {"message": {key: True}}
            assert (await client.post("/actors/foo_0/messages", json=body)).status_code == 200


async def test_privileged_parameters_need_a_role_here_too() -> None:
    async with served(Caller(Role.DEVELOPER, level=UPDATE)) as client:
        body = {"image": "jstubbs/abaco_test", "name": "bar"}
        for more in ({"mem_limit": "1g"}, {"max_workers": 50}, {"min_workers": 50}):
            answer = await client.post("/actors", json={**body, **more})
            assert (answer.status_code, answer.json()["error"]) == (403, "forbidden"), answer.text
            answer = await client.put("/actors/foo_0", json=more)
            assert answer.status_code in (400, 403), answer.text
        assert (await client.post("/actors", json=body)).status_code == 201
        scaled = await client.post("/actors/foo_0/workers", json={"num": 50})
        assert scaled.status_code == 403
        assert (await client.post("/actors/foo_0/workers", json={"num": 3})).status_code == 200


async def test_the_creator_may_update_and_share_and_nobody_else() -> None:
    async with served(Caller(Role.DEVELOPER)) as client:
        created = await client.post("/actors", json={"image": "x", "name": "bar"})
        actor_id = created.json()["result"]["id"]
        levels = (await client.get(f"/actors/{actor_id}/permissions")).json()["result"]
        assert levels == {"alice": "UPDATE"}
        body = {"user": WORLD, "level": "EXECUTE"}
        shared = await client.post(f"/actors/{actor_id}/permissions", json=body)
        assert shared.json()["result"] == {"alice": "UPDATE", WORLD: "EXECUTE"}
        body = {"user": "alice", "level": "NONE"}
        await client.post(f"/actors/{actor_id}/permissions", json=body)
        # EXECUTE of everybody is left, which is not UPDATE
        assert (await client.put(f"/actors/{actor_id}", json={})).status_code == 403
        assert (await client.get(f"/actors/{actor_id}/permissions")).status_code == 200


@pytest.mark.parametrize("body", [{"user": "", "level": "READ"}, {"user": "a", "level": "ALL"}, {}])
async def test_a_permission_that_is_none_is_refused(body: dict[str, str]) -> None:
    async with served(Caller(level=UPDATE)) as client:
        assert (await client.post("/actors/foo_0/permissions", json=body)).status_code == 400


async def test_a_subscription_is_to_what_one_may_read() -> None:
    async with served(Caller(Role.DEVELOPER, level=UPDATE)) as client:
        path = "/actors/foo_0/subscriptions"
        for pattern, status in (
            (">", 403),
            ("foo_*.execution.finished", 403),
            ("_host-h1.host.lost", 403),
            ("bar_0.execution.finished", 404),
            ("foo_0.execution.finished", 201),
        ):
            answer = await client.post(path, json={"event_pattern": pattern})
            assert answer.status_code == status, (pattern, answer.text)


async def test_tokens_are_made_shown_once_and_revoked() -> None:
    async with served(Caller(Role.ADMIN)) as client:
        body = {"name": "ci", "owner": "bob", "roles": ["developer"], "days": 1}
        made = (await client.post("/tokens", json=body)).json()["result"]
        text = made["token"]
        assert text.startswith(made["prefix"])
        own = {"authorization": f"Bearer {text}"}
        assert (await client.get("/tokens", headers=own)).json()["result"][0]["owner"] == "bob"
        assert len((await client.get("/tokens")).json()["result"]) == 2
        assert text not in (await client.get("/tokens")).text
        more = {"name": "more", "owner": "bob"}
        assert (await client.post("/tokens", json=more, headers=own)).status_code == 403
        alices = f"/tokens/{SECRET.token_id}"
        assert (await client.delete(alices, headers=own)).status_code == 404
        assert (await client.delete(f"/tokens/{made['id']}", headers=own)).status_code == 200
        assert (await client.get("/tokens", headers=own)).status_code == 401


async def test_a_token_made_again_with_its_key_is_not_shown_again() -> None:
    async with served(Caller(Role.ADMIN)) as client:
        headers = {"Idempotency-Key": "one"}
        first = await client.post("/tokens", json={"name": "ci"}, headers=headers)
        again = await client.post("/tokens", json={"name": "ci"}, headers=headers)
        assert (first.status_code, again.status_code) == (201, 201)
        assert again.json()["result"]["token"] is None
        assert again.json()["result"]["id"] == first.json()["result"]["id"]


async def test_failures_are_limited_by_address_and_valid_tokens_are_not() -> None:
    async with served(Caller(Role.ADMIN)) as client:
        bad = {"authorization": "Bearer nonsense"}
        statuses = [(await client.get("/tokens", headers=bad)).status_code for _ in range(70)]
        assert set(statuses[:50]) == {401}
        assert statuses[-1] == 429
        assert (await client.get("/tokens")).status_code == 200


async def test_the_matrix_is_of_all_operations() -> None:
    assert set(EVERYTHING) == set(RULES)
