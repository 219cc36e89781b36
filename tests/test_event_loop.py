"""While requests are sent, garbage is searched for rarely; afterwards it is as the program had it."""

import gc
from collections.abc import Iterator

import pytest

from batchrun.client.event_loop import garbage_searched_rarely


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize(("own", "meanwhile"), [(700, 20_000), (50_000, 50_000), (0, 0)])
def test_the_threshold_is_raised_during_the_block(own: int, meanwhile: int) -> None:
    gc.set_threshold(own, 7, 5)
    with garbage_searched_rarely():
        assert gc.get_threshold() == (meanwhile, 7, 5)
    assert gc.get_threshold() == (own, 7, 5)


def test_an_error_puts_the_threshold_back() -> None:
    gc.set_threshold(700, 7, 5)
    with pytest.raises(ConnectionError), garbage_searched_rarely():
        raise ConnectionError
    assert gc.get_threshold() == (700, 7, 5)
