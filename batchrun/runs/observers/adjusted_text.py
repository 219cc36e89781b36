"""The line about new caps and limits of a run that is going on."""

from batchrun.rows.observer import RunAdjusted


def adjusted_text(event: RunAdjusted) -> str:
    """Returns such as "ann@host set budget.usd = 5 (was 2)"."""
    settings = ", ".join(
        f"{key} = {new}" + ("" if old is None else " (as before)" if old == new else f" (was {old})")
        for key, (old, new) in event.settings.items()
    )
    refused = "" if event.refused is None else f"; not taken: {event.refused}"
    return f"{event.author} set {settings}{refused}"
