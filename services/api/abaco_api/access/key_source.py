"""Fetches the key set of an issuer, from a URL or a file, outside the event loop."""

import asyncio
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable
from http.client import HTTPException
from pathlib import Path
from typing import IO

from abaco_api.access.domain.issuers import Issuer
from abaco_api.access.domain.key_set import MAX_BYTES
from abaco_proto.errors import Unavailable

CHUNK_BYTES = 16 * 1024

Fetch = Callable[[], Awaitable[bytes]]
"""Returns the JSON of a key set. Raises ``Unavailable``."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key set is where the setting says, and nowhere else."""

    def redirect_request(self, *_: object) -> None:
        """Refuse."""


_opener = urllib.request.build_opener(_NoRedirect)


def key_source(issuer: Issuer) -> Fetch:
    """What fetches the keys of an issuer."""
    if issuer.jwks_file:
        path = Path(issuer.jwks_file)
        return lambda: _in_thread(lambda: _read_file(path), issuer.fetch_seconds)
    seconds = issuer.fetch_seconds
    return lambda: _in_thread(lambda: _read_url(issuer.jwks_url, seconds), seconds)


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return _limited(file, None)


def _read_url(url: str, seconds: float) -> bytes:
    deadline = time.monotonic() + seconds
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310
    with _opener.open(request, timeout=seconds) as response:
        return _limited(response, deadline)


def _limited(file: IO[bytes], deadline: float | None) -> bytes:
    body = b""
    read = getattr(file, "read1", file.read)
    while chunk := read(CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_BYTES:
            raise OSError(f"more than {MAX_BYTES} bytes")
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError("it did not arrive in time")
    return body


async def _in_thread(read: Callable[[], bytes], seconds: float) -> bytes:
    """Call ``read`` in a thread of its own, which does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()

    def settle(result: bytes | None, problem: str) -> None:
        if answer.done():
            return
        if result is not None:
            answer.set_result(result)
        else:
            answer.set_exception(Unavailable(problem))

    def work() -> None:
        result, problem = None, ""
        try:
            result = read()
        except (OSError, HTTPException, ValueError) as error:
            problem = str(error) or type(error).__name__
        try:
            loop.call_soon_threadsafe(settle, result, problem)
        except RuntimeError:  # the loop has ended
            return

    threading.Thread(target=work, name="key-set", daemon=True).start()
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        raise Unavailable(f"no answer within {seconds} s") from None
