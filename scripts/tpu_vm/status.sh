#!/usr/bin/env bash
# Says how the TPU is, and on a ready one what each worker does: none, running, or exited N.
#
#   bash scripts/tpu_vm/status.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"

if [ "$TPU_SPOT" = yes ]; then
  ask_queue ACTIVE
  printf 'request %s: %s\n' "$TPU_NAME" "$ANSWER" >&2
fi
ask_tpu READY
printf 'TPU %s: %s\n' "$TPU_NAME" "$ANSWER" >&2
[ "$ANSWER" != READY ] || worker all state
