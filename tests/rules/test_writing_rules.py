"""What docs/writing-rules.md shows works, and what it calls an error is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from schemas import rule as vocabulary
from schemas.rule import Rule
from schemas.time import duration_text
from streams.rule_modules import load_rules
from streams.testing import ExamplesFailed, check_examples, load_examples

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "writing-rules.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
ERRORS = [
    tuple(cell.strip().strip("`").replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:3])
    for line in PAGE.partition("## Errors")[2].splitlines()
    if line.startswith("| `")
]


@pytest.mark.parametrize("text", PYTHON[:-1])
def test_the_modules_load(text: str, tmp_path: Path) -> None:
    (tmp_path / "shown.py").write_text(text, encoding="utf-8")
    loaded = load_rules([tmp_path])
    assert not loaded.errors
    assert loaded.rules


def test_the_first_rule_is_the_one_that_is_shipped() -> None:
    assert PYTHON[0] in (ROOT / "rules" / "tool_error_rate.py").read_text(encoding="utf-8")


def test_the_test_passes() -> None:
    exec(PYTHON[-1], {})


def test_the_examples_pass_and_fail_as_shown(tmp_path: Path) -> None:
    (rule,) = (each.rule for each in load_rules([ROOT / "rules" / "tool_error_rate.py"]).rules)
    (shown,) = (text for kind, text in BLOCKS if kind == "jsonl")
    (failure,) = (text for kind, text in BLOCKS if kind == "text")
    file = tmp_path / "tool_error_rate.examples.jsonl"
    file.write_text(shown, encoding="utf-8")
    assert len(load_examples(file)) == 2
    check_examples(rule, file)
    file.write_text(shown.replace("6m40s", "6m"), encoding="utf-8")
    with pytest.raises(ExamplesFailed) as raised:
        check_examples(rule, file)
    lines = str(raised.value).replace(str(file), "rules/tool_error_rate.examples.jsonl").splitlines()
    for line in failure.splitlines():
        assert any(found.startswith(line.removesuffix("...")) for found in lines), line


@pytest.mark.parametrize(("written", "said"), ERRORS)
def test_errors(written: str, said: str) -> None:
    with pytest.raises((ValueError, TypeError)) as raised:
        eval(written, vars(vocabulary))
    assert said in str(raised.value)


def test_everything_that_rules_may_import_is_described() -> None:
    assert [name for name in vocabulary.__all__ if not re.search(rf"\b{name}\b", PAGE)] == ["Ruleset"]
    fields = PAGE.partition("## Fields of a rule")[2].partition("\n## ")[0]
    assert not [name for name in Rule.model_fields if f"`{name}`" not in fields and name != "levels"]


def test_defaults_are_those_of_the_rule() -> None:
    rule = Rule(name="x", measure=vocabulary.count(), over="12m", high=vocabulary.above(1), summary="x")
    assert duration_text(rule.every) == "1m"
    assert rule.no_data_after == rule.over + rule.keep_firing_for
    for name in ("hold_for", "keep_firing_for", "cooldown"):
        assert re.search(rf'^\| `{name}` .*\| `"{duration_text(getattr(rule, name))}"` \|$', PAGE, re.MULTILINE)
