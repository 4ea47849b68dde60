"""The texts of API tokens and nonces: ``abaco_pat_`` or ``abaco_nonce_``, 43 characters of base62,
and a checksum of 6. Pure.

The random part has 256 bits, so that a plain SHA-256 is a sufficient digest. Its first 8 characters
are the id, which is not secret. The checksum is the CRC32 of all characters before it, in base62;
secret scanners find a text by it, and a mistyped one is refused without a lookup.
"""

import hashlib
import hmac
import zlib

import msgspec

PREFIX = "abaco_pat_"
NONCE_PREFIX = "abaco_nonce_"
RANDOM_BYTES = 32
RANDOM_CHARACTERS = 43
CHECKSUM_CHARACTERS = 6
ID_CHARACTERS = 8
PATTERN = rf"^{PREFIX}[0-9A-Za-z]{{{RANDOM_CHARACTERS + CHECKSUM_CHARACTERS}}}$"

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class ApiToken(msgspec.Struct, frozen=True):
    """A token or nonce: its secret text, and its id, which is in lists, logs and events."""

    text: str
    token_id: str

    def __repr__(self) -> str:
        return f"ApiToken({self.token_id})"


def generate(random: bytes, prefix: str = PREFIX) -> ApiToken:
    """The token with so many random bytes; ``RANDOM_BYTES`` of a secure source."""
    assert len(random) == RANDOM_BYTES
    body = prefix + _base62(int.from_bytes(random, "big"), RANDOM_CHARACTERS)
    return ApiToken(body + _checksum(body), _id(body, prefix))


def token_id_of(text: str, prefix: str = PREFIX) -> str | None:
    """The id of a token; None if the text is none, or mistyped."""
    length = len(prefix) + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS
    if len(text) != length or not text.startswith(prefix) or not text.isascii():
        return None
    body = text[:-CHECKSUM_CHARACTERS]
    if not text[len(prefix) :].isalnum() or text[-CHECKSUM_CHARACTERS:] != _checksum(body):
        return None
    return _id(body, prefix)


def digest(text: str) -> str:
    """What is stored of a token: its SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def matches(text: str, sha256: str) -> bool:
    """Whether a token has this digest, compared in constant time."""
    return hmac.compare_digest(digest(text).encode(), sha256.encode())


def _id(body: str, prefix: str) -> str:
    return body[len(prefix) : len(prefix) + ID_CHARACTERS]


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CHECKSUM_CHARACTERS)


def _base62(number: int, characters: int) -> str:
    found = ""
    for _ in range(characters):
        number, digit = divmod(number, len(_ALPHABET))
        found = _ALPHABET[digit] + found
    return found
