"""The version, for whoever sends it, shows it or writes it down."""

__version__ = "0.1.0"
