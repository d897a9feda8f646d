#!/usr/bin/env bash
# Sees a training through: launches the command where none is running, looks at it every --poll
# seconds, and when the TPU has been taken away deletes what is left of it, creates it again, sets
# it up and launches the same command, which takes the run up from its last checkpoint. Ends when
# the command has ended well on every worker, or says which worker failed.
#
#   bash scripts/tpu_vm/resume.sh -- finetune --config configs/phi3_mini.py
#
# The checkpoints must outlive the TPU, so the run folder lies in the bucket, below runs/.
#
# resume:
#   -- WORDS           the opengrok command, as it was given to launch.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
ACCEPTS="--"
parse "$@"
[ "${#WORDS[@]}" -gt 0 ] || fail "resume what? give the command after --, see --help"
need_type
need_bucket

trap 'exit 130' INT TERM # else a child that takes Ctrl-C for itself would be tried again

ATTEMPTS=10    # to create the TPU, before it is given up
OUT_OF_REACH=5 # looks in a row at a TPU that is said to be READY and lets nobody in

# What all workers do together, in ANSWER: running, done, none, failed, or unreachable.
ask_workers() { # ASSUMED
  local assumed="$1" said
  if [ -n "$TPU_DRY_RUN" ]; then
    worker all state
    ANSWER="$assumed"
    return
  fi
  if ! said="$(worker all state 2>&1)"; then
    ANSWER="unreachable" FOUND="$said"
    return
  fi
  FOUND="$(grep '^worker ' <<<"$said" || true)"
  if grep -Eq ': exited ([1-9]|lost)' <<<"$FOUND"; then
    ANSWER="failed"
  elif grep -q ': running' <<<"$FOUND"; then
    ANSWER="running"
  elif grep -q ': none' <<<"$FOUND"; then
    ANSWER="none"
  elif grep -q ': exited 0' <<<"$FOUND"; then
    ANSWER="done"
  else
    ANSWER="unreachable" FOUND="$said"
  fi
}

# Every step begins anew what is half there; `set -e` plays no part within a condition, hence &&.
create_again() {
  if [ "$TPU_SPOT" = yes ] && [ "$state" = GONE ]; then
    ask_queue SUSPENDED
    case "$ANSWER" in # a place in the queue is kept
      ACCEPTED | CREATING | PROVISIONING | WAITING_FOR_RESOURCES) ;;
      *) bash "$HERE/delete.sh" --yes || return ;;
    esac
  else
    bash "$HERE/delete.sh" --yes || return
  fi
  bash "$HERE/create.sh" && bash "$HERE/setup.sh" && bash "$HERE/launch.sh" -- "${WORDS[@]}"
}

failed=0 unreachable=0
assumed=PREEMPTED # a dry run shows what one preemption leads to
while true; do
  ask_tpu "$assumed"
  state="$ANSWER" assumed=READY
  case "$state" in
    READY)
      ask_workers "done"
      [ "$ANSWER" = failed ] || failed=0
      [ "$ANSWER" = unreachable ] || unreachable=0
      case "$ANSWER" in
        done)
          tell "the command has ended on every worker; delete the TPU: scripts/tpu_vm/delete.sh"
          exit 0
          ;;
        none) bash "$HERE/launch.sh" -- "${WORDS[@]}" ;;
        failed) # a preemption looks like this for a moment: failed twice is failed
          failed=$((failed + 1))
          if [ "$failed" -gt 1 ]; then
            tell "the command failed; scripts/tpu_vm/logs.sh --worker all shows what it said"
            fail "$(tr '\n' ';' <<<"$FOUND" | sed 's/;$//; s/;/; /g')" 1
          fi
          ;;
        unreachable)
          unreachable=$((unreachable + 1))
          [ "$unreachable" -lt "$OUT_OF_REACH" ] ||
            fail "$TPU_NAME is READY, but cannot be reached or is not set up: $(tail -n 1 <<<"$FOUND")" 1
          ;;
      esac
      ;;
    PREEMPTED | TERMINATED | STOPPED | SUSPENDED | GONE)
      tell "the TPU is $state; creating it again"
      attempts=1
      until create_again; do
        [ "$attempts" -lt "$ATTEMPTS" ] ||
          fail "$TPU_NAME could not be created in $ATTEMPTS attempts; see above" 1
        attempts=$((attempts + 1))
        tell "trying again"
        pause
      done
      ;;
    *) tell "the TPU is $state" ;;
  esac
  pause
done
