"""What a command does: run, plan, export, status, evaluate, review."""
