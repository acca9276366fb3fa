# Makes or refreshes .venv from the lock; sourced by every door. Needs Python >= 3.11 with venv, nothing else.
# Sets ROOT and PY. Prints only when it has something to do, on stderr.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
VENV="${MOORAGE_VENV:-$ROOT/.venv}"
PY="$VENV/bin/python"
export PYTHONUTF8=1 UV_PYTHON_DOWNLOADS=never

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "moorage: no Python 3.11 or newer found; install one, or name it: PYTHON=/path/to/python3 $0" >&2
  exit 3
}

stamp() { cat requirements.lock pyproject.toml | "$1" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'; }

prepare() {
  local python want lockfile
  python=$(find_python)
  want=$(stamp "$python")
  if [ -x "$PY" ] && [ "$(cat "$VENV/.moorage-lock" 2>/dev/null)" = "$want" ]; then return; fi
  echo "moorage: preparing $VENV from requirements.lock" >&2
  if [ ! -x "$PY" ]; then
    "$python" -m venv "$VENV" || {
      echo "moorage: 'python -m venv' failed; on Debian and Ubuntu install the package python3-venv" >&2
      exit 3
    }
  fi
  "$PY" -m pip --version >/dev/null 2>&1 || "$PY" -m ensurepip --upgrade >&2 # an environment made without pip
  lockfile=$(mktemp)
  # uv first, by its own hashes out of the lock; it installs the rest many times faster than pip would.
  "$PY" -c 'import re; print(re.search(r"^uv==.*?(?=^\S)", open("requirements.lock").read(), re.S | re.M).group())' >"$lockfile"
  "$PY" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$lockfile" >&2
  rm -f "$lockfile"
  "$VENV/bin/uv" pip install --quiet --python "$PY" --require-hashes --compile-bytecode -r requirements.lock >&2
  "$VENV/bin/uv" pip install --quiet --python "$PY" --no-deps --no-build-isolation -e . >&2
  # Where bytecode is not written on import, every start would compile our own code again.
  "$PY" -m compileall -q crds gateway sandbox-image sdk local operator >&2 || true
  echo "$want" >"$VENV/.moorage-lock"
}

prepare
