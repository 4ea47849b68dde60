"""The ASGI application: the routes, and the response to each kind of error."""

import logging
from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from abaco_api.access.access_control import Operated
from abaco_api.access.domain.rules import Published, Rule, check_rules, published_rule
from abaco_api.api_settings import ApiSettings
from abaco_api.contract import asyncapi, openapi
from abaco_api.contract.operation import Operation
from abaco_api.dependencies import Tenants
from abaco_api.http.cors import parse_origins, with_cors
from abaco_api.http.operation_endpoint import PathEndpoint, path_endpoint
from abaco_api.http.request_middleware import RequestMiddleware, Uploads
from abaco_api.http.response_envelope import MEDIA_TYPE, failure, failure_of
from abaco_api.http.response_headers import response_headers
from abaco_api.routes import OPERATIONS
from abaco_proto.errors import AbacoError
from abaco_telemetry.context import current_log_context, log_context
from abaco_telemetry.metric_registry import CONTENT_TYPE

logger = logging.getLogger(__name__)

METRICS = "/metrics"
DESCRIPTIONS = ("/openapi.json", "/asyncapi.json")
DOCUMENTS = (*DESCRIPTIONS, METRICS)
"""What is served besides the operations."""


def check_operations() -> None:
    """Check that each operation has an access rule.

    Raises:
        Malformed: one has none; the process must not serve.
    """
    operations = [(operation.method, operation.path) for operation in OPERATIONS]
    check_rules([*operations, *(("GET", path) for path in DOCUMENTS)])


def create_app(tenants: Tenants) -> RequestMiddleware:
    """The application over services that are open, or will be opened.

    Raises:
        Malformed: a setting cannot be used.
    """
    settings = tenants.settings
    documents = {
        "/openapi.json": _document(openapi.encoded(OPERATIONS, auth=tenants.access.is_on)),
        "/asyncapi.json": _document(asyncapi.encoded()),
        METRICS: _metrics(tenants),
    }
    routes = [
        *_routes(OPERATIONS, tenants),
        *(
            Route(path, _guarded(tenants, path, rule, answer), methods=["GET"])
            for path, answer in documents.items()
            if (rule := published_rule(path, _published(settings, path))) is not None
        ),
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
    return RequestMiddleware(
        with_cors(app, parse_origins(settings.cors_origins)),
        routes,
        uploads=Uploads(
            limit=settings.max_body_bytes,
            seconds=settings.body_seconds,
            rate=settings.body_min_bytes_per_second,
            most=settings.max_uploads,
            most_bytes=settings.max_upload_bytes,
        ),
        max_requests=settings.max_requests,
        headers=response_headers(settings.hsts_seconds),
        metrics=tenants.metrics,
        spans=tenants.spans,
    )


def _routes(operations: Sequence[Operation], tenants: Tenants) -> list[Route]:
    """One route per path, so that the answer to a wrong method names all right ones."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return [
        Route(path, path_endpoint(by_method, tenants), methods=list(by_method))
        for path, by_method in by_path.items()
    ]


def _published(settings: ApiSettings, path: str) -> Published:
    return settings.publish_metrics if path == METRICS else settings.publish_descriptions


def _guarded(
    tenants: Tenants, path: str, rule: Rule, answer: Callable[[], Response]
) -> PathEndpoint:
    operated = Operated("GET", path, rule)

    async def document(request: Request) -> Response:
        await tenants.access.admit(request, operated)
        return answer()

    return document


def _document(body: bytes) -> Callable[[], Response]:
    return lambda: Response(body, media_type=MEDIA_TYPE)


def _metrics(tenants: Tenants) -> Callable[[], Response]:
    """The metrics in the Prometheus text format, without the envelope."""

    def metrics() -> Response:
        tenants.metrics.readers.set(tenants.live.readers)
        tenants.metrics.subscribers.set(tenants.streams.count)
        tenants.metrics.chains_cut = tenants.dropped_chains
        return Response(tenants.metrics.registry.text(), media_type=CONTENT_TYPE)

    return metrics


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, AbacoError)
    return failure_of(error)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """The router's errors: no such path, or not with this method."""
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
    number = current_log_context().request_id
    names, principal = request.path_params, getattr(request.state, "principal", None)
    with log_context(
        tenant="" if principal is None else principal.tenant,
        actor_id=names.get("actor_id", ""),
        execution_id=names.get("execution_id", ""),
    ):
        logger.error(
            "internal error %s: %s; this is a bug: report it with the traceback that follows",
            number,
            type(error).__name__,
        )
    return failure(500, "internal", f"internal error {number}")
