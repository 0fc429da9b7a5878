"""Reads the results of a run of pytest, and tells what passed and why the rest did not: `python reasons.py RESULTS.xml`."""

import collections
import re
import sys
import xml.etree.ElementTree

# The first that is found in what a failed test printed is its reason.
REASONS = [
    (r"no counterpart of (--?[\w.-]+)", r"started with {}, which has no counterpart"),
    (r"tallow: .*?(--[\w-]+): (?:is|cannot)", r"started with {} and a value that is not taken"),
    (r"there is no \w+ (/[\w/.{}-]+)", r"asks for {}, which is not served"),
    (r"(?:\b|')([\w.\[\]]+) is not supported", r"asks for {}, which is not supported"),
    (r"""["']code["']: ["'](model_not_found|invalid_\w+|context_length_exceeded|not_allowed)["']""", r"is refused with {}"),
    (r"Timeout (?:>|\()", "takes longer than a minute"),
    (r"Name or service not known", "fetches a file from the network"),
    (r"FileNotFoundError", "reads a file of its own server's"),
    (r"(?:No module named|cannot import name) '([\w.]+)'", r"imports {}"),
    (r"MagicMock", "works on an object of its own package, not on answers"),
    (r"KeyError: '(\w+)'", r"reads {} from an answer"),
    (r"non empty content delta", "expects no empty text in a stream, where OpenAI's first event has one"),
    (r"match_regex|Expected 1 tool call|assert .*content|assert .*text|in content", "expects the text of its own model"),
]


def reason(text):
    for pattern, told in REASONS:
        found = re.search(pattern, text)
        if found:
            return told.format(*found.groups())
    lines = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")] or text.split("\n")
    return lines[0][:90] or "unknown"


def main():
    counts, why = collections.Counter(), collections.defaultdict(list)
    for case in xml.etree.ElementTree.parse(sys.argv[1]).iter("testcase"):
        outcome = next((kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None), "passed")
        counts[outcome] += 1
        if outcome in ("failure", "error"):
            printed = [case.find(outcome).get("message") or "", case.find(outcome).text or ""]
            printed += [case.findtext(kind) or "" for kind in ("system-out", "system-err")]
            why[reason("\n".join(printed))].append(f"{case.get('classname')}::{case.get('name')}")
    print(f"{counts['passed']} of {sum(counts.values())} pass, {counts['skipped']} are skipped")
    for told, cases in sorted(why.items(), key=lambda item: -len(item[1])):
        print(f"{len(cases):4} {told}, such as {cases[0].rpartition('.')[2]}")


if __name__ == "__main__":
    main()
