"""Every decoder against damaged bytes: it reads them or says so, and never anything else.

A few seconds in every run of the tests; ``make fuzz`` lets it run for ten minutes. The seed and
the number of the round are in the message of a failure: with ``ABACO_TEST_FUZZ_SEED`` the same
rounds come again.
"""

import gzip
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import builders as b
from abaco_api.as_of import as_of_parameter
from abaco_api.commands import parse
from abaco_api.commands.actor_directory import ActorDirectories
from abaco_api.domain import event_pattern, messages
from abaco_api.domain.actor_definition import Defaults
from abaco_api.domain.byte_size import parse_size
from abaco_api.domain.event_message import message
from abaco_api.domain.image_name import is_image
from abaco_api.domain.subscription_fold import Subscription, Subscriptions
from abaco_api.http import parameters as bodies
from abaco_api.http.parameters import parse_page, resumed
from abaco_api.routes.message_routes import parse_message
from abaco_api.streams.domain.encoded_event import encode_event
from abaco_api.streams.domain.output_offset import parse_offset
from abaco_api.streams.domain.selection import type_matches
from abaco_api.streams.events.event_query import PARAMETERS, parse_query
from abaco_jetstream import Message
from abaco_jetstream.heartbeats import heartbeat_in
from abaco_jetstream.output_log import ATTEMPT, OFFSET, _recorded
from abaco_projector.domain import batch_fold as rows
from abaco_projector.domain import portable_format as portable
from abaco_projector.domain import row_codec as records
from abaco_projector.domain.event_rows import event_rows
from abaco_projector.domain.output_chunks import chunks
from abaco_projector.domain.sanitise import sanitise
from abaco_proto import envelope, names
from abaco_proto import events as ev
from abaco_proto.errors import AbacoError
from abaco_proto.fold import Fold, States
from abaco_proto.heartbeat import Heartbeat
from abaco_scheduler.domain.cluster import Cluster, apply_event
from abaco_scheduler.domain.decision import Now
from abaco_scheduler.domain.event_clock import EventClock
from abaco_scheduler.domain.plan import plan
from abaco_scheduler.domain.policy import Policy
from abaco_worker.domain import event_builders, work_item_state
from abaco_worker.domain.run_report import parse_report, parse_started
from abaco_worker.sandbox.sandbox_directory import SandboxDirectory
from fakes import InMemoryEventLog, matches
from mutations import HANG_SECONDS, SECONDS, SEED, Mutator, alarm, rounds

GOLDEN = Path(__file__).parents[1] / "contract" / "golden"
SHORT_SECONDS = 0.7
PROGRESS_SECONDS = 30


class Target(NamedTuple):
    """A decoder: bytes that it reads, and what reads them and checks what came of it."""

    samples: Sequence[bytes]
    read: Callable[[Mutator, bytes], object]


BODIES = [envelope.encode(event) for event in b.EXAMPLES]
DRAFTS = [b.envelope_of(event, hops=3) for event in b.EXAMPLES]
HISTORY = [
    *(b.registered(), b.joined(), b.requested(), b.ready()),
    *(b.received(0), b.received(1), b.assigned(0), b.started(0)),
]


# -- what is stored in the log -------------------------------------------------------------------


def read_event(_: Mutator, raw: bytes) -> None:
    event = envelope.decode(raw)
    if not isinstance(event, ev.Unrecognized):
        assert envelope.decode(envelope.encode(event)) == event


def read_message(mutator: Mutator, raw: bytes) -> None:
    """A message as it may lie in the stream, through the hands of every service."""
    drafted = DRAFTS[mutator.pick(len(DRAFTS))]
    headers = envelope.to_headers(drafted)
    if mutator.pick(2):
        headers = {name: mutator.text([value]) for name, value in headers.items()}
    subject = names.event_subject("default", drafted.event)
    if not mutator.pick(4):
        subject = "abaco.event." + ("".join(mutator.text([subject[12:]]).split()) or "x")
    body = raw if mutator.pick(3) else envelope.encode(drafted.event)
    recorded = envelope.from_message(9, subject, headers, body)
    for use in (in_api, in_scheduler, in_worker, in_projector):
        use(recorded)


