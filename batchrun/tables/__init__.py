"""The formats of tables, and where they lie. `reader` and `writer` are the way in."""
