#!/usr/bin/env bash
# The architecture as absences (docs/ARCHITECTURE.md): what a crate must not depend on, name or contain.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0
fail() { echo "$1" >&2; failed=1; }

# No tensors below the attention boundary.
for crate in disk-cache gguf hub kv matmul scheduler turboquant; do
    found=$(cargo tree --locked -p "$crate" -e normal --prefix none | grep -E '^candle' || true)
    [ -z "$found" ] || fail "$crate depends on candle: $found"
done
# Of our crates the server depends on engine and text alone.
ours=$(ls crates | grep -vxE 'engine|text|server' | paste -sd'|')
found=$(cargo tree --locked -p server -e normal --depth 1 --prefix none | grep -E "^(candle[a-z-]*|$ours) " || true)
[ -z "$found" ] || fail "server depends on $found"

# Models do not know how K and V are stored.
found=$(grep -rnE 'turboquant|Format::|[kv]_quant|\btq[2-8]\b' crates/models/src crates/models/Cargo.toml || true)
[ -z "$found" ] || fail "models names a KV format: $found"

# No model asks where it runs.
found=$(grep -rnE 'is_cpu|is_metal|Device::(Cpu|Metal)|DType|matmul_all' crates/models/src || true)
[ -z "$found" ] || fail "models asks for the device: $found"

# Unsafe code in the named places only, each block with its reason (clippy checks the latter).
found=$(grep -rnlE '\bunsafe\b' crates/*/src tools/*/src --include='*.rs' |
    grep -vE '^(crates/(metal/src/macos/|turboquant/src/simd|matmul/src/simd|models/src/checkpoint/mapped\.rs)|tools/msl-emu/src/(cuda/)?ffi\.rs)' || true)
for file in $found; do
    if grep -nE '\bunsafe[[:space:]]*(\{|fn|impl|extern)' "$file"; then fail "unsafe code in $file"; fi
done
exit "$failed"
