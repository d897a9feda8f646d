# Sourced by demo.sh and test.sh: makes .venv and installs the package with the extras given.
# A stamp remembers what was installed, so the second call costs nothing.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

install() {
  local extras="$1" stamp python wanted
  stamp=".venv/.installed-$(tr ',' '-' <<<"$extras")"
  if [ ! -x .venv/bin/python ]; then
    python="${PYTHON:-python3}"
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Set PYTHON=..." >&2
      exit 2
    fi
    "$python" -m venv .venv
  fi
  wanted="$(cat pyproject.toml scripts/constraints.txt | cksum)"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing opengrok-jax[$extras] into .venv (a few minutes the first time) ..." >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      --constraint scripts/constraints.txt --editable ".[$extras]"
    echo "$wanted" >"$stamp"
  fi
}
