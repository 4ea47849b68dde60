"""JWTs: what is accepted, what is refused, and what happens when keys cannot be fetched."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey

from abaco_api.access.domain.access_errors import Unauthenticated
from abaco_api.access.domain.issuers import Issuer
from abaco_api.access.domain.key_set import MAX_BYTES, parse_key_set
from abaco_api.access.domain.principal import Role
from abaco_api.access.issuer_keys import IssuerKeys
from abaco_api.access.jwt_verifier import JwtVerifier
from abaco_api.access.key_source import key_source
from abaco_proto.errors import Malformed, Unavailable
from access_stage import served
from deadlines import LIMIT_SECONDS

NOW = datetime.now(UTC)
ISSUER = Issuer(
    issuer="https://sso.example",
    audience="abaco",
    jwks_url="https://sso.example/keys",
    tenant="default",
    algorithms=("RS256", "ES256"),
)
KEY = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
OTHER = RSAKey.generate_key(2048, {"kid": "two"})
CURVE = ECKey.generate_key("P-256", {"kid": "curve"})


def key_set(*keys: Key) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


class Provider:
    """The keys of an issuer, which may be away; counts how often they are asked for."""

    def __init__(self, *keys: Key) -> None:
        self.body = key_set(*keys)
        self.is_away = False
        self.fetched = 0
        self.clock = 0.0
        self.now = NOW
        self.keys = IssuerKeys(ISSUER, self.fetch, lambda: self.clock)
        self.verifier = JwtVerifier([(ISSUER, self.keys)], lambda: self.now)

    async def fetch(self) -> bytes:
        self.fetched += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise Unavailable("refused")
        return self.body


def claims(**changes: Any) -> dict[str, Any]:
    seconds = int(NOW.timestamp())
    found = {
        "iss": ISSUER.issuer,
        "aud": "abaco",
        "exp": seconds + 300,
        "preferred_username": "alice",
        "realm_access": {"roles": ["abaco-developer"]},
        **changes,
    }
    return {name: value for name, value in found.items() if value is not None}


def signed(key: Key = KEY, alg: str = "RS256", kid: str | None = "one", **changes: Any) -> str:
    header = {"alg": alg} | ({"kid": kid} if kid is not None else {})
    return jwt.encode(header, claims(**changes), key, algorithms=[alg])


def raw(header: dict[str, Any], payload: dict[str, Any], signature: str = "") -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in (header, payload)
    ]
    return ".".join([*parts, signature])


async def test_a_valid_token_is_its_user() -> None:
    provider = Provider(KEY, CURVE)
    principal = await provider.verifier.verify(signed())
    assert (principal.user, principal.tenant, principal.roles) == (
        "alice",
        "default",
        frozenset({Role.DEVELOPER}),
    )
    assert (await provider.verifier.verify(signed(CURVE, "ES256", "curve"))).user == "alice"
    assert (await provider.verifier.verify(signed(aud=["x", "abaco"]))).user == "alice"
    assert provider.fetched == 1


SECONDS = int(NOW.timestamp())


def with_hmac(secret: bytes) -> str:
    """What an attacker makes who has only the public key."""
    unsigned = raw({"alg": "HS256", "kid": "one"}, claims()).rstrip(".")
    mac = hmac.digest(secret, unsigned.encode(), "sha256")
    return f"{unsigned}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


REFUSED: dict[str, Callable[[], str]] = {
    "another audience": lambda: signed(aud="other"),
    "no audience": lambda: signed(aud=None),
    "another issuer": lambda: signed(iss="https://evil.example"),
    "expired": lambda: signed(exp=SECONDS - 31),
    "no expiry": lambda: signed(exp=None),
    "not valid yet": lambda: signed(nbf=SECONDS + 3600),
    "issued in the future": lambda: signed(iat=SECONDS + 3600),
    "another key with a known id": lambda: signed(OTHER),
    "an unknown key": lambda: signed(OTHER, kid="two"),
    "an algorithm that is not allowed": lambda: signed(alg="RS512"),
    "an algorithm of another type of key": lambda: signed(CURVE, "ES256", "one"),
    "unsigned": lambda: raw({"alg": "none"}, claims()),
    "unsigned, with a key": lambda: raw({"alg": "none", "kid": "one"}, claims()),
    "no signature": lambda: signed().rpartition(".")[0] + ".",
    "the public key as an HMAC secret": lambda: with_hmac(KEY.as_pem(private=False)),
    "a key in its own header": lambda: raw(
        {"alg": "RS256", "jwk": OTHER.as_dict(private=False)}, claims(), "AAAA"
    ),
    "critical headers": lambda: raw({"alg": "RS256", "kid": "one", "crit": ["b64"]}, claims()),
    "changed claims": lambda: ".".join(
        [signed().split(".")[0], raw({}, claims(preferred_username="root")).split(".")[1], "AAAA"]
    ),
    "no JWT": lambda: "nonsense",
    "an encrypted one": lambda: "a.b.c.d.e",
    "not base64": lambda: "!.!.!",
    "no JSON": lambda: "AAAA.AAAA.AAAA",
    "a list": lambda: raw([], []),  # type: ignore[arg-type]
    "deep JSON": lambda: raw({"alg": "RS256"}, claims()).replace(".", "." + "A" * 5000),
    "a user that is everybody": lambda: signed(preferred_username="ABACO_WORLD"),
    "an issuer that is no text": lambda: raw({"alg": "RS256"}, claims(iss=["a"])),
    "a kid that is no text": lambda: raw({"alg": "RS256", "kid": {"a": 1}}, claims()),
}


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize("case", REFUSED)
async def test_an_invalid_token_is_refused(case: str) -> None:
    provider = Provider(KEY, CURVE)
    with pytest.raises(Unauthenticated):
        await provider.verifier.verify(REFUSED[case]())
    assert await provider.verifier.known(signed()) is None


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
async def test_over_http_an_invalid_token_is_401_whatever_is_wrong(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_bytes(key_set(KEY, CURVE))
    issuer = {
        "issuer": ISSUER.issuer,
        "audience": ISSUER.audience,
        "jwks_file": str(keys),
        "tenant": "default",
        "algorithms": ISSUER.algorithms,
    }
    settings = {"auth_issuers": json.dumps([issuer]), "auth_failures_per_minute": 1000}
    async with served(auth="on", **settings) as client:

        async def status(token: str) -> int:
            headers = {"authorization": f"Bearer {token}"}
            return (await client.get("/tokens", headers=headers)).status_code

        assert await status(signed()) == 200
        found = {case: await status(make()) for case, make in REFUSED.items()}
        assert found == {**dict.fromkeys(REFUSED, 401), "deep JSON": 431}  # 10 kB
        assert await status(signed(padding="x" * 16 * 1024)) == 431


async def test_without_a_kid_the_only_fitting_key_is_used() -> None:
    assert (await Provider(KEY, CURVE).verifier.verify(signed(kid=None))).user == "alice"
    with pytest.raises(Unauthenticated):
        await Provider(KEY, OTHER).verifier.verify(signed(kid=None))


async def test_the_leeway_is_for_clocks() -> None:
    assert (await Provider(KEY).verifier.verify(signed(exp=SECONDS - 20))).user == "alice"
    assert (await Provider(KEY).verifier.verify(signed(nbf=SECONDS + 20))).user == "alice"


async def test_a_verified_token_is_known_until_it_expires() -> None:
    provider = Provider(KEY)
    token = signed()
    assert await provider.verifier.known(token) is None
    await provider.verifier.verify(token)
    assert (await provider.verifier.known(token)).user == "alice"  # type: ignore[union-attr]
    provider.now = NOW + timedelta(seconds=301)
    assert await provider.verifier.known(token) is None


# -- keys ------------------------------------------------------------------------------------------


async def test_a_new_key_is_found_at_once_and_the_old_one_is_gone_with_the_next_set() -> None:
    provider = Provider(KEY)
    old = signed()
    await provider.verifier.verify(old)
    provider.body = key_set(OTHER)
    provider.clock = 20
    assert (await provider.verifier.verify(signed(OTHER, kid="two"))).user == "alice"
    assert await provider.verifier.known(old) is None
    with pytest.raises(Unauthenticated):
        await provider.verifier.verify(old)


async def test_a_new_key_may_have_the_name_of_the_old_one() -> None:
    provider = Provider(KEY)
    old = signed()
    await provider.verifier.verify(old)
    same_name = RSAKey.generate_key(2048, {"kid": "one"})
    provider.body, provider.clock = key_set(same_name), 20
    assert (await provider.verifier.verify(signed(same_name))).user == "alice"
    assert await provider.verifier.known(old) is None
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await provider.verifier.verify(old)
    assert provider.fetched == 2


async def test_unknown_keys_are_no_flood_of_fetches() -> None:
    provider = Provider(KEY)
    for second in range(100):
        provider.clock = second / 5
        with pytest.raises(Unauthenticated):
            await provider.verifier.verify(signed(OTHER, kid=f"unknown-{second}"))
    assert provider.fetched <= 3


async def test_many_at_once_wait_for_one_fetch() -> None:
    provider = Provider(KEY)
    await asyncio.gather(*[provider.verifier.verify(signed()) for _ in range(50)])
    assert provider.fetched == 1


async def test_while_keys_cannot_be_fetched_the_last_ones_go_on_for_a_time() -> None:
    provider = Provider(KEY)
    token = signed()
    await provider.verifier.verify(token)
    provider.is_away = True
    provider.clock = ISSUER.max_age_seconds - 1
    assert (await provider.verifier.verify(token)).user == "alice"
    assert await provider.verifier.known(token)
    provider.clock = ISSUER.max_age_seconds + 1
    for check in (provider.verifier.verify, provider.verifier.known):
        with pytest.raises(Unavailable):
            await check(token)
    provider.is_away = False
    provider.clock += ISSUER.retry_seconds
    assert (await provider.verifier.verify(token)).user == "alice"


async def test_keys_that_were_never_fetched_are_no_access() -> None:
    provider = Provider(KEY)
    provider.is_away = True
    for _ in range(10):
        with pytest.raises(Unavailable):
            await provider.verifier.verify(signed())
    assert provider.fetched == 1
    with pytest.raises(Unauthenticated):
        await provider.verifier.verify(signed(iss="https://evil.example"))


async def test_a_set_that_cannot_be_read_changes_nothing() -> None:
    provider = Provider(KEY)
    await provider.verifier.verify(signed())
    provider.body, provider.clock = b'{"keys": []}', 400
    assert (await provider.verifier.verify(signed())).user == "alice"
    async with asyncio.timeout(LIMIT_SECONDS):
        while provider.fetched < 2:
            await asyncio.sleep(0)
    assert (await provider.verifier.verify(signed())).user == "alice"


@pytest.mark.parametrize(
    "body",
    [
        *(b'{"keys": "\xff"}', b'{"keys": ' + b"[" * 100_000),
        *(b"", b"[]", b'{"keys": 7}', b'{"keys": [7, {}, {"kty": "XYZ"}]}', b"<html>"),
        json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "one"}]}).encode(),
        json.dumps({"keys": [{**OTHER.as_dict(private=False), "use": "enc"}]}).encode(),
        json.dumps({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}).encode(),
    ],
)
def test_a_set_without_public_keys_for_signatures_is_none(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_key_set(body)


def test_a_secret_key_beside_a_public_one_is_left_out() -> None:
    both = {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "one"}, KEY.as_dict(private=False)]}
    found = parse_key_set(json.dumps(both).encode())
    assert [key.key_type for key in found.keys] == ["RSA"]


# -- sources ---------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/keys":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(key_set(KEY))
        elif self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/keys")
            self.end_headers()
        elif self.path == "/long":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b" " * (MAX_BYTES + 1))
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # the client goes away
                for _ in range(50):
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.1)
        else:
            self.send_error(500)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Any:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def from_url(url: str, seconds: float = 30) -> Any:
    return key_source(
        Issuer(issuer="x", audience="a", jwks_url=url, tenant="default", fetch_seconds=seconds)
    )


async def test_keys_come_from_an_address(url: str) -> None:
    assert await from_url(f"{url}/keys")() == key_set(KEY)


@pytest.mark.parametrize("path", ["/missing", "/moved", "/long"])
async def test_an_answer_that_is_no_key_set_is_refused(url: str, path: str) -> None:
    with pytest.raises(Unavailable):
        await from_url(f"{url}{path}")()


async def test_a_slow_answer_ends_at_the_deadline(url: str) -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable):
        await from_url(f"{url}/slow", 0.3)()
    assert asyncio.get_running_loop().time() - began < 4


async def test_keys_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    issuer = Issuer(issuer="x", audience="a", jwks_file=str(path), tenant="default")
    with pytest.raises(Unavailable, match="No such file"):
        await key_source(issuer)()
    path.write_bytes(key_set(KEY))
    assert await key_source(issuer)() == key_set(KEY)
