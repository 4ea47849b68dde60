"""The embedded stack's settings."""

import pytest

from abaco_local.local_settings import LocalSettings
from abaco_proto import settings
from abaco_proto.errors import Malformed


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
    ],
)
def test_the_url_is_one_a_client_on_this_machine_can_use(host: str, url: str) -> None:
    assert LocalSettings(api_host=host).api_url == url


@pytest.mark.parametrize("port", ["x", "0", "65536", "-1"])
def test_a_bad_port_is_named(port: str) -> None:
    with pytest.raises(Malformed, match=r"^ABACO_API_PORT: expected"):
        settings.read(LocalSettings, {"ABACO_API_PORT": port})


def test_the_services_settings_are_no_errors_here() -> None:
    config = settings.read(LocalSettings, {"ABACO_INIT_COUNT": "3", "ABACO_NATS_PORT": "4222"})
    assert config.nats_port == 4222
