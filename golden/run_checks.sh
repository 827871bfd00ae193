#!/bin/sh
# Checks a trained judge against transformers and sentence-transformers:
#   golden/run_checks.sh JUDGE_DIR KUDOS_PROGRAM [more flags of check_transformers.py]
# VENV (default: .venv beside this script, ignored by git) is made and filled on the first run;
# TORCH_INDEX is where PyTorch without CUDA comes from.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${VENV:-$here/.venv}
index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
judge=$1 kudos=$2
shift 2
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
cmp -s "$here/requirements.txt" "$venv/installed.txt" || {
    "$venv/bin/python" -m pip install --quiet --extra-index-url "$index" -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/installed.txt"
}
exec "$venv/bin/python" "$here/check_transformers.py" "$judge" --kudos "$kudos" "$@"
