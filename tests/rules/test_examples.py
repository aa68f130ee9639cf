"""Every rule that is shipped does what its examples say, and its examples notice when it is changed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from schemas.rule import Rule
from streams.rule_modules import load_rules
from streams.testing import check_examples, examples_path, failing_examples, load_examples
from tests.rules.mutants import mutants

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "rules"
SECTIONS = ["Meaning", "When it fires", "What to do", "How to silence or tune"]

_LOADED = load_rules([FOLDER])
RULES = [pytest.param(loaded.rule, id=loaded.rule.name) for loaded in _LOADED.rules]
MUTANTS = [
    pytest.param(loaded.rule, mutant, id=f"{loaded.rule.name}: {change}")
    for loaded in _LOADED.rules
    for change, mutant in mutants(loaded.rule)
]


def test_ten_rules_or_more_load() -> None:
    assert not _LOADED.errors
    assert len(RULES) >= 10


def test_a_module_holds_one_rule_of_its_name() -> None:
    assert [loaded.path.stem for loaded in _LOADED.rules] == [loaded.rule.name.replace("-", "_") for loaded in _LOADED.rules]


@pytest.mark.parametrize("rule", RULES)
def test_examples(rule: Rule) -> None:
    check_examples(rule, examples_path(rule, FOLDER))


@pytest.mark.parametrize("rule", RULES)
def test_some_example_fires_and_resolves_and_some_is_silent(rule: Rule) -> None:
    expected = [[each["status"] for each in example.expect] for example in load_examples(examples_path(rule, FOLDER))]
    assert any(statuses[:1] == ["firing"] and "resolved" in statuses for statuses in expected)
    assert [] in expected


@pytest.mark.parametrize(("rule", "mutant"), MUTANTS)
def test_a_changed_rule_fails_its_examples(rule: Rule, mutant: Rule) -> None:
    assert next(failing_examples(mutant, examples_path(rule, FOLDER)), None) is not None


@pytest.mark.parametrize("rule", RULES)
def test_page(rule: Rule) -> None:
    assert rule.runbook == f"docs/rules/{rule.name}.md"
    text = (ROOT / rule.runbook).read_text(encoding="utf-8")
    assert text.startswith(f"# {rule.name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert all(part.strip() for part in re.split(r"^#.*$", text, flags=re.MULTILINE)[1:])


@pytest.mark.parametrize("rule", RULES)
def test_page_tells_the_thresholds(rule: Rule) -> None:
    text = (ROOT / rule.runbook).read_text(encoding="utf-8")
    for when in (level.when for level in rule.levels):
        forms = {f"{when.value:g}", f"{when.value:.2f}", f"{when.value:,.0f}"}
        assert any(re.search(rf"{when.comparison} {re.escape(form)}(?!\.?\d)", text) for form in forms), when
        assert not when.at_least or f"at least {when.at_least} " in text


def test_every_page_and_every_examples_file_is_of_a_rule() -> None:
    names = {loaded.rule.name for loaded in _LOADED.rules}
    assert {path.stem for path in (ROOT / "docs" / "rules").glob("*.md")} == names
    assert set(FOLDER.glob("*.jsonl")) == {examples_path(loaded.rule, FOLDER) for loaded in _LOADED.rules}
