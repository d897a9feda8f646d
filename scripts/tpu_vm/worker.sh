#!/usr/bin/env bash
# What the other scripts do on each of the TPU's machines; runs there, not on your laptop.
#
#   worker.sh setup BUCKET    installs the package beside this script and mounts the bucket
#   worker.sh launch WORDS    starts `opengrok WORDS` in the background
#   worker.sh state           prints "worker HOST: none", ".. running" or ".. exited STATUS"
#   worker.sh logs            follows what the command says
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
job="$PWD/.job" # pid, status, log of the last command

state() {
  if [ ! -f "$job/pid" ]; then
    printf 'none'
  elif [ -f "$job/status" ]; then
    printf 'exited %s' "$(cat "$job/status")"
  elif kill -0 "$(cat "$job/pid")" 2>/dev/null; then
    printf 'running'
  else
    printf 'exited lost'
  fi
}

setup() {
  local mount="$PWD/bucket"
  # The images have Python 3.10; uv brings a newer one, and needs no rights for it.
  python3 -m pip install --user --quiet uv
  [ -x .venv/bin/python ] || python3 -m uv venv --quiet --python 3.12 .venv
  python3 -m uv pip install --quiet --python .venv/bin/python \
    --constraint scripts/constraints.txt '.[train,hub,tensorboard]' 'jax[tpu]'
  if ! command -v gcsfuse >/dev/null; then # https://cloud.google.com/storage/docs/cloud-storage-fuse/install
    curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg |
      sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null
    printf 'deb [signed-by=/usr/share/keyrings/cloud.google.asc] %s gcsfuse-%s main\n' \
      https://packages.cloud.google.com/apt "$(lsb_release -cs)" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    sudo apt-get -qq update
    sudo apt-get -qq install -y gcsfuse >/dev/null
  fi
  mkdir -p "$mount"
  # Nothing about files is remembered: what one worker writes the others must see at once.
  mountpoint -q "$mount" || gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 "$1" "$mount"
  check_renaming "$mount" "$1"
  mkdir -p "$mount/runs"
  ln -sfn bucket/runs runs
  printf 'worker %s: ready\n' "$(hostname)"
}

# A checkpoint counts from the moment its folder is renamed; buckets without folders cannot do that.
check_renaming() {
  local probe
  probe="$(mktemp -d "$1/.probe-XXXXXX")"
  mkdir "$probe/before" && printf 'x' >"$probe/before/file"
  if ! mv "$probe/before" "$probe/after"; then
    printf 'worker %s: the bucket %s cannot rename folders, which checkpoints need; %s\n' \
      "$(hostname)" "$2" "create one with --enable-hierarchical-namespace" >&2
    exit 1
  fi
  rm -r "$probe"
}

launch() {
  if [ "$(state)" = running ]; then
    printf 'worker %s: a command is running already\n' "$(hostname)" >&2
    exit 1
  fi
  rm -rf "$job"
  mkdir -p "$job"
  # shellcheck disable=SC2016  # the inner bash is to expand it
  nohup setsid bash -c '"$@"; echo "$?" >"$0"' "$job/status" .venv/bin/opengrok "$@" \
    >"$job/log" 2>&1 </dev/null &
  printf '%s\n' "$!" >"$job/pid"
  printf 'worker %s: launched\n' "$(hostname)"
}

verb="${1:-}"
shift || true
case "$verb" in
  setup | launch) "$verb" "$@" ;;
  state) printf 'worker %s: %s\n' "$(hostname)" "$(state)" ;;
  logs) exec tail -n 100 -F "$job/log" ;;
  *) printf 'worker.sh: expected setup, launch, state or logs\n' >&2 && exit 2 ;;
esac
