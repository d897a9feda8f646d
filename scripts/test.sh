#!/usr/bin/env bash
# The tests, in the same .venv as the demo. Arguments go to pytest: `bash scripts/test.sh -m slow`.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
install all,plan,test # plan: a test compiles for TPUs; all others stay on the CPU (tests/conftest.py)
exec .venv/bin/python -m pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile "$@"
