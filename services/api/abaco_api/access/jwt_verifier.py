"""Verifies JWTs (RFC 7519) of the configured issuers, with joserfc.

The order of the checks matters: only a token whose issuer, algorithm and key are acceptable reaches
the library, and only with that one algorithm and that one key. So ``alg: none``, an HMAC with a
public key as its secret, and keys in the token's own header have no effect.
"""

import base64
import binascii
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from joserfc import jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import Key

from abaco_api.access.domain.access_errors import Unauthenticated
from abaco_api.access.domain.claims import principal_of
from abaco_api.access.domain.issuers import Issuer
from abaco_api.access.domain.principal import Principal
from abaco_api.access.issuer_keys import IssuerKeys

MAX_VERIFIED = 10_000
"""Verified tokens that are remembered, so that a token is verified once."""

UNREADABLE = (ValueError, TypeError, KeyError, OverflowError, RecursionError)

T = TypeVar("T")


class _Header(msgspec.Struct, frozen=True):
    alg: str
    kid: str | None = None
    crit: Any = None


class _Issued(msgspec.Struct, frozen=True):
    iss: str


class _Verified(msgspec.Struct, frozen=True):
    """A verified token, and the version of the keys that it was verified with."""

    principal: Principal
    keys: IssuerKeys
    version: int


def _now() -> datetime:
    return datetime.now(UTC)


class JwtVerifier:
    """Verifies the tokens of some issuers."""

    def __init__(
        self,
        issuers: Iterable[tuple[Issuer, IssuerKeys]],
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._issuers = {issuer.issuer: (issuer, keys) for issuer, keys in issuers}
        self._now = now
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    async def known(self, token: str) -> Principal | None:
        """The principal of a token that was verified before and is still valid; None of others.

        Raises:
            Unavailable: the keys are too old to be relied on.
        """
        digest = _digest(token)
        found = self._verified.get(digest)
        if found is None:
            return None
        await found.keys.current()
        expires_at = found.principal.expires_at
        if found.version != found.keys.version or (
            expires_at is not None and expires_at <= self._now()
        ):
            self._verified.pop(digest, None)
            return None
        self._verified.move_to_end(digest)
        return found.principal

    async def verify(self, token: str) -> Principal:
        """The principal of a token.

        Raises:
            Unauthenticated: the token is not valid.
            Unavailable: the keys of its issuer cannot be fetched.
        """
        header, issued = _unverified(token)
        issuer, keys = self._issuers.get(issued.iss, (None, None))
        if issuer is None or keys is None:
            raise Unauthenticated("the token is of an unknown issuer")
        if header.alg not in issuer.algorithms:
            raise Unauthenticated("the token is signed with an algorithm that is not allowed")
        key: Key | None = await keys.find(header.kid, header.alg)
        claims = _signed_claims(token, key, header.alg)
        if claims is None and key is not None:
            key = await keys.renewed(header.kid, header.alg, key)
            claims = _signed_claims(token, key, header.alg)
        if claims is None:
            raise Unauthenticated("the signature of the token is not valid")
        version = keys.version
        try:
            self._check_claims(claims, issuer)
        except (JoseError, *UNREADABLE):
            raise Unauthenticated("the token is not valid, here or now") from None
        principal = principal_of(claims, issuer)
        self._verified[_digest(token)] = _Verified(principal, keys, version)
        while len(self._verified) > MAX_VERIFIED:
            self._verified.popitem(last=False)
        return principal

    def _check_claims(self, claims: dict[str, Any], issuer: Issuer) -> None:
        """Check issuer, audience and times. Raises ``JoseError``."""
        registry = jwt.JWTClaimsRegistry(
            now=int(self._now().timestamp()),
            leeway=int(issuer.leeway_seconds),
            iss={"essential": True, "value": issuer.issuer},
            aud={"essential": True, "value": issuer.audience},
            exp={"essential": True},
        )
        registry.validate(claims)


def _signed_claims(token: str, key: Key | None, algorithm: str) -> dict[str, Any] | None:
    """The claims of a token that is signed with a key; None if it is not."""
    if key is None:
        return None
    try:
        return jwt.decode(token, key, algorithms=[algorithm]).claims
    except BadSignatureError:
        return None
    except (JoseError, *UNREADABLE):
        raise Unauthenticated("the token cannot be read") from None


def _unverified(token: str) -> tuple[_Header, _Issued]:
    """The header and the issuer of a token, before anything of it is believed."""
    parts = token.split(".")
    if len(parts) != 3:
        raise Unauthenticated("the credential is neither a JWT nor an API token")
    header = _part(parts[0], _Header)
    if header.crit is not None:
        raise Unauthenticated("the token has critical headers that are unknown here")
    return header, _part(parts[1], _Issued)


def _part(text: str, kind: type[T]) -> T:
    try:
        body = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(body, type=kind)
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError):
        raise Unauthenticated("the credential cannot be read") from None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
