# Sourced by run_all.sh and tests/run.sh, from the repository's root, with the name of a
# requirements file: makes .venv where there is none, installs what the file lists and this package
# where that has not been done, and puts the environment's programs first on PATH.

requirements=$1
if [ ! -x .venv/bin/pip ]; then
  python=${PYTHON:-python3}
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or newer is needed; set PYTHON to its path." >&2
    exit 1
  fi
  echo "Making .venv ..."
  "$python" -m venv .venv || {
    rm -rf .venv  # a part of it would be taken for the whole
    exit 1
  }
fi
export PATH="$PWD/.venv/bin:$PATH"
if ! cat requirements*.txt pyproject.toml | cmp -s - ".venv/installed-$requirements"; then
  echo "Installing $requirements (once, a minute or two) ..."
  python -m pip install --quiet --disable-pip-version-check -r "$requirements" || exit 1
  python -m pip install --quiet --disable-pip-version-check --no-deps --editable . || exit 1
  cat requirements*.txt pyproject.toml > ".venv/installed-$requirements"
fi
