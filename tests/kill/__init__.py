"""The real process, killed with SIGKILL at bad moments, and held against the sandbox's bill afterwards."""
