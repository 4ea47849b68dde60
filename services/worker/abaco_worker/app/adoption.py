"""What an earlier life of this host's worker left behind: containers, folders, seats.

A container whose attempt still counts is left alone: its assignment was never settled, so it
comes again and finds the container. A sandbox that waits goes back to its seat, if that lives.
What is over is removed. A container that neither our log nor our folder explains is not ours to
touch: it may belong to another installation that took the same host id.
"""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from abaco_proto import events as ev
from abaco_proto.errors import Unavailable
from abaco_worker.app.host import Host
from abaco_worker.app.waiting import patiently
from abaco_worker.domain.container_labels import HOST, belongs, mark, marked_sequence, sequence_of
from abaco_worker.domain.containers import Labelled
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.domain.sandbox_record import Made
from abaco_worker.domain.sandbox_spec import SeatKey
from abaco_worker.sandbox.container_garbage_collector import Leftover
from abaco_worker.sandbox.sandbox_directory import Place

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 2.0


async def left_containers(host: Host) -> Sequence[Labelled]:
    """Every container labelled with our host id, once the engine answers."""
    while True:
        try:
            return await host.engine.labelled(HOST, host.host_id)
        except (Unavailable, EngineFault) as error:
            logger.warning("%s", error)
            await asyncio.sleep(PAUSE_SECONDS)


async def adopt(host: Host) -> dict[SeatKey, Place]:
    """Look at all that was left; gives the sandboxes that wait, by the seat they are for."""
    containers = await left_containers(host)
    if host.sandboxes is None:
        containers = _without_launcher(host, containers)
    places = {place.name: place for place in host.sandboxes.found} if host.sandboxes else {}
    waiting: dict[SeatKey, Place] = {}
    for container in containers:
        place = places.pop(container.name, None)
        if place is None:
            if not _made_since(host, container):
                await _judge(host, container)
        elif place.taken() is not None:
            await _judge_taken(host, place)
        elif (key := seat_of(container)) in waiting:
            host.sweeper.take(Leftover(container.container_id, place.folder))
        else:
            waiting[key] = place
    for place in places.values():
        await _judge_taken(host, place)
    return waiting


def _without_launcher(host: Host, containers: Sequence[Labelled]) -> Sequence[Labelled]:
    """Remove what was made for a launcher, which nobody talks to now; gives the other containers.

    A run in one of them begins anew: its assignment comes again.
    """
    folder = Path(host.config.worker_dir)
    places = {each.name: Place(folder / each.name) for each in containers if each.name}
    ours = {name: place for name, place in places.items() if place.made(Made) is not None}
    ran = sum(place.taken() is not None for place in ours.values())
    for name, place in ours.items():
        host.sweeper.take(Leftover(name, place.folder))
    if ours:
        off = host.config.launcher == "off"
        why = "ABACO_LAUNCHER is off" if off else "there is no launcher now"
        logger.info(
            "%d idle containers removed, and %d runs begin anew: they were made for"
            " the launcher, and %s",
            len(ours) - ran,
            ran,
            why,
        )
    return [each for each in containers if each.name not in ours]


def _made_since(host: Host, container: Labelled) -> bool:
    """Whether it is a sandbox of this very life."""
    return host.sandboxes is not None and host.sandboxes.place(container.name).folder.exists()


def seat_of(container: Labelled) -> SeatKey:
    """The seat a sandbox was made for, from its labels."""
    names = ("abaco.tenant", "abaco.actor_id", "abaco.worker_id")
    return SeatKey(*(container.labels.get(name, "") for name in names))


async def _judge_taken(host: Host, place: Place) -> None:
    """A sandbox that was taken, or the folder of one that never came to be."""
    taken = place.taken()
    sequence = sequence_of(taken.mark) if taken else 0
    recorded = await patiently(lambda: host.log.at(sequence)) if sequence else None
    ours = recorded is not None and isinstance(recorded.event, ev.ExecutionAssigned)
    same = ours and taken is not None and recorded is not None and taken.mark == mark(recorded)
    if same and recorded is not None and (await host.look(recorded)).run_wanted:
        logger.info("%s: its run is still wanted", place.name)
        return
    if taken is not None and host.sandboxes is not None:
        host.sandboxes.forget(taken.mark)
    logger.info("%s: its run is over, removed", place.name)
    host.sweeper.take(Leftover(place.name, place.folder))


async def _judge(host: Host, container: Labelled) -> None:
    """A container without a folder: it was made for one attempt, or is not ours."""
    sequence = marked_sequence(container.labels)
    recorded = await patiently(lambda: host.log.at(sequence)) if sequence else None
    if recorded is None or not belongs(container.labels, recorded):
        logger.warning("container %s is of no work in our log: left", container.container_id[:12])
    elif (await host.look(recorded)).run_wanted:
        if host.sandboxes is None:
            logger.info("container %s: its run is still wanted", container.container_id[:12])
            return
        logger.info("container %s: its run begins anew in a sandbox", container.container_id[:12])
        host.sweeper.take(Leftover(container.container_id))
    else:
        logger.info("container %s: its run is over, removed", container.container_id[:12])
        host.sweeper.take(Leftover(container.container_id))
