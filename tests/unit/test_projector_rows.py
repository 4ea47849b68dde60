import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import builders as b
import projections as p
from abaco_projector.domain.batch_fold import Changes, Subscription, fold
from abaco_proto import events as ev
from abaco_proto import execution
from abaco_proto.envelope import Recorded
from abaco_proto.execution import ExecutionStatus
from abaco_proto.fold import States
from abaco_proto.state_keys import StateKeys, state_keys

FOO = ("default", "foo_0")


class Tables:
    """Applies changes as the database does, in memory."""

    def __init__(self) -> None:
        self.states = States()
        self.subscriptions: dict[tuple[str, str, str], Subscription] = {}
        self.unrecognized = 0

    def load(self, keys: StateKeys) -> States:
        s = self.states
        workers = {
            k: w
            for k, w in s.workers.items()
            if k in keys.workers or (k[0], w.actor_id, w.execution_id) in keys.runs
        }
        return States(
            actors={k: a for k, a in s.actors.items() if k in keys.actors},
            totals={k: t for k, t in s.totals.items() if k in keys.actors},
            executions={k: e for k, e in s.executions.items() if k in keys.executions},
            workers=workers,
        )

    def apply(self, batch: list[Recorded]) -> None:
        self.write(fold(self.load(state_keys(batch)), batch))

    def write(self, changes: Changes) -> None:
        s, new = self.states, changes.states
        s.actors.update(new.actors)
        s.totals.update(new.totals)
        s.executions.update(new.executions)
        s.workers.update(new.workers)
        for key, subscription in changes.subscriptions.items():
            self.subscriptions.pop(key, None)
            if subscription is not None:
                self.subscriptions[key] = subscription
        self.unrecognized += len(changes.unrecognized)
        self.bulk_update(changes)

    def bulk_update(self, changes: Changes) -> None:
        for update in changes.bulk_updates:
            for key, e in list(self.states.executions.items()):
                waits = e.status is ExecutionStatus.SUBMITTED and e.ordinal <= update.up_to_ordinal
                if key[:2] == update.key and waits and e.ordinal not in update.excluded_ordinals:
                    self.states.executions[key] = replace(
                        e,
                        status=update.status,
                        status_message=update.status_message,
                        finished_at=update.finished_at,
                        recorded_at=update.finished_at,
                        ended_sequence=update.sequence,
                    )
                    sums = self.states.totals[update.key]
                    self.states.totals[update.key] = replace(
                        sums,
                        total_ended=sums.total_ended + 1,
                        total_purged=sums.total_purged + 1,
                    )


def projected(*batches: list[ev.Event]) -> Tables:
    """The tables after these batches."""
    tables, history = Tables(), p.recorded([event for batch in batches for event in batch])
    for batch in batches:
        tables.apply(history[: len(batch)])
        history = history[len(batch) :]
    return tables


def status(tables: Tables, ordinal: int = 0) -> tuple[str, str]:
    found = tables.states.executions[(*FOO, ordinal)]
    return found.status, found.status_message


# -- given / when / then -------------------------------------------------------------------------


def test_an_execution_from_message_to_end() -> None:
    tables = projected(
        [b.registered(), b.requested(), b.ready(), b.received()],
        [b.assigned(), b.started()],
        [b.finished()],
    )
    assert status(tables) == ("COMPLETE", "")
    assert tables.states.actors[FOO].status == "READY"
    worker = tables.states.workers["default", "foo_0_wkr_0"]
    assert (worker.status, worker.execution_id, worker.container_id) == ("READY", None, "c0ffee")


def test_totals_count_accepted_and_ended() -> None:
    finished = [b.assigned(0), b.finished(0)]
    tables = projected([b.registered(), b.received(0), b.received(1)], finished)
    sums = tables.states.totals[FOO]
    assert (sums.total_executions, sums.total_ended) == (2, 1)
    assert (sums.total_cpu_ns, sums.total_io_bytes) == (9_000_000, 736)
    assert sums.total_runtime_ms == 2004.5


def test_a_second_report_of_the_same_end_is_not_counted_twice() -> None:
    end = [b.assigned(0), b.finished(0), b.finished(0)]
    tables = projected([b.registered(), b.received(0)], end, [b.finished(0)])
    assert tables.states.totals[FOO].total_ended == 1


