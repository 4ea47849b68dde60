"""Why an execution is where it is: the reasons, in words and as a word."""

from msgspec.structs import replace

import builders as b
from abaco_api.explain.execution_diff import MOST_LINES, unified
from abaco_api.explain.execution_position import HostFold
from abaco_api.explain.explain_results import EffectResult, WhyResult
from abaco_api.explain.why import ExecutionHistory
from abaco_proto import events as ev

NOWHERE = HostFold().result()
NOTHING_BUT = (b.registered(), b.received(0))


def why(*events: ev.Event, ordinal: int = 0, hosts: tuple[ev.Event, ...] = ()) -> WhyResult:
    """What is said after these events of an actor; ``hosts`` are those of all hosts."""
    found, fold = ExecutionHistory("default", "foo_0", ordinal), HostFold()
    for recorded in b.history(*events):
        found.take(recorded)
    for recorded in b.history(*hosts, *events):
        fold.take(recorded)
    return found.answer(fold.result(), [], found.backlog)


def reason(*events: ev.Event, **how: object) -> str:
    return why(*events, **how).standing.reason  # type: ignore[arg-type]


def test_no_host_takes_work() -> None:
    found = why(*NOTHING_BUT)
    assert found.standing.state == "waits"
    assert found.standing.reason == "no_host"
    assert found.says == "A message was sent. It waits: no host takes work."


def test_no_host_has_room() -> None:
    hosts = (b.joined("h1", 1), b.joined("h2", 1), b.requested(0, "bar_0"))
    busy = (*hosts, b.requested(1, "bar_0", host_id="h2"))
    found = why(*NOTHING_BUT, hosts=busy)
    assert found.standing.reason == "no_room"
    assert "h1 has 1 of 1 slots in use, h2 has 1 of 1 slots in use" in found.standing.says
    assert reason(*NOTHING_BUT, hosts=hosts) == "no_worker"
    freed = (*busy, b.stopped(1, "bar_0", host_id="h2"))
    assert reason(*NOTHING_BUT, hosts=freed) == "no_worker"
    gone = (*freed, ev.HostLost(host_id="h2", reason="silent"))
    assert reason(*NOTHING_BUT, hosts=gone) == "no_room"


def test_a_worker_is_starting() -> None:
    found = why(*NOTHING_BUT, b.requested())
    assert found.standing.reason == "worker_starting"
    assert "foo_0_wkr_0 on host h1 is starting since 2026-01-02T03:04:08" in found.standing.says


def test_the_image_cannot_be_had() -> None:
    found = why(*NOTHING_BUT, b.requested(), b.failed())
    assert found.standing.reason == "back_off"
    assert "image jstubbs/abaco_test: pull failed: not found" in found.standing.says
    assert [step.type for step in found.steps] == [
        "message.received",
        "worker.requested",
        "worker.failed",
    ]


def test_all_workers_are_busy() -> None:
    work = (b.requested(), b.ready(), b.received(1), b.received(2))
    events = (*NOTHING_BUT, *work, b.assigned(0), b.started(0))
    found = why(*events, ordinal=2)
    assert found.standing.reason == "workers_busy"
    assert "its worker is busy, and 1 message is ahead of it" in found.standing.says
    assert reason(*events, b.finished(0), ordinal=2) == "its_turn"


def test_a_stateful_actor_runs_one_at_a_time() -> None:
    workers = (b.requested(), b.ready())
    events = (b.registered(stateless=False), b.received(0), b.received(1), *workers, b.assigned(0))
    found = why(*events, ordinal=1)
    assert found.standing.reason == "actor_busy"
    assert "foo_0_exc_0 is at work" in found.standing.says


def test_what_it_went_through() -> None:
    begun = (*NOTHING_BUT, b.requested(), b.ready(), b.assigned())
    assert reason(*begun) == "assigned"
    running = why(*begun, b.started())
    assert (running.standing.state, running.standing.reason) == ("runs", "running")
    assert reason(*begun, b.started(), b.halt_requested()) == "halting"
    again = why(*begun, b.started(), b.execution_failed())
    assert again.standing.reason == "its_turn"
    assert "the container was killed from outside" in again.standing.says
    lost = why(*begun, b.started(), b.lost(), b.abandoned())
    assert (lost.standing.state, lost.standing.reason) == ("ended", "abandoned")
    assert "Worker foo_0_wkr_0 was lost: host h1 is lost." in [s.says for s in lost.steps]


