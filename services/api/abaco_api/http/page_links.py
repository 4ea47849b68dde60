"""The next page of a long list: its address in ``Link``, its place in ``Abaco-Next``."""

from collections.abc import Mapping
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

NEXT = "Abaco-Next"


def link_next(answer: Response, request: Request, query: Mapping[str, str], **place: int) -> None:
    """Say where the list goes on: ``place`` is the parameter of the query that begins there."""
    [value] = place.values()
    address = f"{request.scope['path']}?{urlencode({**query, **place})}"
    answer.headers[NEXT] = str(value)
    answer.headers["Link"] = f'<{address}>; rel="next"'
