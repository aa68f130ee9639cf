"""How many cases hypothesis tries: HYPOTHESIS_PROFILE=long tries 10,000 of each property, and others each time."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("ci", max_examples=400, derandomize=True, deadline=None, database=None, suppress_health_check=SLOW)
settings.register_profile("long", max_examples=10_000, deadline=None, print_blob=True, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
