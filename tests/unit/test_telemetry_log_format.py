"""Log lines, for people and for programs."""

import asyncio
import json
import logging
import sys

import pytest

import builders as b
from abaco_telemetry.context import current_log_context, event_context, log_context, use_traceparent
from abaco_telemetry.log_format import JsonFormatter, TextFormatter, mask_passwords

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def line(message: str = "hello", *, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, None) if error is not None else None
    return logging.LogRecord("abaco_x.y", logging.WARNING, __file__, 1, message, (), info)


def test_text_lines_have_the_correlation_id() -> None:
    assert TextFormatter().format(line()).endswith("WARNING abaco_x.y: hello")
    with log_context(correlation_id="foo_0_exc_0.received"):
        assert TextFormatter().format(line()).endswith("abaco_x.y: hello [foo_0_exc_0.received]")


def test_json_lines_are_one_object_with_the_log_context() -> None:
    assert json.loads(JsonFormatter("worker").format(line("a\nb"))).keys() == {
        *("time", "level", "service", "logger", "message")
    }
    with (
        log_context(
            tenant="blue",
            correlation_id="foo_0_exc_0.received",
            actor_id="foo_0",
            execution_id="foo_0_exc_0",
        ),
        use_traceparent(TRACEPARENT),
    ):
        text = JsonFormatter("worker").format(line("a\nb"))
    assert "\n" not in text
    found = json.loads(text)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "warning",
        "service": "worker",
        "logger": "abaco_x.y",
        "message": "a\nb",
        "tenant": "blue",
        "correlation_id": "foo_0_exc_0.received",
        "actor_id": "foo_0",
        "execution_id": "foo_0_exc_0",
        "trace_id": TRACE,
    }


def test_a_traceback_is_in_the_line() -> None:
    try:
        raise ValueError("nats://api:secret@h:1 is away")  # noqa: TRY301
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "w", (), sys.exc_info())
    found = json.loads(JsonFormatter("api").format(record))
    assert "ValueError: nats://api:***@h:1" in found["error"]
    assert "secret" not in TextFormatter().format(record)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "nats://abaco:pw@h:1 and postgresql://a:b@c/d",
            "nats://abaco:***@h:1 and postgresql://a:***@c/d",
        ),
        ("http://h:1/a@b", "http://h:1/a@b"),
        ("no address", "no address"),
    ],
)
def test_passwords_of_addresses_are_masked(text: str, shown: str) -> None:
    assert mask_passwords(text) == shown
    assert json.loads(JsonFormatter("api").format(line(text)))["message"] == shown


async def test_tasks_inherit_the_log_context() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        return current_log_context().execution_id

    with event_context(b.record(b.assigned(1))):
        one = asyncio.create_task(work())
    with event_context(b.record(b.assigned(2))):
        other = asyncio.create_task(work())
    assert [await one, await other] == ["foo_0_exc_1", "foo_0_exc_2"]
    assert current_log_context().execution_id == ""
