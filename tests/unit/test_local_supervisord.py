"""The supervisor's configuration."""

import configparser
import sys

import pytest

from abaco_local.stack import supervisord
from abaco_local.stack.process_commands import START_ORDER
from abaco_proto.errors import Malformed


def parsed(text: str) -> configparser.RawConfigParser:
    # As supervisord reads it.
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(text)
    return parser


def test_every_process_restarts_whenever_it_dies() -> None:
    text = parsed(supervisord.configuration("run/supervisor.sock", root=False))
    for name in START_ORDER:
        program = text[f"program:{name}"]
        assert program["autorestart"] == "true"
        assert int(program["startretries"]) >= 10**9
        assert program["stdout_logfile"] == f"logs/{name}.log"
        assert program["stdout_logfile_maxbytes"] == "10MB"


def test_postgres_is_stopped_fast_and_clean() -> None:
    text = parsed(supervisord.configuration("run/supervisor.sock", root=False))
    assert text["program:postgres"]["stopsignal"] == "INT"
    assert text["program:nats"]["stopsignal"] == "TERM"


@pytest.mark.parametrize(("root", "user"), [(True, "root"), (False, None)])
def test_root_is_named_where_it_is_meant(root: bool, user: str | None) -> None:  # noqa: FBT001
    text = parsed(supervisord.configuration("s", root=root))
    assert text["supervisord"].get("user") == user


def test_a_percent_sign_in_a_path_is_no_expansion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/home/me/100 %s/bin/python")
    command = parsed(supervisord.configuration("/tmp/%x/s", root=False))["program:api"]["command"]
    assert command % {} == (
        "'/home/me/100 %s/bin/python' -P -m abaco_local.launch run/commands.json api"
    )
    assert supervisord.escape("/tmp/%x") % {} == "/tmp/%x"


@pytest.mark.parametrize("path", ["/a;b", "/a #b", '/a"b', "/a'b", "/a\nb"])
def test_what_the_file_cannot_hold_is_refused(path: str) -> None:
    with pytest.raises(Malformed):
        supervisord.escape(path)
