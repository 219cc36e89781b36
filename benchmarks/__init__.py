"""Measures what a row costs, against other ways to send the same requests. Start: `make bench`."""
