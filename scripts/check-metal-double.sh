#!/usr/bin/env bash
# Tallow's macOS code on Linux, on stand-ins for the Objective-C crates (tools/metal-double): the tests of the stand-ins, those that a Mac
# runs, and an answer of the server. Needs clang++-19 (scripts/check-kernels.sh installs it). METAL_DOUBLE_SEED repeats an order.
set -euo pipefail
cd "$(dirname "$0")/../tools/metal-double"
export MSL_REQUIRE_EMULATOR=1
# The versions are those of the first workspace; cargo adds the stand-ins to them.
cp ../../Cargo.lock Cargo.lock
cargo metadata --format-version 1 >/dev/null
cargo fmt --check
cargo clippy --workspace --all-targets --locked -- -D warnings
cargo test --workspace --locked
cargo build --locked -p tallow

source ../../scripts/lib/server.sh
START_SECONDS=300 # a start runs every kernel once, in the emulator
answer() {
    curl -fsS "$url/v1/chat/completions" -H 'content-type: application/json' -d '{"messages": [{"role": "user",
        "content": "Say hello."}], "max_tokens": 8, "temperature": 0}' |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["choices"][0]["message"]["content"])'
}
declare -A answers
for device in cpu metal; do
    start_server ../../target/metal-double/debug/tallow serve ../../models/demo --device "$device" --port 0
    answers[$device]=$(answer)
    stop_server
    echo "$device: ${answers[$device]}"
done
[ -n "${answers[cpu]}" ] && [ "${answers[cpu]}" = "${answers[metal]}" ]
if grep 'metal-double:' "$log"; then exit 1; fi
