#!/bin/sh
# Checks a trained judge against transformers and sentence-transformers:
#   golden/run_checks.sh JUDGE_DIR KUDOS_PROGRAM [more flags of check_transformers.py]
# VENV (default: .venv beside this script, ignored by git) is made and filled on the first run;
# TORCH_INDEX, when set, names an index with a PyTorch that is built without CUDA (a smaller download).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${VENV:-$here/.venv}
judge=$1 kudos=$2
shift 2
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
wanted=$here/requirements-check.txt
cmp -s "$wanted" "$venv/${wanted##*/}" || {
    "$venv/bin/python" -m pip install --quiet ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r "$wanted"
    cp "$wanted" "$venv/"
}
exec "$venv/bin/python" "$here/check_transformers.py" "$judge" --kudos "$kudos" "$@"
