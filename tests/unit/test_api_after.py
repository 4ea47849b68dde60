"""``Abaco-After``, the header that every query takes."""

import re

import pytest

from abaco_api.routes import OPERATIONS
from idempotency_stage import world

QUERIES = [operation for operation in OPERATIONS if operation.kind == "query"]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.path)
@pytest.mark.parametrize("value", [str(10**18), "-1", "x"])
async def test_a_value_that_makes_no_sense_is_refused_by_every_query(
    query: object, value: str
) -> None:
    path = re.sub(r"\{[a-z_]+\}", "1", str(getattr(query, "path", "")))
    async with world(1) as stage:
        answer = await stage.processes[0].http.get(path, headers={"Abaco-After": value})
    assert answer.status_code == 400
    assert "Abaco-After" in answer.json()["msg"]
