"""The job file: its tables, reading, checking."""
