"""Senders elsewhere: a run's requests go to worker processes, which send them and give the responses back."""
