"""What the demo prints: one line per happening, a table at the end, and a last line that counts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.alert import Alert

_COLOURS = {"info": "cyan", "warning": "yellow", "high": "bright_red", "critical": "bold red"}


@dataclass(slots=True)
class Seen:
    """An alert as it arrived, and its time from the deciding record, both in seconds."""

    alert: Alert
    at: float
    after: float


Row = tuple[str, Seen | None, Seen | None]
"""A fault by name, and the alerts that fired and resolved."""


@dataclass(slots=True)
class Show:
    """The live view. Lines suit a terminal and a file alike."""

    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    started: float = field(default_factory=time.monotonic)

    def say(self, text: str, style: str = "") -> None:
        """A line with the seconds since the start."""
        self.console.print(Text(f"{time.monotonic() - self.started:6.1f} s  ") + Text(text, style=style))

    def alert(self, seen: Seen) -> None:
        """An alert that has just arrived."""
        alert = seen.alert
        if alert.status == "firing":
            mark, style = f"FIRING    {alert.severity:<8}", _COLOURS[alert.severity]
        else:
            mark, style = f"RESOLVED  {alert.severity:<8}", "green"
        self.say(f"  {mark}  {alert.message}  ({alert.rule}, {seen.after * 1000:.0f} ms)", style)

    def table(self, rows: list[Row]) -> None:
        """Per fault the alert that fired and the one that resolved."""
        table = Table("fault", "fired", "resolved", "event to alert", title="what happened", title_justify="left")
        for name, fired, resolved in rows:
            table.add_row(
                name,
                f"{fired.alert.rule}: {fired.alert.severity}" if fired else "MISSING",
                f"after {resolved.at - fired.at:.1f} s" if fired and resolved else "MISSING",
                f"{fired.after * 1000:.0f} ms" if fired else "",
            )
        self.console.print(table)
