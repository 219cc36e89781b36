"""Evaluations: sampling of rows, early stopping, and estimates for all rows.

Uses numpy and scipy; imported only for evaluations and samples.
"""
