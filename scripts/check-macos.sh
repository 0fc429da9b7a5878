#!/usr/bin/env bash
# Type-checks the whole workspace for Apple Silicon, Metal included, on Debian.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib/debian-rust.sh
debian_packages
export CARGO_TARGET_DIR=target/macos
"$DEBIAN_CARGO" check -Zbuild-std=std,panic_abort --locked --workspace --target aarch64-apple-darwin --features metal "$@"
