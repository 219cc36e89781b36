"""The wire: requests out, answers and failures in."""
