#!/usr/bin/env bash
# The release binary with the bundled model, driven by the official Python clients and by the chat of its own; then beside
# many slow readers, with more connections than it may have open.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=target/python
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check -r scripts/requirements.txt
cargo build --release --locked
source scripts/lib/server.sh

# A key that looks like a number.
key=0123
TALLOW_API_KEY=$key start_server target/release/tallow serve --port 0
"$venv/bin/python" crates/server/tests/openai_client.py --url "$url" --api-key "$key"
chat() { echo "Say hello." | target/release/tallow chat "$@" >/dev/null; }
TALLOW_API_KEY=$key chat --url "$url/v1"
# A chat of its own asks no proxy for this machine, and another one finds the server that runs.
HTTP_PROXY=http://127.0.0.1:9 chat models/demo
HTTP_PROXY=http://127.0.0.1:9 TALLOW_API_KEY=$key chat
stop_server
# A log in a file is plain text.
if grep $'\e' "$log"; then exit 1; fi
# What is only shown on a terminal: the block at the start, and a conversation.
python3 crates/cli/tests/terminal.py target/release/tallow

# Anthropic's client, with a template that knows tools.
TALLOW_API_KEY=$key start_server target/release/tallow serve --port 0 --chat-template crates/server/tests/hermes.jinja
"$venv/bin/python" crates/server/tests/anthropic_client.py --url "$url" --api-key "$key"
stop_server

# 200 slow readers, where the process may have files open for all of them, and where it may not.
for files in 1024 128; do
    start_server bash -c "ulimit -n $files; exec target/release/tallow serve --port 0 --max-num-seqs 64"
    "$venv/bin/python" crates/server/tests/slow_readers.py --url "$url" --readers 200
    stop_server
done
