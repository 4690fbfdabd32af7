# Sourced by the scripts beside it: makes .venv, and installs what is asked for when the project's metadata changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=""
for candidate in python3 python3.13 python3.12 python3.11; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || { echo "batcher needs Python 3.11 or newer" >&2; exit 1; }

# install EXTRAS: an editable install with these extras, in the versions that scripts/requirements.lock has of what it names,
# once for each state of that file and of pyproject.toml.
install() {
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  local stamp want
  stamp=.venv/installed$1
  want=$(cksum pyproject.toml scripts/requirements.lock)
  if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
    echo "installing into .venv (a minute, once) ..." >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c scripts/requirements.lock -e ".$1" >&2
    printf '%s' "$want" >"$stamp"
  fi
}
