"""The published description, the settings, the statements."""

import re

import pytest

from abaco_api.api_settings import ApiSettings
from abaco_api.contract import openapi
from abaco_api.queries.read_models import SQL
from abaco_api.routes import OPERATIONS
from abaco_proto import settings
from abaco_proto.errors import Malformed


def test_every_operation_is_described() -> None:
    paths = openapi.describe(OPERATIONS)["paths"]
    described = {(path, method.upper()) for path, item in paths.items() for method in item}
    table = {(o.path, o.method) for o in OPERATIONS}
    assert described == {*table, ("/openapi.json", "GET"), ("/asyncapi.json", "GET")}


def test_the_contract_is_described() -> None:
    paths = {(o.method, o.path.removeprefix("/actors")) for o in OPERATIONS}
    both = ("", "/{actor_id}/state", "/{actor_id}/messages", "/{actor_id}/workers")
    assert {(m, p) for m in ("GET", "POST") for p in both} <= paths
    assert {(m, "/{actor_id}") for m in ("GET", "PUT", "DELETE")} <= paths
    assert ("GET", "/{actor_id}/executions/{execution_id}/logs") in paths


def test_operations_have_names_of_their_own() -> None:
    items = openapi.describe(OPERATIONS)["paths"].values()
    names = [operation["operationId"] for item in items for operation in item.values()]
    assert len(names) == len(set(names))


def test_names_of_schemas_name_no_module() -> None:
    schemas = openapi.describe(OPERATIONS)["components"]["schemas"]
    assert "Success_list_ActorResult__" in schemas
    assert b"abaco_api" not in openapi.encoded(OPERATIONS)
    found = re.findall(rb'"#/components/schemas/([^"]+)"', openapi.encoded(OPERATIONS))
    assert {name.decode() for name in found} <= set(schemas)


def test_every_statement_has_a_name() -> None:
    assert {"checkpoint", "actor", "actors", "executions", "output"} <= set(SQL)
    assert all(text.strip().endswith(";") for text in SQL.values())


def test_settings_have_defaults() -> None:
    config = settings.read(ApiSettings, {})
    assert (config.api_host, config.init_count) == ("127.0.0.1", 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ABACO_API_PORT", "0"),
        ("ABACO_API_PORT", "http"),
        ("ABACO_INIT_COUNT", "-1"),
        ("ABACO_LOG_LEVEL", "loud"),
        ("ABACO_NATS_URL", "127.0.0.1"),
        ("ABACO_POSTGRES_DSN", "mysql://x"),
        ("ABACO_TENANT", "a.b"),
        ("ABACO_APPEND_TIMEOUT_SECONDS", "0"),
        ("ABACO_API_PROT", "1"),
    ],
)
def test_a_bad_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(Malformed, match=name):
        settings.read(ApiSettings, {name: value})


def test_the_description_says_what_an_operation_needs_if_it_needs_anything() -> None:
    described = openapi.describe(OPERATIONS)["paths"]
    assert described["/healthz"]["get"]["security"] == []
    assert described["/actors"]["post"]["security"] == [{"bearer": ["admin", "developer"]}]
    assert described["/actors/{actor_id}"]["put"]["x-abaco-access"] == "UPDATE on the actor"
    off = openapi.describe(OPERATIONS, auth=False)["paths"]
    assert all(o["security"] == [] for item in off.values() for o in item.values())
