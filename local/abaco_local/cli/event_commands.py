"""The command ``abaco events``."""

import os
import sys
from collections.abc import Callable

import click

from abaco_local.cli.command_sections import example
from abaco_local.cli.event_reader import EventReader
from abaco_local.local_settings import LocalSettings
from abaco_proto import settings


@click.command(
    epilog=example(
        "abaco events --follow",
        "abaco events --actor foo_0 --type 'execution.*' --json",
    )
)
@click.option("--follow", "-f", is_flag=True, help="Continue with new events.")
@click.option("--actor", help="Only events of this actor, or of a host: _host-<id>.")
@click.option("--type", "type_", help="Only events of this type; * matches any characters.")
@click.option("--principal", help="Only what this principal did; * matches any characters.")
@click.option("--after", type=click.IntRange(0), default=0, help="Only events after this sequence.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option("--url", help="The address of the api; by default that of the settings.")
def events(  # noqa: PLR0913 - one argument per option
    *,
    follow: bool,
    actor: str | None,
    type_: str | None,
    principal: str | None,
    after: int,
    as_json: bool,
    url: str | None,
) -> None:
    """Print the events of the log."""
    config = settings.read(LocalSettings, os.environ)
    reader = EventReader(
        url or config.api_url, token=config.token, actor=actor, type=type_, principal=principal
    )
    found = reader.follow(after, _report_interruptions()) if follow else reader.history(after)
    try:
        for event in found:
            click.echo(event.text if as_json else event.line)
    except BrokenPipeError:  # the reader, `head` for example, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_interruptions() -> Callable[[str], None]:
    """Return a function that prints each reason for an interruption once."""
    reported: set[str] = set()

    def report(reason: str) -> None:
        if reason not in reported:
            click.echo(f"abaco: the stream was interrupted ({reason}); reconnecting", err=True)
            reported.add(reason)

    return report
