"""Given a history, when a command comes, then these events."""

import pytest

import builders as b
from abaco_api.api_errors import BadParameter, TooLarge
from abaco_api.domain import commands as cmd
from abaco_api.domain.decide import decide, decide_register, decide_scale, decide_stop
from abaco_api.domain.messages import decide_send
from abaco_proto import actor, worker
from abaco_proto import events as ev
from abaco_proto.actor import Actor
from abaco_proto.errors import Refused, Unknown
from abaco_proto.worker import Worker


def given(*events: ev.Event) -> Actor:
    state = actor.INITIAL
    for recorded in b.history(*events):
        state = actor.evolve(state, recorded)
    return state


def given_worker(*events: ev.Event) -> Worker:
    state = worker.INITIAL
    for recorded in b.history(*events):
        state = worker.evolve(state, recorded)
    return state


def send(message: str = "hi", **environment: str) -> cmd.SendMessage:
    return cmd.SendMessage(
        actor_id="foo_0", message=message, content_type="text/plain", environment=environment
    )


ON_ACTORS = [
    cmd.UpdateActor(actor_id="foo_0", changes={}),
    cmd.DeleteActor(actor_id="foo_0"),
    cmd.SetState(actor_id="foo_0", state=1),
    cmd.Subscribe(actor_id="foo_0", event_pattern="*"),
    cmd.ScaleWorkers(actor_id="foo_0", num=1),
]
STOP = cmd.StopWorker(actor_id="foo_0", worker_id="foo_0_wkr_0")


def test_a_registration_is_the_first_event_of_its_id() -> None:
    command = cmd.RegisterActor(definition=b.definition())
    assert decide_register("foo_0", command) == [b.registered("foo_0")]


@pytest.mark.parametrize("command", ON_ACTORS, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("history", [[], [b.registered(), ev.ActorDeleted(actor_id="foo_0")]])
def test_nothing_comes_of_a_command_on_an_actor_that_is_not_there(
    command: cmd.UpdateActor, history: list[ev.Event]
) -> None:
    with pytest.raises(Unknown):
        decide(given(*history), command)


def test_an_update_names_the_whole_definition() -> None:
    command = cmd.UpdateActor(actor_id="foo_0", changes={"description": "new"})
    assert decide(given(b.registered(default_environment={"A": "1"})), command) == [
        ev.ActorUpdated(
            actor_id="foo_0",
            definition=b.definition(default_environment={"A": "1"}, description="new"),
            revision=1,
        )
    ]


def test_another_image_is_another_revision() -> None:
    command = cmd.UpdateActor(actor_id="foo_0", changes={"image": "jstubbs/other"})
    assert decide(given(b.registered()), command) == [b.updated(revision=2)]


def test_an_update_that_changes_nothing_is_an_event_all_the_same() -> None:
    command = cmd.UpdateActor(actor_id="foo_0", changes={"image": "jstubbs/abaco_test"})
    assert decide(given(b.registered()), command) == [
        ev.ActorUpdated(actor_id="foo_0", definition=b.definition(), revision=1)
    ]


def test_a_name_is_for_good() -> None:
    with pytest.raises(BadParameter, match=r"^name: "):
        decide(given(b.registered()), cmd.UpdateActor(actor_id="foo_0", changes={"name": "bar"}))


def test_an_actor_can_be_deleted() -> None:
    assert decide(given(b.registered()), cmd.DeleteActor(actor_id="foo_0")) == [
        ev.ActorDeleted(actor_id="foo_0")
    ]


def test_states_are_counted() -> None:
    history = [b.registered(), ev.ActorStateSet(actor_id="foo_0", state=1, version=1)]
    assert decide(given(*history), cmd.SetState(actor_id="foo_0", state={"n": 2})) == [
        ev.ActorStateSet(actor_id="foo_0", state={"n": 2}, version=2)
    ]


def test_no_two_subscriptions_have_one_id() -> None:
    command = cmd.Subscribe(actor_id="foo_0", event_pattern="bar_0.execution.finished")
    [first] = decide(given(b.registered()), command)
    [second] = decide(given(b.registered(), first), command)
    gone = ev.ActorUnsubscribed(actor_id="foo_0", subscription_id="foo_0_sub_1")
    [third] = decide(given(b.registered(), first, gone), command)
    ids = {getattr(event, "subscription_id", "") for event in (first, second, third)}
    assert ids == {"foo_0_sub_1", "foo_0_sub_2", "foo_0_sub_3"}


def test_more_workers_need_room() -> None:
    assert decide(given(b.registered()), cmd.ScaleWorkers(actor_id="foo_0", num=7)) == [
        ev.ActorUpdated(
            actor_id="foo_0",
            definition=b.definition(min_workers=7, max_workers=7),
            revision=1,
        )
    ]


def test_fewer_workers_keep_their_room() -> None:
    [event] = decide(given(b.registered()), cmd.ScaleWorkers(actor_id="foo_0", num=0))
    assert isinstance(event, ev.ActorUpdated)
    assert (event.definition.min_workers, event.definition.max_workers) == (0, 4)


def test_the_same_number_of_workers_is_nothing_to_do() -> None:
    assert decide(given(b.registered()), cmd.ScaleWorkers(actor_id="foo_0", num=2)) == []


def test_a_stateful_actor_never_has_two_workers() -> None:
    stateful = given(b.registered(stateless=False, min_workers=1, max_workers=1))
    with pytest.raises(BadParameter, match=r"^num: "):
        decide(stateful, cmd.ScaleWorkers(actor_id="foo_0", num=2))


def test_a_message_is_an_execution() -> None:
    assert decide_send(given(b.registered()), send(B="2"), 7) == [
        b.received(7, message="hi", environment={"B": "2"})
    ]


def test_no_message_for_an_actor_that_is_gone() -> None:
    with pytest.raises(Unknown):
        decide_send(given(b.registered(), ev.ActorDeleted(actor_id="foo_0")), send(), 0)


def test_two_environments_together_can_be_too_large() -> None:
    default = {f"V{n}": "x" * 100_000 for n in range(2)}
    actor_ = given(b.registered(default_environment=default))
    decide_send(actor_, send(V0="x" * 100_000), 0)
    with pytest.raises(TooLarge):
        decide_send(actor_, send(V2="x" * 100_000), 0)


@pytest.mark.parametrize("history", [[b.requested()], [b.requested(), b.ready()]])
def test_a_live_worker_can_be_asked_to_stop(history: list[ev.Event]) -> None:
    assert decide_stop(given_worker(*history), STOP) == [
        ev.WorkerStopRequested(
            actor_id="foo_0", worker_id="foo_0_wkr_0", host_id="h1", reason=ev.REQUESTED_BY_CLIENT
        )
    ]


def test_asking_twice_asks_once() -> None:
    assert decide_stop(given_worker(b.requested(), b.stop_requested()), STOP) == []


@pytest.mark.parametrize("end", [b.stopped(), b.failed(), b.lost()])
def test_a_worker_that_is_gone_cannot_stop(end: ev.Event) -> None:
    with pytest.raises(Refused, match="already"):
        decide_stop(given_worker(b.requested(), end), STOP)


def test_a_worker_nobody_knows() -> None:
    with pytest.raises(Unknown, match="foo_0_wkr_0"):
        decide_stop(worker.INITIAL, STOP)


def test_the_same_number_of_workers_is_said_again_after_a_stop() -> None:
    command = cmd.ScaleWorkers(actor_id="foo_0", num=2)
    assert decide_scale(given(b.registered()), command, stopped=True) == [
        ev.ActorUpdated(actor_id="foo_0", definition=b.definition(), revision=1)
    ]
