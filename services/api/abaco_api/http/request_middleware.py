"""The middleware around every request: path, id, admission, body, metrics and the root span.

An endpoint reads the body (``Admission.read_body``) once it has checked the credential, and before
its handler is called. So nobody without a credential makes the process hold a body, and a slow
client occupies no handler. Bodies that are not complete yet are bounded in number, in bytes, in
time and in rate. Requests that wait for their response are bounded in number.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter

from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from abaco_api.api_errors import BodyTooLarge, TimedOut, TooMany
from abaco_api.http.api_metrics import ApiMetrics
from abaco_api.http.parameters import BODY
from abaco_api.http.response_headers import REQUEST_ID, request_id
from abaco_telemetry.context import Spans, log_context, valid_traceparent

METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}
OTHER = "other"

UNTRACED = {"/healthz", "/readyz", "/metrics"}
"""Requested at short intervals; they begin no trace."""

WINDOW_SECONDS = 5.0
"""The minimum rate of a body is checked over windows of this length."""

DISCARD_BYTES = 16 * 1024 * 1024
DISCARD_SECONDS = 1.0

ADMISSION = "abaco.admission"
"""The key of the :class:`Admission` in the scope of a request."""


@dataclass(slots=True, eq=False)
class _Upload:
    """A body that is not complete."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    evicted: bool = False
    waiting: asyncio.Timeout | None = None


class Uploads:
    """Reads request bodies of at most ``limit`` bytes, each within ``seconds``.

    If there are too many incomplete bodies, the one that has received nothing for the longest time
    is ended.
    """

    def __init__(  # noqa: PLR0913 - one parameter per limit
        self,
        *,
        limit: int,
        seconds: float,
        rate: int,
        most: int,
        most_bytes: int,
        window_seconds: float = WINDOW_SECONDS,
    ) -> None:
        """``rate`` is in bytes per second; ``most`` and ``most_bytes`` are of all together."""
        self._limit = limit
        self._seconds = seconds
        self._window = window_seconds
        self._window_bytes = rate * window_seconds
        self._most = most
        self._most_bytes = most_bytes
        self._uploads: OrderedDict[_Upload, None] = OrderedDict()
        self.bytes = 0

    @property
    def count(self) -> int:
        """The number of incomplete bodies."""
        return len(self._uploads)

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """The body of a request; empty if it has none.

        Raises:
            BodyTooLarge: it has more than ``limit`` bytes.
            TimedOut: it is too slow, or others are faster and there are too many.
            ClientDisconnect: the client closed the connection.
        """
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if b"transfer-encoding" not in headers and length.strip(b"0") == b"":
            return b""
        announced = int(length) if length.isdigit() else 0
        if announced > self._limit and b"expect" in headers:
            raise BodyTooLarge(f"the body: {announced} bytes, at most {self._limit}")
        upload = _Upload()
        self._uploads[upload] = None
        try:
            await self._receive_all(upload, receive)
        finally:
            self._remove(upload)
        return b"".join(upload.parts)

    async def _receive_all(self, upload: _Upload, receive: Receive) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._seconds
        window_end, in_window, more = clock() + self._window, 0, True
        while more:
            message: Message | None = None
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(window_end, deadline)) as upload.waiting:
                    message = await receive()
            if message is not None:
                in_window += self._take(upload, message)
                more = message.get("more_body", False)
                if upload.size > self._limit:
                    self._remove(upload)
                    await _discard(receive, more=more)
                    raise BodyTooLarge(f"the body: more than {self._limit} bytes")
            if upload.evicted:
                raise TimedOut("the body: others that are not whole came faster")
            if more and clock() >= deadline:
                raise TimedOut(f"the body: it is not whole after {self._seconds} s")
            if more and clock() >= window_end:
                if in_window < self._window_bytes:
                    least = f"at least {self._window_bytes:.0f}"
                    raise TimedOut(f"the body: {in_window} bytes in {self._window} s, {least}")
                window_end, in_window = clock() + self._window, 0

    def _take(self, upload: _Upload, message: Message) -> int:
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body: bytes = message.get("body", b"")
        if not upload.evicted:
            upload.parts.append(body)
            upload.size += len(body)
            self.bytes += len(body)
            self._uploads.move_to_end(upload)
            # A single upload is bounded by the limit on bodies.
            while len(self._uploads) > 1 and (
                self.bytes > self._most_bytes or len(self._uploads) > self._most
            ):
                self._evict()
        return len(body)

    def _evict(self) -> None:
        """End the upload that has received nothing for the longest time."""
        stalest = next(iter(self._uploads))
        self._remove(stalest)
        stalest.evicted = True
        if stalest.waiting is not None:
            stalest.waiting.reschedule(0)

    def _remove(self, upload: _Upload) -> None:
        if upload in self._uploads:
            del self._uploads[upload]
            self.bytes -= upload.size


