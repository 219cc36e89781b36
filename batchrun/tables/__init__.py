"""The formats of tables, and where they lie. `batchrun.reader` and `batchrun.writer` are the way in."""
