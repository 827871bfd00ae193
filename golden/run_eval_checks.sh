#!/bin/sh
# Checks every figure of `kudos eval` against SciPy, scikit-learn and statsmodels, on real scores:
#   golden/run_eval_checks.sh KUDOS_PROGRAM JUDGE_A JUDGE_B DATA...
# VENV (default: .venv-eval beside this script, ignored by git) is made and filled on the first run.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${VENV:-$here/.venv-eval}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
wanted=$here/requirements-eval.txt
cmp -s "$wanted" "$venv/${wanted##*/}" || {
    "$venv/bin/python" -m pip install --quiet -r "$wanted"
    cp "$wanted" "$venv/"
}
exec "$venv/bin/python" "$here/check_eval.py" "$@"
