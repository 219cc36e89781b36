"""Reads a valid label from an answer's text, or returns the exact reason why there is none. No I/O."""
