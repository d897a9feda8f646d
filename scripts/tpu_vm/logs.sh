#!/usr/bin/env bash
# Follows what the command says on one worker (the first tells the progress) until Ctrl-C; the
# command goes on.
#
#   bash scripts/tpu_vm/logs.sh
#
# logs:
#   --worker N|all     default 0
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
ACCEPTS="--worker"
parse "$@"
[[ "$WORKER" =~ ^([0-9]+|all)$ ]] || fail "--worker is $WORKER; expected a number from 0, or all"

worker "$WORKER" logs
