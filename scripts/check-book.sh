#!/usr/bin/env bash
# The documents as a book, in target/book: docs/SUMMARY.md has each of them, mdBook warns of nothing, and no link leads
# nowhere, neither in the book nor in any Markdown of this repository; headings that links name are looked for as well.
# Addresses of the web are not asked.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=target/book-tools
[ -x "$tools/bin/python" ] || python3 -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r scripts/book-requirements.txt

failed=
for document in $(cd docs && git ls-files --cached --others --exclude-standard '*.md'); do
    if [ "$document" != SUMMARY.md ] && ! grep -qF "]($document)" docs/SUMMARY.md; then
        echo "docs/$document is not in docs/SUMMARY.md" >&2
        failed=1
    fi
done

rm -rf target/book
"$tools/bin/mdbook" build docs 2>&1 | tee target/book.log
if grep -E 'WARN|ERROR' target/book.log >/dev/null; then
    echo "mdBook warns" >&2
    failed=1
fi

git ls-files -z --cached --others --exclude-standard '*.md' |
    xargs -0 "$tools/bin/lychee" --offline --include-fragments --no-progress || failed=1
# The page of all chapters, for printing, has their links once more.
find target/book -name '*.html' ! -name print.html -print0 |
    xargs -0 "$tools/bin/lychee" --offline --include-fragments --no-progress --root-dir target/book || failed=1
[ -z "$failed" ]
