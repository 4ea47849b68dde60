"""The Docker client: runs docker-py's calls in threads, and translates its errors.

docker-py blocks. Short calls run in one thread pool. Calls that read a stream as long as a
container runs use another one.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import urllib3.exceptions
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.utils import kwargs_from_env

from abaco_proto.errors import Unavailable
from abaco_worker.domain.engine_errors import ContainerMissing, EngineFault, ImageMissing
from abaco_worker.engine.docker_session import DockerSession

DEFAULT_LOCATION = "unix:///var/run/docker.sock"
TIMEOUT_SECONDS = 60
SPARE_THREADS = 8

T = TypeVar("T")


class DockerClient:
    """A client of one engine, for many threads."""

    def __init__(self, environ: Mapping[str, str], *, capacity: int) -> None:
        """``environ`` may have DOCKER_HOST; ``capacity`` is the number of containers at once."""
        self._environ = dict(environ)
        self._connections = 3 * capacity + 2 * SPARE_THREADS
        self._calls = ThreadPoolExecutor(2 * capacity + SPARE_THREADS, "engine-call")
        self.streams = ThreadPoolExecutor(capacity + SPARE_THREADS, "engine-stream")
        self._connecting = threading.Lock()
        self._api: Any = None

    @property
    def location(self) -> str:
        """The engine's URL."""
        return self._environ.get("DOCKER_HOST") or DEFAULT_LOCATION

    @property
    def api(self) -> Any:
        """A ``docker.APIClient``, made at the first call: its constructor calls the engine.

        The type is ``Any`` because docker-py's published types are incomplete.
        """
        with self._connecting:
            if self._api is None:
                more = kwargs_from_env(environment=self._environ)
                self._api = DockerSession(
                    more.pop("base_url", DEFAULT_LOCATION),
                    timeout=TIMEOUT_SECONDS,
                    connections=self._connections,
                    **more,
                )
            return self._api

    async def call(self, function: Callable[[Any], T], pool: ThreadPoolExecutor | None = None) -> T:
        """Call ``function`` with the API client in a thread, and translate its errors."""

        def call() -> T:
            with translate_errors():
                return function(self.api)

        return await asyncio.get_running_loop().run_in_executor(pool or self._calls, call)

    def close(self) -> None:
        """End each thread after its current call."""
        self._calls.shutdown(wait=False, cancel_futures=True)
        self.streams.shutdown(wait=False, cancel_futures=True)
        if self._api is not None:
            self._api.close()


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate docker-py's errors into ours. Network errors are subclasses of ``OSError``."""
    try:
        yield
    except ImageNotFound as error:
        raise ImageMissing(error_text(error)) from error
    except NotFound as error:
        raise ContainerMissing(error_text(error)) from error
    except APIError as error:
        raise EngineFault(error_text(error)) from error
    except (DockerException, urllib3.exceptions.HTTPError, OSError) as error:
        raise Unavailable(f"the container engine does not answer: {error}") from error


def error_text(error: APIError) -> str:
    """Return the engine's explanation of an error."""
    return error.explanation or str(error)
