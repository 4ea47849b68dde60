"""The pages that are drawn from the code are as the code is.

``WRITE_DOCS=1 pytest tests/unit/test_docs.py`` draws them anew.
"""

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from abaco_api import asyncapi
from abaco_api.config import Config as ApiConfig
from abaco_local import nats_chart, nats_server
from abaco_local.config import Config as LocalConfig
from abaco_projector.config import Config as ProjectorConfig
from abaco_proto import actor, events, execution, settings, worker
from abaco_scheduler.config import Config as SchedulerConfig
from abaco_worker.config import Config as WorkerConfig

DOCS = Path(__file__).parents[2] / "docs"

CONFIGS: dict[str, type[msgspec.Struct]] = {
    "api": ApiConfig,
    "scheduler": SchedulerConfig,
    "worker": WorkerConfig,
    "projector": ProjectorConfig,
    "stack": LocalConfig,
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
        "Drawn from the tables `TRANSITIONS` in `proto/abaco_proto`; what is not in a table cannot",
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
        "Drawn from `proto/abaco_proto/events.py`. The body is JSON with the type under `type`.",
        "The subject is `abaco.event.<tenant>.<actor_id>.<type>`, with `.<host_id>` behind it",
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


OF_COMPOSE = {
    *("ABACO_NATS_URL", "ABACO_POSTGRES_DSN", "ABACO_HOST_ID"),  # secrets, and what has to last
    *("ABACO_API_HOST", "ABACO_API_PORT", "ABACO_NATS_PORT"),  # what is published, and where
    *("ABACO_DATA_DIR", "ABACO_POSTGRES_PORT"),  # of the embedded stack alone
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


PAGES = {
    "settings.md": settings_page,
    "states.md": states_page,
    "events.md": events_page,
    "../compose.yaml": compose_file,
    "../compose.cluster.yaml": lambda: compose_file("compose.cluster.yaml"),
    "../compose/nats.conf": nats_server.in_container,
    "asyncapi.json": asyncapi_page,
    "../kubernetes/nats-values.yaml": nats_chart.values,
}


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_as_the_code_is(name: str) -> None:
    path = DOCS / name
    if os.environ.get("WRITE_DOCS"):
        path.write_text(PAGES[name]())
    assert path.read_text() == PAGES[name]()


def test_every_setting_is_known_and_every_known_name_is_a_setting() -> None:
    assert set(rows()) == settings.NAMES


def test_a_setting_of_several_processes_is_one_setting() -> None:
    for config in CONFIGS.values():
        hints = get_type_hints(config, include_extras=True)
        for field in msgspec.structs.fields(config):
            row = rows()[settings.PREFIX + field.name.upper()]
            mine = Row(field, hints[field.name])
            assert (mine.default, mine.description) == (row.default, row.description)