def in_api(recorded: envelope.Recorded) -> None:
    if matches(names.actors_filter("default"), recorded.subject):
        ActorDirectories(InMemoryEventLog()).of("default").apply(recorded)
    found = encode_event(recorded)
    json.loads(found.json)
    assert found.frame.count(b"\n\n") == 1
    assert len(found.frame.splitlines()) == 4, "one field a line"
    subscriptions = Subscriptions()
    subscriptions.observe(
        1, ev.ActorSubscribed(actor_id="a_0", subscription_id="s", event_pattern=">"), None
    )
    subscriptions.observe(recorded.sequence, recorded.event, recorded.principal)
    subscriptions.matching(recorded.sequence, found.actor_id, found.type)
    mine = Subscription(
        actor_id="a_0", subscription_id="s", event_pattern=">", sequence=1, principal=None
    )
    envelope.encode(message(mine, found, 0))


def in_scheduler(recorded: envelope.Recorded) -> None:
    cluster = Cluster()
    for known in b.history(*HISTORY):
        apply_event(cluster, known)
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    apply_event(cluster, EventClock(noon, 100.0).corrected(recorded, 101.0, live=False))
    cluster.record_heartbeat(Heartbeat(host_id="h1", capacity=2), "default", 100.0)
    now = Now(time=noon, monotonic=101.0, connected_since=0.0)
    for decision in plan(cluster, Policy(), now):
        names.event_subject(decision.tenant, decision.event)
        envelope.encode(decision.event)


def in_worker(recorded: envelope.Recorded) -> None:
    begun = work_item_state.initial_state(b.record(b.assigned(0)))
    found = work_item_state.evolve(begun, recorded)
    _ = found.run_wanted, found.halt_requested
    try:
        work_item_state.initial_state(recorded)
        work_item_state.filters(recorded)
    except AbacoError:
        return


def in_projector(recorded: envelope.Recorded) -> None:
    event_rows(bytes(32), [recorded])
    known = [sanitise(one) for one in b.history(*HISTORY)]
    before = Fold()
    for one in known:
        before.apply(one)
    loaded = States(
        actors=before.actors,
        totals=before.totals,
        executions=before.executions,
        workers=before.workers,
    )
    changes = rows.fold(loaded, [sanitise(recorded)])
    records.statements(changes)


def read_output(mutator: Mutator, raw: bytes) -> None:
    headers = {ATTEMPT: mutator.text(["1"]), OFFSET: mutator.text(["4096"])}
    subject = mutator.text(["abaco.log.default.foo_0.foo_0_exc_0"])
    found = _recorded(Message(3, subject, headers if mutator.pick(8) else None, raw))
    chunks({}, [found.output])


def read_heartbeat(_: Mutator, raw: bytes) -> None:
    found = heartbeat_in(raw)
    if found is not None:
        assert names.is_name(found.host_id)
        Cluster().record_heartbeat(found, "default", 1.0)


# -- files, and what a launcher says -------------------------------------------------------------


REPORT = (
    b"report exit=0 signal=0 started=1767323045000000000 ended=1767323045003000000"
    b" first_output=1767323045001000000 cpu=1000 memory=4096 cgroup_memory=0 io=7"
    b" network=0 kept=12 dropped=0 oom=0 halted=0 timed_out=0 stopped=0 words=no file\n"
)


def read_report(_: Mutator, raw: bytes) -> None:
    line = raw.decode(errors="replace")
    report = parse_report(line)
    event_builders.ended_by(report, ev.EndedBy.ITSELF)
    for moment in (report.started_ns, report.ended_ns, report.first_output_ns):
        event_builders.time_of(moment)
    event_builders.time_of(parse_started(str(report.started_ns)).started_ns)


def read_place(folder: Path, mutator: Mutator, raw: bytes) -> None:
    name = ("assignment", "made", "ended_by", "report")[mutator.pick(4)]
    (folder / name).write_bytes(raw)
    found = SandboxDirectory(folder)
    found.read_assignment(), found.read_record(), found.read_ended_by(), found.read_report()


