"""A click group whose help lists its commands in sections."""

from collections.abc import Mapping, Sequence
from typing import Any

import click


class SectionedGroup(click.Group):
    """A group with the commands of ``sections``, in that order."""

    def __init__(
        self, *args: Any, sections: Mapping[str, Sequence[click.Command]], **kwargs: Any
    ) -> None:
        """Add all commands to the group."""
        super().__init__(*args, **kwargs)
        self._sections = sections
        for command in (command for section in sections.values() for command in section):
            self.add_command(command)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - the signature is click's
        formatter: click.HelpFormatter,
    ) -> None:
        """Write one line per command, under the title of its section."""
        names = [str(command.name) for section in self._sections.values() for command in section]
        width = max(map(len, names))
        for title, section in self._sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{command.name:<{width}}", _summary(command)) for command in section]
                )


def example(*lines: str) -> str:
    """Return the epilog of a command's help: lines that a user can type."""
    return "\b\n" + "\n".join(["Example:", *(f"  {line}" for line in lines)])


def _summary(command: click.Command) -> str:
    return command.get_short_help_str(limit=80)
