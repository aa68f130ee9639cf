#!/bin/sh
# Makes .venv with every locked dependency and this project in it. PYTHON names the interpreter to use.
set -eu
cd "$(dirname "$0")/.."

usable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; }

python=
for candidate in ${PYTHON:-python3.12 python3.11 python3}; do
    if usable "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "setup: no Python 3.11 or 3.12 among: ${PYTHON:-python3.12 python3.11 python3}." >&2
    echo "setup: install one (Debian: python3 and python3-venv) or name it: make setup PYTHON=/path/to/python3.12" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    echo "setup: $python cannot make virtual environments; on Debian install the package python3-venv," >&2
    echo "setup: or name another Python 3.11 or 3.12: make setup PYTHON=/path/to/python3.12" >&2
    exit 1
fi

echo "setup: .venv with $("$python" --version 2>&1)"
rm -rf .venv
"$python" -m venv .venv

# uv first, alone and by its locked hash: it installs the rest many times faster. Where there is no uv for this machine, pip does it.
awk '/^[^ #]/ { file = /^uv==/ ? "uv" : "rest" } file { print >".venv/" file ".lock" }' requirements.lock
if .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r .venv/uv.lock 2>.venv/uv.log; then
    .venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock
    .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
else
    echo "setup: uv cannot be had here, installing with pip (slower)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r .venv/rest.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
fi
touch .venv/ready
