"""Whole runs under a virtual clock, disk, network and provider, driven by one seed.

`world` has one seed's history: runs, crashes, and the checks after every step. `process` is one run: the real
dispatcher, accounting, ledger, limiter, labelling and the journal's own transactions, without tasks and
threads. `disk`, `provider` and `clock` are what surrounds it, `books` is a second journal to compare with.
"""
