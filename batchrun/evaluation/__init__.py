"""What a sample of scored rows says about all: scores, the order of asking, intervals, early stopping.

Pure decisions: no module in here reads, writes or waits. All but `places` use numpy and scipy, and
are imported by evaluations alone.
"""
