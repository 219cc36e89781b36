"""Statistics: intervals, confidence sequences, orders of sampling, forecasts. No I/O."""
