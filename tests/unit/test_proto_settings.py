"""Settings: defaults, conversion, and one line for whatever is wrong."""

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
        ("ABACO_API_PORT", "many", "ABACO_API_PORT: expected `int`"),
        ("ABACO_API_PORT", "0", "ABACO_API_PORT: expected `int` >= 1"),
    ],
)
def test_what_is_wrong_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(Malformed) as caught:
        settings.read(Config, {name: value})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
