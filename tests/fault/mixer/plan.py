"""What a mixer does and when, all of it from a seed: the load, and the plugs. Pure.

Theory: the plan is made once, before anything runs, so that a seed names it. What the processes
make of it depends on the machine; what was asked of them, and when they were killed, does not.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any

import msgspec

import images

SERVICES = ("api", "scheduler", "projector", "worker", "nats", "postgres")
TARGETS = (*SERVICES, "dockerd", "container", "launcher")
"""Whose plug can be pulled.

``container`` is one of those that are there at the moment; ``launcher`` is the helper, a launcher,
or a process that one of these has forked.
"""


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """An actor of the load: what it is registered with, and how often it gets a message.

    ``gap_seconds`` is the mean time between two messages, ``most`` the largest number that is
    one (see :data:`images.NUMBERS`).
    """

    image: str
    gap_seconds: float
    most: int = 0
    more: dict[str, Any] = {}


CONTAINER = {"isolation": "container"}

ROLES: dict[str, Role] = {
    "brief": Role(image=images.QUICK, gap_seconds=1.5, more={"max_workers": 3}),
    "counting": Role(
        image=images.NUMBERS, gap_seconds=2, most=20, more={"max_workers": 3, **CONTAINER}
    ),
    "lasting": Role(image=images.NUMBERS, gap_seconds=10, most=150, more={"max_workers": 2}),
    "orderly": Role(image=images.NUMBERS, gap_seconds=3, most=6, more={"stateless": False}),
    "changing": Role(image=images.QUICK, gap_seconds=2.5, more={"max_workers": 2}),
    "halted": Role(image=images.NUMBERS, gap_seconds=4, most=300, more={"max_workers": 2}),
    "purged": Role(image=images.SLOW, gap_seconds=1, more={"stateless": False, **CONTAINER}),
    "mortal": Role(image=images.NUMBERS, gap_seconds=3, most=300, more=CONTAINER),
}
"""In both isolations: stateful and not, short and long, and those that :func:`_deeds` changes."""

LISTENER, LISTENED = "listening", "brief"
"""This one subscribes to all ends of that one, and so gets a message for each."""


class What(StrEnum):
    """What is done to an actor."""

    SEND = "send"
    HALT = "halt"
    PURGE = "purge"
    UPDATE = "update"
    REPLACE = "replace"
    SET_STATE = "set_state"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of load, ``at`` seconds from the start. ``body`` is what is sent with it."""

    at: float
    role: str
    what: What
    body: dict[str, Any] = {}


class Plug(msgspec.Struct, frozen=True, kw_only=True):
    """Whose plug is pulled, and when. ``choice`` chooses among containers or launchers, in [0, 1).

    ``down_seconds`` is how long an engine stays away, which nobody restarts but us.
    """

    at: float
    target: str
    choice: float
    down_seconds: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that is going to be done, each part in the order of time."""

    seed: int
    seconds: float
    load: list[Step]
    plugs: list[Plug]


def draw(seed: int, seconds: float, *, gap_seconds: float = 4.0) -> Plan:
    """The plan of a seed; a plug is pulled each ``gap_seconds`` in the mean."""
    load: list[Step] = []
    for role in ROLES:
        chance = random.Random(f"{seed} {role}")
        load += itertools.takewhile(lambda step: step.at < seconds, _deeds(role, chance))
    plugs = _plugs(random.Random(f"{seed} plugs"), gap_seconds)
    return Plan(
        seed=seed,
        seconds=seconds,
        load=sorted(load, key=lambda step: step.at),
        plugs=[*itertools.takewhile(lambda plug: plug.at < seconds, plugs)],
    )


def _plugs(chance: random.Random, gap_seconds: float) -> Iterator[Plug]:
    """Without end. Everyone gets a turn before anybody gets a second one."""
    at = 0.0
    while True:
        for target in chance.sample(TARGETS, len(TARGETS)):
            at += chance.uniform(0.2, 1.8) * gap_seconds
            yield Plug(
                at=at, target=target, choice=chance.random(), down_seconds=chance.uniform(0, 4)
            )


def _deeds(role: str, chance: random.Random) -> Iterator[Step]:
    """What is done to one actor, without end."""
    chosen, after = ROLES[role], AFTER.get(role)
    at = 0.0
    for number in itertools.count(1):
        at += chance.expovariate(1 / chosen.gap_seconds)
        message = str(chance.randint(1, chosen.most)) if chosen.most else f"message {number}"
        yield Step(at=at, role=role, what=What.SEND, body={"message": message})
        if after is not None:
            for step in after(number, chance):
                at += step.at
                yield msgspec.structs.replace(step, at=at, role=role)


def _halt(_: int, chance: random.Random) -> Iterator[Step]:
    yield Step(at=chance.uniform(0, 5), role="", what=What.HALT)


def _purge(number: int, chance: random.Random) -> Iterator[Step]:
    if number % 4 == 0:
        yield Step(at=chance.uniform(0, 1), role="", what=What.PURGE)


def _update(number: int, chance: random.Random) -> Iterator[Step]:
    if number % 3 == 0:
        wanted: list[dict[str, Any]] = [
            *({"image": image} for image in (images.QUICK, images.SLOW)),
            *({"mem_limit": limit} for limit in ("64m", "128m")),
            *({"isolation": isolation} for isolation in ("sandbox", "container")),
        ]
        body = chance.choice(wanted)
        yield Step(at=chance.uniform(0, 1), role="", what=What.UPDATE, body=body)


def _replace(number: int, chance: random.Random) -> Iterator[Step]:
    if number % 5 == 0:
        yield Step(at=chance.uniform(0, 1), role="", what=What.REPLACE)


def _state(number: int, _: random.Random) -> Iterator[Step]:
    if number % 3 == 0:
        yield Step(at=0, role="", what=What.SET_STATE, body={"state": f"after {number}"})


AFTER: dict[str, Callable[[int, random.Random], Iterator[Step]]] = {
    "halted": _halt,
    "purged": _purge,
    "changing": _update,
    "mortal": _replace,
    "orderly": _state,
}
"""What follows upon a message, ``at`` seconds later."""
