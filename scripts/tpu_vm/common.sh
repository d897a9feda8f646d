# shellcheck shell=bash
# Sourced by the scripts beside it: settings, errors, and every call of gcloud.
#
# Settings come from flags, else from the environment, else from the settings file: TPU_PROJECT,
# TPU_ZONE, TPU_NAME, TPU_TYPE, TPU_VERSION, TPU_BUCKET, TPU_SPOT (yes or no), TPU_POLL (seconds).

# shellcheck disable=SC2034  # the scripts that source this file read what seems unused here

SETTINGS="TPU_PROJECT TPU_ZONE TPU_NAME TPU_TYPE TPU_VERSION TPU_BUCKET TPU_SPOT TPU_POLL"
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(cd "$HERE/../.." && pwd)"
REMOTE="opengrok-jax" # folder in the home of every worker

SHARED_FLAGS="\
settings (each also as a line of the settings file, TPU_ZONE=us-east5-b):
  --settings FILE    default tpu_vm.env, where it exists; flags and the environment go before it
  --project NAME     TPU_PROJECT   the Google Cloud project
  --zone NAME        TPU_ZONE      where the TPU is
  --name NAME        TPU_NAME      of the TPU; default opengrok
  --type TYPE        TPU_TYPE      v4-N, v5litepod-N (v5e), v5p-N or v6e-N
  --version NAME     TPU_VERSION   runtime version; default: the plain one of the type
  --bucket NAME      TPU_BUCKET    Cloud Storage bucket of the runs, without gs://
  --spot             TPU_SPOT=yes  cheap capacity that may be taken away, through the queue
  --poll SECONDS     TPU_POLL      between two looks at a state; default 30
  --dry-run          prints every command and runs none
  --help             this text"

# Says in one line what is wrong, and ends; status 2 unless given.
fail() {
  printf 'tpu_vm: %s\n' "$1" >&2
  exit "${2:-2}"
}

tell() {
  printf 'tpu_vm: %s\n' "$*" >&2
}

# The comment at the top of a script is its help.
usage() {
  sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"
  printf '\n%s\n' "$SHARED_FLAGS"
}

# Reads flags into the settings. ACCEPTS lists what the script takes besides the shared flags:
# --yes, --upload, --worker, and -- for the words of a command (then in WORDS).
parse() {
  local file="" name
  YES="" UPLOADS=() WORKER="0" WORDS=()
  TPU_DRY_RUN="${TPU_DRY_RUN:-}"
  while [ $# -gt 0 ]; do
    case "$1" in
      --help) usage && exit 0 ;;
      --dry-run) TPU_DRY_RUN="yes" ;;
      --spot) TPU_SPOT="yes" ;;
      --settings | --project | --zone | --name | --type | --version | --bucket | --poll | --upload | --worker)
        [ $# -gt 1 ] || fail "$1 needs a value"
        case "$1" in
          --settings) file="$2" ;;
          --upload) accepts "$1" && UPLOADS+=("$2") ;;
          --worker) accepts "$1" && WORKER="$2" ;;
          *) name="$(tr '[:lower:]' '[:upper:]' <<<"${1#--}")" && printf -v "TPU_$name" '%s' "$2" ;;
        esac
        shift
        ;;
      --yes) accepts "$1" && YES="yes" ;;
      --) accepts "$1" && shift && WORDS=("$@") && break ;;
      *) fail "unknown argument $1; see --help" ;;
    esac
    shift
  done
  if [ -n "$file" ]; then
    [ -f "$file" ] || fail "there is no settings file $file"
    read_settings "$file"
  elif [ -f tpu_vm.env ]; then
    read_settings tpu_vm.env
  fi
  TPU_NAME="${TPU_NAME:-opengrok}" TPU_SPOT="${TPU_SPOT:-no}" TPU_POLL="${TPU_POLL:-30}"
  [ -n "${TPU_PROJECT:-}" ] || fail "which project? give --project, or TPU_PROJECT in tpu_vm.env"
  [ -n "${TPU_ZONE:-}" ] || fail "which zone? give --zone, or TPU_ZONE in tpu_vm.env"
  case "$TPU_SPOT" in yes | no) ;; *) fail "TPU_SPOT is $TPU_SPOT; expected yes or no" ;; esac
  [[ "$TPU_POLL" =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "--poll is $TPU_POLL; expected seconds"
  if [ -z "$TPU_DRY_RUN" ] && ! command -v gcloud >/dev/null; then
    fail "gcloud is not installed; see https://cloud.google.com/sdk/docs/install"
  fi
  export TPU_DRY_RUN
  for name in $SETTINGS; do export "${name?}"; done # for the scripts that resume.sh calls
}

accepts() {
  case " ${ACCEPTS:-} " in *" $1 "*) ;; *) fail "unknown argument $1; see --help" ;; esac
}

