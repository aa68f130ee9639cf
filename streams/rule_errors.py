"""What is wrong with a rule module, said to its author: file, line, field and remedy."""

from __future__ import annotations

import ast
import builtins
import difflib
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from schemas import rule as vocabulary
from schemas.condition import SEVERITIES
from schemas.rule import Rule

_FIELDS: Final = (*Rule.model_fields, *SEVERITIES, "condition", "severity")


@dataclass(frozen=True, slots=True)
class RuleError:
    """What is wrong with a rule module, and what to do. `line` and `field` may be unknown."""

    path: Path
    line: int | None
    field: str | None
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"


def explained(path: Path, statement: ast.stmt, error: BaseException, names: Mapping[str, Any]) -> Iterator[RuleError]:
    """What `error`, raised by a statement of the module at `path`, means. `names` are those that the module has by then."""
    line = _line(path, statement, error)
    words = _keywords(statement, line)
    match error:
        case ValidationError(title="Rule"):
            yield from _invalid_rule(path, line, words, error)
        case ValidationError():
            for detail in error.errors():
                message = _message(detail, error.title)
                field = _argument(words, line, message)
                name = detail["loc"][-1] if detail["loc"] else None
                yield RuleError(path, line, field, f"{name}: {message}" if name else message)
        case ImportError():
            wanted = re.match(r"cannot import name '(\w+)'", error.msg)
            message = f"{error.name} has no {wanted[1]!r}{_meant(wanted[1], vocabulary.__all__)}" if wanted else error.msg
            yield RuleError(path, line, None, message)
        case NameError():
            yield RuleError(path, line, None, str(error) + _known(error.name or "", names))
        case ValueError() | TypeError():
            yield RuleError(path, line, _argument(words, line, str(error)), str(error))
        case _:
            yield RuleError(path, line, None, f"{type(error).__name__}: {error}; a rule module only defines rules")


def _invalid_rule(path: Path, line: int, words: Mapping[str, ast.expr], error: ValidationError) -> Iterator[RuleError]:
    details = error.errors()
    in_levels = [detail for detail in details if detail["loc"][:1] == ("levels",) and len(detail["loc"]) > 1]
    for detail in details:
        if in_levels and detail["loc"] == ("levels",):
            continue  # that no level is left follows from the others
        message = _message(detail, error.title)
        field = str(detail["loc"][0]) if detail["loc"] else _argument(words, None, message)
        if detail in in_levels:
            field = _severity(detail["loc"][1], words) or field
        at = words[field].lineno if field and field in words else line
        yield RuleError(path, at, field, message)


def _line(path: Path, statement: ast.stmt, error: BaseException) -> int:
    """The line of the module that was being run when `error` was raised."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines and lines[-1] else statement.lineno


def _keywords(statement: ast.stmt, line: int) -> dict[str, ast.expr]:
    """The arguments by name of the innermost `Rule(...)` around `line`."""
    calls = [
        node
        for node in ast.walk(statement)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == Rule.__name__
        and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    return {word.arg: word.value for word in calls[-1].keywords if word.arg} if calls else {}


def _argument(words: Mapping[str, ast.expr], line: int | None, message: str) -> str | None:
    """The argument that a message without a field is about: one that it names or quotes, else the only one on `line`."""
    there = {
        name: value for name, value in words.items() if line is None or value.lineno <= line <= (value.end_lineno or value.lineno)
    }
    for name in there:
        if message.startswith((f"{name}=", f"{name}:", f"{name} ")):
            return name
    for name, value in there.items():
        constants = (node.value for node in ast.walk(value) if isinstance(node, ast.Constant))
        if any(repr(constant) in message for constant in constants):
            return name
    return next(iter(there)) if line is not None and len(there) == 1 else None


def _severity(at: str | int, words: Iterable[str]) -> str | None:
    """The severity that stands in the call for the level at this place."""
    written = [name for name in SEVERITIES if name in words]
    return written[at] if isinstance(at, int) and at < len(written) else None


def _message(detail: ErrorDetails, title: str) -> str:
    name = str(detail["loc"][-1]) if detail["loc"] else ""
    match detail["type"]:
        case "missing":
            return f"is missing; give {name}=..."
        case "extra_forbidden" if title == Rule.__name__:
            return "there is no such field" + (_meant(name, _FIELDS) or f"; a rule has {', '.join(_FIELDS)}")
        case "value_error":
            return detail["msg"].removeprefix("Value error, ")
    given = repr(detail["input"])
    return f"{detail['msg'][0].lower()}{detail['msg'][1:]}, and it is {given if len(given) <= 80 else given[:77] + '...'}"


def _known(name: str, names: Iterable[str]) -> str:
    if name in vocabulary.__all__:
        return f"; add it to the import: from schemas.rule import {name}"
    return _meant(name, [*names, *vocabulary.__all__, *dir(builtins)])


def _meant(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
