#!/usr/bin/env bash
# Reproduces the paper's tables, at --scale=mini unless told otherwise; --help lists the options.
set -euo pipefail
cd "$(dirname "$0")"
source ./environment.sh requirements.txt
exec python -m dml_tf.paper run "$@"
