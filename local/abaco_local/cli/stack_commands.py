"""Commands that start, stop and show the embedded stack."""

import os
from pathlib import Path

import click
import msgspec

from abaco_local import stack_identity
from abaco_local.cli import quickstart
from abaco_local.cli.command_sections import example
from abaco_local.data_folder import DataFolder
from abaco_local.local_settings import LocalSettings
from abaco_local.stack import stack_status
from abaco_local.stack.embedded_stack import EmbeddedStack
from abaco_proto import settings


def read_settings() -> tuple[LocalSettings, DataFolder]:
    """Return the settings, and the data folder that they name."""
    config = settings.read(LocalSettings, os.environ)
    return config, DataFolder(Path(config.data_dir).expanduser().resolve())


def _stack() -> EmbeddedStack:
    config, folder = read_settings()
    return EmbeddedStack(folder, config, os.environ, click.echo)


@click.command(epilog=example("abaco up", "ABACO_API_PORT=8001 abaco up", "abaco up --servers"))
@click.option("--servers", is_flag=True, help="Start only NATS and Postgres, to restore a file.")
def up(*, servers: bool) -> None:
    """Start everything and wait until it is ready."""
    _stack().up(servers_only=servers)


@click.command(epilog=example("abaco down"))
def down() -> None:
    """Stop everything; the data stays."""
    click.echo("stopped" if _stack().down() else "nothing runs")


@click.command(epilog=example("abaco status", "abaco status --json"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the passwords.")
def status(*, as_json: bool) -> None:
    """Show what runs, and the addresses."""
    config, folder = read_settings()
    known = stack_identity.load(folder)
    answer = stack_status.status(config, folder, known, stack_status.running(known))
    text = msgspec.json.format(msgspec.json.encode(answer)).decode()
    click.echo(text if as_json else stack_status.table(answer))


@click.command(epilog=example("abaco start worker"))
@click.argument("name")
def start(name: str) -> None:
    """Start one process."""
    _stack().start(name)
    click.echo(f"{name} runs")


@click.command(epilog=example("abaco stop worker"))
@click.argument("name")
def stop(name: str) -> None:
    """Stop one process until it is started again."""
    _stack().stop(name)
    click.echo(f"{name} stopped")


@click.command(epilog=example("abaco restart api"))
@click.argument("name")
def restart(name: str) -> None:
    """Stop one process and start it again."""
    _stack().stop(name)
    _stack().start(name)
    click.echo(f"{name} runs again")


@click.command(epilog=example("abaco up", "abaco demo"))
def demo() -> None:
    """Run the quickstart against the running stack."""
    config, _ = read_settings()
    quickstart.run(config.api_url, config.token)


STACK_COMMANDS = (up, down, status, start, stop, restart, demo)
