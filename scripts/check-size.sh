#!/usr/bin/env bash
# The checkout, models and fixtures included, stays under 64 MB.
set -euo pipefail
cd "$(dirname "$0")/.."
limit=$((64 * 1000 * 1000))
bytes=$(git ls-files -z | xargs -0 stat -c %s | awk '{ sum += $1 } END { print sum }')
echo "$bytes bytes in $(git ls-files | wc -l) files"
if [ "$bytes" -gt "$limit" ]; then
    echo "over the limit of $limit bytes; the largest files:" >&2
    # Without `head`, which would leave `sort` with a closed pipe.
    git ls-files -z | xargs -0 stat -c '%s %n' | sort -rn | sed -n 1,10p >&2
    exit 1
fi
