#!/bin/sh
# Does `kudos rank --next informative` need fewer rankings than the order by chance?
#   bench/informative.sh JUDGE DATA…
# JUDGE is a judge that was not trained on DATA. The figures stand in bench/rank.md.
set -eu
cd "$(dirname "$0")/.."
exec cargo run --release --quiet --example informative -- "$@"
