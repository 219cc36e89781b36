"""Table formats and locations. The entry points are `reader` and `writer`."""
