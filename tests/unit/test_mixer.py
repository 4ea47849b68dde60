"""The mixer's own parts: a plan that its seed names, and a reckoning that sees what is wrong."""

from msgspec.structs import replace

import builders as b
from abaco_proto import events as ev
from fault.mixer.plan import ROLES, TARGETS, What, draw
from fault.mixer.reckoning import TOKEN, Answer, History, Sent, reckon


def message(ordinal: int, token: str, actor_id: str = "foo_0") -> ev.MessageReceived:
    return replace(b.received(ordinal, actor_id, message="hi"), environment={TOKEN: token})


def sent(token: str, answer: Answer, execution_id: str = "") -> Sent:
    return Sent(token=token, message="hi", answer=answer, execution_id=execution_id)


def faults(events: list[ev.Event], requests: list[Sent]) -> list[str]:
    history = History()
    history.learn(b.history(*events))
    return reckon(history, requests, orderly="foo_0", listener="bar_0").faults


def a_run(ordinal: int, token: str) -> list[ev.Event]:
    """From its acceptance to its end, with the output that a quick image writes."""
    good = replace(
        b.finished(ordinal, exit_code=0),
        log_sha256="c48e9aa25f0f6a2b5a4d1f7a1e0a0b7f",
    )
    return [message(ordinal, token), b.assigned(ordinal), b.started(ordinal), good]


def test_a_seed_names_a_plan() -> None:
    assert draw(7, 60) == draw(7, 60)
    assert draw(7, 60) != draw(8, 60)


def test_a_longer_mix_begins_as_a_shorter_one() -> None:
    short, long = draw(7, 30), draw(7, 90)
    assert long.plugs[: len(short.plugs)] == short.plugs
    assert [step for step in long.load if step.at < 30] == short.load


def test_everybody_gets_a_turn() -> None:
    plan = draw(7, 600)
    assert {plug.target for plug in plan.plugs[: len(TARGETS)]} == {*TARGETS}
    assert {step.role for step in plan.load} == {*ROLES}
    assert {step.what for step in plan.load} == {*What}
    assert plan.load == sorted(plan.load, key=lambda step: step.at)


def test_what_waits_and_is_purged_has_ended_once() -> None:
    purged = ev.InboxPurged(actor_id="foo_0", up_to_ordinal=0)
    assert faults([message(0, "1"), purged], [sent("1", Answer.ACCEPTED, "foo_0_exc_0")]) == []


def test_what_a_deleted_actor_was_sent_or_ran_has_ended_once() -> None:
    gone = ev.ActorDeleted(actor_id="foo_0")
    ran = [message(0, "1"), b.assigned(0), b.started(0), gone, b.halt_requested(0)]
    halted = b.finished(0, final_state=b.final_state(ended_by=ev.EndedBy.HALT))
    asked = [sent(f"{n + 1}", Answer.ACCEPTED, f"foo_0_exc_{n}") for n in (0, 1)]
    assert faults([*ran, message(1, "2"), halted], asked) == []


def test_what_has_no_end_is_named() -> None:
    [fault] = faults([message(0, "1")], [sent("1", Answer.NONE)])
    assert fault.startswith("foo_0_exc_0 has not ended")


def test_an_acknowledged_message_that_is_not_there_is_named() -> None:
    assert len(faults([], [sent("1", Answer.ACCEPTED, "foo_0_exc_0")])) == 2


def test_a_refused_message_that_is_there_is_named() -> None:
    purged = ev.InboxPurged(actor_id="foo_0", up_to_ordinal=0)
    [fault] = faults([message(0, "1"), purged], [sent("1", Answer.REFUSED)])
    assert "refused" in fault


def test_two_reports_and_output_that_is_not_whole_are_named() -> None:
    found = faults([*a_run(0, "1"), b.finished(0)], [sent("1", Answer.ACCEPTED, "foo_0_exc_0")])
    assert any("2 times" in fault for fault in found)
    assert any("other output" in fault for fault in found)


def test_a_stateful_actor_that_runs_out_of_order_is_named() -> None:
    one, two = a_run(0, "1"), a_run(1, "2")
    found = faults([one[0], two[0], *two[1:], *one[1:]], [])
    assert any("overtook" in fault for fault in found)


def test_an_event_that_was_not_delivered_is_named() -> None:
    wanted = ev.ActorSubscribed(
        actor_id="bar_0", subscription_id="sub_0", event_pattern="foo_0.execution.finished"
    )
    found = faults([wanted, *a_run(0, "1")], [])
    assert any(fault.startswith("bar_0 should have got events [5]") for fault in found)
