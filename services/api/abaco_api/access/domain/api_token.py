"""API tokens: ``abaco_pat_`` + 43 characters of base62 + a checksum of 6. Pure.

The random part has 256 bits, so that a plain SHA-256 is a sufficient digest. Its first 8 characters
are the id of the token, which is not secret. The checksum is the CRC32 of all characters before it,
in base62; secret scanners find a token by it, and a mistyped one is refused without a lookup.
"""

import hashlib
import hmac
import zlib

import msgspec

PREFIX = "abaco_pat_"
RANDOM_BYTES = 32
RANDOM_CHARACTERS = 43
CHECKSUM_CHARACTERS = 6
ID_CHARACTERS = 8
LENGTH = len(PREFIX) + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS
PATTERN = rf"^{PREFIX}[0-9A-Za-z]{{{RANDOM_CHARACTERS + CHECKSUM_CHARACTERS}}}$"

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class ApiToken(msgspec.Struct, frozen=True):
    """A token: its secret text, and its id, which is visible in lists, logs and events."""

    text: str
    token_id: str

    def __repr__(self) -> str:
        return f"ApiToken({self.token_id})"


def generate(random: bytes) -> ApiToken:
    """The token with so many random bytes; ``RANDOM_BYTES`` of a secure source."""
    assert len(random) == RANDOM_BYTES
    body = PREFIX + _base62(int.from_bytes(random, "big"), RANDOM_CHARACTERS)
    return ApiToken(body + _checksum(body), _id(body))


def token_id_of(text: str) -> str | None:
    """The id of a token; None if the text is none, or mistyped."""
    if len(text) != LENGTH or not text.startswith(PREFIX) or not text.isascii():
        return None
    body = text[:-CHECKSUM_CHARACTERS]
    if not text[len(PREFIX) :].isalnum() or text[-CHECKSUM_CHARACTERS:] != _checksum(body):
        return None
    return _id(body)


def digest(text: str) -> str:
    """What is stored of a token: its SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def matches(text: str, sha256: str) -> bool:
    """Whether a token has this digest, compared in constant time."""
    return hmac.compare_digest(digest(text).encode(), sha256.encode())


def _id(body: str) -> str:
    return body[len(PREFIX) : len(PREFIX) + ID_CHARACTERS]


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CHECKSUM_CHARACTERS)


def _base62(number: int, characters: int) -> str:
    found = ""
    for _ in range(characters):
        number, digit = divmod(number, len(_ALPHABET))
        found = _ALPHABET[digit] + found
    return found
