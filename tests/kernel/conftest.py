"""The ways to fold a log, and how many cases hypothesis tries: HYPOTHESIS_PROFILE=long tries 10,000 of each property."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings

from tests.kernel.drawing import Fold
from tests.kernel.folds import MAX_GROUPS, Outcome, Plan, by_kernel, by_oracle
from tests.kernel.log import Record

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("ci", max_examples=400, derandomize=True, deadline=None, database=None, suppress_health_check=SLOW)
settings.register_profile("long", max_examples=10_000, deadline=None, print_blob=True, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(params=["by definition", "at once", "by record", "restored"])
def fold(request: pytest.FixtureRequest) -> Fold:
    """Folds records: by the oracle, and by the kernel in one chunk, record by record, and restored after every one."""

    def folded(records: Sequence[Record], max_groups: int = MAX_GROUPS) -> Outcome:
        if request.param == "by definition":
            return by_oracle(records, max_groups)
        each = (1,) * len(records)
        plans = {"at once": Plan(), "by record": Plan(each), "restored": Plan(each, restored=frozenset(range(len(records))))}
        return by_kernel(records, plans[request.param], max_groups)[0]

    return folded
