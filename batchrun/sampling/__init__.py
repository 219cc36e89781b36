"""Runs as samples: which rows are asked in which order, when enough is known, what that says of all rows.

It uses numpy and scipy, and is imported by evaluations and samples alone.
"""
