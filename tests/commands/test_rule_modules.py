"""Rule modules: what is loaded, and what each mistake is told as."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from schemas.expression import words
from streams.rule_modules import load_rules
from tests.commands.running import invoke

A_NAME = "a name is made of lower-case words joined by '-', at most 64 characters, like 'tool-error-rate'"
GOOD = """
from schemas.rule import Rule, above, below, count, event, ratio

{name} = Rule(
    name="{name}",
    measure=ratio(event.outcome == "tool_error"),
    over="10m",
    warning=above(0.2),
    summary="x",
)
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(dedent(text))
    return folder


def errors(folder: Path, text: str) -> list[str]:
    loaded = load_rules([write(folder, module=text)])
    assert not any(error.path != folder / "module.py" for error in loaded.errors)
    return [str(error).replace(f"{folder}/", "") for error in loaded.errors]


def test_rules_come_with_file_and_line(tmp_path: Path) -> None:
    write(tmp_path, b=GOOD.format(name="two"), a=GOOD.format(name="one"))
    write(tmp_path, _shared="x = 1", a_examples="1/0", test_a="1/0")
    before = set(sys.modules), list(sys.path)
    loaded = load_rules([tmp_path])
    assert not loaded.errors
    assert [(each.rule.name, each.path.name, each.line) for each in loaded.rules] == [("one", "a.py", 4), ("two", "b.py", 4)]
    assert (set(sys.modules), sys.path) == before


def test_a_file_named_twice_is_loaded_once(tmp_path: Path) -> None:
    write(tmp_path, a=GOOD.format(name="one"))
    loaded = load_rules([tmp_path, tmp_path / "a.py"])
    assert len(loaded.rules) == 1
    assert not loaded.errors


def test_rules_in_lists_and_dicts_count(tmp_path: Path) -> None:
    text = """
    from schemas.rule import Rule, above, count
    def make(name):
        return Rule(name=name, measure=count(), over="1m", warning=above(1), summary="x")
    several = [make("a"), make("b")]
    named = {"c": make("c")}
    same = several
    """
    loaded = load_rules([write(tmp_path, module=text)])
    assert [each.rule.name for each in loaded.rules] == ["a", "b", "c"]


def test_two_files_do_not_see_each_other(tmp_path: Path) -> None:
    write(tmp_path, a="from schemas.rule import count\nx = 1\n" + GOOD.format(name="one"), b="y = x")
    assert [str(error) for error in load_rules([tmp_path]).errors] == [f"{tmp_path}/b.py:1: name 'x' is not defined"]


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = """\
    from schemas.rule import Rule, above, event, ratio
    one = Rule(
        name="One",
        measure=ratio(event.outcome == "tool_eror"),
        over="10m",
    )
    two = Rule(
        name="Two", ovr="5m",
        measure=ratio(event.outcome == "tool_error"),
        over="10m",
        every="7s",
        warning=above(0.2),
    )
    three = Rule(
        name="three", measure=ratio(event.outcome == "tool_error"),
        over="ten minutes", warning=above(0.2), critical=above("high"), summary="x",
    )
    four = Rule(
        name="four", measure=count(), over="10m",
        warning=above(1), summary="x",
    )
    """
    assert errors(tmp_path, text) == [
        f"module.py:4: measure: event.outcome is never 'tool_eror'; it is one of {', '.join(words['outcome'])}",
        f"module.py:8: name: {A_NAME}, not 'Two'",
        "module.py:7: summary: is missing; give summary=...",
        "module.py:8: ovr: there is no such field; did you mean 'over'?",
        "module.py:16: critical: value: input should be a valid number, unable to parse string as a number, and it is 'high'",
        "module.py:19: name 'count' is not defined; add it to the import: from schemas.rule import count",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = (", "module.py:1: is no valid Python: '(' was never closed"),
        ("x = '\0'", "module.py: is no valid Python: source code string cannot contain null bytes"),
        ("x = 1", "module.py: defines no rule; write `name = Rule(...)`, or begin the name of the file with '_'"),
        ("from schemas.rule import abov", "module.py:1: schemas.rule has no 'abov'; did you mean 'above'?"),
        ("1 / 0", "module.py:1: ZeroDivisionError: division by zero; a rule module only defines rules"),
        ("raise SystemExit(3)", "module.py:1: SystemExit: 3; a rule module only defines rules"),
    ],
)
def test_what_is_no_module_of_rules(tmp_path: Path, text: str, told: str) -> None:
    assert errors(tmp_path, text) == [told]


def test_over_is_named_though_the_model_does_not_say_so(tmp_path: Path) -> None:
    text = 'from schemas.rule import *\nx = Rule(\n  name="x", measure=count(),\n  over="soon",\n  warning=above(1), summary="x")'
    assert errors(tmp_path, text) == [
        "module.py:4: over: 'soon' is no duration; write it like '500ms', '30s', '10m', '1h30m' or '14d'"
    ]


@pytest.mark.parametrize("line", ["import os", "from numpy import array", "from . import other", "import schemas_of_mine"])
def test_foreign_imports_are_refused_and_not_run(tmp_path: Path, line: str) -> None:
    (told,) = errors(tmp_path, f"def inner():\n    {line}\nraise SystemExit(inner())")
    assert told.startswith("module.py:2: imports ")
    assert "from schemas only" in told


def test_a_name_used_in_two_files_names_both(tmp_path: Path) -> None:
    write(tmp_path, a=GOOD.format(name="one"), b=GOOD.format(name="one"))
    (error,) = load_rules([tmp_path]).errors
    assert (
        str(error)
        == f"{tmp_path}/b.py:4: name: 'one' is taken by the rule at {tmp_path}/a.py:4; names are used once, so rename one of them"
    )


def test_empty_and_missing_folders_are_errors(tmp_path: Path) -> None:
    told = [str(error) for error in load_rules([tmp_path, tmp_path / "nowhere"]).errors]
    assert told[0].startswith(f"{tmp_path}: holds no rule modules")
    assert told[1].startswith(f"{tmp_path}/nowhere: cannot be read: No such file or directory")


def test_check_prints_each_rule(tmp_path: Path) -> None:
    write(tmp_path, a=GOOD.format(name="one"))
    result = invoke("check", str(tmp_path))
    assert result.exit_code == 0
    assert "ratio by tenant, service over 10m every 50s: warning above 0.2" in result.stdout
    assert f"1 rules, ruleset {load_rules([tmp_path]).ruleset().id}" in result.stdout


def test_check_prints_each_error_and_ends_with_1(tmp_path: Path) -> None:
    write(tmp_path, a="import os", b="x = (")
    result = invoke("check", str(tmp_path))
    assert result.exit_code == 1
    assert f"{tmp_path}/a.py:1: imports os" in result.stderr
    assert f"{tmp_path}/b.py:1: is no valid Python" in result.stderr
    assert result.stderr.endswith("Error: 2 errors in the rule modules\n")
