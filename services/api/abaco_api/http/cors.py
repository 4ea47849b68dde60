"""CORS: which pages of other origins may call the api from a browser."""

import re
from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from abaco_proto.errors import Malformed

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
REQUEST_HEADERS = (
    *("Authorization", "Content-Type", "Idempotency-Key", "Abaco-After", "Last-Event-ID"),
    *("X-Nonce", "X-Request-Id", "traceparent"),
)
RESPONSE_HEADERS = (
    *("Abaco-Sequence", "Abaco-As-Of", "Abaco-Next", "Link", "Retry-After", "WWW-Authenticate"),
    "X-Request-Id",
)

_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


def parse_origins(text: str) -> Sequence[str]:
    """The origins in the setting.

    Raises:
        Malformed: one of them is none: there is no wildcard.
    """
    origins = [part.strip() for part in text.split(",") if part.strip()]
    for origin in origins:
        if _ORIGIN.fullmatch(origin) is None:
            raise Malformed(
                f"ABACO_CORS_ORIGINS: expected origins like https://abaco.example.org, got "
                f"{origin[:100]!r}"
            )
    return origins


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The application, callable from pages of these origins.

    A page sends its credential in ``Authorization``. Cookies are not used, so none are allowed.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=METHODS,
        allow_headers=REQUEST_HEADERS,
        expose_headers=RESPONSE_HEADERS,
    )
