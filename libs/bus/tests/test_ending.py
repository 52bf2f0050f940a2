import asyncio

import pytest

from trunkline.bus import ended

pytestmark = pytest.mark.unit


async def hard_of_hearing(times):
    """Lose the first `times` cancellations, as `asyncio.wait_for` of Python 3.11 may lose one."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            times -= 1
            if times < 0:
                raise


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_task_that_loses_its_cancellation_is_told_again(times):
    async def story():
        tasks = [asyncio.create_task(hard_of_hearing(times)) for _ in range(2)]
        await asyncio.sleep(0)
        await ended(*tasks)
        assert [task.cancelled() for task in tasks] == [True, True]

    asyncio.run(story())


def test_a_task_that_is_over_or_has_failed_is_no_trouble():
    async def fail():
        raise ValueError("before its end")

    async def story():
        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        await ended(task)
        await ended()
        assert isinstance(task.exception(), ValueError)

    asyncio.run(story())
