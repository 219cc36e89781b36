"""Measurements of what docs/guarantees.md promises. `python -m proofs.prove` runs them all."""
