"""One target under atheris, in a process of its own: libFuzzer's options follow the name of the target."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["schemas", "streams"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    name, *options = sys.argv[1:]
    atheris.Setup([name, *options], TARGETS[name])
    atheris.Fuzz()
