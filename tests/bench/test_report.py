"""Figures are held against their goals, and come back from their file as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.report import Figure, Goal, Part, Table, shown

PART = Part(
    "speed",
    "Speed",
    (
        Figure("cost", 1.25, "µs", (1.2, 1.25, 1.4), Goal("at most", 1.2)),
        Figure("rate", 812_345, "events/s", goal=Goal("at least", 700_000)),
        Figure("ratio", 3.5, "x", peer="stock Faust"),
    ),
    (Table("Peers", ("peer", "events/s"), (("stock Faust", "4,000"),)),),
    ("A note.",),
)


def test_a_part_comes_back_from_its_file(tmp_path: Path) -> None:
    PART.save(tmp_path / "part.json")
    assert Part.load(tmp_path / "part.json") == PART


def test_goals_are_reached_or_missed() -> None:
    assert [figure.verdict for figure in PART.figures] == ["MISSED", "reached", ""]
    assert Goal("at most", 5).is_met(5)
    assert Goal("at least", 5).is_met(5)


def test_a_part_is_shown_with_everything_in_it() -> None:
    text = PART.markdown()
    assert "| cost | 1.25 | µs | 1.2 to 1.4 | at most 1.2 | MISSED |" in text
    assert "| stock Faust | 4,000 |" in text
    assert text.endswith("A note.\n")


@pytest.mark.parametrize(("values", "expected"), [([3.0], 3.0), ([1.0, 9.0, 2.0], 2.0), ([4.0, 1.0, 3.0, 2.0], 2.5)])
def test_the_median_is_in_the_middle(values: list[float], expected: float) -> None:
    assert Figure.of("time", values, "s").value == expected


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.01234, "0.0123"), (99.96, "100"), (1234567.8, "1,234,568")])
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert shown(value) == text
