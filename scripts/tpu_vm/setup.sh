#!/usr/bin/env bash
# Copies this checkout to every worker, installs it with jax[tpu], and mounts
# the bucket there: opengrok-jax/bucket is the bucket, opengrok-jax/runs its folder runs.
#
# No key or token is sent: training needs none, and the bucket is opened by the TPU's own service
# account, which must be allowed to (roles/storage.objectUser on the bucket).
#
#   bash scripts/tpu_vm/setup.sh --bucket my-bucket
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
need_bucket

package="$ROOT/build/tpu_vm/package.tar.gz"
run mkdir -p "$(dirname "$package")"
run tar -C "$ROOT" --exclude __pycache__ -czf "$package" \
  opengrok_jax configs scripts pyproject.toml README.md LICENSE
tpu scp "$package" "$TPU_NAME:opengrok-jax.tar.gz" --worker all
tpu ssh "$TPU_NAME" --worker all \
  --command "mkdir -p $REMOTE && tar -xzf opengrok-jax.tar.gz -C $REMOTE"
worker all setup "$TPU_BUCKET"
tell "next: scripts/tpu_vm/launch.sh -- finetune --config ..."
