"""The basis of a plan: counted rows, a random sample, and estimates for the other rows."""
