"""The output, derived from input and journal: one row for each row of the input."""

from collections import Counter
from collections.abc import Callable, Mapping

from batchrun.job import output_path
from batchrun.journal import Journal
from batchrun.occurrences import OccurrenceCounter
from batchrun.output_columns import STATUSES, output_batch, row_values
from batchrun.prompts import Request
from batchrun.workload import Chunk, Workload
from batchrun.writer import replace_table


def write_output(
    workload: Workload, journal: Journal, metadata: Callable[[Mapping[str, int]], Mapping[str, str]]
) -> dict[str, int]:
    """Writes the output atomically; returns the counts of rows: by status, `shared` and `total`.

    `metadata` makes the file's key-value metadata of those counts. Raises StorageError, JournalError.
    """
    counts: Counter[str] = Counter(dict.fromkeys((*STATUSES, "shared", "total"), 0))
    occurrences = OccurrenceCounter()
    path = output_path(workload.job)
    with replace_table(path, workload.schema, lambda: metadata(counts)) as table:
        for chunk in workload.chunks():
            rows = _chunk_rows(chunk, journal, occurrences, counts)
            table.write(output_batch(chunk.batch, rows, workload.schema))
    return dict(counts)


def _chunk_rows(
    chunk: Chunk, journal: Journal, occurrences: OccurrenceCounter, counts: Counter[str]
) -> list[tuple[object, ...]]:
    digests = {request.digest for request in chunk.requests if isinstance(request, Request)}
    histories = journal.histories(tuple(digests))
    rows = []
    for request in chunk.requests:
        if isinstance(request, Request):
            shared = occurrences.count(request.digest) > 1
            row = row_values(histories.get(request.digest), shared)
            counts["shared"] += shared
        else:
            row = row_values(request, shared=False)
        rows.append(row)
        counts[row[0]] += 1
    counts["total"] += len(rows)
    return rows
