"""Sets of public keys (RFC 7517), and when they are fetched again. Pure."""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from abaco_proto.envelope import DECODE_ERRORS
from abaco_proto.errors import Malformed

MAX_BYTES = 256 * 1024
MAX_KEYS = 100
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192

TYPES: Mapping[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {
    "RSA": RSAKey,
    "EC": ECKey,
    "OKP": OKPKey,
}
"""The types of keys that are used: none is symmetric, so that no public key can be a secret."""

TYPE_OF_ALGORITHM = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class KeySet(msgspec.Struct, frozen=True):
    """The keys of an issuer for signatures, in the order of its set."""

    keys: tuple[Key, ...]

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """The key of a token's header. Without ``kid``, the only key that fits the algorithm."""
        fitting = [key for key in self.keys if _fits(key, algorithm)]
        if kid is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.as_dict(private=False).get("kid") == kid), None)


def parse_key_set(body: bytes) -> KeySet:
    """The keys in the JSON of a set. Those that cannot verify a signature are left out.

    Raises:
        Malformed: it is no key set, or holds no key that can be used.
    """
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])["keys"]
    except (*DECODE_ERRORS, KeyError):
        raise Malformed("it is no JSON Web Key Set") from None
    if not isinstance(found, list):
        raise Malformed("it is no JSON Web Key Set")
    keys = tuple(key for item in found[:MAX_KEYS] if (key := _key(item)) is not None)
    if not keys:
        raise Malformed("it holds no public key for signatures")
    return KeySet(keys)


def _key(item: Any) -> Key | None:
    if not isinstance(item, dict) or item.get("use", "sig") != "sig":
        return None
    kind = TYPES.get(str(item.get("kty")))
    if kind is None:
        return None
    public = {name: value for name, value in item.items() if name not in ("d", "key_ops")}
    try:
        key = kind.import_key(public)
        if isinstance(key, RSAKey):
            bits = key.public_key.key_size
            return key if MIN_RSA_BITS <= bits <= MAX_RSA_BITS else None
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return key


def _fits(key: Key, algorithm: str) -> bool:
    described = key.as_dict(private=False)
    if described["kty"] != TYPE_OF_ALGORITHM[algorithm[:2]]:
        return False
    return described.get("alg", algorithm) == algorithm


class Age(Enum):
    """What may be done with a key set."""

    FRESH = auto()
    STALE = auto()
    EXPIRED = auto()


class Refresh(msgspec.Struct, frozen=True, kw_only=True):
    """When a key set is fetched again; times are seconds of a monotonic clock.

    It is stale after ``refresh_seconds``, and is used on for ``max_age_seconds`` if it cannot be
    fetched. Two fetches are at least ``retry_seconds`` apart, whatever tokens ask for.
    """

    refresh_seconds: float
    max_age_seconds: float
    retry_seconds: float

    def age(self, fetched_at: float | None, now: float) -> Age:
        """How old a set is; one that was never fetched is expired."""
        if fetched_at is None or now - fetched_at > self.max_age_seconds:
            return Age.EXPIRED
        return Age.FRESH if now - fetched_at <= self.refresh_seconds else Age.STALE

    def may_fetch(self, attempted_at: float | None, now: float) -> bool:
        """Whether another fetch may begin."""
        return attempted_at is None or now - attempted_at >= self.retry_seconds
