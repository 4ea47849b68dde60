"""The run specification: everything that one run needs to know.

A run uses a sandbox, whose launcher gets a :class:`RunRequest`. Where there is no launcher, it
uses a container of its own; see :func:`container_spec`.
"""

from datetime import datetime
from typing import Any

import msgspec

from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.envelope import EPOCH, Recorded
from abaco_worker.domain.container_labels import assignment_labels, container_name
from abaco_worker.domain.engine_values import ContainerSpec, Image
from abaco_worker.domain.run_request import RunRequest, SandboxLimits
from abaco_worker.domain.sandbox_spec import limits, sandbox_spec
from abaco_worker.worker_settings import WorkerSettings


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What one run needs: its assignment, and the definition, message and state it refers to.

    ``recorded`` is the assignment as recorded in the log. ``state`` is the actor's at the start of
    the run. ``rerun_image`` is set if the run repeats an earlier one: the engine's name of the
    image that the earlier run used.
    """

    recorded: Recorded
    assignment: ev.ExecutionAssigned
    definition: ev.Definition
    revision: int = 0
    message: ev.MessageReceived
    accepted_at: datetime = EPOCH
    state: Any = ""
    state_sequence: int = 0
    rerun_image: str = ""

    @property
    def image(self) -> str:
        """The image to run: that of the repeated run, or else the actor's."""
        return self.rerun_image or self.definition.image


def container_spec(run_spec: RunSpec, config: WorkerSettings) -> ContainerSpec:
    """Return the container that runs ``run_spec`` without a launcher."""
    spec = sandbox_spec(run_spec.definition, config, run_spec.image)
    return ContainerSpec(
        name=container_name(run_spec.recorded),
        image=spec.image,
        environment=environment(run_spec),
        labels=assignment_labels(run_spec.recorded),
        memory_bytes=spec.memory_bytes,
        cpus=spec.cpus,
        processes=spec.processes,
        network_mode=spec.network_mode,
        kept_output_bytes=limits(run_spec.definition, config).max_log_bytes,
        privileged=spec.privileged,
        no_new_privileges=spec.no_new_privileges,
        open_files=spec.open_files,
    )


def run_request(
    run_spec: RunSpec, image: Image, config: WorkerSettings, sandbox: SandboxLimits | None = None
) -> RunRequest:
    """Return the request to the launcher of a container that was made from ``image``.

    ``sandbox`` is given if the container stays. The launcher keeps one byte more than is recorded,
    so that the worker knows of a truncation.
    """
    allowed = limits(run_spec.definition, config)
    return RunRequest(
        argv=image.command,
        environment={**image.environment, **environment(run_spec)},
        directory=image.directory,
        user=image.user,
        output_bytes=allowed.max_log_bytes + 1,
        run_seconds=allowed.max_run_seconds,
        grace_seconds=config.halt_grace_seconds,
        stop_signal=image.stop_signal,
        sandbox=sandbox,
    )


def environment(run_spec: RunSpec) -> dict[str, str]:
    """Return the variables: the actor's defaults, overridden by the message's and by ours."""
    event, message = run_spec.assignment, run_spec.message
    return {
        **run_spec.definition.default_environment,
        **message.environment,
        "MSG": message.message,
        "_abaco_actor_id": event.actor_id,
        "_abaco_actor_name": names.actor_name(event.actor_id),
        "_abaco_actor_state": state_text(run_spec.state),
        "_abaco_Content_Type": message.content_type,
        "_abaco_container_repo": run_spec.definition.image,
        "_abaco_execution_id": event.execution_id,
        "_abaco_worker_id": event.worker_id,
    }


def state_text(state: Any) -> str:
    """Return a state as the value of a variable: a string as it is, anything else as JSON."""
    return state if isinstance(state, str) else msgspec.json.encode(state).decode()
