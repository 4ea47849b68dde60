"""The command ``abaco``."""

import sys
from typing import NoReturn

import click

from abaco_local.cli.admin_commands import ADMIN_COMMANDS
from abaco_local.cli.audit_commands import AUDIT_COMMANDS
from abaco_local.cli.command_sections import SectionedGroup
from abaco_local.cli.event_commands import events
from abaco_local.cli.stack_commands import STACK_COMMANDS
from abaco_proto.errors import AbacoError, Malformed

USAGE_ERROR, FAILED, INTERRUPTED = 2, 1, 130

SECTIONS = {
    "Stack": STACK_COMMANDS,
    "Access": ADMIN_COMMANDS,
    "Events": (events,),
    "Audit": AUDIT_COMMANDS,
}


@click.group(
    cls=SectionedGroup, sections=SECTIONS, context_settings={"help_option_names": ["-h", "--help"]}
)
def commands() -> None:
    """Run Abaco on this machine: NATS, Postgres and the four services."""


def main() -> NoReturn:
    """Run the command; print any error in one line, without a traceback."""
    try:
        code = commands.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted", INTERRUPTED)
    except AbacoError as error:
        fail(str(error), USAGE_ERROR if isinstance(error, Malformed) else FAILED)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), FAILED)


def fail(line: str, code: int) -> NoReturn:
    """Print a line to the error output and exit."""
    click.echo(f"abaco: {line}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
