"""The pages that are generated from the code are up to date.

``WRITE_DOCS=1 pytest tests/unit/test_docs.py`` generates them.
"""

import inspect
import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from abaco_api.access.domain import rules
from abaco_api.access.domain.issuers import Issuer
from abaco_api.api_settings import ApiSettings as ApiConfig
from abaco_api.contract import asyncapi, openapi
from abaco_api.http.api_metrics import ApiMetrics
from abaco_api.routes import OPERATIONS
from abaco_local.local_settings import LocalSettings
from abaco_local.servers import nats_chart, nats_server
from abaco_projector.app.projector_metrics import ProjectorMetrics
from abaco_projector.projector_settings import ProjectorSettings
from abaco_proto import actor, events, execution, settings, worker
from abaco_scheduler.app.scheduler_metrics import SchedulerMetrics
from abaco_scheduler.domain.cluster_statistics import MAX_NAMED_ACTORS
from abaco_scheduler.scheduler_settings import SchedulerSettings
from abaco_telemetry.instrumented_event_log import LogMetrics
from abaco_telemetry.metric_registry import MetricDescription, MetricRegistry
from abaco_worker.app.worker_metrics import WorkerMetrics
from abaco_worker.worker_settings import WorkerSettings

DOCS = Path(__file__).parents[2] / "docs"

CONFIGS: dict[str, type[msgspec.Struct]] = {
    "api": ApiConfig,
    "scheduler": SchedulerSettings,
    "worker": WorkerSettings,
    "projector": ProjectorSettings,
    "stack": LocalSettings,
}


class Row:
    """One setting, as its fields say it."""

    def __init__(self, field: Any, hint: Any) -> None:
        parts = [part for part in get_args(hint) if isinstance(part, msgspec.Meta)]
        self.default = str(field.default)
        [self.description] = [part.description for part in parts if part.description]
        self.of: list[str] = []


def rows() -> dict[str, Row]:
    found: dict[str, Row] = {}
    for service, config in CONFIGS.items():
        hints = get_type_hints(config, include_extras=True)
        for field in msgspec.structs.fields(config):
            name = settings.PREFIX + field.name.upper()
            row = found.setdefault(name, Row(field, hints[field.name]))
            row.of.append(service)
    return found


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "Every setting is an environment variable, read once when a process starts. A value of the",
        "wrong kind, or a name that is no setting, ends the process with one line that says so.",
        "`make up` passes them on: `ABACO_MAX_WORKERS=8 make up`. *Where* says which process reads",
        "it; *stack* is the command `abaco` itself.",
        "",
        "A value can be in a file, as secrets should: `ABACO_NATS_URL_FILE=/run/secrets/url` is",
        "`ABACO_NATS_URL` with the text of that file, and so for every setting.",
        "",
        "| setting | default | where | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in sorted(rows().items()):
        default = f"`{row.default}`" if row.default else "—"
        where = ", ".join(row.of)
        lines.append(f"| `{name}` | {default} | {where} | {row.description} |")
    docker = "Where the container engine is, as for every client of Docker."
    lines.append(f"| `DOCKER_HOST` | the machine's engine | worker, stack | {docker} |")
    return "\n".join([*lines, ""])


def states_page() -> str:
    lines = [
        "# States",
        "",
        "Made from the tables `TRANSITIONS` in `proto/abaco_proto`; what is not in a table cannot",
        "happen. An event that does not fit leaves the state as it is.",
    ]
    tables: dict[str, Mapping[Any, StrEnum]] = {
        "Actor": actor.TRANSITIONS,
        "Execution": execution.TRANSITIONS,
        "Worker": worker.TRANSITIONS,
    }
    for title, table in tables.items():
        lines += ["", f"## {title}", "", "```mermaid", "stateDiagram-v2", *arrows(table), "```"]
    return "\n".join([*lines, ""])


