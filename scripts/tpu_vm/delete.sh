#!/usr/bin/env bash
# Deletes the TPU, and with --spot the request for it; asks first. The bucket stays as it is.
#
#   bash scripts/tpu_vm/delete.sh
#
# delete:
#   --yes              does not ask
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
ACCEPTS="--yes"
parse "$@"

if [ -z "$YES$TPU_DRY_RUN" ]; then
  printf 'Delete the TPU %s in %s, with all that is on its disks? [y/N] ' "$TPU_NAME" "$TPU_ZONE" >&2
  read -r answer || answer=""
  case "$answer" in
    y | Y | yes) ;;
    *) fail "nothing was deleted; --yes does not ask" 1 ;;
  esac
fi
if [ "$TPU_SPOT" = yes ]; then
  ask_queue ACTIVE
  if [ "$ANSWER" = GONE ]; then
    tell "there is no request for $TPU_NAME"
  else
    queue delete "$TPU_NAME" --force --quiet
  fi
else
  ask_tpu READY
  if [ "$ANSWER" = GONE ]; then
    tell "there is no $TPU_NAME"
  else
    tpu delete "$TPU_NAME" --quiet
  fi
fi
