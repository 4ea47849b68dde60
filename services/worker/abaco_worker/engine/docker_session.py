"""A docker-py client whose plain calls bypass ``requests`` and share a few connections.

docker-py (7.2) keeps connections by URL, and most URLs contain a container's id, so nearly every
call opens a connection. ``requests`` also needs more time for a call than all of our own code.
Here every plain call to a Unix socket uses a shared pool of connections without ``requests``.
Streams, and engines on other machines, use docker-py's way.
"""

import io
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import docker
import requests
import urllib3.exceptions
from docker.transport.unixconn import UnixHTTPConnectionPool
from requests.structures import CaseInsensitiveDict

HOST = "http+docker://localhost"
"""The prefix of docker-py's URLs for an engine behind a Unix socket."""

SCHEME = "unix://"


class DockerSession(docker.APIClient):
    """A ``docker.APIClient`` for many threads."""

    _connections: Any = None

    def __init__(self, location: str, *, timeout: int, connections: int, **more: Any) -> None:
        """Ask the engine for its version, and keep up to ``connections`` connections open."""
        super().__init__(
            base_url=location,
            version="auto",
            timeout=timeout,
            max_pool_size=connections,
            **more,
        )
        if location.startswith(SCHEME):
            path = location.removeprefix(SCHEME)
            self._connections = UnixHTTPConnectionPool(HOST, path, timeout, maxsize=connections)

    def request(
        self, method: str | bytes, url: str | bytes, *args: Any, **how: Any
    ) -> requests.Response:
        """Send a request; the arguments, result and errors are those of ``requests.Session``."""
        if self._connections is None or args or how.get("stream") or how.get("json") is not None:
            return super().request(method, url, *args, **how)
        try:
            return self._plain(str(method), str(url), **how)
        except urllib3.exceptions.HTTPError as error:
            raise requests.ConnectionError(error) from error

    def _plain(  # noqa: PLR0913 - the arguments of requests
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> requests.Response:
        query = urlencode({k: v for k, v in (params or {}).items() if v is not None}, doseq=True)
        answer = self._connections.urlopen(
            method,
            url.removeprefix(HOST) + (f"?{query}" if query else ""),
            body=data,
            headers=dict(headers or {}),
            timeout=timeout,
            retries=False,
            assert_same_host=False,
        )
        response = requests.Response()
        response.status_code, response.reason, response.url = answer.status, answer.reason, url
        response.headers = CaseInsensitiveDict(answer.headers)
        response.raw = io.BytesIO(answer.data)
        return response

    def close(self) -> None:
        """Close the connections."""
        if self._connections is not None:
            self._connections.close()
        super().close()
