"""Each change of the connection's state is logged once."""

import logging

import pytest

from abaco_jetstream.connection import connection_log
from abaco_jetstream.connection.connection_log import ConnectionLog

EVENTS, OUTPUT = "abaco.event", "abaco.log"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append((record.levelname, record.getMessage()))

    logger = logging.Logger("test")  # noqa: LOG001 - one that nobody else has
    logger.addHandler(Lines())
    monkeypatch.setattr(connection_log, "logger", logger)
    return found


def test_a_rejected_prefix_is_logged_once_until_it_is_accepted(
    lines: list[tuple[str, str]],
) -> None:
    log = ConnectionLog()
    log.accepted(EVENTS)
    for _ in range(2):
        log.rejected(EVENTS, "no space left on device")
    log.rejected(OUTPUT, "no answer in 1.5 s")
    for _ in range(2):
        log.accepted(EVENTS)
    log.rejected(EVENTS, "no space left on device")
    assert [(level, text.split(":")[0]) for level, text in lines] == [
        ("WARNING", "NATS rejects appends to abaco.event.>"),
        ("WARNING", "NATS rejects appends to abaco.log.>"),
        ("INFO", "NATS accepts appends to abaco.event.> again"),
        ("WARNING", "NATS rejects appends to abaco.event.>"),
    ]
    assert "no space left on device" in lines[0][1]
    assert "docs/how-to/outages.md" in lines[0][1]


def test_an_unavailable_server_is_logged_once_until_it_is_available(
    lines: list[tuple[str, str]],
) -> None:
    log = ConnectionLog()
    for _ in range(2):
        log.unavailable("connection refused", connected=False)
    log.reconnected("n1:4222")
    log.unavailable("connection refused", connected=False)
    assert [level for level, _ in lines if level != "DEBUG"] == ["WARNING", "INFO", "WARNING"]


def test_each_cause_for_an_unusable_server_is_logged_once(lines: list[tuple[str, str]]) -> None:
    log = ConnectionLog()
    for cause in ("no room", "no room", "no leader"):
        log.unusable(cause)
    assert [text.rpartition(": ")[2] for _, text in lines] == ["no room", "no leader"]
