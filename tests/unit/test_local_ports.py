"""The choice of ports."""

import socket
from collections.abc import Callable

import pytest

from abaco_local import free_ports
from abaco_proto.errors import Refused


def taken(*numbers: int) -> Callable[[int], bool]:
    return lambda port: port not in numbers


def test_the_remembered_port_is_kept() -> None:
    assert free_ports.choose_port("P", 0, 5000, taken(), lambda: [6000]) == 5000


def test_a_remembered_port_that_is_taken_is_chosen_again() -> None:
    assert free_ports.choose_port("P", 0, 5000, taken(5000, 6000), lambda: [6000, 7000]) == 7000


def test_the_wanted_port_wins() -> None:
    assert free_ports.choose_port("P", 4222, 5000, taken()) == 4222


def test_a_wanted_port_that_is_taken_is_refused_by_name() -> None:
    with pytest.raises(Refused, match="ABACO_NATS_PORT: port 4222 is taken"):
        free_ports.choose_port("ABACO_NATS_PORT", 4222, 5000, taken(4222))


def test_no_port_at_all_is_refused() -> None:
    with pytest.raises(Refused, match="no free port"):
        free_ports.choose_port("P", 0, 0, lambda _: False, lambda: [6000])


def test_a_listener_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not free_ports.is_free(server.getsockname()[1])


def test_no_candidate_is_a_port_of_outgoing_connections() -> None:
    first, last = map(int, free_ports.EPHEMERAL_RANGE.read_text().split())
    chosen = set(free_ports.candidate_ports())
    assert chosen
    assert first < free_ports.FIRST_PORT or not chosen & set(range(first, last + 1))


def test_a_foreign_address_says_why() -> None:
    with pytest.raises(OSError, match="assign"):
        free_ports.is_free(8000, "192.0.2.1")
