"""The way back after a connection broke."""

from typing import NamedTuple
from urllib.parse import ParseResult, urlparse

import pytest

from trunkline.bus.outage import FIRST_WAIT_S, NEXT_WAIT_S, REFUSED_S, WayBack

pytestmark = pytest.mark.unit


class Server(NamedTuple):
    uri: ParseResult


A, B, C = (Server(urlparse(f"nats://{host}:4222")) for host in "abc")


def way_back_from(server: Server) -> WayBack:
    way = WayBack()
    way.found(server.uri.netloc)
    way.lost()
    return way


def test_another_server_is_tried_first_and_soon():
    for _ in range(50):
        server, wait_s = way_back_from(A)([A, B, C], {})
        assert server is B
        assert FIRST_WAIT_S[0] <= wait_s <= FIRST_WAIT_S[1]


def test_then_every_server_has_its_turn_and_the_lost_one_comes_last():
    way = way_back_from(B)
    assert [way([A, B, C], {})[0] for _ in range(4)] == [A, C, A, B]
    for _ in range(50):
        _, wait_s = way([A, B, C], {})
        assert NEXT_WAIT_S[0] <= wait_s <= NEXT_WAIT_S[1]


def test_an_only_server_is_tried_again_and_again():
    way = way_back_from(A)
    assert [way([A], {})[0] for _ in range(3)] == [A, A, A]


def test_what_is_complained_of_again_and_again_is_said_once_per_outage():
    way = way_back_from(A)
    assert [way.is_news(text) for text in ("refused", "refused", "reset", "refused")] == [True, False, True, True]
    way.found("b:4222")
    assert way.is_news("refused")


def test_servers_that_keep_refusing_us_are_given_up():
    way = way_back_from(A)
    assert not way.is_hopeless("'Authorization Violation'", 10.0)
    assert not way.is_hopeless("'Authorization Violation'", 10.0 + REFUSED_S / 2)
    assert not way.is_hopeless("Connect call failed", 10.0 + REFUSED_S)
    assert way.is_hopeless("'Authorization Violation'", 10.0 + REFUSED_S)


def test_a_server_that_lets_us_in_again_is_forgiven():
    way = way_back_from(A)
    assert not way.is_hopeless("'Authorization Violation'", 10.0)
    way.found("a:4222")
    way.lost()
    assert not way.is_hopeless("'Authorization Violation'", 10.0 + REFUSED_S)