def arrows(table: Mapping[Any, StrEnum]) -> list[str]:
    """One arrow for each pair of states, with all the events that lead along it."""
    ways: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (before, event), after in table.items():
        if before != after:
            start = "[*]" if before in ("UNREGISTERED", "UNKNOWN") else str(before)
            ways[start, str(after)].append(event)
    return [
        f"    {before} --> {after}: {', '.join(sorted(labels))}"
        for (before, after), labels in ways.items()
    ]


def events_page() -> str:
    lines = [
        "# Events",
        "",
        "Made from `proto/abaco_proto/events.py`. The body is JSON with the type under `type`.",
        "The subject is `abaco.event.<tenant>.<actor_id>.<type>`, followed by `.<host_id>`",
        "where the event is addressed to a host. `tests/contract/golden/` holds the bytes of each.",
        "",
        "| type | owner | says | fields |",
        "| --- | --- | --- | --- |",
    ]
    for kind, owner in events.OWNERS.items():
        says = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
        fields = ", ".join(f"`{field.name}`" for field in msgspec.structs.fields(kind))
        lines.append(f"| `{events.type_of(kind)}` | {owner} | {says} | {fields} |")
    return "\n".join([*lines, ""])


METRICS_HEAD = """\
# Metrics

Generated from the metrics module of each service, and from
`telemetry/abaco_telemetry/instrumented_event_log.py` for those that all services have. The series
of a counter ends in `_total`, those of a histogram in `_bucket`, `_sum` and `_count`; times are in
seconds. Each service also has those about its process (`process_resident_memory_bytes`,
`process_cpu_seconds_total`, `process_open_fds`, …).

No label has values that people can make up: there is no series per execution, image or path, and
of actors only the {named} with the longest queues are named.

The api's are at its own port, as `/metrics`; the other services have a port for nothing else,
`ABACO_METRICS_PORT`, which is off where it is 0. `abaco status --json` has the `metrics_url` of
each. In containers they are at `scheduler:9090`, `projector:9090`, `worker:9090`, `api-1:8000` and
`api-2:8000`, inside the network only (nginx passes none on), so that Prometheus joins it. With
`ABACO_AUTH=on` the api's need a token with the role reader, in `authorization.credentials_file`:

```yaml
scrape_configs:
  - job_name: abaco
    static_configs:
      - targets: [api-1:8000, api-2:8000, scheduler:9090, projector:9090, worker:9090]
```

[abaco.json](../grafana/abaco.json) is a dashboard for Grafana (*Import*): it asks for a data
source of the kind Prometheus, and names nothing that is not in the tables below.
"""


def metrics_page() -> str:
    lines = METRICS_HEAD.format(named=MAX_NAMED_ACTORS).splitlines()
    lines += ["", "## Every service", "", *table(everywhere())]
    for service in catalogues():
        lines += ["", f"## {service}", "", *table(own(service))]
    return "\n".join([*lines, ""])


def catalogues() -> dict[str, MetricRegistry]:
    return {
        "api": ApiMetrics().registry,
        "scheduler": SchedulerMetrics().registry,
        "worker": WorkerMetrics().registry,
        "projector": ProjectorMetrics().registry,
    }


def everywhere() -> list[MetricDescription]:
    """What every service counts."""
    LogMetrics(registry := MetricRegistry())
    return registry.descriptions


def own(service: str) -> list[MetricDescription]:
    """What only this one does."""
    return [metric for metric in catalogues()[service].descriptions if metric not in everywhere()]


def table(metrics: Sequence[MetricDescription]) -> list[str]:
    lines = ["| metric | kind | labels | says |", "| --- | --- | --- | --- |"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help_text} |")
    return lines


OF_COMPOSE = {
    *("ABACO_NATS_URL", "ABACO_POSTGRES_DSN", "ABACO_HOST_ID"),  # secrets, and what has to last
    *("ABACO_API_HOST", "ABACO_API_PORT", "ABACO_NATS_PORT"),  # what is published, and where
    *("ABACO_DATA_DIR", "ABACO_POSTGRES_PORT", "ABACO_TOKEN"),  # of the embedded stack alone
    *("ABACO_METRICS_HOST", "ABACO_METRICS_PORT"),  # read inside the network only
    *("ABACO_PUBLISHED_HOST", "ABACO_TRUSTED_PROXIES"),  # nginx, and where it publishes
    "ABACO_WORKER_DIR",  # the same path inside as outside
}
"""The settings that compose.yaml decides itself."""


