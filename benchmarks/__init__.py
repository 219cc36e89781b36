"""Measures what a row costs, and compares it with other ways to send the same requests. Start: `make bench`."""
