#!/usr/bin/env bash
# Serves the bundled model on a Mac's GPU, asks it for an answer and shows what it answers and logs.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib/server.sh
START_SECONDS=300 start_server target/release/tallow serve --device metal --port 0
curl -fsS "$url/health"
echo
answer=$(curl -fsS "$url/v1/chat/completions" -H 'content-type: application/json' \
    -d '{"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 32, "temperature": 0}') ||
    { cat "$log"; exit 1; }
echo "$answer"
cat "$log"
python3 -c 'import json, sys; assert json.loads(sys.argv[1])["choices"][0]["message"]["content"].strip(), "an empty answer"' "$answer"
stop_server
