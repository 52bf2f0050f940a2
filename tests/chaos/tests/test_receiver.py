"""What becomes of facts that are posted to somebody who is away for a while."""

import asyncio

import httpx
import pytest

from trunkline.chaos.receiver import Arrival, Away, Receiver, ids_in, posted
from trunkline.testing.patience import PATIENCE_S, until

from .fabricated import CALL, events

AT = {event.id: 10.0 + number for number, event in enumerate(events())}
IDS = list(AT)


def arrivals(times=AT):
    return [Arrival(t, identity, CALL) for identity, t in times.items()]


@pytest.mark.unit
class TestPosted:
    def test_a_clean_run_has_nothing_to_say(self):
        found = posted(events(), arrivals(), [])
        assert (found.facts, found.lost, found.repeated, found.out_of_order) == (len(IDS), 0, 0, 0)

    def test_what_never_came_is_lost_and_what_came_again_is_repeated(self):
        some = arrivals()[1:]
        found = posted(events(), [*some, some[-1]._replace(t=99.0)], [])
        assert (found.lost, found.repeated, found.out_of_order) == (1, 1, 0)

    def test_a_fact_behind_a_later_one_of_its_call_is_out_of_order(self):
        assert posted(events(), arrivals({**AT, IDS[0]: 50.0}), []).out_of_order == 1

    def test_catching_up_takes_until_the_last_of_what_had_gathered(self):
        away = Away(1.0, 9.0, frozenset(IDS[:2]))
        found = posted(events(), arrivals(), [away])
        assert (found.away_s, found.waiting, found.caught_up_s) == ([8.0], [2], [2.0])


@pytest.mark.integration
def test_a_receiver_that_is_away_takes_nothing_and_comes_back_at_the_same_place(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"id":"a","call":"x"}\n{"id":"b","call":"x"}\n{"id":"c","ca')

    async def story():
        receiver = Receiver()
        await receiver.start()
        url = receiver.url
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
            assert (await client.post(url, content=b'{"id":"a","call":"x"}')).status_code == 204

            async def refuses_while_away():
                away, refused = asyncio.create_task(receiver.be_away(0.3, lambda: ids_in(path))), False
                while not away.done():
                    try:
                        await client.post(url, content=b'{"id":"b","call":"x"}')
                    except httpx.HTTPError:
                        refused = True
                    await asyncio.sleep(0.01)
                return refused

            await until(refuses_while_away)
            assert receiver.away[0].waiting <= {"b"}
            assert (await client.post(url, content=b'{"id":"b","call":"x"}')).status_code == 204
        assert receiver.url == url
        await receiver.stop()
        assert receiver.arrivals[0].id == "a"
        assert {arrival.id for arrival in receiver.arrivals} == {"a", "b"}

    asyncio.run(story())
