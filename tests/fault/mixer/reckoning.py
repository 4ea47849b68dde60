"""The reckoning: what was sent, against what the log says became of it. Pure.

Accepted is what is in the log, even if no client got the answer. A request without an answer may
have been accepted or not: the log decides. A request that was refused must not be there.
"""

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum

import msgspec

from abaco_proto import events as ev
from abaco_proto import execution
from abaco_proto.envelope import Recorded
from abaco_proto.execution import Execution, ExecutionStatus

TOKEN = "mixer_token"
"""The variable in a message's environment that says which try of which request it is."""

ENDS = {
    ExecutionStatus.COMPLETE: "finished",
    ExecutionStatus.HALTED: "halted",
    ExecutionStatus.PURGED: "purged",
    ExecutionStatus.ERROR: "abandoned",
}


class Answer(StrEnum):
    """What a sender knows."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    NONE = "none"


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """One message on its way, and what came back. ``final``: the same again would be refused."""

    token: str
    message: str
    answer: Answer
    execution_id: str = ""
    final: bool = False


class Reckoning(msgspec.Struct, frozen=True, kw_only=True):
    """The counts, for a person, and all that is wrong, in sentences."""

    counts: dict[str, int]
    faults: list[str]


class History:
    """The log, folded: each execution as it stands, and how often it came to an end."""

    def __init__(self) -> None:
        """Nothing happened yet."""
        self.executions: dict[str, Execution] = {}
        self.messages: dict[str, ev.MessageReceived] = {}
        self.ends: Counter[str] = Counter()
        self.reports: Counter[str] = Counter()
        self.events: list[Recorded] = []
        self.deleted: set[str] = set()
        self._by_actor: dict[str, list[str]] = defaultdict(list)

    @property
    def last(self) -> int:
        """The sequence of the last event."""
        return self.events[-1].sequence if self.events else 0

    def container_ids(self) -> set[str]:
        """The containers that a message ran in."""
        started = (r.event for r in self.events if isinstance(r.event, ev.ExecutionStarted))
        return {event.container_id for event in started if event.container_id}

    def open(self) -> list[Execution]:
        """What has not come to an end."""
        return [each for each in self.executions.values() if not each.ended]

    def learn(self, events: Iterable[Recorded]) -> None:
        """Take in what was recorded next."""
        for recorded in events:
            self.events.append(recorded)
            event = recorded.event
            if isinstance(event, ev.MessageReceived):
                self.messages.setdefault(event.execution_id, event)
                self.executions.setdefault(event.execution_id, execution.INITIAL)
                self._by_actor[event.actor_id].append(event.execution_id)
            self.reports[getattr(event, "execution_id", "")] += isinstance(
                event, ev.ExecutionFinished
            )
            for execution_id in self._concerned(event):
                self._evolve(execution_id, recorded)
            if isinstance(event, ev.ActorDeleted):
                self.deleted.add(event.actor_id)

    def _concerned(self, event: ev.Event) -> Sequence[str]:
        if isinstance(event, ev.InboxPurged | ev.ActorDeleted):
            return self._by_actor[event.actor_id]
        named = getattr(event, "execution_id", "")
        return [named] if named in self.executions else []

    def _evolve(self, execution_id: str, recorded: Recorded) -> None:
        before = self.executions[execution_id]
        after = execution.evolve(before, recorded)
        if after.actor_id in self.deleted:  # what comes late is purged, as in every fold
            deletion = ev.ActorDeleted(actor_id=after.actor_id)
            after = execution.evolve(after, msgspec.structs.replace(recorded, event=deletion))
        self.executions[execution_id] = after
        self.ends[execution_id] += after.ended and not before.ended


def reckon(history: History, sent: Sequence[Sent], *, orderly: str, listener: str) -> Reckoning:
    """Compare. ``orderly`` is the stateful actor, ``listener`` one that subscribed to another."""
    ends = Counter(ENDS.get(e.status, "open") for e in history.executions.values())
    answers = Counter(each.answer for each in sent)
    counts = {
        "requests": len(sent),
        "  answered: accepted": answers[Answer.ACCEPTED],
        "  answered: refused": answers[Answer.REFUSED],
        "  no answer": answers[Answer.NONE],
        "accepted, by the log": len(history.executions),
        **{f"  {name}": ends[name] for name in (*ENDS.values(), "open")},
        "attempts that failed": sum(
            isinstance(recorded.event, ev.ExecutionFailed) for recorded in history.events
        ),
        "events": len(history.events),
    }
    faults = [
        *_requests(history, sent),
        *_log(history),
        *_executions(history),
        *_outputs(history),
        *_order(history, orderly),
        *_deliveries(history, listener),
    ]
    return Reckoning(counts=counts, faults=faults)


def _requests(history: History, sent: Sequence[Sent]) -> Iterator[str]:
    """What senders know is so in the log."""
    found: dict[str, list[str]] = defaultdict(list)
    for execution_id, message in history.messages.items():
        found[message.environment.get(TOKEN, "")].append(execution_id)
    for each in sent:
        there = found[each.token]
        expected = {Answer.ACCEPTED: (1,), Answer.REFUSED: (0,), Answer.NONE: (0, 1)}[each.answer]
        if len(there) not in expected:
            yield f"request {each.token}, answer {each.answer}, is in the log {len(there)} times"
        if each.execution_id and each.execution_id not in there:
            yield f"request {each.token} was told {each.execution_id}, the log says {there}"


def _log(history: History) -> Iterator[str]:
    """No gap in the sequences, none in the ordinals of an actor, nothing unreadable."""
    for n, recorded in enumerate(history.events, 1):
        if recorded.sequence != n:
            yield f"event {n} of the log has the sequence {recorded.sequence}"
            break
    for recorded in history.events:
        if isinstance(recorded.event, ev.Unrecognized):
            yield f"event {recorded.sequence} cannot be read: {recorded.event.reason}"
    ordinals: dict[str, list[int]] = defaultdict(list)
    for recorded in history.events:
        if isinstance(recorded.event, ev.MessageReceived):
            ordinals[recorded.event.actor_id].append(recorded.event.ordinal)
    for actor_id, given in ordinals.items():
        if given != [*range(len(given))]:
            yield f"{actor_id}: the ordinals are {given}"


def _executions(history: History) -> Iterator[str]:
    """Each came to exactly one end, and says why where it did not run to it."""
    for execution_id, found in history.executions.items():
        if not found.ended:
            yield f"{execution_id} has not ended: {found.status}, attempt {found.attempt}"
        elif history.ends[execution_id] != 1:
            yield f"{execution_id} ended {history.ends[execution_id]} times"
        if history.reports[execution_id] > 1:
            yield f"{execution_id} was reported finished {history.reports[execution_id]} times"
        if found.status is ExecutionStatus.ERROR and not found.status_message:
            yield f"{execution_id} was abandoned without a reason"


def _outputs(history: History) -> Iterator[str]:
    """The output of a run that went well is whole."""
    for execution_id, found in history.executions.items():
        state = found.final_state
        if found.status is ExecutionStatus.COMPLETE and state is not None:
            message = history.messages[execution_id].message
            if state.ended_by is not ev.EndedBy.ITSELF or found.exit_code:
                yield f"{execution_id} ended by {state.ended_by} with {found.exit_code}"
            elif found.log_sha256 not in {_digest(text) for text in _wholes(message)}:
                yield f"{execution_id} ({message}) has other output: {found.log_bytes} bytes"


def _wholes(message: str) -> Iterator[str]:
    """What each of the images writes for a message."""
    yield f"got {message}\n"
    yield f"got {message}\ndone\n"
    if message.isdecimal():
        yield "".join(f"{n}\n" for n in range(1, int(message) + 1))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _order(history: History, actor_id: str) -> Iterator[str]:
    """A stateful actor runs one message after another, in the order of its inbox."""
    runs = [
        recorded.event
        for recorded in history.events
        if isinstance(recorded.event, ev.ExecutionFinished) and recorded.event.actor_id == actor_id
    ]
    for one, another in itertools.pairwise(runs):
        ordinals = [history.executions[each.execution_id].ordinal for each in (one, another)]
        ended = datetime.fromisoformat(one.final_state.finished_at)
        began = datetime.fromisoformat(another.final_state.started_at)
        if ordinals[0] >= ordinals[1] or ended > began:
            yield f"{another.execution_id} overtook {one.execution_id}"


def _deliveries(history: History, listener: str) -> Iterator[str]:
    """Each event that was subscribed to is one message."""
    since, pattern = 0, ""
    for recorded in history.events:
        if isinstance(recorded.event, ev.ActorSubscribed) and recorded.event.actor_id == listener:
            since, pattern = recorded.sequence, recorded.event.event_pattern
    source = pattern.partition(".")[0]
    wanted = [
        recorded.sequence
        for recorded in history.events
        if isinstance(recorded.event, ev.ExecutionFinished)
        and recorded.event.actor_id == source
        and recorded.sequence > since
    ]
    delivered = [
        message.source_sequence
        for message in history.messages.values()
        if message.actor_id == listener and message.subscription_id
    ]
    if delivered != wanted:
        yield f"{listener} should have got events {wanted}, and got {delivered}"
