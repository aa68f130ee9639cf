"""Hostile rule modules: each harms only itself, and is told by file, line and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.rule_process import load_apart

GOOD = "from schemas.rule import Rule, absence\nquiet = Rule(name='quiet', condition=absence(for_='4s', every='2s'))\n"
LOOPING = "does not end within 1 s; a rule module only defines rules, so take out the loop"


@pytest.mark.parametrize(
    ("hostile", "expected"),
    [
        ("while True:\n    pass", f"2: {LOOPING}"),
        ("__import__('time').sleep(60)", f"2: {LOOPING}"),
        ("__import__('signal').signal(15, 1)\n__import__('time').sleep(60)", f"3: {LOOPING}"),
        ("import schemas.rule\nx = bytearray(2 << 30)", "3: MemoryError: ; a rule module only defines rules"),
        ("raise KeyboardInterrupt", "2: KeyboardInterrupt: ; a rule module only defines rules"),
        ("raise SystemExit(0)", "2: SystemExit: 0; a rule module only defines rules"),
        ("__import__('os')._exit(0)", "2: ended its process with exit status 0; a rule module only defines rules"),
        ("__import__('os').abort()", "2: ended its process by SIGABRT; a rule module only defines rules"),
        ("__import__('ctypes').string_at(0)", "2: ended its process by SIGSEGV; a rule module only defines rules"),
    ],
)
def test_a_hostile_module_does_not_hide_the_others(tmp_path: Path, hostile: str, expected: str) -> None:
    bad, good = tmp_path / "bad.py", tmp_path / "good.py"
    bad.write_text(f"before = 1\n{hostile}\n")
    good.write_text(GOOD)
    loaded = dict(load_apart([bad, good], seconds=1))
    assert [str(error) for error in loaded[bad][1]] == [f"{bad}:{expected}"]
    assert [each.rule.name for each in loaded[good][0]] == ["quiet"]


@pytest.mark.parametrize(
    "harmless",
    [
        "print('x' * 100_000)",
        "__import__('os').write(1, b'no JSON' * 1000)",
        "child = __import__('os').fork()",
        "__import__('subprocess').Popen(['sleep', '60'])",
        "__import__('sys').stdin.read()",
    ],
)
def test_a_module_that_prints_or_forks_is_loaded_as_it_is(tmp_path: Path, harmless: str) -> None:
    path = tmp_path / "rules.py"
    path.write_text(GOOD + harmless)
    ((_, (rules, errors)),) = load_apart([path], seconds=5)
    assert ([each.rule.name for each in rules], errors) == (["quiet"], [])


def test_a_module_sees_nothing_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_CONTROL_KEY", "a secret")
    path = tmp_path / "rules.py"
    path.write_text("text = open('/proc/self/environ').read() + str(dict(__import__('os').environ))\nraise ValueError(text)")
    ((_, (_, (error,))),) = load_apart([path], seconds=5)
    assert "PYTHONPATH" in error.message
    assert "secret" not in error.message
