"""docker-py kept off the event loop, and the border where its errors change names.

docker-py blocks, so every call runs in a thread: short calls and samples in one pool, what reads
a stream for as long as a container runs in another.
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
from abaco_worker.engine.docker_session import Session

DEFAULT_LOCATION = "unix:///var/run/docker.sock"
TIMEOUT_SECONDS = 60
SPARE_THREADS = 8

T = TypeVar("T")


class Client:
    """One engine, for many threads."""

    def __init__(self, environ: Mapping[str, str], *, capacity: int) -> None:
        """``environ`` says where the engine is; ``capacity`` how many containers run at once."""
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
        """A ``docker.APIClient`` (its published types are incomplete).

        It greets the engine when it is made, so that is done at the first call.
        """
        with self._connecting:
            if self._api is None:
                more = kwargs_from_env(environment=self._environ)
                self._api = Session(
                    more.pop("base_url", DEFAULT_LOCATION),
                    timeout=TIMEOUT_SECONDS,
                    connections=self._connections,
                    **more,
                )
            return self._api

    async def call(self, function: Callable[[Any], T], pool: ThreadPoolExecutor | None = None) -> T:
        """``function`` of the API client, in a thread, with its errors in our words."""

        def call() -> T:
            with translated():
                return function(self.api)

        return await asyncio.get_running_loop().run_in_executor(pool or self._calls, call)

    def close(self) -> None:
        """Let the threads go when they are done with what they do."""
        self._calls.shutdown(wait=False, cancel_futures=True)
        self.streams.shutdown(wait=False, cancel_futures=True)
        if self._api is not None:
            self._api.close()


@contextmanager
def translated() -> Iterator[None]:
    """docker-py's errors in our words. All of the network's are kinds of ``OSError``."""
    try:
        yield
    except ImageNotFound as error:
        raise ImageMissing(words(error)) from error
    except NotFound as error:
        raise ContainerMissing(words(error)) from error
    except APIError as error:
        raise EngineFault(words(error)) from error
    except (DockerException, urllib3.exceptions.HTTPError, OSError) as error:
        raise Unavailable(f"the container engine does not answer: {error}") from error


def words(error: APIError) -> str:
    """What the engine said."""
    return error.explanation or str(error)
