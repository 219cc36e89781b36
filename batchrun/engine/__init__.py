"""The engine: decides which request is sent next, at what pace and under which budget."""
