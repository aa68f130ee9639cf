"""What a part of the benchmark found: figures with their goals, tables beside them, and the files that hold both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, Self


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure is held against."""

    bound: Literal["at most", "at least"]
    limit: float

    def is_met(self, value: float) -> bool:
        """Whether `value` is on the right side of the limit."""
        return value <= self.limit if self.bound == "at most" else value >= self.limit

    def __str__(self) -> str:
        return f"{self.bound} {shown(self.limit)}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number: its name (unique within the part), the median of `runs`, its unit, and where there is one, its goal.

    `peer` names the peer of the same run for figures that are ratios to it.
    """

    name: str
    value: float
    unit: str
    runs: tuple[float, ...] = ()
    goal: Goal | None = None
    peer: str | None = None

    @classmethod
    def of(cls, name: str, runs: Sequence[float], unit: str, goal: Goal | None = None) -> Self:
        """The median of several runs."""
        return cls(name, median(runs), unit, tuple(runs), goal)

    @property
    def verdict(self) -> str:
        """`reached`, `MISSED`, or nothing where there is no goal."""
        if self.goal is None:
            return ""
        return "reached" if self.goal.is_met(self.value) else "MISSED"

    @property
    def range(self) -> str:
        """The least and the largest of several runs."""
        return f"{shown(min(self.runs))} to {shown(max(self.runs))}" if len(self.runs) > 1 else ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, ready to be printed."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [self.columns, tuple("---" for _ in self.columns), *self.rows]
        return "\n".join([f"**{self.title}**", "", *("| " + " | ".join(cells) + " |" for cells in lines)])


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the benchmark: `notes` are sentences on how to read it, `pictures` are files beside RESULTS.md."""

    name: str
    title: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The part as a section."""
        sections = [f"## {self.title}"]
        if self.figures:
            sections.append(_table_of(self.figures).markdown())
        sections += [table.markdown() for table in self.tables]
        sections += [f"![{self.title}]({picture})" for picture in self.pictures]
        sections += self.notes
        return "\n\n".join(sections) + "\n"

    def save(self, path: Path) -> None:
        """Write the part as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """The part that `save` wrote."""
        held: dict[str, Any] = json.loads(path.read_text())
        figures = tuple(
            Figure(**one | {"runs": tuple(one["runs"]), "goal": None if one["goal"] is None else Goal(**one["goal"])})
            for one in held["figures"]
        )
        tables = tuple(
            Table(one["title"], tuple(one["columns"]), tuple(tuple(row) for row in one["rows"])) for one in held["tables"]
        )
        return cls(held["name"], held["title"], figures, tables, tuple(held["notes"]), tuple(held["pictures"]))


def finish(part: Part, to: str | None) -> int:
    """Print the part, write it as JSON where asked, and return the exit status: 0, a missed goal is told, not an error."""
    print(part.markdown(), flush=True)
    if to is not None:
        part.save(Path(to))
    return 0


def shown(value: float) -> str:
    """A number as tables show it: three significant digits, thousands with commas."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _table_of(figures: Sequence[Figure]) -> Table:
    rows = tuple(
        (one.name, shown(one.value), one.unit, one.range, "" if one.goal is None else str(one.goal), one.verdict)
        for one in figures
    )
    return Table("Figures", ("figure", "median", "unit", "range", "goal", ""), rows)
