"""What the rest of a job needs after a stop at a cap."""

from collections.abc import Mapping

from batchrun.errors import EXIT_BUDGET
from batchrun.journal import Totals
from batchrun.stops import Stop, amount_text


def rest_text(stop: Stop | None, rows: Mapping[str, int], life: Totals) -> str:
    """Returns how much more would finish the pending rows, as a sentence; empty if it isn't known.

    A row is taken to cost what the answered rows have cost on average, in the unit of the cap, else in USD:
    their length is not known without rendering them, as a plan does. The last one
    has to reserve its worst case, taken as that of the row that did not fit, and what the cap has left is
    there already. Before the first answer only a single row's need is known.
    """
    if stop is None or stop.exit_code != EXIT_BUDGET or not rows["pending"]:
        return ""
    pending, answered = rows["pending"], rows["ok"] + rows["invalid"] - rows["shared"]
    lack = None if stop.lack is None or stop.lack.unit == "rows" else stop.lack
    unit = "nano_usd" if lack is None else lack.unit
    spent = getattr(life.spend.committed, unit)
    if answered > 0 and spent:
        a_row = spent / answered
        more = pending * a_row
        if lack is not None:
            more += max(0.0, lack.needed - a_row) - max(0, lack.left)
        about = amount_text(unit, max(1, round(more)))
        return f"About {about} more would finish the job, if the other rows are like the answered ones."
    if lack is None or pending > 1:
        return ""
    most = lack.needed - max(0, lack.left)
    return f"At most {amount_text(unit, most)} more would finish the job."