# NAME=value lines, blank ones and comments; read, never run.
read_settings() {
  local line key value
  while IFS= read -r line || [ -n "$line" ]; do
    [[ "$line" =~ ^[[:space:]]*(#.*)?$ ]] && continue
    key="${line%%=*}" value="${line#*=}"
    case " $SETTINGS " in
      *" $key "*) [ "$key" != "$line" ] || fail "$1: $line has no =" ;;
      *) fail "$1 has $key; it may have $SETTINGS" ;;
    esac
    [[ "$value" =~ ^\"(.*)\"$ || "$value" =~ ^\'(.*)\'$ ]] && value="${BASH_REMATCH[1]}"
    [ -n "${!key:-}" ] || printf -v "$key" '%s' "$value"
  done <"$1"
}

need_type() {
  local plain
  case "${TPU_TYPE:-}" in
    "") fail "which type of TPU? give --type, for example v5litepod-16, or TPU_TYPE in tpu_vm.env" ;;
    v5e-*) fail "--type is $TPU_TYPE; Google's name for v5e is v5litepod-N" ;;
    *7x*) fail "--type is $TPU_TYPE; TPU7x is rented through GKE or Compute Engine, not as a TPU VM" ;;
  esac
  [[ "$TPU_TYPE" =~ ^(v4|v5litepod|v5p|v6e)-[1-9][0-9]*$ ]] ||
    fail "--type is $TPU_TYPE; expected v4-N, v5litepod-N, v5p-N or v6e-N"
  case "$TPU_TYPE" in # https://cloud.google.com/tpu/docs/runtimes
    v4-*) plain="tpu-ubuntu2204-base" ;;
    v5lite*) plain="v2-alpha-tpuv5-lite" ;;
    v5p-*) plain="v2-alpha-tpuv5" ;;
    v6e-*) plain="v2-alpha-tpuv6e" ;;
  esac
  TPU_VERSION="${TPU_VERSION:-$plain}"
}

need_bucket() {
  [ -n "${TPU_BUCKET:-}" ] ||
    fail "which bucket? give --bucket, or TPU_BUCKET in tpu_vm.env; the runs live there"
  case "$TPU_BUCKET" in
    gs://* | */*) fail "--bucket is $TPU_BUCKET; expected a bucket's name without gs:// and folders" ;;
  esac
}

# ---- commands ---------------------------------------------------------------------------------

# Runs a command; in a dry run prints it, quoted so that it could be pasted.
run() {
  if [ -n "$TPU_DRY_RUN" ]; then
    printf '%q ' "$@" | sed 's/ $//'
    printf '\n'
  else
    "$@"
  fi
}

# ask ASSUMED COMMAND...: what the command prints, in ANSWER. A dry run prints the command and
# takes ASSUMED for the answer. Where the thing asked about does not exist, ANSWER is GONE.
ask() {
  local assumed="$1" errors
  shift
  if [ -n "$TPU_DRY_RUN" ]; then
    run "$@"
    ANSWER="$assumed"
    return
  fi
  errors="$(mktemp)"
  if ! ANSWER="$("$@" 2>"$errors")"; then
    if grep -qi 'NOT_FOUND\|not found' "$errors"; then
      ANSWER="GONE"
    else
      ANSWER="$(tr '\n' ' ' <"$errors")"
      rm -f "$errors"
      fail "gcloud cannot tell about $TPU_NAME: $ANSWER" 1
    fi
  fi
  rm -f "$errors"
}

pause() {
  [ -n "$TPU_DRY_RUN" ] || sleep "$TPU_POLL"
}

tpu() { # VERB ARGUMENTS...: gcloud compute tpus tpu-vm
  local verb="$1"
  shift
  run gcloud compute tpus tpu-vm "$verb" "$@" --project "$TPU_PROJECT" --zone "$TPU_ZONE"
}

queue() { # VERB ARGUMENTS...: gcloud compute tpus queued-resources
  local verb="$1"
  shift
  run gcloud compute tpus queued-resources "$verb" "$@" --project "$TPU_PROJECT" --zone "$TPU_ZONE"
}

ask_tpu() { # ASSUMED: the TPU's state, in ANSWER: READY, CREATING, PREEMPTED, .. or GONE
  ask "$1" gcloud compute tpus tpu-vm describe "$TPU_NAME" --format 'value(state)' \
    --project "$TPU_PROJECT" --zone "$TPU_ZONE"
}

ask_queue() { # ASSUMED: the request's state: ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED, .. or GONE
  ask "$1" gcloud compute tpus queued-resources describe "$TPU_NAME" \
    --format 'value(state.state)' --project "$TPU_PROJECT" --zone "$TPU_ZONE"
}

# worker NUMBER|all WORDS...: worker.sh WORDS on the TPU's machines; status as gcloud's, which is
# that of a worker that failed.
worker() {
  local which="$1" words
  shift
  words="$(printf '%q ' "$@")"
  tpu ssh "$TPU_NAME" --worker "$which" --command "bash $REMOTE/scripts/tpu_vm/worker.sh ${words% }"
}
