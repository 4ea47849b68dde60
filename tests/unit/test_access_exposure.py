"""Where an api without authentication may listen, whose address counts, and the first token."""

from typing import Any

import pytest
from starlette.requests import Request

from abaco_api import admin_token
from abaco_api.access.access_control import AccessControl, check_exposure, trusted_proxies
from abaco_api.access.access_directory import AccessDirectories
from abaco_api.api_settings import ApiSettings
from abaco_proto.errors import Malformed
from fakes import InMemoryEventLog


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"api_host": "::1"},
        {"api_host": "localhost"},
        {"api_host": "127.0.0.2"},
        {"api_host": "0.0.0.0", "published_host": "127.0.0.1"},
        {"api_host": "0.0.0.0", "auth": "on"},
        {"api_host": "0.0.0.0", "auth_off_anywhere": True},
    ],
)
def test_an_api_without_authentication_is_for_its_machine(settings: dict[str, Any]) -> None:
    check_exposure(ApiSettings(**settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"api_host": "0.0.0.0"},
        {"api_host": "::"},
        {"api_host": "10.0.0.1"},
        {"api_host": "abaco.example"},
        {"api_host": "127.0.0.1", "published_host": "0.0.0.0"},
    ],
)
def test_elsewhere_it_does_not_start(settings: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match="ABACO_AUTH is off") as raised:
        check_exposure(ApiSettings(**settings))
    assert "\n" not in str(raised.value)


def address(proxies: str, peer: str, *forwarded: str) -> str:
    settings = ApiSettings(trusted_proxies=proxies)
    directories = AccessDirectories(InMemoryEventLog(), seconds=1)
    control = AccessControl(settings, directories, None, lambda _: None)
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return control._address(Request({"type": "http", "headers": headers, "client": (peer, 1)}))


def test_only_a_trusted_proxy_says_where_a_request_comes_from() -> None:
    assert address("", "10.0.0.9", "192.0.2.1") == "10.0.0.9"
    assert address("10.0.0.0/8", "10.0.0.9", "192.0.2.1") == "192.0.2.1"
    assert address("10.0.0.0/8", "172.16.0.1", "192.0.2.1") == "172.16.0.1"
    assert address("10.0.0.0/8", "10.0.0.9") == "10.0.0.9"


def test_what_a_client_adds_itself_does_not_count() -> None:
    assert address("10.0.0.0/8", "10.0.0.9", "203.0.113.7, 192.0.2.1") == "192.0.2.1"
    assert address("10.0.0.0/8", "10.0.0.9", "203.0.113.7", "192.0.2.1") == "192.0.2.1"


def test_a_network_that_is_none_is_named() -> None:
    with pytest.raises(Malformed, match="ABACO_TRUSTED_PROXIES"):
        trusted_proxies("10.0.0.0/8, nonsense")


def test_a_first_token_that_cannot_be_made_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert admin_token.main(["--days", "0"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("abaco admin token: days:")
