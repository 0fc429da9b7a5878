#!/usr/bin/env bash
# Type-checks the whole workspace for Apple Silicon on Debian, Metal and the tests that only a Mac runs included, and the program without
# Metal; then that a type error in code for Macs alone is found.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib/debian-rust.sh
debian_packages
export CARGO_TARGET_DIR=${MACOS_TARGET_DIR:-$PWD/target/macos}
check() {
    "$DEBIAN_CARGO" check -Zbuild-std=std,panic_abort,test,proc_macro --locked --target aarch64-apple-darwin "$@"
}
check --workspace --lib --bins --test mac
check --package tallow --bins --no-default-features

# In a copy, so that nothing of the checkout is ever wrong; the dependencies are those of the check above.
planted=$CARGO_TARGET_DIR/planted
rm -rf "$planted"
mkdir -p "$planted"
git ls-files -z Cargo.toml Cargo.lock crates tools kernels LICENSE config | xargs -0 cp --parents -t "$planted"
file=$planted/crates/metal/src/macos/mod.rs
sed -i 's/^        WORK_OF_TURN$/        WORK_OF_TURN as u32/' "$file"
if cmp -s "$file" crates/metal/src/macos/mod.rs; then
    echo "nothing was planted in $file" >&2
    exit 1
fi
cd "$planted"
if output=$(check --workspace --lib --bins --test mac 2>&1); then
    echo "a type error in code for Macs alone passes" >&2
    exit 1
fi
grep -q 'macos/mod.rs' <<<"$output" || { echo "$output" >&2; echo "the check failed for another reason" >&2; exit 1; }
rm -rf "$planted"
echo "a planted type error is found"