def compose_file(name: str = "compose.yaml") -> str:
    """A compose file, with every setting that passes through it."""
    names = "".join(f"  {name}:\n" for name in sorted(settings.NAMES - OF_COMPOSE))
    text = (DOCS.parent / name).read_text()
    return re.sub(r"(?<=test_docs.py\n).*?(?=  # </settings>)", names, text, flags=re.DOTALL)


def asyncapi_page() -> str:
    return asyncapi.encoded().decode()


ACCESS_HEAD = """\
# Access

Generated from `services/api/abaco_api/access/domain/rules.py` and `issuers.py`. It applies with
`ABACO_AUTH=on`; [how to put Abaco on a network](../how-to/put-it-on-a-network.md) is the way
there.

A request has a credential in `Authorization: Bearer …`: a JWT of one of the issuers, or an API
token; or a nonce in `x-nonce`. Without a valid one the answer is 401; what the principal may
not read is 404; what it may read but not change is 403.

## Levels

Each user has a level on each actor: `NONE`, `READ`, `EXECUTE` or `UPDATE`, and each includes
those before it. What is set for `ABACO_WORLD` holds for everybody in the tenant, at the level
that is set. Of all that apply, the highest counts. Who registers an actor has `UPDATE`. An API
token acts for its owner, with at most the roles that it was made with.

## Nonces

A nonce has its own level on one actor, and nothing else: no role, nor what its maker or everybody
has. `POST /actors/{id}/nonces` makes one, with `level` (`EXECUTE`), `max_uses` (-1, any number)
and `description`. Its text is shown once; only its digest is stored.

Each request that it is let in with is one use, which is an event before the request is executed.
So no more than `max_uses` requests are executed, in whichever processes; if a process ends between
the two, a use is lost. A request that is repeated with its `Idempotency-Key` is one use. When none
is left, the answer is 401. An actor has at most 100 nonces; they end with it.
"""


def access_page() -> str:
    lines = ACCESS_HEAD.splitlines()
    lines += [
        "",
        "## Roles",
        "",
        "| role | level on every actor | meaning |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {role.value} | {rules.ROLE_LEVELS[role]} | {rules.ROLE_MEANINGS[role]} |"
        for role in rules.ROLE_LEVELS
    ]
    lines += ["", "## Operations", "", "| operation | needs |", "| --- | --- |"]
    lines += [f"| `{m} {path}` | {rules.needs(rule)} |" for (m, path), rule in rules.RULES.items()]
    lines += ["", "A principal sees its own tokens; an admin sees all."]
    lines += ["", "## Privileged parameters", ""]
    lines += [" ".join(PRIVILEGED.split()), "", "| parameter | needs the role |", "| --- | --- |"]
    for name, roles in rules.PRIVILEGED_PARAMETERS.items():
        lines.append(f"| `{name}` | {' or '.join(sorted(roles))} |")
    lines += ["", "## Issuers", "", " ".join(ISSUERS.split()), "", "| field | default |"]
    lines.append("| --- | --- |")
    for field in msgspec.structs.fields(Issuer):
        needed = field.default is msgspec.NODEFAULT
        default = "needed" if needed else f"`{msgspec.json.encode(field.default).decode()}`"
        lines.append(f"| `{field.name}` | {default} |")
    return "\n".join([*lines, ""])


PRIVILEGED = """\
These parameters of an actor need a role besides the level, unless they are null, which is the
host's setting, or `max_workers` is at most `ABACO_MAX_WORKERS`. The image of a privileged actor
is changed only by who may make one.
"""
ISSUERS = """\
`ABACO_AUTH_ISSUERS` is a JSON list of objects with these fields. The keys come from `jwks_url`
or `jwks_file`. The tenant is `tenant`, or the claim `tenant_claim`, which `tenants` may map.
The profile `wso2` maps the domain of the user. Without `roles`, the roles are named
`abaco-admin` and so on; with the profile `wso2`, `Internal/abaco-admin` and so on.
"""