@pytest.mark.parametrize("together", [True, False])
def test_a_purge_ends_what_waits_and_nothing_else(together: bool) -> None:  # noqa: FBT001
    before = [b.registered(), b.received(0), b.received(1), b.received(2), b.assigned(0)]
    purge = [ev.InboxPurged(actor_id="foo_0", up_to_ordinal=1), b.received(3)]
    tables = projected([*before, *purge]) if together else projected(before, purge)
    found = [status(tables, n)[0] for n in range(4)]
    assert found == ["ASSIGNED", "PURGED", "SUBMITTED", "SUBMITTED"]
    assert status(tables, 1)[1] == "purged from the inbox"
    assert tables.states.totals[FOO].total_ended == 1


def test_an_assignment_after_the_purge_changes_nothing() -> None:
    purge = ev.InboxPurged(actor_id="foo_0", up_to_ordinal=0)
    tables = projected([b.registered(), b.received(0)], [purge, b.assigned(0)])
    assert status(tables) == ("PURGED", "purged from the inbox")


def test_a_deletion_ends_what_waits_whenever_it_came() -> None:
    gone = ev.ActorDeleted(actor_id="foo_0")
    tables = projected([b.registered(), b.received(0)], [gone, b.received(1)], [b.received(2)])
    assert {status(tables, n) for n in range(3)} == {("PURGED", "the actor was deleted")}
    sums = tables.states.totals[FOO]
    assert (sums.total_executions, sums.total_ended) == (3, 3)


def test_an_abandonment_frees_the_worker_that_ran_it() -> None:
    worker = [b.registered(), b.requested(), b.ready(), b.received(), b.assigned()]
    tables = projected(worker, [b.abandoned()])
    assert status(tables) == ("ERROR", "host h1 is lost")
    assert tables.states.workers["default", "foo_0_wkr_0"].status == "READY"


def test_subscriptions_follow_the_actor() -> None:
    def sub(n: int, pattern: str) -> ev.ActorSubscribed:
        name = f"sub_{n}"
        return ev.ActorSubscribed(actor_id="foo_0", subscription_id=name, event_pattern=pattern)

    gone = ev.ActorUnsubscribed(actor_id="foo_0", subscription_id="sub_0")
    tables = projected([b.registered(), sub(0, "a"), sub(1, "b")], [sub(1, "c"), gone])
    assert {k[2]: s.event_pattern for k, s in tables.subscriptions.items()} == {"sub_1": "c"}
    assert tables.states.actors[FOO].subscriptions == {"sub_1": "c"}


def test_what_is_not_understood_is_counted() -> None:
    tables = projected([b.registered(), ev.Unrecognized(raw=b"", reason="?")])
    assert tables.unrecognized == 1


def test_events_of_hosts_and_unknown_aggregates_change_nothing() -> None:
    changes = fold(States(), p.recorded([b.joined(), b.finished(), b.ready(), b.updated()]))
    assert changes.states == States()


def test_a_bulk_update_ends_the_states_that_the_table_ends() -> None:
    """The statement ``bulk_update`` names the one status that a purge or a deletion ends."""
    ended = {
        s for s, signal in execution.TRANSITIONS if signal in ("inbox.purged", "actor.deleted")
    }
    assert ended == {ExecutionStatus.SUBMITTED}


# -- properties ----------------------------------------------------------------------------------


@given(p.histories())
def test_one_batch_is_the_fold_of_proto(history: list[Recorded]) -> None:
    tables = Tables()
    tables.apply(history)
    assert tables.states == p.reference(history)


@given(p.histories(), st.data())
def test_borders_of_batches_do_not_matter(history: list[Recorded], data: st.DataObject) -> None:
    split, whole = Tables(), Tables()
    whole.apply(history)
    rest = history
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        split.apply(rest[:size])
        rest = rest[size:]
    assert split.states == whole.states
    assert split.subscriptions == whole.subscriptions


@given(p.histories())
def test_the_table_of_subscriptions_is_the_actors(history: list[Recorded]) -> None:
    tables = Tables()
    tables.apply(history)
    rows = {(k[1], k[2], s.event_pattern) for k, s in tables.subscriptions.items()}
    assert rows == {
        (a.actor_id, name, pattern)
        for a in tables.states.actors.values()
        for name, pattern in a.subscriptions.items()
    }
