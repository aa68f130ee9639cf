"""Every command of the README, run in its order against real servers, in a fresh copy of the project with its own environment.

Not run here: the blocks marked `docker` (no engine; see docs/operations.md) and the commands of NOT_HERE.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.servers.kafka import KafkaServer
from tests.servers.redis import RedisServer

ROOT: Final = Path(__file__).resolve().parents[1]
NOT_HERE: Final = {
    "make demo": "tests/e2e runs it",
    "make test": "it runs this test",
    "make check": "`make test` runs it before the tests",
}
FOREVER: Final = ("tocsin run",)
WITHIN: Final = 90
LEFT_OUT: Final = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "tocsin-data")


def _blocks() -> list[tuple[str, str]]:
    """Info string and text of every fenced block, in order."""
    return re.findall(r"^```(\w[^\n]*)\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_every_block_is_of_a_known_kind() -> None:
    assert {kind for kind, _ in _blocks()} == {"sh", "sh docker", "python"}
    commands = {line for kind, text in _blocks() if kind == "sh" for line in text.splitlines()}
    assert set(NOT_HERE) <= commands
    assert set(FOREVER) <= commands


def test_every_command_of_tocsin_in_the_table_exists_in_the_blocks_or_is_the_demo() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `tocsin (\w+)", readme, re.MULTILINE))
    used = {word for kind, text in _blocks() if kind == "sh" for word in re.findall(r"\btocsin (\w+)", text)}
    assert listed - used == {"demo"}
    assert used <= listed


@pytest.mark.integration
@pytest.mark.readme
def test_every_command_runs(own_kafka: KafkaServer, own_redis: RedisServer, tmp_path: Path) -> None:
    folder = tmp_path / "tocsin"
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TOCSIN_", "VIRTUAL_ENV", "MAKE"))}
    environment |= {
        "PATH": f"{folder}/.venv/bin:{environment['PATH']}",
        "TOCSIN_BOOTSTRAP_SERVERS": own_kafka.bootstrap,
        "TOCSIN_REDIS_URL": own_redis.url,
        "TOCSIN_METRICS_PORT": "0",
    }
    ran: list[str] = []
    with _worker(folder, environment) as worker:
        for kind, text in _blocks():
            if kind == "python":
                file = folder / text.splitlines()[0].removeprefix("# ")
                assert file.parent.is_dir()
                file.write_text(text, encoding="utf-8")
            elif kind == "sh" and text.strip() in FOREVER:
                worker.start(text.strip())
            elif kind == "sh" and text.strip() not in NOT_HERE:
                ran.append(_run(text.replace("127.0.0.1:9092", own_kafka.bootstrap), folder, environment))
        worker.must_live()
    assert "files-refusals" in "".join(ran)


def _run(script: str, folder: Path, environment: dict[str, str]) -> str:
    with subprocess.Popen(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, error = process.communicate(timeout=WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the shell and what waits in it
            out, error = process.communicate()
            pytest.fail(f"not done after {WITHIN} s:\n{script}\n{out[-3000:]}\n{error[-3000:]}", pytrace=False)
    assert process.returncode == 0, f"{script}\n{out[-3000:]}\n{error[-3000:]}"
    return out


class _Worker:
    """The command of the README that goes on while the others run."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._log = folder / "worker.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: str) -> None:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command.split(), cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def must_live(self) -> None:
        assert self.process is not None
        assert self.process.poll() is None, self._log.read_text(errors="replace")[-3000:]


@contextmanager
def _worker(folder: Path, environment: dict[str, str]) -> Iterator[_Worker]:
    worker = _Worker(folder, environment)
    try:
        yield worker
    finally:
        if worker.process is not None:
            worker.process.send_signal(signal.SIGTERM)
            try:
                worker.process.wait(20)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
