"""A stand-in for the provider on loopback: the whole of `POST /v1/messages`, with a bill, limits and faults.

It speaks the wire only and shares no code with the rest of batchrun, so that neither can hide the other's
mistakes.
"""

from batchrun.sandbox.errors import SettingsError
from batchrun.sandbox.server import Sandbox, background, serve
from batchrun.sandbox.settings import Settings

__all__ = ["Sandbox", "Settings", "SettingsError", "background", "serve"]
