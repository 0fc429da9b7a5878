#!/usr/bin/env python3
"""A preprocessor of mdBook, called by docs/book.toml: links that leave docs/, such as ../README.md, lead out of the book.

They become links to the files of $REPOSITORY (https://github.com/OWNER/NAME) where that is set, and to those of this
checkout where it is not. mdBook takes each link to a .md for a page of the book, unless the dot is written as %2E.
"""
import json
import os
import re
import sys

TO_CHECKOUT = "../.."  # from target/book
CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.M | re.S)
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")


def outward(repository, folder):
    """What replaces a link of a chapter that lies in `folder` of docs/: itself, or a link out of the book."""

    def replaced(link):
        text, target = link.groups()
        path = os.path.normpath(os.path.join("docs", folder, target))
        if ":" in target or target.startswith("#") or path.startswith("docs/"):
            return link[0]
        href = f"{repository}/blob/main/{path}" if repository else f"{TO_CHECKOUT}/{path.replace('.md', '%2Emd')}"
        return f'<a href="{href}">{text}</a>'

    return replaced


def rewritten(text, repository, folder):
    pieces = CODE.split(text)
    # Every second piece is code.
    return "".join(p if i % 2 else LINK.sub(outward(repository, folder), p) for i, p in enumerate(pieces))


def rewrite_all(items, repository):
    for chapter in (item["Chapter"] for item in items if isinstance(item, dict) and "Chapter" in item):
        folder = os.path.dirname(chapter["path"] or "")
        chapter["content"] = rewritten(chapter["content"], repository, folder)
        rewrite_all(chapter["sub_items"], repository)


def main():
    if sys.argv[1:2] == ["supports"]:
        return
    _, book = json.load(sys.stdin)
    rewrite_all(book["items"], os.environ.get("REPOSITORY"))
    json.dump(book, sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
