from datetime import timedelta
from typing import Any

import pytest
from msgspec import UNSET
from msgspec.structs import replace

import builders as b
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_worker.domain.container_labels import (
    assignment_labels,
    container_name,
    labelled_sequence,
    labels_match,
)
from abaco_worker.domain.engine_values import LauncherMounts
from abaco_worker.domain.run_request import RunRequest, SandboxLimits
from abaco_worker.domain.run_spec import RunSpec, container_spec, environment, state_text
from abaco_worker.domain.sandbox_spec import WorkerKey, sandbox_container_spec, sandbox_spec
from abaco_worker.worker_settings import WorkerSettings


def order(recorded: Recorded | None = None, state: Any = "", **changes: Any) -> RunSpec:
    event = b.assigned(7)
    return RunSpec(
        recorded=recorded or b.record(event, 9),
        assignment=event,
        definition=b.definition(default_environment=changes.pop("defaults", {})),
        message=b.received(7, **changes),
        state=state,
    )


def test_the_environment_of_a_container() -> None:
    assert environment(order(state="s")) == {
        "MSG": "execute yourself",
        "_abaco_actor_id": "foo_0",
        "_abaco_actor_name": "foo",
        "_abaco_actor_state": "s",
        "_abaco_Content_Type": "text/plain",
        "_abaco_container_repo": "jstubbs/abaco_test",
        "_abaco_execution_id": "foo_0_exc_7",
        "_abaco_worker_id": "foo_0_wkr_0",
    }


def test_the_message_wins_over_the_defaults_and_the_platform_over_both() -> None:
    defaults = {"A": "default", "B": "default", "MSG": "default"}
    made = environment(order(defaults=defaults, environment={"B": "sent", "_abaco_actor_id": "x"}))
    assert made["A"] == "default"
    assert made["B"] == "sent"
    assert made["MSG"] == "execute yourself"
    assert made["_abaco_actor_id"] == "foo_0"


@pytest.mark.parametrize(
    ("state", "text"),
    [("", ""), ("a b", "a b"), ({"n": 1}, '{"n":1}'), ([1, None], "[1,null]"), (0, "0")],
)
def test_a_state_as_a_variable(state: Any, text: str) -> None:
    assert state_text(state) == text


def test_the_limits_are_the_settings() -> None:
    config = WorkerSettings(
        container_memory_bytes=8 * 1024 * 1024,
        container_cpus=0.5,
        container_processes=9,
        network_mode="none",
        max_log_bytes=77,
    )
    spec = container_spec(order(), config)
    limits = (spec.memory_bytes, spec.cpus, spec.processes, spec.network_mode)
    assert limits == (8 * 1024 * 1024, 0.5, 9, "none")
    assert spec.kept_output_bytes == 77
    assert spec.open_files == WorkerSettings().container_open_files == 1_048_576
    assert spec.image == "jstubbs/abaco_test"


def test_the_same_assignment_gives_the_same_name() -> None:
    assert container_name(b.record(b.assigned(7), 9)) == container_name(b.record(b.assigned(7), 9))
    assert container_name(b.record(b.assigned(7), 9)).startswith("abaco-foo_0_exc_7-1-")


def test_another_assignment_gives_another_name() -> None:
    one = b.record(b.assigned(7), 9)
    others = [
        b.record(b.assigned(7, attempt=2), 9),
        b.record(b.assigned(7, host_id="h2"), 9),
        b.record(b.assigned(7), 10),
        b.record(b.assigned(7), 9, at=b.T0 + timedelta(microseconds=1)),
        b.record(b.assigned(7, actor_id="bar_0"), 9),
    ]
    names = {container_name(recorded) for recorded in [one, *others]}
    assert len(names) == 6


def test_labels_lead_back_to_the_assignment() -> None:
    recorded = b.record(b.assigned(7), 9)
    made = assignment_labels(recorded)
    assert made["abaco.host_id"] == "h1"
    assert made["abaco.execution_id"] == "foo_0_exc_7"
    assert made["abaco.attempt"] == "1"
    assert labelled_sequence(made) == 9
    assert labels_match(made, recorded)


