"""Rule modules run apart, since they are programs: one that loops, allocates, prints or ends its process harms only itself.

A process with nothing of the environment of its parent imports what all modules need, and makes a process of its own for
each of them, with bounds on time and memory: `python -m streams.rule_process` reads paths as JSON and writes a line for each.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from schemas.rule import Rule
from streams.rule_errors import RuleError
from streams.rule_module import LoadedRule, load_module

MAX_SECONDS: Final = 10
MAX_MEMORY: Final = 1 << 30
"""Bytes of addresses; the interpreter and what a rule module imports take a quarter of it."""
MAX_WRITTEN: Final = 64 << 20
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "TMPDIR")
_START_WITHIN: Final = 60
_REMEDY: Final = "a rule module only defines rules"

Loaded = tuple[list[LoadedRule], list[RuleError]]


def load_apart(files: Sequence[Path], seconds: int = MAX_SECONDS) -> Iterator[tuple[Path, Loaded]]:
    """The rules and the errors of each of `files`, in order. Each may take `seconds`."""
    if not files:
        return
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    done = subprocess.run(  # noqa: S603 - this module
        [sys.executable, "-m", __name__],
        input=json.dumps([seconds, *map(str, files)]),
        env=environment | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=_START_WITHIN + 2 * seconds * len(files),
    )
    lines = done.stdout.splitlines()
    if len(lines) != len(files):
        raise RuntimeError(f"the process that runs rule modules ended with status {done.returncode}")
    for file, text in zip(files, lines, strict=True):
        said = json.loads(text)
        rules = [LoadedRule(Rule.model_validate(rule), file, line) for rule, line in said["rules"]]
        yield file, (rules, [RuleError(file, *error) for error in said["errors"]])


def main() -> None:
    """Load the modules whose paths stand in a JSON array on standard input, after the seconds that each may take."""
    seconds, *files = json.load(sys.stdin)
    for file in files:
        sys.stdout.write(json.dumps(_apart(Path(file), seconds)) + "\n")
        sys.stdout.flush()


def _apart(file: Path, seconds: int) -> Mapping[str, Any]:
    """What a process of its own makes of `file`; where it does not end well, where it was and what became of it."""
    said = os.memfd_create("rules", 0)
    child = os.fork()
    if child == 0:
        try:
            _be_the_child(file, said, seconds)
        finally:
            os._exit(1)
    process = os.pidfd_open(child)
    try:
        in_time = bool(select.select([process], [], [], seconds)[0])
    finally:
        for end in (os.killpg, os.kill):  # its group are those that it started
            with contextlib.suppress(ProcessLookupError):
                end(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(process)
    with os.fdopen(said, "rb") as written:
        written.seek(0)
        lines = written.read(MAX_WRITTEN).splitlines()
    last = json.loads(lines[-1]) if lines else {}
    if "rules" in last and status == 0:
        return dict(last)
    return {"rules": [], "errors": [[last.get("line"), None, _ended(in_time, status, seconds)]]}


def _ended(in_time: bool, status: int, seconds: int) -> str:
    if not in_time or status == -signal.SIGXCPU:
        return f"does not end within {seconds} s; {_REMEDY}, so take out the loop"
    if status < 0:
        return f"ended its process by {signal.Signals(-status).name}; {_REMEDY}"
    return f"ended its process with exit status {status}; {_REMEDY}"


def _be_the_child(file: Path, said: int, seconds: int) -> None:
    """Load `file`, write what it says, and end."""
    own = os.getpid()
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    for kind, limit in (
        (resource.RLIMIT_AS, MAX_MEMORY),
        (resource.RLIMIT_FSIZE, MAX_WRITTEN),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))

    def say(what: Mapping[str, Any]) -> None:
        os.write(said, json.dumps(what).encode() + b"\n")

    rules, errors = load_module(file, lambda line: say({"line": line}))
    if os.getpid() == own:  # a module may have forked
        say(
            {
                "rules": [(loaded.rule.document(), loaded.line) for loaded in rules],
                "errors": [(error.line, error.field, error.message) for error in errors],
            }
        )
    os._exit(0)


if __name__ == "__main__":
    main()
