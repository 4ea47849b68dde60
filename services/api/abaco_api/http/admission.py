"""Admission: as many requests at once as the process can answer soon, and the rest turned away."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from abaco_api.http.http_errors import TooMany
from abaco_api.http.response_envelope import failure_of

PROBES = ("/healthz", "/readyz")
"""Always answered: they tell how the process is, and cost next to nothing."""


class Admission:
    """Turns requests away while ``most`` wait for the beginning of their answers.

    Streams are not counted from there on: they have limits of their own.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self.unanswered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or turn it away."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
        elif self.unanswered >= self._most:
            what = (
                f"{self.unanswered} requests wait for an answer already, the most of this process"
            )
            await failure_of(TooMany(what))(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        waiting = True

        def answered() -> None:
            nonlocal waiting
            self.unanswered -= waiting
            waiting = False

        async def noted_send(message: Message) -> None:
            answered()
            await send(message)

        self.unanswered += 1
        try:
            await self._app(scope, receive, noted_send)
        finally:
            answered()
