"""The command ``abaco``."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import click
import msgspec

from abaco_local import demo as quickstart
from abaco_local import events, history, identity
from abaco_local import status as state
from abaco_local.config import Config
from abaco_local.folder import Folder
from abaco_local.stack import Stack
from abaco_proto import settings
from abaco_proto.errors import AbacoError, Malformed

MISUSED, FAILED, INTERRUPTED = 2, 1, 130


def configured() -> tuple[Config, Folder]:
    """Read the settings."""
    config = settings.read(Config, os.environ)
    return config, Folder(Path(config.data_dir).expanduser().resolve())


def stack() -> Stack:
    """Return the stack of the settings."""
    config, folder = configured()
    return Stack(folder, config, os.environ, click.echo)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Run Abaco on this machine: NATS, Postgres and the four services."""


@commands.command()
@click.option("--servers", is_flag=True, help="NATS and Postgres alone: to restore into.")
def up(*, servers: bool) -> None:
    """Start everything and wait until it is ready."""
    stack().up(servers_only=servers)


@commands.command()
def down() -> None:
    """Stop everything; the data stays."""
    click.echo("stopped" if stack().down() else "nothing runs")


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="For programs; with the passwords.")
def status(*, as_json: bool) -> None:
    """Say what runs and where."""
    config, folder = configured()
    known = identity.load(folder)
    answer = state.status(config, folder, known, state.running(known))
    text = msgspec.json.format(msgspec.json.encode(answer)).decode()
    click.echo(text if as_json else state.table(answer))


@commands.command()
@click.argument("name")
def start(name: str) -> None:
    """Start one process."""
    stack().start(name)
    click.echo(f"{name} runs")


@commands.command()
@click.argument("name")
def stop(name: str) -> None:
    """Stop one process until it is started again."""
    stack().stop(name)
    click.echo(f"{name} stopped")


@commands.command()
@click.argument("name")
def restart(name: str) -> None:
    """Stop one process and start it anew."""
    stack().stop(name)
    stack().start(name)
    click.echo(f"{name} runs again")


@commands.command()
def demo() -> None:
    """Walk through the quickstart against the running stack."""
    config, _ = configured()
    quickstart.run(config.api_url)


commands.add_command(events.command(lambda: configured()[0].api_url))
for command in history.COMMANDS:
    commands.add_command(command)


def main() -> NoReturn:
    """Run the command; whatever goes wrong is said in a line, without a traceback."""
    try:
        code = commands.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted", INTERRUPTED)
    except AbacoError as error:
        fail(str(error), MISUSED if isinstance(error, Malformed) else FAILED)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), FAILED)


def fail(line: str, code: int) -> NoReturn:
    """Say it and end."""
    click.echo(f"abaco: {line}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
