#!/usr/bin/env bash
# Runs the tests of the vector code for Apple's processors (NEON with dot products) on Debian, under qemu. Debian's rustc-web packages carry
# the standard library's source, so that it can be built for a target whose compiled form is not at hand.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib/debian-rust.sh
debian_packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
export CARGO_TARGET_DIR=target/neon
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu"
"$DEBIAN_CARGO" test -Zbuild-std --locked --target aarch64-unknown-linux-gnu -p turboquant --test twins --test attention --test key_transforms --test invariance "$@"
"$DEBIAN_CARGO" test -Zbuild-std --locked --target aarch64-unknown-linux-gnu -p turboquant --lib twins "$@"
"$DEBIAN_CARGO" test -Zbuild-std --locked --target aarch64-unknown-linux-gnu -p matmul --test order --test blocks "$@"
