"""``abaco events``: history, and what happens, over HTTP.

An interruption is no end: the stream goes on behind the last event that was printed, so that
each is printed once.
"""

import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlencode, urlsplit

import click
import msgspec

from abaco_proto.errors import Malformed, Unavailable, Unknown

PAGE_EVENTS = 1000
SILENCE_SECONDS = 30.0
"""A stream that says nothing for so long, not even that it lives, is begun anew."""

PAUSE_SECONDS = 1.0
BROKEN = (OSError, http.client.HTTPException)
LATER = (429, 503)


class Event(msgspec.Struct, frozen=True):
    """An event as the api shows it: its place, and its JSON."""

    sequence: int
    text: str

    @property
    def line(self) -> str:
        """The event for a person: place, time, type, whose it is, and what else is short."""
        event = json.loads(self.text)
        known = ("type", "actor_id", "host_id" if event["type"].startswith("host.") else "")
        data = event["data"] or {}
        words = [f"{name}={value}" for name, value in data.items() if name not in known and value]
        rest = " ".join(words).replace("\n", "\\n")
        start = f"{self.sequence:>8} {event['time']} {event['type']:<24} {event['actor_id']}"
        return f"{start}  {rest if len(rest) <= SHORT else rest[:SHORT] + '…'}"


SHORT = 120


class Source:
    """The events of one api that somebody wants."""

    def __init__(self, url: str, **wanted: str | None) -> None:
        """``wanted`` are parameters of ``GET /events``; None is not sent."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise Malformed(f"--url: expected http://host:port, got {url!r}")
        self._host, self._port = parts.hostname, parts.port or 80
        self._path = f"{parts.path.rstrip('/')}/events"
        self._wanted = {name: value for name, value in wanted.items() if value is not None}

    def history(self, after: int) -> Iterator[Event]:
        """What the log holds now, page by page."""
        while True:
            with closing(self._connection()) as connection:
                answer = self._ask(connection, {"after": str(after), "limit": str(PAGE_EVENTS)})
                body = msgspec.json.decode(answer.read(), type=_Page)
            for raw in body.result:
                yield _event(bytes(raw).decode())
            following = answer.headers.get("Abaco-Next")
            if following is None:
                return
            after = int(following)

    def follow(self, after: int, interrupted: Callable[[str], None]) -> Iterator[Event]:
        """History, then life, without end; ``interrupted`` hears why it began anew."""
        while True:
            try:
                for event in self._stream(after):
                    after = event.sequence
                    yield event
                interrupted("the stream ended")
            except (*BROKEN, Unavailable) as error:
                interrupted(str(error) or type(error).__name__)
            time.sleep(PAUSE_SECONDS)

    def _stream(self, after: int) -> Iterator[Event]:
        with closing(self._connection()) as connection:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
            answer = self._ask(connection, {}, headers)
            fields: dict[str, str] = {}
            while line := answer.readline():
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                    continue
                if "data" in fields and fields.get("event") != "dropped":
                    yield Event(int(fields["id"]), fields["data"])
                fields = {}

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=SILENCE_SECONDS)

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        query: dict[str, str],
        headers: dict[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        connection.request(
            "GET", f"{self._path}?{urlencode({**self._wanted, **query})}", headers=headers or {}
        )
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise _refusal(answer.status, answer.read())
        return answer


class _Page(msgspec.Struct):
    result: list[msgspec.Raw]


def _event(text: str) -> Event:
    return Event(int(json.loads(text)["seq"]), text)


def _refusal(status: int, body: bytes) -> Malformed | Unknown | Unavailable:
    try:
        words = str(json.loads(body)["msg"])
    except (ValueError, KeyError, TypeError):
        words = f"the api answered {status}"
    if status in LATER or status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return Unavailable(words)
    return Unknown(words) if status == http.HTTPStatus.NOT_FOUND else Malformed(words)


def command(default_url: Callable[[], str]) -> click.Command:
    """The command; ``default_url`` is where the api of the settings is."""

    @click.command()
    @click.option("--follow", "-f", is_flag=True, help="Go on with what happens.")
    @click.option("--actor", help="Only of this actor, or of a host: _host-<id>.")
    @click.option("--type", "type_", help="Only of this type; * stands for any characters.")
    @click.option("--after", type=click.IntRange(0), default=0, help="Only behind this sequence.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
    @click.option("--url", help="Where the api is; by default that of the settings.")
    def events(  # noqa: PLR0913 - one argument an option
        *,
        follow: bool,
        actor: str | None,
        type_: str | None,
        after: int,
        as_json: bool,
        url: str | None,
    ) -> None:
        """Print what the log says, and what it goes on to say."""
        source = Source(url or default_url(), actor=actor, type=type_)
        found = source.follow(after, _interrupted()) if follow else source.history(after)
        try:
            for event in found:
                click.echo(event.text if as_json else event.line)
        except BrokenPipeError:  # whoever read has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return events


def _interrupted() -> Callable[[str], None]:
    """Says an interruption, and nothing more until it is another one."""
    said: set[Any] = set()

    def say(why: str) -> None:
        if why not in said:
            click.echo(f"abaco: interrupted, goes on: {why}", err=True)
            said.add(why)

    return say