async def _discard(receive: Receive, *, more: bool) -> None:
    """Read and drop the rest of a body, within limits: most clients read no response before."""
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while more and size < DISCARD_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                more = message.get("more_body", False)


class Admission:
    """One request, as the limits see it.

    From ``enter`` on it counts as unanswered until its response begins, except while its body is
    read. A stream counts until its response begins; streams have their own limits.
    """

    __slots__ = ("_entered", "_middleware", "_receive", "_scope")

    def __init__(self, middleware: "RequestMiddleware", scope: Scope, receive: Receive) -> None:
        self._middleware = middleware
        self._scope = scope
        self._receive = receive
        self._entered = False

    def enter(self) -> None:
        """Count the request.

        Raises:
            TooMany: as many as the process serves wait for their response already.
        """
        unanswered = self._middleware.unanswered
        if unanswered >= self._middleware.max_requests:
            count = f"{unanswered} requests wait for an answer already"
            raise TooMany(f"{count}, the most of this process")
        self._middleware.unanswered += 1
        self._entered = True

    def leave(self) -> None:
        """Count the request no more."""
        self._middleware.unanswered -= self._entered
        self._entered = False

    async def read_body(self) -> None:
        """Read the body into the scope (``BODY``).

        Raises:
            AbacoError: as ``Uploads.read`` and ``enter``.
            ClientDisconnect: the client closed the connection.
        """
        is_counted = self._entered
        self.leave()
        self._scope[BODY] = await self._middleware.uploads.read(self._scope, self._receive)
        if is_counted:
            self.enter()


class RequestMiddleware:
    """Passes each request to ``app``, with its :class:`Admission` and its id, and measures it."""

    def __init__(  # noqa: PLR0913 - the parts of what happens around a request
        self,
        app: ASGIApp,
        routes: Iterable[Route],
        *,
        uploads: Uploads,
        max_requests: int,
        headers: Sequence[tuple[bytes, bytes]],
        metrics: ApiMetrics,
        spans: Spans,
    ) -> None:
        """Label values come from ``routes``, never from a client's path.

        ``headers`` are those of every response.
        """
        self._app = app
        self._paths = {route.endpoint: route.path for route in routes}
        self._headers = headers
        self._metrics = metrics
        self._spans = spans
        self.uploads = uploads
        self.max_requests = max_requests
        self.unanswered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Repeated slashes in its path count as one, a last one as none."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        path = scope["path"]
        if "//" in path or path.endswith("/"):
            path = re.sub("/+", "/", path).rstrip("/") or "/"
            scope = {**scope, "path": path}
        admission = scope[ADMISSION] = Admission(self, scope, receive)
        headers = dict(scope["headers"])
        own_id = request_id(headers.get(REQUEST_ID))

        async def send_response(message: Message) -> None:
            admission.leave()
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in METHODS else OTHER
                route = self._paths[scope["endpoint"]] if "endpoint" in scope else OTHER
                status = message["status"]
                span.annotate({"http.response.status_code": status}, name=f"{method} {route}")
                seconds = perf_counter() - began
                self._metrics.requests.labels(method, route, status).observe(seconds)
                message["headers"] = [*message["headers"], *self._headers, (REQUEST_ID, own_id)]
            await send(message)

        traceparent = headers.get(b"traceparent")
        parent = None if traceparent is None else valid_traceparent(traceparent.decode("latin-1"))
        with (
            self._metrics.in_flight.track_inprogress(),
            log_context(request_id=own_id.decode()),
            self._spans.span("request", parent=parent, root=path not in UNTRACED) as span,
        ):
            try:
                await self._app(scope, receive, send_response)
            finally:
                admission.leave()
