#!/usr/bin/env bash
# Runs all tests, one process a core; further arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source ./environment.sh requirements-dev.txt
export TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 OMP_NUM_THREADS=1
exec python -m pytest --numprocesses=auto --dist=worksteal "$@"
