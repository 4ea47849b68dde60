"""The next page of a list: its address in ``Link``, its parameter in ``Abaco-Next``."""

from collections.abc import Mapping
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

NEXT = "Abaco-Next"


def link_next(answer: Response, request: Request, query: Mapping[str, str], **begin: int) -> None:
    """Add the headers; ``begin`` is the query parameter with which the next page begins."""
    [value] = begin.values()
    address = f"{request.scope['path']}?{urlencode({**query, **begin})}"
    answer.headers[NEXT] = str(value)
    answer.headers["Link"] = f'<{address}>; rel="next"'
