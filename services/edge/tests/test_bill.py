"""The bill: totals of workers that come and go, added up once."""

import pytest

from trunkline.edge.bill import Bill
from trunkline.proto.ids import Epoch
from trunkline.proto.messages import Used

pytestmark = pytest.mark.unit


def used(stage="brain", epoch=1, usd=0.25, **more):
    return Used(stage=stage, epoch=Epoch(epoch), provider="acme", model="mind", usd=usd, **more)


def test_a_total_replaces_the_one_before_and_comes_twice_without_harm():
    bill = Bill(None)
    for usd in (0.25, 0.5, 0.5):
        bill.take(used(usd=usd))
    assert bill.usd == 0.5


def test_a_worker_that_takes_over_begins_at_nought_and_the_first_ones_total_stays():
    bill = Bill(None)
    bill.take(used(epoch=1, usd=0.5, output_tokens=10))
    bill.take(used(epoch=2, usd=0.25, output_tokens=5))
    fact = bill.fact()
    assert (fact.usd, fact.complete) == (0.75, True)
    (item,) = fact.items
    assert (item.usd, item.output_tokens) == (0.75, 15)


def test_what_is_not_priced_makes_the_bill_incomplete_not_free():
    bill = Bill(None)
    bill.take(used(usd=0.0, priced=False))
    assert not bill.fact().complete


def test_a_lost_worker_may_have_used_more_than_it_told():
    bill = Bill(None)
    bill.take(used())
    bill.complete = False
    assert not bill.fact().complete


def test_the_cap_is_reached_by_all_stages_together():
    bill = Bill(1.0)
    bill.take(used(stage="stt", usd=0.5))
    assert not bill.exceeded
    bill.take(used(stage="tts", usd=0.5))
    assert bill.exceeded


def test_a_call_without_providers_has_no_bill():
    assert Bill(1.0).fact() is None
