"""Adoption: what happens at the start to containers and directories of a previous process.

A container whose attempt is still wanted is kept: its assignment was not acknowledged, so it is
delivered again, and the run continues. An idle sandbox goes back to its worker, if that is live.
What is over is removed. A container that neither the log nor the folder refers to is left running:
it may belong to another installation with the same host id.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from abaco_jetstream.retry import Outage, every, retry_until_available
from abaco_proto import events as ev
from abaco_proto.errors import Unavailable
from abaco_worker.app.host_context import HostContext
from abaco_worker.app.waiting import retry_log
from abaco_worker.domain.container_labels import (
    HOST_LABEL,
    assignment_key,
    labelled_sequence,
    labels_match,
    sequence_in,
)
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.domain.engine_values import LabelledContainer
from abaco_worker.domain.sandbox_record import SandboxAssignment
from abaco_worker.domain.sandbox_spec import WorkerKey
from abaco_worker.sandbox.container_garbage_collector import UnusedContainer
from abaco_worker.sandbox.sandbox_directory import SandboxDirectory
from abaco_worker.sandbox.sandbox_store import SandboxStore

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 2.0


async def list_containers(host: HostContext) -> Sequence[LabelledContainer]:
    """Return every container with this host's id, when the engine is available."""
    return await retry_until_available(
        lambda: host.engine.labelled(HOST_LABEL, host.host_id),
        Outage("the container engine", log=logger),
        backoff=every(PAUSE_SECONDS),
        errors=(Unavailable, EngineFault),
    )


class Adopted(msgspec.Struct, frozen=True):
    """The idle sandboxes by their workers, and the containers that stay and are in use."""

    idle: dict[WorkerKey, SandboxDirectory]
    busy: dict[WorkerKey, SandboxDirectory]


async def adopt_containers(host: HostContext) -> Adopted:
    """Check everything that was left, and return the sandboxes that can still be used."""
    containers = await list_containers(host)
    if host.sandboxes is not None:
        return await _adopt_sandboxes(host, host.sandboxes, containers)
    for container in _collect_sandboxes(host, containers):
        await _adopt_container(host, container)
    return Adopted({}, {})


async def _adopt_sandboxes(
    host: HostContext, sandboxes: SandboxStore, containers: Sequence[LabelledContainer]
) -> Adopted:
    found = {directory.name: directory for directory in sandboxes.found}
    idle: dict[WorkerKey, SandboxDirectory] = {}
    busy: dict[WorkerKey, SandboxDirectory] = {}
    for container in containers:
        directory = found.pop(container.name, None)
        if directory is None:
            # A directory that was not found is of a sandbox that was made since the start.
            if not sandboxes.directory(container.name).path.exists():
                await _adopt_container(host, container)
        elif await _may_be_idle(host, sandboxes, directory):
            kept = idle.setdefault(worker_key(container), directory)
            if kept is not directory:
                sandboxes.remove_found(directory, "its worker has another one")
        elif _stays(directory):
            busy[worker_key(container)] = directory
    for directory in found.values():
        if await _may_be_idle(host, sandboxes, directory):
            sandboxes.remove_found(directory, "its container is gone")
    return Adopted(idle, busy)


def _collect_sandboxes(
    host: HostContext, containers: Sequence[LabelledContainer]
) -> Sequence[LabelledContainer]:
    """Remove all sandboxes of a host that has no launcher now; return the other containers.

    A run in one of them is repeated: its assignment is delivered again.
    """
    folder = Path(host.config.worker_dir)
    directories = {
        each.name: SandboxDirectory(folder / each.name) for each in containers if each.name
    }
    sandboxes = {n: each for n, each in directories.items() if each.read_record() is not None}
    runs = sum(len(directory.runs()) for directory in sandboxes.values())
    for name, directory in sandboxes.items():
        host.garbage_collector.collect(UnusedContainer(name, directory.path))
    if sandboxes:
        off = host.config.launcher == "off"
        logger.info(
            "%d idle sandboxes removed, and %d runs repeated: they need a launcher, and %s",
            sum(not directory.runs() for directory in sandboxes.values()),
            runs,
            "ABACO_LAUNCHER is off" if off else "there is none now",
        )
    return [each for each in containers if each.name not in sandboxes]


def worker_key(container: LabelledContainer) -> WorkerKey:
    """Return the worker of a sandbox, from its labels."""
    names = ("abaco.tenant", "abaco.actor_id", "abaco.worker_id")
    return WorkerKey(*(container.labels.get(name, "") for name in names))


async def _may_be_idle(
    host: HostContext, sandboxes: SandboxStore, directory: SandboxDirectory
) -> bool:
    """Forget the runs of a sandbox that are over; return whether it can be used for another one.

    One that is used once is removed after its run, as is one whose run is no longer wanted and
    may still go on.
    """
    stays = _stays(directory)
    for run in directory.runs():
        assignment = run.read_assignment()
        if assignment is not None and await _is_wanted(host, assignment):
            logger.info("sandbox %s is kept: its run is wanted", directory.name)
            return False
        if sandboxes.is_claimed(directory):
            return False
        if assignment is not None:
            sandboxes.release(assignment.key)
        if not stays:
            sandboxes.remove_found(directory, "its run is over")
            return False
        run.remove()
    return True


def _stays(directory: SandboxDirectory) -> bool:
    record = directory.read_record()
    return record is not None and record.stays


async def _is_wanted(host: HostContext, assignment: SandboxAssignment) -> bool:
    sequence = sequence_in(assignment.key)
    recorded = await retry_log(lambda: host.log.at(sequence)) if sequence else None
    if recorded is None or not isinstance(recorded.event, ev.ExecutionAssigned):
        return False
    same = assignment.key == assignment_key(recorded)
    return same and (await host.read_state(recorded)).run_wanted


async def _adopt_container(host: HostContext, container: LabelledContainer) -> None:
    """Keep or remove a container without a directory; it was made for one attempt."""
    sequence = labelled_sequence(container.labels)
    recorded = await retry_log(lambda: host.log.at(sequence)) if sequence else None
    short_id = container.container_id[:12]
    if recorded is None or not labels_match(container.labels, recorded):
        logger.warning(
            "container %s (%s) is not referenced by any event in this log; left running. If no"
            " other installation uses it, remove it with: docker rm -f %s",
            short_id,
            container.name,
            short_id,
        )
        return
    wanted = (await host.read_state(recorded)).run_wanted
    if wanted and host.sandboxes is None:
        logger.info("container %s is kept: its run is wanted", short_id)
        return
    outcome = "its run is repeated in a sandbox" if wanted else "its run is over"
    logger.info("container %s is removed: %s", short_id, outcome)
    host.garbage_collector.collect(UnusedContainer(container.container_id))
