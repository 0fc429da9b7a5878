#!/usr/bin/env bash
# The web page of the release binary, driven in Chromium (web/README.md): with the bundled model, and with a key. With SERVER=URL it takes
# the pictures in docs/ of that server instead, for which it needs pngquant and cwebp.
set -euo pipefail
cd "$(dirname "$0")/.."
# Each by itself: a Node.js that is not Debian's has an npm, and conflicts with Debian's.
missing=()
for program in chromium npm; do command -v "$program" >/dev/null || missing+=("$program"); done
if [ ${#missing[@]} -gt 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
test=target/page-test
mkdir -p "$test"
cp web/test/package.json web/test/package-lock.json "$test"
npm ci --prefix "$test" --silent --no-audit --no-fund
if [ -n "${SERVER:-}" ]; then
    node web/test/pictures.mjs --packages "$test" --url "$SERVER" --pictures "$test"
    for picture in "$test"/page-*.png; do
        pngquant 12 --nofs --force --output "$picture" "$picture"
        cwebp -quiet -lossless -z 9 "$picture" -o "docs/$(basename "$picture" .png).webp"
    done
    exit
fi
# Elements are made in web/dom.js and never of a text; the browser holds the page to it as well.
if grep -nE 'innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|setHTML|\beval\b|new Function' web/*.js; then
    echo "the page makes elements of a text" >&2
    exit 1
fi
cargo build --release --locked
source scripts/lib/server.sh
key=0123
TALLOW_API_KEY=$key start_server target/release/tallow serve --port 0 --kv-cache-memory 64MiB
keyed_url=$url
start_server target/release/tallow serve --port 0 --kv-cache-memory 256MiB
node web/test/page.mjs --packages "$test" --url "$url" --keyed-url "$keyed_url" --key "$key"
