"""The ASGI application: routes, and an envelope around whatever comes of a request."""

import logging
import re
from collections.abc import Sequence
from uuid import uuid4

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from abaco_api.contract import asyncapi, openapi
from abaco_api.contract.operation import Endpoint, Operation
from abaco_api.dependencies import Service, known_already
from abaco_api.dependencies import service as service_of
from abaco_api.http.admission import Admission
from abaco_api.http.instrumentation import Watched, about_request
from abaco_api.http.response_envelope import MEDIA_TYPE, failure, failure_of
from abaco_api.http.uploads import Uploads
from abaco_api.idempotency.idempotent_endpoint import with_idempotency
from abaco_api.routes import OPERATIONS
from abaco_proto.errors import AbacoError
from abaco_telemetry.metric_registry import CONTENT_TYPE

MOMENT = "Abaco-As-Of"
"""In an answer about the past: the sequence that ``as_of`` meant."""

logger = logging.getLogger(__name__)


def create_app(service: Service) -> ASGIApp:
    """The application over a service that is open, or about to be."""
    routes = [
        *_routes(OPERATIONS),
        Route("/openapi.json", _description(openapi.encoded(OPERATIONS)), methods=["GET"]),
        Route("/asyncapi.json", _description(asyncapi.encoded()), methods=["GET"]),
        Route("/metrics", _metrics, methods=["GET"]),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            AbacoError: _on_error,
            HTTPException: _on_http_error,
            ClientDisconnect: _on_disconnect,
            Exception: _on_bug,
        },
    )
    app.router.redirect_slashes = False
    app.state.service = service
    config = service.config
    uploads = Uploads(
        Admission(app, config.max_requests),
        limit=config.max_body_bytes,
        seconds=config.body_seconds,
        rate=config.body_min_bytes_per_second,
        most=config.max_uploads,
        most_bytes=config.max_upload_bytes,
    )
    return SlashCollapser(Watched(uploads, routes, service.metrics, service.spans))


class SlashCollapser:
    """Doubled slashes in a path are one slash, and one at its end is none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            path = scope["path"]
            if "//" in path or path.endswith("/"):
                path = re.sub("/+", "/", path).rstrip("/") or "/"
                scope = {**scope, "path": path}
        await self._app(scope, receive, send)


def _routes(operations: Sequence[Operation]) -> list[Route]:
    """One route a path, so that a wrong method is told all the right ones."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = _endpoint(operation)
    return [
        Route(path, _dispatcher(endpoints), methods=list(endpoints))
        for path, endpoints in by_path.items()
    ]


def _endpoint(operation: Operation) -> Endpoint:
    """The endpoint with what all of its kind have in common."""
    if operation.kind != "query":
        return with_idempotency(operation)

    async def query(request: Request) -> Response:
        known_already(request)  # refused where it makes no sense, also where nothing waits for it
        return await operation.endpoint(request)

    return query


def _dispatcher(endpoints: dict[str, Endpoint]) -> Endpoint:
    async def dispatch(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        with about_request(request):
            response = await endpoints[method](request)
        if hasattr(request.state, "as_of"):
            response.headers[MOMENT] = str(request.state.as_of)
        return response

    return dispatch


def _description(body: bytes) -> Endpoint:
    async def describe(_: Request) -> Response:
        return Response(body, media_type=MEDIA_TYPE)

    return describe


async def _metrics(request: Request) -> Response:
    """For programs that watch us; not in an envelope, which they could not read."""
    api = service_of(request)
    metrics = api.metrics
    metrics.readers.set(api.live.readers)
    metrics.subscribers.set(api.streams.count)
    metrics.cut = api.dispatcher.cut
    return Response(metrics.registry.text(), media_type=CONTENT_TYPE)


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, AbacoError)
    return failure_of(error)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """What the router has to say: no such path, or not with this method."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 404:
        msg = f"there is nothing at {request.url.path[:100]!r}"
        return failure(404, "not_found", msg, headers=headers)
    if error.status_code == 405:
        allowed = headers.get("Allow", "")
        msg = f"{request.method} is not among the methods here: {allowed}"
        return failure(405, "method_not_allowed", msg, headers=headers)
    return failure(error.status_code, "refused", error.detail, headers=headers)


async def _on_disconnect(_: Request, __: Exception) -> Response:
    return failure(400, "malformed", "the client went away before the end of its body")


async def _on_bug(request: Request, error: Exception) -> Response:
    number = uuid4().hex
    with about_request(request):
        logger.error("internal error %s: %s", number, type(error).__name__)
    return failure(500, "internal", f"internal error {number}")
