"""The pace of sending, and the brake for outages."""
