"""What is read is what nats-py reads, only faster."""

from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.protocol.parser import Parser

from abaco_jetstream.client import QuickClient

parts = st.sampled_from([b"Nats-Msg-Id", b"a b", b"\xff", b": ", b":", b"\t", b" ", b"\r\n", b"x"])


@given(st.lists(parts | st.binary(max_size=4), max_size=12).map(b"".join))
def test_headers_are_what_the_library_makes_of_them(raw: bytes) -> None:
    assert QuickClient._parse_header_lines(raw) == Client._parse_header_lines(raw)


def test_the_library_still_asks_for_what_we_replace() -> None:
    assert "_parse_header_lines" in Client._process_headers.__code__.co_names
    assert "_process_msg" in Parser.parse.__code__.co_names
    assert "_remove_sub" in Subscription.unsubscribe.__code__.co_names
