"""Rows: as requests, as the journal's records, in sending order, and as columns of the output."""
