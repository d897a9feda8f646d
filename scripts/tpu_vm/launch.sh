#!/usr/bin/env bash
# Starts one opengrok command on every worker; it goes on when you log out. The workers find each
# other by themselves. --upload copies a folder of here into the bucket first, under the same path:
# the run folder that `opengrok mask` has finished, a folder of weights.
#
#   bash scripts/tpu_vm/launch.sh --upload runs/phi3-mini -- finetune --config configs/phi3_mini.py
#
# launch:
#   --upload FOLDER    relative, like runs/phi3-mini; may be repeated
#   -- WORDS           the opengrok command
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
ACCEPTS="--upload --"
parse "$@"
[ "${#WORDS[@]}" -gt 0 ] || fail "launch what? give the command after --, see --help"

for folder in ${UPLOADS[@]+"${UPLOADS[@]}"}; do
  folder="${folder%/}"
  need_bucket
  case "/$folder/" in
    //* | */../* | */./*) fail "--upload is $folder; expected a path below this folder, like runs/demo" ;;
  esac
  [ -n "$TPU_DRY_RUN" ] || [ -d "$folder" ] || fail "--upload is $folder; there is no such folder here"
  run gcloud storage rsync "$folder" "gs://$TPU_BUCKET/$folder" --recursive --project "$TPU_PROJECT"
done
worker all launch "${WORDS[@]}"
tell "next: scripts/tpu_vm/logs.sh to watch, scripts/tpu_vm/resume.sh to outlive preemptions"
