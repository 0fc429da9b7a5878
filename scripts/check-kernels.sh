#!/usr/bin/env bash
# Lints the Metal kernels as near to Apple's compiler as Linux gets: real address spaces, C++14, warnings denied.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v clang++-19 >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq clang-19 >/dev/null
fi
cargo build --locked --quiet -p mslgen
generated=$(mktemp -d)
trap 'rm -rf "$generated"' EXIT
for kernel in kernels/*.metal; do
    target/debug/mslgen lint "$kernel" "$generated/lint.cpp" -Icrates/msl-emu/shim/include
    clang++-19 -fsyntax-only -x c++ -std=c++14 -ffreestanding -nostdinc -fno-exceptions -fno-rtti -Icrates/msl-emu/shim \
        -Wall -Wextra -Werror -Wdouble-promotion -Wno-unused-parameter -Wno-unused-variable -Wno-unused-function \
        -Wno-unknown-attributes -Wno-undefined-internal -Wno-undefined-inline -Wno-c++17-extensions "$generated/lint.cpp"
    echo "$kernel: no complaint"
done
