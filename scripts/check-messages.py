#!/usr/bin/env python3
"""The messages that docs/troubleshooting.md quotes are messages of the program: each piece of a quoted message, between
its gaps (..), stands in the source of a crate. Prints those that do not.
"""
import re
import sys
from pathlib import Path

DOCUMENT = Path("docs/troubleshooting.md")
LEAST = 8  # characters of a piece that says something


def quoted(document):
    """Yields (line number, quoted message) of what stands in the first column of the tables, up to the last of them."""
    text = document.read_text().split("## Without a message")[0]
    for number, line in enumerate(text.splitlines(), 1):
        cell = re.match(r"\| (.*?) \|", line)
        for message in re.findall(r"`([^`]+)`", cell[1]) if cell else ():
            yield number, message


def source():
    """All Rust of the crates; texts that are longer than a line are joined, and quotes in them unescaped."""
    text = "\n".join(path.read_text() for path in sorted(Path("crates").glob("*/src/**/*.rs")))
    return re.sub(r"\\\n\s*", "", text).replace('\\"', '"')


def main():
    program, found = source(), 0
    for number, message in quoted(DOCUMENT):
        for piece in filter(lambda piece: len(piece) >= LEAST, map(str.strip, message.split(".."))):
            if piece not in program:
                print(f"{DOCUMENT}:{number}: no message has this: {piece}", file=sys.stderr)
                found += 1
    return found > 0


if __name__ == "__main__":
    sys.exit(main())
