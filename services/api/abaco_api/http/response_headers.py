"""Headers of every response: the id of its request, and what a browser may do with it."""

import re
from collections.abc import Sequence
from secrets import token_hex

REQUEST_ID = b"x-request-id"

HEADERS: Sequence[tuple[bytes, bytes]] = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
"""Answers depend on the credential, so no cache may keep them; they are data, never a page."""

_USABLE = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def request_id(sent: bytes | None) -> bytes:
    """The id of a request: the one that its client sent, if it is short and harmless, or a new one.

    It is written into log lines and spans.
    """
    if sent is not None and _USABLE.fullmatch(sent):
        return sent
    return token_hex(16).encode()


def response_headers(hsts_seconds: int) -> Sequence[tuple[bytes, bytes]]:
    """The headers of every response; with HSTS (RFC 6797) if it is for more than 0 seconds."""
    if not hsts_seconds:
        return HEADERS
    return (*HEADERS, (b"strict-transport-security", f"max-age={hsts_seconds}".encode()))
