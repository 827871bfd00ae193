#!/bin/sh
# Checks generation's model reading on a real file against transformers: parameters, config, chats and ids of a GGUF file,
# and the perplexity of every precision.
#   golden/run_generation_checks.sh MODEL.gguf EXAMPLES_DIR
# VENV as in run_checks.sh, which fills it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${VENV:-$here/.venv}
"$venv/bin/python" "$here/check_gguf.py" "$1" --gguf "$2/gguf"
exec "$venv/bin/python" "$here/../bench/peers/perplexity.py" --model "$1" --perplexity-bin "$2/perplexity" --bound 0.01
