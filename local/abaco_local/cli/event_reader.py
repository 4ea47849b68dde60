"""Reads events from the API over HTTP.

After an interruption the stream continues after the last event, so each event is yielded once.
"""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import urlencode, urlsplit

import msgspec

from abaco_proto.errors import Malformed, Unavailable, Unknown

PAGE_EVENTS = 1000
READ_TIMEOUT_SECONDS = 30.0
"""A stream without data or keep-alive for this long is opened again."""

PAUSE_SECONDS = 1.0
CONNECTION_ERRORS = (OSError, http.client.HTTPException)
RETRY_STATUSES = (429, 503)
MAX_DATA_CHARACTERS = 120


class PrintedEvent(msgspec.Struct, frozen=True):
    """An event as the api returns it: its sequence, and its JSON."""

    sequence: int
    text: str

    @property
    def line(self) -> str:
        """One line for people: sequence, time, type, actor, and the start of the data."""
        event = json.loads(self.text)
        known = ("type", "actor_id", "host_id" if event["type"].startswith("host.") else "")
        data = event["data"] or {}
        text = [f"{name}={value}" for name, value in data.items() if name not in known and value]
        rest = " ".join(text).replace("\n", "\\n")
        start = f"{self.sequence:>8} {event['time']} {event['type']:<24} {event['actor_id']}"
        if len(rest) > MAX_DATA_CHARACTERS:
            rest = rest[:MAX_DATA_CHARACTERS] + "…"
        return f"{start}  {rest}"


class EventReader:
    """Reads the events of one api, filtered."""

    def __init__(self, url: str, *, token: str = "", **filters: str | None) -> None:
        """``filters`` are parameters of ``GET /events``; None is not sent."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise Malformed(f"--url: expected http://host:port, got {url!r}")
        self._host, self._port = parts.hostname, parts.port or 80
        self._path = f"{parts.path.rstrip('/')}/events"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._filter = {name: value for name, value in filters.items() if value is not None}

    def history(self, after: int) -> Iterator[PrintedEvent]:
        """Yield the events that the log has now, page by page."""
        while True:
            with closing(self._connection()) as connection:
                answer = self._request(connection, {"after": str(after), "limit": str(PAGE_EVENTS)})
                body = msgspec.json.decode(answer.read(), type=_Page)
            for raw in body.result:
                yield _printed_event(bytes(raw).decode())
            following = answer.headers.get("Abaco-Next")
            if following is None:
                return
            after = int(following)

    def follow(self, after: int, interrupted: Callable[[str], None]) -> Iterator[PrintedEvent]:
        """Yield the history, then new events, without end; report each interruption."""
        while True:
            try:
                for event in self._stream(after):
                    after = event.sequence
                    yield event
                interrupted("the stream ended")
            except (*CONNECTION_ERRORS, Unavailable) as error:
                interrupted(str(error) or type(error).__name__)
            time.sleep(PAUSE_SECONDS)

    def _stream(self, after: int) -> Iterator[PrintedEvent]:
        with closing(self._connection()) as connection:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
            answer = self._request(connection, {}, headers)
            fields: dict[str, str] = {}
            while line := answer.readline():
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                    continue
                if "data" in fields and fields.get("event") != "dropped":
                    yield PrintedEvent(int(fields["id"]), fields["data"])
                fields = {}

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=READ_TIMEOUT_SECONDS)

    def _request(
        self,
        connection: http.client.HTTPConnection,
        query: dict[str, str],
        headers: dict[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        connection.request(
            "GET",
            f"{self._path}?{urlencode({**self._filter, **query})}",
            headers={**self._headers, **(headers or {})},
        )
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise _error_of(answer.status, answer.read())
        return answer


class _Page(msgspec.Struct):
    result: list[msgspec.Raw]


def _printed_event(text: str) -> PrintedEvent:
    return PrintedEvent(int(json.loads(text)["seq"]), text)


def _error_of(status: int, body: bytes) -> Malformed | Unknown | Unavailable:
    try:
        text = str(json.loads(body)["msg"])
    except (ValueError, KeyError, TypeError):
        text = f"the api answered {status}"
    if status in RETRY_STATUSES or status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return Unavailable(text)
    return Unknown(text) if status == http.HTTPStatus.NOT_FOUND else Malformed(text)
