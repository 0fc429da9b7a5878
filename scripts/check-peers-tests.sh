#!/usr/bin/env bash
# The tests that llama.cpp and vLLM have for their servers, run against Tallow with the bundled model; not part of the
# gate, since they ask for features and texts of those servers. It tells how many pass and why the others do not.
#
#     scripts/check-peers-tests.sh [llama.cpp|vllm] [PYTEST-ARGUMENT..]
#
# TALLOW=PATH takes another binary than the one that is built. What came out: docs/compatibility.md.
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
llama.cpp | vllm) peers=("$1") && shift ;;
*) peers=(llama.cpp vllm) ;;
esac
peers_dir=$PWD/crates/server/tests/peers
if [ -z "${TALLOW:-}" ]; then
    cargo build --release --locked
    TALLOW=$PWD/target/release/tallow
fi
export TALLOW
work=$PWD/target/peers
mkdir -p "$work"
[ -x "$work/venv/bin/python" ] || python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check -r "$peers_dir/requirements.txt"

# Unpacks what tar's arguments name of a source distribution, which is fetched once.
source_of() {
    local url=https://files.pythonhosted.org/packages/$1 digest=$2 file=$work/${1##*/}
    shift 2
    [ -f "$file" ] || curl -fsSL -o "$file" "$url"
    echo "$digest  $file" | sha256sum --check --quiet
    tar -xzf "$file" -C "$work" "$@"
}
# Runs pytest in a folder with a plugin, and tells what came out.
run_tests() {
    local name=$1 folder=$2 plugin=$3
    shift 3
    echo "=== $name"
    (cd "$folder" && PYTHONPATH=$peers_dir:$folder "$work/venv/bin/python" -m pytest -p "$plugin" -q --tb=short --timeout 60 \
        --override-ini asyncio_mode=strict --override-ini junit_logging=all --continue-on-collection-errors --junitxml "$work/$name.xml" "$@" \
        >"$work/$name.log" 2>&1) || true
    "$work/venv/bin/python" "$peers_dir/reasons.py" "$work/$name.xml"
}
llama_cpp() {
    local sources=llama_cpp_python-0.3.36/vendor/llama.cpp
    local root=$sources/tools/server/tests
    source_of ec/e9/e7de2b0463ea3ffbf0ede6cb21b58c1258a8f6521aae45ca773a59fe7cf3/llama_cpp_python-0.3.36.tar.gz \
        832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e "$root" "$sources/models/templates"
    LLAMA_SERVER_BIN_PATH=$peers_dir/llama-server run_tests llama.cpp "$work/$root" llama_cpp_plugin -m "not slow" "$@"
}
vllm() {
    local root=vllm-0.33.0
    source_of f7/25/aa5684e9c59d6fc75f78926b7f15e8d9adc7de2d9e6e7575b80776ad8169/vllm-0.33.0.tar.gz \
        f4c33c2503d52bb411146afa9618a4f48bed68912f617e6803ac8d76e4c74112 \
        "$root"/tests/{__init__.py,entrypoints/{__init__.py,conftest.py,anthropic,openai}} "$root/tests/entrypoints/serve"
    # Python 3.11 cannot parse the sources of some of their tests once more, as other tracebacks would need.
    run_tests vllm "$work/$root" vllm_plugin --tb=native \
        tests/entrypoints/{anthropic,openai,serve/tokenize,serve/instrumentator} "$@"
}
for peer in "${peers[@]}"; do
    "${peer/./_}" "$@"
done
