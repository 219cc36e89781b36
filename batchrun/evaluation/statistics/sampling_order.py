"""The sending order: a seeded random permutation of rows, of clusters, or in proportion to the strata.

The rows sent under a cap are then the beginning of a random order, whatever the rows cost. If the input has
grown, sent rows stay sent. Their order is the same as before, for rows and clusters; new ones fall between
them at random, and are sent first if they fall before the cut, so that the sample is the beginning of the
order again. Among strata the order within each is the
same as before, and the strata take turns by their new sizes.
"""

import heapq
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from batchrun.rows.ordering import group_place_of, key_of, sort_key

Positions = npt.NDArray[np.int64]


class Groups(NamedTuple):
    """The cluster or stratum of each row.

    `codes` holds an index into `names` for each row, or -1 where the cell is null. 4 bytes a row.
    """

    codes: npt.NDArray[np.int32]
    names: list[str]


def groups_of(values: Iterable[object]) -> Groups:
    """Returns the groups of a column's cells, distinguished by their text: 1 and "1" are one group."""
    known: dict[str, int] = {}
    codes = (-1 if value is None else known.setdefault(str(value), len(known)) for value in values)
    return Groups(np.fromiter(codes, np.int32), list(known))


def row_places(rows: Iterable[int], seed: int) -> npt.NDArray[np.uint64]:
    """Returns the place of each row, by its index in the input: ascending places are the sending order."""
    key = key_of(seed)
    return np.fromiter((sort_key(int(row), key) for row in rows), np.uint64)


def random_order(rows: Iterable[int], seed: int) -> Positions:
    """Returns the positions in `rows` in sending order. 8 bytes a row, 16 while it sorts."""
    return _sorted_by(row_places(rows, seed))


def cluster_order(rows: Iterable[int], clusters: Groups, seed: int) -> Positions:
    """Positions in `rows`: clusters in random order, and each one's rows together, in random order.

    A row whose cluster is null is a cluster of its own. 8 bytes a row, 25 while it sorts.
    """
    places = row_places(rows, seed)
    group_places = _group_places(clusters, seed)
    alone = clusters.codes < 0
    if not group_places.size:
        return _sorted_by(places)
    of_cluster = np.where(alone, places, group_places[clusters.codes])
    return np.lexsort((places, clusters.codes, of_cluster)).astype(np.int64, copy=False)


def stratified_order(rows: Iterable[int], strata: Groups, seed: int) -> Positions:
    """Positions in `rows`, random within each stratum, such that every beginning is in proportion.

    Among the first n of N rows a stratum of N_h rows has n N_h / N of them, give or take less than
    one. Null cells make up a stratum. 8 bytes a row, 32 while it sorts.
    """
    codes = np.where(strata.codes < 0, len(strata.names), strata.codes)
    sizes = np.bincount(codes, minlength=len(strata.names) + 1)
    by_stratum = np.lexsort((row_places(rows, seed), codes))
    ranks = [*_group_places(strata, seed).tolist(), 0]
    next_of = np.cumsum(sizes) - sizes
    order = np.empty(codes.size, np.int64)
    turns = _turns(sizes.tolist(), ranks)
    for stratum, slots in _slots_of(turns, sizes):
        first = next_of[stratum]
        order[slots] = by_stratum[first : first + sizes[stratum]]
    return order


def _sorted_by(places: npt.NDArray[np.uint64]) -> Positions:
    return np.argsort(places, kind="stable").astype(np.int64, copy=False)


def _group_places(groups: Groups, seed: int) -> npt.NDArray[np.uint64]:
    key = key_of(seed)
    return np.array([group_place_of(name, key) for name in groups.names], np.uint64)


def _turns(sizes: list[int], ranks: list[int]) -> npt.NDArray[np.int32]:
    """Returns which stratum has its turn in each slot: the earliest deadline first.

    The k-th row of a stratum (from 0) may come from slot floor(k N / N_h) on and must have come by slot
    ceil((k + 1) N / N_h) - 1. Such windows can always be kept (Baruah et al. 1996, "Proportionate
    progress", for one processor), and then no stratum is ever a whole row ahead or behind.
    """
    total = sum(sizes)
    turns = np.empty(total, np.int32)
    waiting = [(0, stratum) for stratum, size in enumerate(sizes) if size]
    ready: list[tuple[int, int, int]] = []
    done = [0] * len(sizes)
    for slot in range(total):
        while waiting and waiting[0][0] <= slot:
            _, stratum = heapq.heappop(waiting)
            deadline = -(-(done[stratum] + 1) * total // sizes[stratum]) - 1
            heapq.heappush(ready, (deadline, ranks[stratum], stratum))
        stratum = heapq.heappop(ready)[2]
        turns[slot] = stratum
        done[stratum] += 1
        if done[stratum] < sizes[stratum]:
            heapq.heappush(waiting, (done[stratum] * total // sizes[stratum], stratum))
    return turns


def _slots_of(
    turns: npt.NDArray[np.int32], sizes: npt.NDArray[np.int64]
) -> Iterable[tuple[int, npt.NDArray[np.int64]]]:
    """Returns for each stratum the slots in which it has its turn, ascending."""
    slots = np.argsort(turns, kind="stable")
    ends = np.cumsum(sizes)
    for stratum in np.flatnonzero(sizes).tolist():
        yield stratum, slots[ends[stratum] - sizes[stratum] : ends[stratum]]
