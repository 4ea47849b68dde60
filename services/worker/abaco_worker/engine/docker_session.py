"""docker-py with less between it and the engine's socket.

docker-py (7.2) keeps connections by URL, and most of its URLs are of one container: each of its
calls then opens a connection of its own. And requests, below it, takes more time for a call than
all the rest of ours. Here every plain call goes over the same few connections, past requests; what
is read as a stream, and what goes to another machine, goes the usual way.
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
"""What docker-py's URLs begin with where the engine is behind a Unix socket."""

SCHEME = "unix://"


class Session(docker.APIClient):
    """A ``docker.APIClient`` for many threads."""

    _connections: Any = None

    def __init__(self, location: str, *, timeout: int, connections: int, **more: Any) -> None:
        """Greets the engine at ``location``; ``connections`` is how many are kept open."""
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
        """As of a ``requests.Session``, with its errors."""
        if self._connections is None or args or how.get("stream") or how.get("json") is not None:
            return super().request(method, url, *args, **how)
        try:
            return self._plain(str(method), str(url), **how)
        except urllib3.exceptions.HTTPError as error:
            raise requests.ConnectionError(error) from error

    def _plain(  # noqa: PLR0913 - what requests calls them
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
