"""Whether every planted bug still has its place, and its test: `make prove`, which sees them caught, is long."""

from __future__ import annotations

import pytest

from tests.prove.__main__ import ROOT
from tests.prove.bugs import BUGS, Bug


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_it_can_be_planted(bug: Bug) -> None:
    assert (ROOT / bug.file).read_text(encoding="utf-8").count(bug.old) == 1
    assert bug.new != bug.old
    file, *_, name = bug.test.split("::")
    assert name == file or f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8")


def test_no_two_have_one_name() -> None:
    names = [bug.name for bug in BUGS]
    assert len(names) == len(set(names))
