#!/usr/bin/env bash
# Type-checks the whole workspace for Apple Silicon, Metal included, on Debian: its rustc-web packages carry the standard library's
# source, so that it can be checked for a target whose compiled form is not at hand.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -x /usr/bin/rustc ] || [ ! -d /usr/lib/rustlib/src/rust/library ]; then
    apt-get update -qq && apt-get install -y -qq rustc-web cargo-web rust-web-src >/dev/null
fi
export PATH=/usr/bin:$PATH RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=target/macos
/usr/bin/cargo check -Zbuild-std=std,panic_abort --locked --workspace --target aarch64-apple-darwin --features metal
