#!/usr/bin/env bash
# The whole pipeline on what ships with the package; ends with the path of a report.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
install all
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
exec .venv/bin/opengrok run --config configs/demo.py "$@"
