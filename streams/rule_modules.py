"""Loading rule modules: the files of folders, each apart, as one set of rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.rule import MAX_RULES, Ruleset
from streams.rule_errors import RuleError
from streams.rule_module import LoadedRule
from streams.rule_process import load_apart

_SKIPPED: Final = ("_examples.py", "_test.py", "conftest.py")


@dataclass(frozen=True, slots=True)
class LoadedRules:
    """The rules of the modules, in the order of files and lines, and the errors. With errors, rules are missing."""

    rules: tuple[LoadedRule, ...]
    errors: tuple[RuleError, ...]

    def ruleset(self) -> Ruleset:
        """The rules as a set. To be asked for where there are no errors."""
        return Ruleset(rules=tuple(loaded.rule for loaded in self.rules))


def load_rules(paths: Iterable[Path]) -> LoadedRules:
    """The rules of files and folders.

    Of a folder every `*.py` counts that begins with neither `_` nor `test_` and does not end in `_examples.py`.
    """
    rules: list[LoadedRule] = []
    errors: list[RuleError] = []
    wanted: dict[Path, Path] = {}
    for path in paths:
        files = _modules(path) if path.is_dir() else [path]
        if not files:
            errors.append(RuleError(path, None, None, "holds no rule modules; put a *.py file that defines a Rule into it"))
        for file in files:
            wanted.setdefault(file.resolve(), file)
    for file, (found, wrong) in load_apart(list(wanted.values())):
        rules += found
        errors += wrong
        if not found and not wrong:
            message = "defines no rule; write `name = Rule(...)`, or begin the name of the file with '_'"
            errors.append(RuleError(file, None, None, message))
    errors += _duplicates(rules)
    if len(rules) > MAX_RULES:
        message = f"a ruleset holds at most {MAX_RULES} rules, and with this file it is {len(rules)}; merge or remove some"
        errors.append(RuleError(rules[-1].path, None, None, message))
    return LoadedRules(tuple(rules), tuple(errors))


def _modules(folder: Path) -> list[Path]:
    return sorted(
        file for file in folder.glob("*.py") if not file.name.startswith(("_", "test_")) and not file.name.endswith(_SKIPPED)
    )


def _duplicates(rules: Sequence[LoadedRule]) -> Iterator[RuleError]:
    first: dict[str, LoadedRule] = {}
    for loaded in rules:
        name = loaded.rule.name
        other = first.setdefault(name, loaded)
        if other is not loaded:
            message = f"{name!r} is taken by the rule at {other.path}:{other.line}; names are used once, so rename one of them"
            yield RuleError(loaded.path, loaded.line, "name", message)
