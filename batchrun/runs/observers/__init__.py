"""Observers of a run: the counts, the terminal, the event log."""
