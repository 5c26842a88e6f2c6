"""What every test runs under: one hypothesis profile, the same for a person and for CI."""

from hypothesis import HealthCheck, settings

# No deadline: on shared cores a slow example is a matter of luck, and luck must not fail a build.
# A person and CI see the same examples, so that a red build can be repeated at once.
settings.register_profile(
    "farthing",
    deadline=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("farthing")
