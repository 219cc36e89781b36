"""The pace of sending, and the circuit breaker for outages."""
