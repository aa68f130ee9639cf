"""The command line as a user meets it, as far as no server is needed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from streams.cli import COMMANDS
from streams.settings import Settings, variable
from tests.commands.running import invoke


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_every_command_and_a_sequence(option: str) -> None:
    result = invoke(option)
    assert result.exit_code == 0
    for name, summary in COMMANDS.items():
        assert f"  {name} " in result.stdout
        assert summary in result.stdout
    assert "tocsin deploy rules/" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_examples(name: str) -> None:
    result = invoke(name, "-h")
    assert result.exit_code == 0
    examples = result.stdout.split("Examples:")[1]
    assert f"tocsin {name}" in examples


def test_run_help_lists_every_setting_with_its_default() -> None:
    lines = [line.strip() for line in invoke("run", "--help").stdout.splitlines()]
    for item in fields(Settings):
        default = f"  [{item.default}]" if item.default else ""
        assert f"{variable(item.name)}{default}" in lines
        assert item.metadata["help"] in lines


def test_version() -> None:
    assert invoke("--version").stdout.startswith("tocsin")


def test_help_imports_no_client() -> None:
    code = (
        "import sys\nfrom streams.cli import main\ntry:\n    main(['-h'])\nexcept SystemExit:\n"
        "    sys.exit(bool({'aiokafka', 'faust', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_an_unknown_setting_ends_with_2_and_one_line() -> None:
    result = invoke("alerts", env={"TOCSIN_BOOTSTRAP": "kafka:9092"})
    assert result.exit_code == 2
    assert result.stderr == "Error: unknown setting TOCSIN_BOOTSTRAP; `tocsin run --help` lists them all\n"


@pytest.mark.parametrize(
    "arguments",
    [("topics",), ("publish",), ("alerts",), ("alerts", "--follow"), ("deploy", "examples.py")],
    ids=" ".join,
)
def test_a_missing_broker_is_one_message_with_the_address(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples.py").write_text(
        "from schemas.rule import Rule, above, count\n"
        "one = Rule(name='one', measure=count(), over='1m', warning=above(1), summary='x')\n"
    )
    result = invoke(*arguments, env={"TOCSIN_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, stdin="")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no Kafka broker answers at 127.0.0.1:1 ")
    assert "TOCSIN_BOOTSTRAP_SERVERS" in result.stderr
    assert "Traceback" not in result.output


def test_certificates_that_cannot_be_read_end_with_2(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("no certificate")
    result = invoke("alerts", env={"TOCSIN_KAFKA_SECURITY_PROTOCOL": "SSL", "TOCSIN_KAFKA_CA": str(authority)})
    assert result.exit_code == 2
    assert "TOCSIN_KAFKA_CA" in result.stderr


def test_demo_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    result = invoke("demo")
    assert result.exit_code == 1
    assert "install tocsin[demo]" in result.stderr


def test_run_and_demo_hand_on_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    worker, demo = ModuleType("worker"), ModuleType("demo")

    def run_demo(**asked: object) -> int:
        called.append(asked)
        return 3

    monkeypatch.setattr(worker, "run", lambda settings, **asked: called.append((settings.group, asked)), raising=False)
    monkeypatch.setattr(demo, "run_demo", run_demo, raising=False)
    for package, module in (("streams.runtime", worker), ("streams", demo)):
        monkeypatch.setitem(sys.modules, f"{package}.{module.__name__}", module)
        monkeypatch.setattr(importlib.import_module(package), module.__name__, module, raising=False)
    assert invoke("run", "--only", "engine", "--log-format", "json", env={"TOCSIN_GROUP": "mine"}).exit_code == 0
    assert invoke("demo", "--stay").exit_code == 3
    assert called == [("mine", {"only": "engine", "log_format": "json"}), {"stay": True}]


def test_check_warns_of_channels_that_nothing_serves(tmp_path: Path) -> None:
    module = tmp_path / "paged.py"
    module.write_text(
        "from schemas.rule import Rule, above, count, event\n"
        'paged = Rule(name="paged", select=event.kind == "operation", by=("tenant", "service"), measure=count(), over="1m",\n'
        '    every="5s", critical=above(9), summary="many", channels=("log", "pager", "webhook"))\n'
    )
    result = invoke("check", str(module))
    assert result.exit_code == 0, result.output
    assert result.stderr.count("warning:") == 2
    assert "no channel 'pager'" in result.stderr
    served = invoke("check", str(module), env={"TOCSIN_WEBHOOK_URL": "https://hooks.example/1"})
    assert "webhook" not in served.stderr.replace("log, webhook", "")
