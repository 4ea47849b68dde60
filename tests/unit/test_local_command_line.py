"""The help of ``abaco``: sections, one line per command, and an example for each."""

import shlex

import click
import pytest
from click.testing import CliRunner

from abaco_local.__main__ import commands

NAMES = {
    "Stack": ["up", "down", "status", "start", "stop", "restart", "demo"],
    "Access": ["admin"],
    "Events": ["events"],
    "Audit": ["verify", "rebuild", "replay", "export", "restore"],
}
ALL = [name for names in NAMES.values() for name in names]


def help_of(*words: str) -> list[str]:
    done = CliRunner().invoke(commands, [*words, "--help"], terminal_width=80)
    assert done.exit_code == 0
    return done.output.splitlines()


def test_help_lists_every_command_once_with_a_line_in_its_section() -> None:
    lines = help_of()
    for title, names in NAMES.items():
        start = lines.index(f"{title}:") + 1
        section = lines[start : start + len(names)]
        assert [line.split()[0] for line in section] == names
        assert all(line.endswith(".") for line in section)
    assert sorted(commands.commands) == sorted(ALL)


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_an_example_that_can_be_typed(name: str) -> None:
    lines = help_of(name)
    examples = [line.strip() for line in lines[lines.index("  Example:") + 1 :]]
    assert any(f"abaco {name}" in line for line in examples)
    for line in examples:
        words = [word for word in shlex.split(line) if not word.startswith("ABACO_")]
        assert words[0] == "abaco"
        command = commands.commands[words[1]]
        context = click.Context(command, info_name=words[1])
        command.make_parser(context).parse_args(words[2:])  # raises for an unknown option


def test_the_first_help_is_the_same_with_h() -> None:
    assert CliRunner().invoke(commands, ["-h"]).output.splitlines() == help_of()
