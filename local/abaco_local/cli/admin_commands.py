"""Commands for administrators of the stack on this machine."""

import os
import subprocess
import sys

import click

from abaco_local import stack_identity
from abaco_local.cli.command_sections import example
from abaco_local.cli.stack_commands import read_settings
from abaco_local.stack import process_commands
from abaco_proto.errors import Unavailable

API = "api"


@click.group(epilog=example("abaco admin token"))
def admin() -> None:
    """Administer access to the stack of this folder."""


@admin.command(epilog=example("abaco admin token", "abaco admin token --owner alice --days 30"))
@click.option("--owner", default="admin", show_default=True, help="The user that it acts for.")
@click.option("--tenant", default="", help="Its tenant; by default that of the stack.")
@click.option("--name", default="first administrator", show_default=True, help="What it is for.")
@click.option("--days", default=90.0, show_default=True, help="After how many days it expires.")
def token(owner: str, tenant: str, name: str, days: float) -> int:
    """Make an API token with the role admin, and print it. It is shown only once."""
    config, folder = read_settings()
    identity = stack_identity.load(folder)
    if identity is None:
        raise Unavailable("there is no stack here: `abaco up` starts one")
    command = process_commands.commands(folder, config, identity, os.environ)[API]
    arguments = ["--owner", owner, "--name", name, "--days", str(days)]
    if tenant:
        arguments += ["--tenant", tenant]
    argv = [sys.executable, "-P", "-m", "abaco_api.admin_token", *arguments]
    return subprocess.run(argv, env=command.env, check=False).returncode


ADMIN_COMMANDS = (admin,)