PAGES = {
    "reference/access.md": access_page,
    "reference/settings.md": settings_page,
    "reference/states.md": states_page,
    "reference/events.md": events_page,
    "reference/metrics.md": metrics_page,
    "../compose.yaml": compose_file,
    "../compose.cluster.yaml": lambda: compose_file("compose.cluster.yaml"),
    "../compose/nats.conf": nats_server.container_configuration,
    "reference/asyncapi.json": asyncapi_page,
    "../kubernetes/nats-values.yaml": nats_chart.values,
}


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_as_the_code_is(name: str) -> None:
    path = DOCS / name
    if os.environ.get("WRITE_DOCS"):
        path.write_text(PAGES[name]())
    assert path.read_text() == PAGES[name]()


@pytest.mark.parametrize("described", [asyncapi.describe(), openapi.describe(OPERATIONS)])
def test_a_description_is_the_same_whether_python_strips_docstrings_or_not(described: Any) -> None:
    """Python 3.13 strips the indentation of docstrings as it compiles; older versions keep it."""
    texts = descriptions(described)
    assert len(texts) > 20
    assert texts == [inspect.cleandoc(text) for text in texts]


def descriptions(value: Any) -> list[str]:
    """Every description in a document."""
    if isinstance(value, list):
        return [text for item in value for text in descriptions(item)]
    if not isinstance(value, dict):
        return []
    found = [text for name, text in value.items() if name == "description" and text]
    own = [text for text in found if isinstance(text, str)]
    return own + [text for item in value.values() for text in descriptions(item)]


def test_every_setting_is_known_and_every_known_name_is_a_setting() -> None:
    assert set(rows()) == settings.NAMES


def test_a_setting_of_several_processes_is_one_setting() -> None:
    for config in CONFIGS.values():
        hints = get_type_hints(config, include_extras=True)
        for field in msgspec.structs.fields(config):
            row = rows()[settings.PREFIX + field.name.upper()]
            mine = Row(field, hints[field.name])
            assert (mine.default, mine.description) == (row.default, row.description)


# -- the dashboard -------------------------------------------------------------------------------

DASHBOARD = DOCS / "grafana" / "abaco.json"


def panels() -> list[dict[str, Any]]:
    found = json.loads(DASHBOARD.read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def exported() -> dict[str, set[str]]:
    """Every series of every service, with its labels."""
    found: dict[str, set[str]] = {}
    for registry in catalogues().values():
        found |= {name: set() for name in registry.process_series}
        for metric in registry.descriptions:
            buckets = {"le"} if metric.kind == "histogram" else set()
            found |= {name: {*metric.labels} | buckets for name in metric.series}
    return found


def test_the_dashboard_names_only_what_is_exported() -> None:
    known = exported()
    for query in queries():
        names = set(re.findall(r"\b(?:abaco|process)_\w+", query))
        assert names, query
        assert names <= known.keys(), query


def test_the_dashboard_asks_for_labels_that_are_there() -> None:
    known = exported()
    of_prometheus = {"instance", "job"}
    for query in queries():
        names = re.findall(r"\b(?:abaco|process)_\w+", query)
        labels = of_prometheus.union(*(known[name] for name in names))
        grouped = ",".join(re.findall(r"\bby ?\(([^)]*)\)", query))
        chosen = re.findall(r"(\w+)(?:=|!=|=~|!~)\"", query)
        asked = {*(word.strip() for word in grouped.split(",") if word.strip()), *chosen}
        assert asked <= labels, query


def test_the_dashboard_shows_every_service() -> None:
    shown = " ".join(queries())
    for service in catalogues():
        assert any(metric.name in shown for metric in own(service)), service


def test_no_two_panels_lie_on_one_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
