"""Containers as values: their names, their labels, their environment, their limits.

There are two kinds. A sandbox waits for an assignment with a launcher in it; it is made from a
:class:`Blueprint` for a :class:`SeatKey`, and files beside it say what it was taken for. Where
there is no launcher, a container is made for one attempt: the same assignment always gives it the
same name, and another assignment, even of a log that was begun anew, another one.
"""

from datetime import datetime
from typing import Any

import msgspec

from abaco_proto import events as ev
from abaco_proto import ids
from abaco_proto.envelope import EPOCH, Recorded
from abaco_worker.domain.container_labels import container_name, labels
from abaco_worker.domain.containers import ContainerSpec, Image
from abaco_worker.domain.run_limits import limits
from abaco_worker.domain.run_request import Request
from abaco_worker.domain.sandbox_spec import blueprint
from abaco_worker.worker_settings import Config


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """All that one run needs to know. ``state`` is the actor's, at the start of the run.

    ``found_image`` is how the engine names the image of a run that is run again.
    """

    recorded: Recorded
    assignment: ev.ExecutionAssigned
    definition: ev.Definition
    revision: int = 0
    message: ev.MessageReceived
    accepted_at: datetime = EPOCH
    state: Any = ""
    state_sequence: int = 0
    found_image: str = ""

    @property
    def image(self) -> str:
        """What is run: the actor's image, or the very one of the run that is run again."""
        return self.found_image or self.definition.image


def container_spec(order: Order, config: Config) -> ContainerSpec:
    """The container that runs an order without a launcher."""
    drawn = blueprint(order.definition, config, order.image)
    return ContainerSpec(
        name=container_name(order.recorded),
        image=drawn.image,
        environment=environment(order),
        labels=labels(order.recorded),
        memory_bytes=drawn.memory_bytes,
        cpus=drawn.cpus,
        processes=drawn.processes,
        network_mode=drawn.network_mode,
        kept_output_bytes=limits(order.definition, config).max_log_bytes,
        privileged=drawn.privileged,
        no_new_privileges=drawn.no_new_privileges,
        open_files=drawn.open_files,
    )


def request(order: Order, image: Image, config: Config) -> Request:
    """What a sandbox is asked to run. One byte more is kept than recorded: there was more."""
    allowed = limits(order.definition, config)
    return Request(
        argv=image.command,
        environment={**image.environment, **environment(order)},
        directory=image.directory,
        user=image.user,
        output_bytes=allowed.max_log_bytes + 1,
        run_seconds=allowed.max_run_seconds,
        grace_seconds=config.halt_grace_seconds,
        stop_signal=image.stop_signal,
    )


def environment(order: Order) -> dict[str, str]:
    """The actor's defaults, over them what the message set, over them what the platform says."""
    event, message = order.assignment, order.message
    return {
        **order.definition.default_environment,
        **message.environment,
        "MSG": message.message,
        "_abaco_actor_id": event.actor_id,
        "_abaco_actor_name": ids.actor_name(event.actor_id),
        "_abaco_actor_state": state_text(order.state),
        "_abaco_Content_Type": message.content_type,
        "_abaco_container_repo": order.definition.image,
        "_abaco_execution_id": event.execution_id,
        "_abaco_worker_id": event.worker_id,
    }


def state_text(state: Any) -> str:
    """A state as a variable holds it: text as it is, everything else as JSON."""
    return state if isinstance(state, str) else msgspec.json.encode(state).decode()
