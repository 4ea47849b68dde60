"""``Content-Encoding``: decompress request bodies, within the limit on bodies."""

import zlib
from collections.abc import Iterable

from abaco_api.api_errors import BodyTooLarge, UnsupportedCoding
from abaco_proto.errors import Malformed

CODINGS = ("gzip", "deflate")

_GZIP = 16 + zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


def decoded(raw: bytes, headers: Iterable[str], limit: int) -> bytes:
    """The body without its coding. At most ``limit`` bytes are ever decompressed.

    Raises:
        UnsupportedCoding: the coding is not one of ``CODINGS``, or there is more than one.
        BodyTooLarge: the decoded body is longer.
        Malformed: the body does not conform to its coding, or has bytes after its end.
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
        raise Malformed("the body: there is more after the end of its Content-Encoding")
    return whole


def _has_zlib_header(raw: bytes) -> bool:
    """Whether ``deflate`` has the header of RFC 1950, as it must; some clients omit it."""
    return len(raw) >= 2 and raw[0] & 0x0F == 8 and (raw[0] << 8 | raw[1]) % 31 == 0
