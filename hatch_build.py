"""Compiles streams/native: whenever the distribution is built or installed, and alone by `python hatch_build.py`.

The compiler is a wheel among what the build requires, so no other is needed. The library uses nothing of the system, not even
its C library.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE: Final = Path(__file__).parent / "streams" / "native"
LIBRARY: Final = NATIVE / "libtocsin.so"
TARGETS: Final = {
    ("Linux", "x86_64"): ("x86_64-linux-gnu.2.17", "manylinux_2_17_x86_64"),
    ("Linux", "aarch64"): ("aarch64-linux-gnu.2.17", "manylinux_2_17_aarch64"),
    ("Darwin", "x86_64"): ("x86_64-macos.11.0", "macosx_11_0_x86_64"),
    ("Darwin", "arm64"): ("aarch64-macos.11.0", "macosx_11_0_arm64"),
}
"""For each machine what the compiler calls it, and what a wheel does."""


def compile_library() -> str:
    """Compile for this machine; returns the wheel's name of it. Raises RuntimeError where that is not one of TARGETS."""
    machine = platform.system(), platform.machine()
    if machine not in TARGETS:
        raise RuntimeError(f"tocsin is not built for {' '.join(machine)}; add it to TARGETS in {__file__}")
    target, wheel = TARGETS[machine]
    with tempfile.TemporaryDirectory(prefix="tocsin-zig-") as folder:
        made = Path(folder, LIBRARY.name)
        # Bounds and overflows stay checked: telemetry is whatever somebody sends.
        command = [
            sys.executable, "-m", "ziglang", "build-lib", "-dynamic", "-O", "ReleaseSafe", "-fstrip", "-target", target,
            "--cache-dir", folder, f"-femit-bin={made}", str(NATIVE / "native.zig"),
        ]  # fmt: skip
        subprocess.run(command, check=True)  # noqa: S603 - the compiler
        # As one step, since a worker may be loading the one that is replaced.
        beside = LIBRARY.with_suffix(f".{os.getpid()}")
        beside.write_bytes(made.read_bytes())
        beside.chmod(0o755)
        beside.replace(LIBRARY)
    return wheel


class NativeBuildHook(BuildHookInterface[Any]):
    """Puts the library into the wheel, or beside its sources where the project is installed to be edited."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - one way for every version
        """See BuildHookInterface."""
        build_data["tag"] = f"py3-none-{compile_library()}"
        build_data["pure_python"] = False
        build_data["artifacts"].append(str(LIBRARY.relative_to(self.root)))


if __name__ == "__main__":
    compile_library()
