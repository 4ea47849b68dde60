"""``Content-Encoding``: bodies that were made smaller, made whole again within the limit."""

import zlib
from collections.abc import Iterable

from abaco_api.http.http_errors import BodyTooLarge, UnsupportedCoding
from abaco_proto.errors import Malformed

CODINGS = ("gzip", "deflate")

_GZIP = 16 + zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


def decoded(raw: bytes, headers: Iterable[str], limit: int) -> bytes:
    """The body as it was before its coding, at most ``limit`` bytes: more is never made.

    Raises:
        UnsupportedCoding: it has a coding that is not one of ``CODINGS``, or more than one.
        BodyTooLarge: it is longer.
        Malformed: it is not what its coding says, from its first byte to its last.
    """
    names = [name.strip().lower() for name in ",".join(headers).split(",")]
    names = [name for name in names if name not in ("", "identity")]
    match names:
        case []:
            return raw
        case ["gzip" | "x-gzip"]:
            return _inflated(raw, _GZIP, limit)
        case ["deflate"]:
            return _inflated(raw, zlib.MAX_WBITS if _has_zlib_header(raw) else _RAW, limit)
    got = ", ".join(names)[:100]
    raise UnsupportedCoding(f"Content-Encoding: expected one of {', '.join(CODINGS)}, got {got!r}")


def _inflated(raw: bytes, window: int, limit: int) -> bytes:
    decoder = zlib.decompressobj(window)
    try:
        whole = decoder.decompress(raw, limit + 1)
    except zlib.error:
        raise Malformed("the body is not what its Content-Encoding says") from None
    if len(whole) > limit:
        raise BodyTooLarge(f"the body: more than {limit} bytes when it is decoded")
    if not decoder.eof:
        raise Malformed("the body: its Content-Encoding is cut off")
    if decoder.unused_data:
        raise Malformed("the body: there is more behind the end of its Content-Encoding")
    return whole


def _has_zlib_header(raw: bytes) -> bool:
    """Some clients send ``deflate`` as RFC 1950 has it, as they should, and some without a head."""
    return len(raw) >= 2 and raw[0] & 0x0F == 8 and (raw[0] << 8 | raw[1]) % 31 == 0
