#!/usr/bin/env bash
# Reproduces the paper's tables and figures, by default at --scale=mini; --help lists the options.
set -euo pipefail
cd "$(dirname "$0")"
source ./environment.sh requirements.txt
exec python -m dml_tf.paper run "$@"
