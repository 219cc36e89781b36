"""batchrun sends every row of a table as a prompt to `POST /v1/messages`, under a budget that holds."""

__version__ = "0.1.0"
