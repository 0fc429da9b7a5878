#!/usr/bin/env bash
# A night of random inputs: bodies of requests, chat templates, headers of GGUF and safetensors files, tokenizers,
# configurations, answers of models. None may be a panic. The gate runs the same tests with some hundred cases each.
#   usage: scripts/fuzz.sh [CASES, 1000000 if none are named]
set -euo pipefail
cd "$(dirname "$0")/.."
export FUZZ_CASES=${1:-1000000}
export PROPTEST_MAX_SHRINK_ITERS=1000
failed=0
fuzz() { cargo test --release --locked --workspace "$@" || failed=1; }
fuzz --test hardening
fuzz --test fuzz
fuzz --test http fuzz::
fuzz --test answer fuzz::
# Each is five requests for each of six formats.
FUZZ_CASES=$((FUZZ_CASES / 100)) fuzz --test http agree::
exit $failed
