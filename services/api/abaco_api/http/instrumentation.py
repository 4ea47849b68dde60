"""Around the application: every request is counted and timed, and is the first step of a trace."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from time import perf_counter

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from abaco_api.http.api_metrics import Metrics
from abaco_telemetry.log_context import log_context
from abaco_telemetry.spans import Spans, valid_traceparent

METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}
OTHER = "other"

PROBES = {"/healthz", "/readyz", "/metrics"}
"""Asked all the time, and the first step of nothing."""


class Watched:
    """The application, watched. What clients choose, paths and methods, becomes no label."""

    def __init__(
        self, app: ASGIApp, routes: Iterable[Route], metrics: Metrics, spans: Spans
    ) -> None:
        self._app = app
        self._paths = {route.endpoint: route.path for route in routes}
        self._metrics = metrics
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        parent = valid_traceparent(Headers(scope=scope).get("traceparent"))
        root = scope["path"] not in PROBES
        with (
            self._metrics.in_flight.track_inprogress(),
            self._spans.span("request", parent=parent, root=root) as step,
        ):

            async def watch(message: Message) -> None:
                if message["type"] == "http.response.start":
                    method, route, status = self._what(scope), self._where(scope), message["status"]
                    step.annotate({"http.response.status_code": status}, name=f"{method} {route}")
                    labelled = self._metrics.requests.labels(method, route, status)
                    labelled.observe(perf_counter() - began)
                await send(message)

            await self._app(scope, receive, watch)

    @staticmethod
    def _what(scope: Scope) -> str:
        method: str = scope["method"]
        return method if method in METHODS else OTHER

    def _where(self, scope: Scope) -> str:
        """The path as the table of routes has it, which the router has left word of."""
        return self._paths[scope["endpoint"]] if "endpoint" in scope else OTHER


def about_request(request: Request) -> AbstractContextManager[None]:
    """Say to all lines that are logged inside which actor and execution the request names."""
    named = request.path_params
    return log_context(
        actor_id=named.get("actor_id", ""), execution_id=named.get("execution_id", "")
    )
