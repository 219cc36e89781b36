"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# On a busy machine a first draw takes seconds: in a fresh clone Hypothesis makes its table of characters.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")