def test_how_it_ended() -> None:
    begun = (*NOTHING_BUT, b.requested(), b.ready(), b.assigned(), b.started())
    done = why(*begun, b.finished())
    assert done.standing.says == "It ran to its end: exit code 0."
    assert done.status == "COMPLETE"
    state = b.final_state(exit_code=137, ended_by=ev.EndedBy.MAX_RUN_SECONDS)
    assert reason(*begun, b.finished(final_state=state)) == "max_run_seconds"
    halted = b.final_state(exit_code=143, ended_by=ev.EndedBy.HALT)
    assert reason(*begun, b.halt_requested(), b.finished(final_state=halted)) == "halted"
    assert reason(*NOTHING_BUT, b.halt_requested()) == "halted"
    purged = why(*NOTHING_BUT, ev.InboxPurged(actor_id="foo_0", up_to_ordinal=0))
    assert purged.standing.reason == "purged"
    assert purged.steps[-1].type == "inbox.purged"


def test_who_did_it() -> None:
    found = ExecutionHistory("default", "foo_0", 0)
    who = [None, "user:anna", "user:bob"]
    events = b.registered(), b.received(0), b.halt_requested()
    for recorded, principal in zip(b.history(*events), who, strict=True):
        found.take(replace(recorded, principal=principal))
    explained = found.answer(HostFold().result(), [], found.backlog)
    assert explained.cause.principal == "user:anna"
    assert explained.says.startswith("A message was sent by user:anna. ")
    assert [step.principal for step in explained.steps] == ["user:anna", "user:bob"]


def test_what_caused_it() -> None:
    assert why(*NOTHING_BUT).cause.kind == "request"
    message = b.received(0, subscription_id="foo_0_sub_1", source_sequence=7, sender="bar_0")
    cause = why(b.registered(), message).cause
    assert (cause.kind, cause.sequence, cause.actor_id) == ("subscription", 7, "bar_0")
    rerun = ev.Rerun(
        execution_id="foo_0_exc_0", actor_sequence=1, state_sequence=0, image="sha256:0123"
    )
    again = why(*NOTHING_BUT, b.received(1, rerun=rerun), ordinal=1)
    assert (again.cause.kind, again.cause.execution_id) == ("rerun", "foo_0_exc_0")
    [effect] = why(*NOTHING_BUT, b.received(1, rerun=rerun)).caused or []
    assert (effect.kind, effect.execution_id) == ("rerun", "foo_0_exc_1")


def test_what_cannot_be_told_is_not_told() -> None:
    history = ExecutionHistory("default", "foo_0", 0)
    for recorded in b.history(*NOTHING_BUT):
        history.take(recorded)
    assert history.answer(NOWHERE, None, history.backlog).caused is None
    effect = EffectResult(seq=9, execution_id="x", actor_id="y", kind="subscription", says="z")
    assert history.answer(NOWHERE, [effect], history.backlog).caused == [effect]


def test_of_other_executions_only_what_matters_is_kept() -> None:
    history = ExecutionHistory("default", "foo_0", 0)
    events = [*NOTHING_BUT]
    for n in range(1, 50):
        worker = {"worker_id": "foo_0_wkr_0"}
        events += [b.received(n), b.assigned(n, **worker), b.finished(n, **worker)]
    for recorded in b.history(*events):
        history.take(recorded)
    assert len(history._fold.executions) == 1


def test_every_event_has_words() -> None:
    history = ExecutionHistory("default", "foo_0", 7)
    for n, event in enumerate(b.EXAMPLES, 1):
        history.take(replace(b.record(event), sequence=n))
    found = history.answer(NOWHERE, [], history.backlog)
    assert found.steps
    assert all(step.says.endswith(".") for step in found.steps)


def test_outputs_are_compared_line_by_line_and_within_bounds() -> None:
    assert unified(("a\nb\n", "a\nc\n"), ("x", "y")) == (
        ["--- x", "+++ y", "@@ -1,2 +1,2 @@", " a", "-b", "+c"],
        False,
    )
    assert unified(("same", "same"), ("x", "y")) == ([], False)
    long = "\n".join(map(str, range(MOST_LINES + 5)))
    lines, truncated = unified((long, ""), ("x", "y"))
    assert truncated
    assert len(lines) <= MOST_LINES
