"""The endpoint's client: makes requests from rows, and reads responses and failures."""