def read_exported(mutator: Mutator, raw: bytes) -> None:
    zipped = raw if not mutator.pick(4) else gzip.compress(raw, 1)
    list(portable.read_lines(io.BytesIO(zipped), "the file"))


def exported() -> list[bytes]:
    file = io.BytesIO()
    writer = portable.PortableFileWriter(file)
    for n, drafted in enumerate(DRAFTS[:4], 1):
        subject = names.event_subject("default", drafted.event)
        headers = envelope.to_headers(drafted)
        writer.write(portable.event_line(n, subject, headers, envelope.encode(drafted.event)))
    writer.write(portable.event_line(5, "abaco.event.default.x.y.z", {}, b"\xff\xfe"))
    writer.write(portable.OutputLine("default", "foo_0_exc_0", 1, 0, b"\xff"))
    writer.close()
    whole = gzip.decompress(file.getvalue())
    head, *middle, end = whole.splitlines(keepends=True)
    return [whole, file.getvalue(), *(head + line + end for line in middle)]


# -- what a client of the API sends --------------------------------------------------------------

DEFAULTS = Defaults(init_count=2, max_workers=4, allow_privileged=False)

JSON_BODIES = [
    b'{"image":"a/b:1","name":"foo","default_environment":{"A":"1"},"mem_limit":"512m"}',
    b'{"image":"b","name":"b","max_cpus":0.5,"max_run_seconds":60,"min_workers":3.0}',
    b'{"image":"c@sha256:0","name":"c","stateless":false,"log_ex":null,"description":null}',
    b'{"message":{"deep":[1,2,{"x":"y"}]}}',
    b'{"message":"execute yourself"}',
    b'{"state":{"count":[1,2.5,"\\u00e9"]}}',
    b'{"num":3}',
    b'{"event_pattern":"foo_*.execution.*"}',
    b'{"event_id":"execution.finished","event_pattern":">"}',
]
FORMS = [
    b"image=a%2Fb&name=foo&default_environment=%7B%22A%22%3A%221%22%7D&mem_limit=&max_cpus=null",
    b"message=execute+yourself&A=1&B=%C3%A9",
    b"state=x&num=2&event_pattern=foo_0.%3E&description=%00",
    b"after=5&before=10&limit=3&type=execution.*&since=2026-01-02T03:04:05Z&actor=foo_0&as_of=7",
]
MULTIPARTS = [
    b"\r\n".join(
        [
            *(b"------x", b'Content-Disposition: form-data; name="image"', b"", b"a/b"),
            *(b"------x", b'Content-Disposition: form-data; name="name"', b"", b"foo"),
            *(b"------x--", b""),
        ]
    ),
    b"\r\n".join(
        [
            *(b"------x", b'Content-Disposition: form-data; name="f"; filename="y"'),
            *(b"Content-Type: text/plain", b"", b"file", b"------x--", b""),
        ]
    ),
]


def parsed(parameters: bodies.Parameters, query: dict[str, str]) -> None:
    """The same parameters as the body of every command."""
    for command in (
        partial(parse.register, parameters, DEFAULTS),
        partial(parse.update, "foo_0", parameters, DEFAULTS),
        partial(parse_message, "foo_0", parameters, query),
        partial(parse.set_state, "foo_0", parameters),
        partial(parse.scale, "foo_0", parameters),
        partial(parse.subscribe, "foo_0", parameters),
    ):
        try:
            command()
        except AbacoError:
            continue


def read_json(_: Mutator, raw: bytes) -> None:
    values = bodies._json_object(raw)
    parsed(bodies.Parameters(values, form=False), {})


def read_form(_: Mutator, raw: bytes) -> None:
    values = bodies.text_parameters(raw)
    parsed(bodies.Parameters(dict(values), form=True), values)


def read_multipart(mutator: Mutator, raw: bytes) -> None:
    kinds = ["multipart/form-data; boundary=----x", "multipart/form-data"]
    kind = mutator.text(kinds).encode("latin-1", "replace").decode("latin-1")
    parsed(bodies.Parameters(bodies.unique(bodies.multipart_fields(kind, raw)), form=True), {})


