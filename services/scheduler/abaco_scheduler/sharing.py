"""Sharing: whose worker goes when there are fewer seats than needs.

Theory: first go the workers of actors that have nothing to do, the smallest loss first. Then
actors that have work share evenly: one that has fewer workers gets a seat of one that has more,
as long as that does not turn the tables, so that seats move only towards balance and then rest.
Where there are more actors with work than seats, nobody has more than one, and they take turns.
Nobody is interrupted: a worker goes when it has ended what it runs, instead of going on with the
next message of its actor. (docs/adr/0010)
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import IntEnum

import msgspec

from abaco_proto.worker import Worker, WorkerStatus
from abaco_scheduler.cluster import Desk, Key
from abaco_scheduler.policy import (
    Need,
    Policy,
    backlog,
    current_workers,
    idle_workers,
    least_workers,
)


class Wish(msgspec.Struct, frozen=True, order=True):
    """One more worker for an actor that has ``have`` of them; the least wish is granted first.

    Of those in equal need the one comes first that has not had its turn for the longest time: a
    seat that somebody gave up must not come back to him while others wait.
    """

    need: Need
    have: int
    served_at: datetime
    actor_id: str
    tenant: str

    @property
    def key(self) -> Key:
        """Whose wish it is."""
        return self.tenant, self.actor_id


class Loan(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that goes for a wish."""

    desk: Desk
    worker: Worker
    wish: Wish
    reason: str


def loans(desks: list[Desk], unmet: list[Wish], policy: Policy, now: datetime) -> Iterator[Loan]:
    """Workers of these desks that make room for wishes for which there is no seat."""
    wishes = unmet[_coming_free(desks) :]
    if not wishes:
        return
    at_leisure = _at_leisure(desks, policy, now)
    at_work = _at_work(desks, policy, now)
    for wish in wishes:
        loan = _for_free(at_leisure, wish) or _for_balance(at_work, wish, policy, now)
        if loan is not None:
            yield loan


def _coming_free(desks: list[Desk]) -> int:
    """How many seats are given up already, and not for a run that may take long."""
    return sum(
        w.status is WorkerStatus.STOPPING and w.execution_id is None
        for desk in desks
        for w in desk.workers.values()
    )


# -- of those who have nothing to do -------------------------------------------------------------


class Loss(IntEnum):
    """What an actor with nothing to do loses with a worker; the smallest loss first."""

    SURPLUS = 0
    MINIMUM = 1
    LAST = 2


_WORTH = {
    Need.WORK_AND_NO_WORKER: Loss.LAST,
    Need.UNTRIED: Loss.LAST,
    Need.WORK: Loss.MINIMUM,
    Need.MINIMUM: Loss.SURPLUS,
}
"""The greatest loss to another actor that a need is worth."""

_Leisure = tuple[Loss, Desk, Worker]


def _at_leisure(desks: list[Desk], policy: Policy, now: datetime) -> list[_Leisure]:
    """Idle workers of actors with nothing to do: the smallest loss, and the longest idle, first."""
    found = []
    for desk in desks:
        if backlog(desk, policy, now):
            continue
        left = len(current_workers(desk))
        for worker in idle_workers(desk):
            left -= 1
            found.append((_loss(desk, left), desk, worker))
    return sorted(found, key=lambda victim: (victim[0], victim[2].updated_at))


def _loss(desk: Desk, left: int) -> Loss:
    """What it costs an actor to have ``left`` workers left."""
    if not left:
        return Loss.LAST
    return Loss.SURPLUS if left >= least_workers(desk) else Loss.MINIMUM


def _for_free(at_leisure: list[_Leisure], wish: Wish) -> Loan | None:
    """The first one is the smallest loss: where it is too great, so are all behind it."""
    for place, (loss, desk, worker) in enumerate(at_leisure):
        if loss > _WORTH[wish.need]:
            return None
        if desk.key != wish.key:
            del at_leisure[place]
            reason = f"actor {wish.actor_id} needs the seat"
            return Loan(desk=desk, worker=worker, wish=wish, reason=reason)
    return None


# -- of those who have work ----------------------------------------------------------------------


class _Holder:
    """An actor with work, how many workers it has, and those that it could do without now."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.have = len(current_workers(desk))
        self.idle = idle_workers(desk)

    @property
    def turn_began(self) -> datetime | None:
        """When the first of the idle ones got its first message; None before it had any."""
        return self.desk.turns.get(self.idle[0].worker_id)


def _at_work(desks: list[Desk], policy: Policy, now: datetime) -> list[_Holder]:
    holders = [_Holder(desk) for desk in desks if backlog(desk, policy, now)]
    return [holder for holder in holders if holder.idle]


def _for_balance(at_work: list[_Holder], wish: Wish, policy: Policy, now: datetime) -> Loan | None:
    if wish.need not in (Need.WORK_AND_NO_WORKER, Need.WORK):
        return None
    fair = [h for h in at_work if h.idle and _is_fair(h, wish, policy, now)]
    if not fair:
        return None
    holder = max(fair, key=lambda h: (h.have, -h.desk.served_at.timestamp(), h.desk.key))
    holder.have -= 1
    reason = f"fair share: messages of actor {wish.actor_id} wait"
    return Loan(desk=holder.desk, worker=holder.idle.pop(0), wish=wish, reason=reason)


def _is_fair(holder: _Holder, wish: Wish, policy: Policy, now: datetime) -> bool:
    """Whether the seat is better with the wish: it has fewer, or the other had its turn."""
    if holder.have > wish.have + 1:
        return True
    alone = holder.have == 1 and wish.have == 0
    began = holder.turn_began
    return alone and began is not None and now - began >= timedelta(seconds=policy.turn_seconds)
