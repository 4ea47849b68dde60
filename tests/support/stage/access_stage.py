"""The api in this process, over a log in memory and without Postgres, for the tests of access."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from abaco_api.api_settings import ApiSettings
from abaco_api.dependencies import assemble
from abaco_api.http.application import create_app
from fakes import InMemoryEventLog, InMemoryOutputLog
from servers import LOOPBACK, free_port


@asynccontextmanager
async def served(**settings: Any) -> AsyncGenerator[httpx.AsyncClient, None]:
    """A client of an api whose log is empty."""
    nobody = f"postgresql://abaco@{LOOPBACK}:{free_port()}/abaco"
    tenants = assemble(
        ApiSettings(postgres_dsn=nobody, **settings), InMemoryEventLog(), InMemoryOutputLog()
    )
    folds = [asyncio.create_task(run()) for run in tenants.loops]
    transport = httpx.ASGITransport(create_app(tenants))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client
    finally:
        for fold in folds:
            fold.cancel()
        await asyncio.gather(*folds, return_exceptions=True)
        tenants.pool.close()