def read_query(mutator: Mutator, raw: bytes) -> None:
    query = bodies.text_parameters(raw)
    resume = mutator.text(["17"]) if mutator.pick(2) else None
    known = {name: value for name, value in query.items() if name in (*PARAMETERS, "actor")}
    for read in (
        partial(parse_query, known, resume),
        partial(parse_query, known, resume, "foo_0"),
        partial(parse_page, query, default=100),
        partial(resumed, resume, 1),
        partial(as_of_parameter._time, query.get("as_of", "2026-01-02T03:04:05Z")),
    ):
        try:
            read()
        except AbacoError:
            continue


WORDS = [
    *(b"foo_0", b"foo_0_exc_7", b"foo_0_wkr_1", b"1:4096", b"512m", b"registry:5000/a/b:1.2"),
    *(b"foo_*.execution.*", b">", b"_host-h1.host.*", b"execution.*", b"2026-01-02T03:04:05Z"),
    *(b"a/b@sha256:" + b"0" * 64, b"abaco.event.default.foo_0.message.received"),
]


def read_word(_: Mutator, raw: bytes) -> None:
    """A word in a path, a query, a header, or a subject."""
    text = raw.decode(errors="replace")
    if (ordinal := names.execution_ordinal(text, "foo_0")) is not None:
        assert names.execution_id("foo_0", ordinal) == text
    if names.is_actor_id(text):
        assert names.actor_id(names.actor_name(text), names.actor_number(text)) == text
    if (found := parse_offset(text, 1)) is not None:
        assert parse_offset(str(found), 1) == found
    is_image(text), parse_size(text), type_matches(text[:200], "execution.finished")
    if event_pattern.why_unmatchable(text) is None:
        event_pattern.matches(text, "foo_0", "execution.finished")
    names.actor_and_type(text)
    envelope.format_time(envelope.parse_time(text))
    messages.check_environment("x", {"A": text}) if "\0" not in text else None


TARGETS: Mapping[str, Target] = {
    "event": Target([*BODIES, *(f.read_bytes() for f in sorted(GOLDEN.iterdir()))], read_event),
    "message": Target(BODIES, read_message),
    "output": Target([b"a line\n", bytes(range(256))], read_output),
    "heartbeat": Target([b'{"host_id":"h1","capacity":4}'], read_heartbeat),
    "report": Target([REPORT], read_report),
    "place": Target(
        [b'{"mark":"x","start_kind":"pool","taken_at":"","state_sequence":4}', b'"halt"'],
        lambda *_: None,
    ),
    "exported": Target(exported(), read_exported),
    "json": Target(JSON_BODIES, read_json),
    "form": Target(FORMS, read_form),
    "multipart": Target(MULTIPARTS, read_multipart),
    "query": Target(FORMS, read_query),
    "word": Target(WORDS, read_word),
}


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_bytes_are_read_or_refused(
    name: str, tmp_path: Path, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    target = TARGETS[name]
    read = partial(read_place, tmp_path) if name == "place" else target.read
    mutator = Mutator(SEED, target.samples)
    refused, said = 0, time.monotonic()
    for sample in target.samples:
        one_round(read, mutator, sample, f"{name}: a sample")
    for number in rounds(SECONDS / len(TARGETS) or SHORT_SECONDS):
        where = f"{name}: seed {SEED}, round {number}"
        refused += one_round(read, mutator, mutator.next(), where)
        if SECONDS and time.monotonic() > said + PROGRESS_SECONDS:
            said = time.monotonic()
            with capsys.disabled():
                print(f"\n{where}, {refused} refused", flush=True)  # noqa: T201 - progress
    if SECONDS:
        with capsys.disabled():
            print(f"\n{name}: seed {SEED}, {number + 1} rounds, {refused} refused", flush=True)  # noqa: T201


def one_round(
    read: Callable[[Mutator, bytes], object], mutator: Mutator, raw: bytes, where: str
) -> bool:
    """Whether it was refused, with an error of ours. Any other error says how to see it again."""
    try:
        with alarm(HANG_SECONDS):
            read(mutator, raw)
    except AbacoError:
        return True
    except BaseException as error:
        raise AssertionError(f"{where}: {raw[:2000]!r}") from error
    return False
