#!/usr/bin/env bash
# Creates the TPU, and waits until it is there. With --spot it is asked for through the queue,
# which can take minutes or days; stopped with Ctrl-C, the same command goes on waiting.
#
#   bash scripts/tpu_vm/create.sh --project P --zone us-east5-b --type v6e-16 --spot
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
need_type

described=(--accelerator-type "$TPU_TYPE")
scopes=(--scopes "https://www.googleapis.com/auth/cloud-platform") # the bucket, among others

if [ "$TPU_SPOT" = no ]; then
  ask_tpu GONE
  case "$ANSWER" in
    GONE) tpu create "$TPU_NAME" "${described[@]}" --version "$TPU_VERSION" "${scopes[@]}" ;;
    READY) tell "$TPU_NAME is there already" ;;
    *) fail "$TPU_NAME is $ANSWER; wait, or delete it first: scripts/tpu_vm/delete.sh" 1 ;;
  esac
else
  ask_queue GONE
  if [ "$ANSWER" = GONE ]; then
    queue create "$TPU_NAME" --node-id "$TPU_NAME" "${described[@]}" \
      --runtime-version "$TPU_VERSION" --spot "${scopes[@]}"
    ask_queue ACTIVE
  fi
  last=""
  while [ "$ANSWER" != ACTIVE ]; do
    case "$ANSWER" in
      FAILED | SUSPENDING | SUSPENDED | DELETING | GONE)
        fail "the request for $TPU_NAME is $ANSWER; delete it and try again, or another zone" 1
        ;;
    esac
    [ "$ANSWER" = "$last" ] || tell "the request for $TPU_NAME is $ANSWER"
    last="$ANSWER"
    pause
    ask_queue ACTIVE
  done
fi
tell "next: scripts/tpu_vm/setup.sh"
