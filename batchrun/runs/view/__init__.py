"""The local page about jobs: live, with all rows."""
