"""One rule module: a Python file that defines Rule values and imports nothing but `schemas`.

It is run statement by statement, so that one bad rule does not hide the errors of the next.
"""

from __future__ import annotations
import __future__

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

from schemas.rule import Rule
from streams.rule_errors import RuleError, explained
from streams.topics import RULES

MAX_DOCUMENT: Final = int(RULES.config["max.message.bytes"]) // 2


@dataclass(frozen=True, slots=True)
class LoadedRule:
    """A rule and where it is written."""

    rule: Rule
    path: Path
    line: int


def load_module(path: Path, reached: Callable[[int], None]) -> tuple[list[LoadedRule], list[RuleError]]:
    """The rules of a module, and its errors. `reached` is told the line of each statement before it is run."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except OSError as error:
        return [], [RuleError(path, None, None, f"cannot be read: {error.strerror}; name a file or a folder of rule modules")]
    except SyntaxError as error:
        return [], [RuleError(path, error.lineno, None, f"is no valid Python: {error.msg}")]
    except (ValueError, RecursionError) as error:
        return [], [RuleError(path, None, None, f"is no valid Python: {error}")]
    errors = list(_foreign_imports(path, tree))
    return ([], errors) if errors else _run(path, tree, reached)


def _foreign_imports(path: Path, tree: ast.Module) -> Iterator[RuleError]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        else:
            continue
        for name in names:
            if name != "__future__" and name.split(".")[0] != "schemas":
                message = f"imports {name}, and a rule module imports from schemas only, so that it says the same everywhere"
                remedy = "remove the import; fields, measures and conditions come from schemas.rule"
                yield RuleError(path, node.lineno, None, f"{message}; {remedy}")


def _run(path: Path, tree: ast.Module, reached: Callable[[int], None]) -> tuple[list[LoadedRule], list[RuleError]]:
    module = ModuleType(f"tocsin_rules.{path.stem}_{abs(hash(path.resolve())):x}")
    module.__file__ = str(path)
    rules: list[LoadedRule] = []
    errors: list[RuleError] = []
    seen: set[int] = set()
    failed: set[str] = set()
    for statement in tree.body:
        reached(statement.lineno)
        try:
            exec(_compiled(path, tree, statement), module.__dict__)  # noqa: S102 - rule modules are code of whoever deploys
        except BaseException as error:  # noqa: BLE001 - whatever a rule module raises is reported to its author
            if not (isinstance(error, NameError) and error.name in failed):
                errors += explained(path, statement, error, module.__dict__)
        else:
            for rule in _rules_in(module.__dict__.values()):
                if id(rule) not in seen:
                    seen.add(id(rule))
                    rules.append(LoadedRule(rule, path, statement.lineno))
            continue
        failed |= _names_made(statement)
    errors += [error for loaded in rules for error in _unfit(loaded)]
    return rules, errors


def _compiled(path: Path, tree: ast.Module, statement: ast.stmt) -> CodeType:
    postponed = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    flags = __future__.annotations.compiler_flag if postponed else 0
    code: CodeType = compile(ast.Module([statement], type_ignores=[]), str(path), "exec", flags, dont_inherit=True)
    return code


def _names_made(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _rules_in(values: Iterable[Any]) -> Iterator[Rule]:
    for value in list(values):
        if isinstance(value, Rule):
            yield value
        elif isinstance(value, list | tuple):
            yield from _rules_in(value)
        elif isinstance(value, dict) and "__builtins__" not in value:
            yield from (rule for rule in value.values() if isinstance(rule, Rule))


def _unfit(loaded: LoadedRule) -> Iterator[RuleError]:
    """A rule crosses to the workers as JSON: it must come back the same, and fit a record."""
    text, name = loaded.rule.model_dump_json(), loaded.rule.name
    if Rule.model_validate_json(text).revision != loaded.rule.revision:
        yield RuleError(
            loaded.path, loaded.line, None, f"rule '{name}' changes when it is stored: a fault of tocsin, to be reported"
        )
    if len(text.encode()) > MAX_DOCUMENT:
        message = f"rule '{name}' is larger than {MAX_DOCUMENT} bytes; split its selection into several rules"
        yield RuleError(loaded.path, loaded.line, "select", message)
