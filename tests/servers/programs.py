"""Programs that the servers need: found on the path, installed by apt where root allows, or named in a clear error."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from typing import Final

PACKAGES: Final = {
    "docker-compose": "docker-compose",
    "faketime": "faketime",
    "java": "default-jre-headless",
    "kcat": "kcat",
    "mvn": "maven",
    "redis-server": "redis-server",
}
"""Debian packages by the program that each brings."""


class MissingProgramError(RuntimeError):
    """A program is neither there nor installable; says what to install."""


def require(*programs: str) -> None:
    """Make sure that `programs` are on the path; raises MissingProgramError where they cannot be."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    packages = [PACKAGES[program] for program in missing]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        _install(tuple(packages))
        missing = [program for program in missing if shutil.which(program) is None]
    if missing:
        raise MissingProgramError(
            f"{', '.join(missing)} not found: install the Debian packages {' '.join(PACKAGES[program] for program in missing)} "
            "(apt-get install ...), or run as root where apt is, and they are installed by themselves"
        )


@functools.cache
def _install(packages: tuple[str, ...]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    print(f"installing {' '.join(packages)} by apt", flush=True)
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]):
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if done.returncode:
            text = done.stdout.decode(errors="replace")[-2000:]
            raise MissingProgramError(f"`{' '.join(command)}` failed with status {done.returncode}:\n{text}")
