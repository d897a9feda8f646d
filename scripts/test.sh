#!/usr/bin/env bash
# The tests, in the same .venv as the demo. Arguments go to pytest: `bash scripts/test.sh -m slow`.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
install all,test
exec .venv/bin/python -m pytest "$@"