def test_labels_of_another_log_lead_nowhere() -> None:
    made = assignment_labels(b.record(b.assigned(7), 9))
    assert not labels_match(made, None)
    assert not labels_match(made, b.record(b.ready(), 9))
    assert not labels_match(made, b.record(b.assigned(7), 9, at=b.T0 + timedelta(days=1)))
    assert labelled_sequence({}) == 0
    assert labelled_sequence({"abaco.assignment": "x@y"}) == 0


@pytest.mark.parametrize(
    ("wanted", "allowed", "expected"),
    [(True, True, True), (True, False, True), (False, True, False), (False, False, True)],
)
def test_setuid_programs_have_rights_where_the_actor_wants_and_the_host_allows_it(
    wanted: bool,  # noqa: FBT001
    allowed: bool,  # noqa: FBT001
    expected: bool,  # noqa: FBT001
) -> None:
    config = WorkerSettings(allow_new_privileges=allowed)
    definition = b.definition(no_new_privileges=wanted)
    assert sandbox_spec(definition, config).no_new_privileges is expected
    plain = replace(order(), definition=definition)
    assert container_spec(plain, config).no_new_privileges is expected


@pytest.mark.parametrize(
    ("actor", "host", "privileged", "expected"),
    [
        (UNSET, "sandbox", False, "sandbox"),
        (UNSET, "container", False, "container"),
        (ev.Isolation.CONTAINER, "sandbox", False, "container"),
        (ev.Isolation.SANDBOX, "container", False, "sandbox"),
        (ev.Isolation("of a later version"), "sandbox", False, "container"),
        (ev.Isolation.SANDBOX, "sandbox", True, "container"),
    ],
)
def test_the_actor_chooses_the_isolation_or_else_the_host(
    actor: Any,
    host: Any,
    privileged: bool,  # noqa: FBT001
    expected: str,
) -> None:
    config = WorkerSettings(isolation=host, allow_privileged=True)
    definition = b.definition(isolation=actor, privileged=privileged)
    assert sandbox_spec(definition, config).isolation == expected


def test_a_message_has_its_actors_limits_and_its_container_more() -> None:
    definition = b.definition(mem_limit=7 * 2**20, max_processes=5)
    spec = sandbox_spec(definition, WorkerSettings())
    limits = spec.message_limits
    key = WorkerKey("default", "foo_0", "foo_0_wkr_0")
    mounts = LauncherMounts(program="/l")
    stays, once = (
        sandbox_container_spec(
            "n", "h", key, spec, image_id="i", mounts=mounts, network_files=None, stays=stays
        )
        for stays in (True, False)
    )
    assert (limits.memory_bytes, limits.processes) == (7 * 2**20, 5)
    assert (once.memory_bytes, once.processes) == (7 * 2**20, 5)
    assert stays.memory_bytes > 7 * 2**20
    assert stays.processes > 5


def test_the_fields_of_a_sandbox_come_first_in_a_request() -> None:
    request = RunRequest(argv=("a",), environment={}, output_bytes=9)
    limits = SandboxLimits(memory_bytes=1, processes=2, no_new_privileges=True)
    in_sandbox = replace(request, sandbox=limits)
    assert (request.verb, in_sandbox.verb) == (b"RUN1", b"RUN2")
    assert in_sandbox.encode("7@x") == b"7@x\x001\x002\x000\x001\x00" + request.encode()
    connected = replace(in_sandbox, sandbox=replace(limits, hosts="10.0.0.2\tme\n"))
    fields = b"7@x\x001\x002\x000\x005\x0010.0.0.2\tme\n\x00"
    assert connected.encode("7@x") == fields + request.encode()
    without = replace(in_sandbox, sandbox=SandboxLimits())
    assert without.encode("i").startswith(b"i\x000\x000\x000\x000\x00")
