"""A streamed answer that ends as soon as its reader may no longer read it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from abaco_api.http.wire_protocol import ABORT, CALL


class GuardedResponse(Response):
    """Sends another response until it ends, or until ``revoked`` returns.

    Then the connection is aborted, which a client does not mistake for the end of the stream.
    """

    def __init__(
        self, response: Response, revoked: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        super().__init__(None)
        self._response = response
        self._revoked = revoked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send."""
        serving = asyncio.ensure_future(self._response(scope, receive, send))
        revoked = asyncio.ensure_future(self._revoked())
        try:
            await asyncio.wait({serving, revoked}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
            else:
                scope.get("extensions", {}).get(ABORT, {}).get(CALL, lambda: None)()
        finally:
            serving.cancel()
            revoked.cancel()
            await asyncio.wait({serving, revoked})
