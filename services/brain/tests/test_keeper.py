"""What is kept of a call while the store is away, slow, or somebody else's."""

import asyncio

import pytest

from trunkline.brain.keeper import Deposed, Keeper
from trunkline.brain.snapshot import Kept, Snapshot, decode, encode
from trunkline.bus import BusUnavailable, Outdated, Stored
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.unit


class Shelf:
    """A store in memory."""

    def __init__(self):
        self.held, self.revision, self.away = None, 0, False
        self.before_put = lambda: None

    def write(self, epoch, snapshot=None):
        self.held = encode(Kept(epoch=epoch, snapshot=snapshot))
        self.revision += 1

    async def get(self, key):
        del key
        if self.away:
            raise BusUnavailable("away")
        return None if self.held is None else Stored(self.held, self.revision)

    async def put(self, key, data, revision):
        del key
        self.before_put()
        if self.away:
            raise BusUnavailable("away")
        if revision != (self.revision if self.held is not None else 0):
            raise Outdated("somebody else")
        self.held = data
        self.revision += 1
        return self.revision

    async def delete(self, key):
        del key
        self.held = None


def keeper_of(shelf, epoch, told=None):
    return Keeper(shelf, "call", epoch, lambda: told.append("deposed") if told is not None else None)


def test_whoever_takes_over_fences_the_one_before():
    async def story():
        shelf, told = Shelf(), []
        first, second = keeper_of(shelf, 1, told), keeper_of(shelf, 2)
        first.keep(Snapshot(turn=4))
        assert await first.flush(PATIENCE_S)
        assert (await second.take_over()).turn == 4
        assert decode(shelf.held).epoch == 2
        first.keep(Snapshot(turn=5))
        assert not await first.flush(PATIENCE_S)
        assert first.deposed
        assert told == ["deposed"]
        assert decode(shelf.held).snapshot.turn == 4
        await first.aclose()
        await second.aclose()

    asyncio.run(story())


def test_a_call_kept_in_a_higher_epoch_is_not_taken():
    async def story():
        shelf = Shelf()
        shelf.write(5)
        with pytest.raises(Deposed, match="epoch 5"):
            await keeper_of(shelf, 4).take_over()

    asyncio.run(story())


def test_a_write_between_reading_and_fencing_is_read_again():
    async def story():
        shelf = Shelf()
        shelf.write(1, Snapshot(turn=1))
        late = iter([Snapshot(turn=2)])

        def write_once():
            for snapshot in late:
                shelf.write(1, snapshot)

        shelf.before_put = write_once
        keeper = keeper_of(shelf, 2)
        assert (await keeper.take_over()).turn == 2
        await keeper.aclose()

    asyncio.run(story())


def test_somebody_who_never_stops_writing_keeps_the_call():
    async def story():
        shelf = Shelf()
        shelf.write(1)
        shelf.before_put = lambda: shelf.write(1)
        with pytest.raises(Deposed):
            await keeper_of(shelf, 2).take_over()

    asyncio.run(story())


def test_what_cannot_be_read_is_written_over():
    async def story():
        shelf = Shelf()
        shelf.held, shelf.revision = b"{not json", 7
        keeper = keeper_of(shelf, 2)
        assert await keeper.take_over() is None
        assert decode(shelf.held).epoch == 2
        await keeper.aclose()

    asyncio.run(story())


def test_a_call_goes_on_unkept_while_the_store_is_away_and_is_kept_when_it_is_back():
    async def story():
        shelf = Shelf()
        shelf.write(1, Snapshot(turn=1))
        shelf.away = True
        keeper = keeper_of(shelf, 2)
        assert await keeper.take_over() is None
        keeper.keep(Snapshot(turn=9))
        assert not await keeper.flush(0.01)
        shelf.away = False
        await until(lambda: (kept := decode(shelf.held)).epoch == 2 and kept.snapshot.turn == 9)
        await keeper.aclose()

    asyncio.run(story())


def test_whoever_learns_late_that_the_call_is_anothers_is_deposed():
    async def story():
        shelf, told = Shelf(), []
        shelf.away = True
        keeper = keeper_of(shelf, 2, told)
        await keeper.take_over()
        keeper.keep(Snapshot(turn=9))
        shelf.write(3)
        shelf.away = False
        await until(lambda: told)
        assert decode(shelf.held).epoch == 3
        await keeper.aclose()

    asyncio.run(story())


def test_nothing_is_deleted_of_a_call_that_was_never_kept():
    async def story():
        shelf = Shelf()
        shelf.write(1)
        await keeper_of(shelf, 1).forget()
        assert shelf.held is not None

    asyncio.run(story())
