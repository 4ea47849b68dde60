"""The servers that tests ask for. A test that asks for none starts none.

=======================  ==========================================================================
fixture                  is
=======================  ==========================================================================
``nats_url``             the address of a NATS server of this test's own, with no stream in it
``postgres_dsn``         the address of an empty database on a server shared by all tests
``nats_server``          the :class:`servers.NatsServer` behind ``nats_url``, to stop, kill, start
``postgres_server``      a :class:`servers.PostgresServer` of this test's own, to stop, kill, start
``stack``                the whole :class:`stack.Stack`, running, shared by all tests
``new_stack``            the same, of this test's own
``guarded_stack``        the same, with ``ABACO_AUTH=on``
``engine``               an :class:`engine_server.EngineServer` of this test's own, to kill, start
``engine_stack``         a stack of this test's own on ``engine``
=======================  ==========================================================================
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import images
import side_by_side
from engine_server import EngineServer, running_engine
from servers import NatsServer, PostgresServer, scratch_folder
from stack import Stack, eventually

_numbers = itertools.count()

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    side_by_side.longest_first(items)


def pytest_xdist_make_scheduler(
    config: pytest.Config, log: object
) -> side_by_side.Scheduling | None:
    """Where several processes share the tests by groups, the groups are ours."""
    if config.getoption("dist") == "loadscope":
        return side_by_side.Scheduling(config, log)
    return None


@pytest.fixture
def nats_server() -> Iterator[NatsServer]:
    with scratch_folder() as folder:
        server = NatsServer(folder)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@pytest.fixture
def nats_url(nats_server: NatsServer) -> str:
    return nats_server.url


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[Path]:
    """A fresh cluster that never ran: copying it is ten times faster than making it."""
    with scratch_folder() as folder:
        yield PostgresServer(folder).data


@pytest.fixture(scope="session")
def shared_postgres(postgres_template: Path) -> Iterator[PostgresServer]:
    with scratch_folder() as folder:
        server = PostgresServer(folder, template=postgres_template)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@pytest.fixture
def postgres_dsn(shared_postgres: PostgresServer) -> str:
    return shared_postgres.create_database(f"test_{next(_numbers)}")


@pytest.fixture
def postgres_server(postgres_template: Path) -> Iterator[PostgresServer]:
    with scratch_folder() as folder:
        server = PostgresServer(folder, template=postgres_template)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="session")
def test_images() -> None:
    images.build_scripts()


@pytest.fixture(scope="session")
def shared_stack(test_images: None) -> Iterator[Stack]:
    yield from running_stack()


@pytest.fixture
def stack(shared_stack: Stack) -> Stack:
    eventually(shared_stack.ready, what="the stack is ready")
    return shared_stack


@pytest.fixture
def new_stack(test_images: None) -> Iterator[Stack]:
    yield from running_stack()


@pytest.fixture
def guarded_stack(test_images: None) -> Iterator[Stack]:
    yield from running_stack(auth="on")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineServer]:
    with running_engine() as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url)  # for whatever the test starts, too
        images.build_scripts()
        yield engine


@pytest.fixture
def engine_stack(engine: EngineServer) -> Iterator[Stack]:
    yield from running_stack()


def running_stack(**settings: str) -> Iterator[Stack]:
    with scratch_folder() as folder:
        # Room for the least workers of all actors that all tests register.
        stack = Stack(folder / "data", host_capacity="64", **settings)
        try:
            stack.up()
            yield stack
            assert stack.refused() == [], "abaco_proto.permissions lacks what a service needs"
        finally:
            stack.http.close()
            stack.down()
