"""Settings: defaults, conversion, and one line for whatever is wrong."""

from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from abaco_proto import settings
from abaco_proto.errors import Malformed


class Config(msgspec.Struct, frozen=True):
    api_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8000
    tenant: str = "default"


def test_defaults_hold_where_nothing_is_set() -> None:
    assert settings.read(Config, {"PATH": "/bin", "ABACO_TENANT": ""}) == Config()


def test_text_becomes_what_the_field_wants() -> None:
    assert settings.read(Config, {"ABACO_API_PORT": "8001"}).api_port == 8001


def test_settings_of_other_services_are_passed_over() -> None:
    assert settings.read(Config, {"ABACO_HOST_CAPACITY": "4"}) == Config()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ABACO_API_PROT", "1", "did you mean ABACO_API_PORT?"),
        ("ABACO_ZZZ", "1", "ABACO_ZZZ is not a setting"),
        ("ABACO_ZZZ", "", "ABACO_ZZZ is not a setting"),
        ("ABACO_API_PROT_FILE", "/x", "did you mean ABACO_API_PORT_FILE?"),
        ("ABACO_FILE", "/x", "ABACO_FILE is not a setting"),
        (
            "ABACO_API_PORT_FILE",
            "/no/such",
            "ABACO_API_PORT_FILE: /no/such cannot be read: No such",
        ),
        ("ABACO_API_PORT_FILE", "/", "ABACO_API_PORT_FILE: / cannot be read: Is a directory"),
        ("ABACO_API_PORT_FILE", "a\0b", "ABACO_API_PORT_FILE: 'a\\x00b' is no text file"),
        ("ABACO_API_PORT", "many", "ABACO_API_PORT: expected `int`"),
        ("ABACO_API_PORT", "0", "ABACO_API_PORT: expected `int` >= 1"),
    ],
)
def test_what_is_wrong_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(Malformed) as caught:
        settings.read(Config, {name: value})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_gives_the_value_without_the_space_around_it(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(" 8001\n")
    environ = {"ABACO_API_PORT_FILE": str(secret), "ABACO_TENANT_FILE": ""}
    assert settings.read(Config, environ) == Config(api_port=8001)


def test_a_bad_value_in_a_file_is_named_and_not_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush")
    with pytest.raises(Malformed) as caught:
        settings.read(Config, {"ABACO_API_PORT_FILE": str(secret)})
    assert str(caught.value) == "ABACO_API_PORT: expected `int`, got `str`"


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"\xff")
    with pytest.raises(Malformed, match=r"^ABACO_TENANT_FILE: .* is no text file$"):
        settings.read(Config, {"ABACO_TENANT_FILE": str(secret)})


def test_a_value_and_a_file_are_one_too_many() -> None:
    with pytest.raises(Malformed) as caught:
        settings.read(Config, {"ABACO_TENANT": "a", "ABACO_TENANT_FILE": "/x"})
    message = "ABACO_TENANT and ABACO_TENANT_FILE are both set: set only one of them"
    assert str(caught.value) == message


def test_the_file_of_a_setting_of_others_is_not_opened() -> None:
    assert settings.read(Config, {"ABACO_POSTGRES_DSN_FILE": "/no/such"}) == Config()
