#!/usr/bin/env python3
"""Checks the form of the text: how doc comments begin, how long lines and files are, that kernels' functions are always
inlined. Prints each place.

A doc comment is a sentence with a subject, which a reader understands without the comments around it. One that begins
with a word of BEGINNINGS leans on something else: on the name below it ("Of a row"), or on the item above it ("The same
for V").
"""
import re
import subprocess
import sys
from pathlib import Path

COLUMNS, LINES = 120, 400
BEGINNINGS = ("Of ", "As above", "As before", "The same", "Like ", "And ", "But ", "Which ")


def comment_starts(lines, marker):
    """Yields (line number, text) of the first line of every comment that begins with `marker`, a pattern."""
    inside = False
    for number, line in enumerate(lines, 1):
        comment = re.match(rf"\s*({marker})(?!/)\s?(.*)", line)
        if comment and not inside:
            yield number, comment[2]
        inside = bool(comment)


def problems(path):
    lines = path.read_text().splitlines()
    if path.suffix == ".rs" and len(lines) > LINES:
        yield LINES + 1, f"{len(lines)} lines, {LINES} are allowed: split the file"
    for number, line in enumerate(lines, 1):
        # A table's row is one line, however long.
        if len(line) > COLUMNS and not (path.suffix == ".md" and line.startswith("|")):
            yield number, f"{len(line)} columns, {COLUMNS} are allowed"
        if path.parts[0] == "kernels" and re.match(r"(?!#define)[^/]*\binline\b", line):
            yield number, "a function that is only asked to be inlined: INLINE (kernels/common/basics.h) has it always"
    # Kernels have no syntax for doc comments; Markdown has no comments.
    marker = {".rs": "//[/!]", ".md": "$^"}.get(path.suffix, "//")
    for number, text in comment_starts(lines, marker):
        if text.startswith(BEGINNINGS):
            yield number, f'a comment that begins with "{" ".join(text.split()[:2])}": name its subject'


def main():
    list_files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.rs", "*.md", "kernels"]
    files = subprocess.run(list_files, check=True, capture_output=True, text=True).stdout.split("\0")
    found = 0
    for path in sorted(map(Path, filter(None, files))):
        for number, message in problems(path) if path.exists() else ():
            print(f"{path}:{number}: {message}", file=sys.stderr)
            found += 1
    return found > 0


if __name__ == "__main__":
    sys.exit(main())
