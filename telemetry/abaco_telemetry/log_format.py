"""Log lines: text for people, or one JSON object per line for programs.

Both contain the log context, and neither contains the password of an address.
"""

import logging
import re
from datetime import UTC, datetime
from typing import Literal

import msgspec

from abaco_proto.envelope import format_time
from abaco_telemetry.context import current_log_context, current_traceparent, trace_id

LogFormat = Literal["text", "json"]

_PASSWORD = re.compile(r"(://[^:@/\s]*):[^@/\s]+@")


class JsonLine(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A line for programs. ``time`` is RFC 3339; ``trace_id`` is that of the traceparent."""

    time: str
    level: str
    service: str
    logger: str
    message: str
    request_id: str = ""
    tenant: str = ""
    correlation_id: str = ""
    actor_id: str = ""
    execution_id: str = ""
    trace_id: str = ""
    error: str = ""


class TextFormatter(logging.Formatter):
    """``2026-01-02 03:04:05,006 WARNING abaco_worker: message [foo_0_exc_0.received]``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line with the correlation id and the id of the request."""
        context = current_log_context()
        known = (context.correlation_id, context.request_id and f"request {context.request_id}")
        return super().formatMessage(record) + "".join(f" [{text}]" for text in known if text)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, followed by a traceback if there is one."""
        return mask_passwords(super().format(record))


class JsonFormatter(logging.Formatter):
    """Formats each record as a :class:`JsonLine`."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback is part of it."""
        context = current_log_context()
        line = JsonLine(
            time=format_time(datetime.fromtimestamp(record.created, UTC)),
            level=record.levelname.lower(),
            service=self._service,
            logger=record.name,
            message=mask_passwords(record.getMessage()),
            request_id=context.request_id,
            tenant=context.tenant,
            correlation_id=context.correlation_id,
            actor_id=context.actor_id,
            execution_id=context.execution_id,
            trace_id=trace_id(current_traceparent()),
            error=mask_passwords(self.formatException(record.exc_info)) if record.exc_info else "",
        )
        return msgspec.json.encode(line).decode()


def mask_passwords(text: str) -> str:
    """Replace the passwords of addresses with ``***``."""
    return _PASSWORD.sub(r"\1:***@", text) if "://" in text else text


def configure_logging(service: str, *, level: str, log_format: LogFormat) -> None:
    """Log to standard error. Called once, by the process."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(service) if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
