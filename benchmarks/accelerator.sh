#!/usr/bin/env bash
# Measures and trains on a borrowed accelerator machine; benchmarks/README.md has the whole way.
#   bash benchmarks/accelerator.sh --prepare=FOLDER --data_dir=FOLDER --photographs=FILE   where TensorFlow is
#   bash benchmarks/accelerator.sh OUT [--minutes=8]       there: Python, NumPy, Pillow and JAX; repeat it to continue
#   bash benchmarks/accelerator.sh OUT --collect=FOLDER    where TensorFlow is: takes the trained runs out of OUT
#   bash benchmarks/accelerator.sh --smoke                 rehearses all of it on a CPU
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -m benchmarks.accelerator "$@"
