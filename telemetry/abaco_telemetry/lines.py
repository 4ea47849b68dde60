"""Log lines: for people as text, for programs as one JSON object a line.

Both know what the work at hand is about, and neither has the password of an address in it.
"""

import logging
import re
from datetime import UTC, datetime
from typing import Literal

import msgspec

from abaco_proto.envelope import format_time
from abaco_telemetry import about, spans

Form = Literal["text", "json"]

_PASSWORD = re.compile(r"(://[^:@/\s]*):[^@/\s]+@")


class Line(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A line for programs. ``time`` is RFC 3339; ``trace_id`` is that of the traceparent."""

    time: str
    level: str
    service: str
    logger: str
    message: str
    correlation_id: str = ""
    actor_id: str = ""
    execution_id: str = ""
    trace_id: str = ""
    error: str = ""


class Text(logging.Formatter):
    """``2026-01-02 03:04:05,006 WARNING abaco_worker: words [foo_0_exc_0.received]``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line, with what it is about."""
        correlation_id = about.current().correlation_id
        return super().formatMessage(record) + (f" [{correlation_id}]" if correlation_id else "")

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a traceback behind it where there is one."""
        return masked(super().format(record))


class Json(logging.Formatter):
    """A :class:`Line` each."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line; a traceback is within."""
        what = about.current()
        line = Line(
            time=format_time(datetime.fromtimestamp(record.created, UTC)),
            level=record.levelname.lower(),
            service=self._service,
            logger=record.name,
            message=masked(record.getMessage()),
            correlation_id=what.correlation_id,
            actor_id=what.actor_id,
            execution_id=what.execution_id,
            trace_id=spans.trace_id(spans.current()),
            error=masked(self.formatException(record.exc_info)) if record.exc_info else "",
        )
        return msgspec.json.encode(line).decode()


def masked(text: str) -> str:
    """The text, without the passwords of the addresses in it."""
    return _PASSWORD.sub(r"\1:***@", text) if "://" in text else text


def log(service: str, *, level: str, form: Form) -> None:
    """Log to standard error from now on. To be called once, by the process."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json(service) if form == "json" else Text())
    logging.basicConfig(level=level.upper(), handlers=[handler])
