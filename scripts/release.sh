#!/usr/bin/env bash
# Makes what a release consists of, in target/distrib, by dist (`cargo install cargo-dist --locked --version 0.33.0`):
#
#     REPOSITORY=https://github.com/OWNER/NAME scripts/release.sh archive TARGET   the archive of a target, tried out
#     REPOSITORY=https://github.com/OWNER/NAME scripts/release.sh formula          Homebrew's formula, and all hashes
#
# REPOSITORY is where the releases will be. TARGET must be this machine's own, since the archive is tried. The formula
# needs all archives, and the *.json that was made with each.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${REPOSITORY:?the address of the repository, such as https://github.com/OWNER/NAME}"
most_bytes=$((40 * 1000 * 1000))
mkdir -p target/distrib

# No address is written down in this repository, because each of its copies makes releases of its own; dist asks for one.
manifest=crates/cli/Cargo.toml
work=$(mktemp -d)
cp "$manifest" "$work/manifest"
trap 'cp "$work/manifest" "$manifest"; rm -rf "$work"' EXIT
awk -v url="$REPOSITORY" '
    { print }
    /^\[package\]$/ { printf "repository = \"%s\"\nhomepage = \"%s\"\n", url, url }' "$work/manifest" >"$manifest"

case "${1:-}" in
archive)
    target=${2:?the target, such as x86_64-unknown-linux-gnu}
    dist build --artifacts=local --target "$target" --output-format=json >"$work/made.json"
    cp "$work/made.json" "target/distrib/$target-dist-manifest.json"
    tar -xJf "target/distrib/tallow-$target.tar.xz" -C "$work"
    program=$work/tallow-$target/tallow
    bytes=$(wc -c <"$program" | tr -d ' ')
    echo "the program has $bytes bytes, $most_bytes are allowed"
    [ "$bytes" -le "$most_bytes" ]
    # The self-test serves the model that came with the archive.
    (cd "$work" && HF_HOME=$work/models TALLOW_CACHE_DIR=$work/cache "$program" doctor --offline)
    ;;
formula)
    dist build --artifacts=global --output-format=json >"$work/made.json"
    # A formula without hashes would install whatever it is sent.
    archives=$(grep -c '^ *url ' target/distrib/tallow.rb)
    hashes=$(grep -cE '^ *sha256 "[0-9a-f]{64}"' target/distrib/tallow.rb || true)
    echo "the formula has $archives archives and $hashes hashes"
    [ "$archives" -eq "$hashes" ]
    ;;
*)
    echo "scripts/release.sh archive TARGET, or scripts/release.sh formula" >&2
    exit 2
    ;;
esac
