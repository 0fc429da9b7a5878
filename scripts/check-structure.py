#!/usr/bin/env python3
"""Checks the shape of the crates: no cycle between modules, no type name with two meanings. Prints what is wrong.

Cycles. For every module, its children, each taken together with all that lies below it, must not depend on each other
in a circle. A dependency is a path that begins with `crate`, `self` or `super`, followed through re-exports to the
module that defines the item. A module and its own descendants may use each other.

Type names. A struct, enum, union, trait or type alias of product code has a name of its own in the whole workspace, so
that a name in a signature means one thing.
"""
import collections
import re
import subprocess
import sys
from pathlib import Path

# Names that mean the same in sibling files, by a pattern of those files' paths: all definitions there count as one.
NAMES_OF_SIBLINGS = {
    "Layer": "^crates/models/src/",  # one for each model family
    **dict.fromkeys(("Avx2", "Avx512", "Neon", "F", "I", "Floats", "Words"), "/simd/"),  # one for each instruction set
    "Isa": "^crates/(matmul|turboquant)/src/",  # neither crate depends on the other
}

TEXT = re.compile(r'//[^\n]*|/\*.*?\*/|r(#*)".*?"\1|"(?:\\.|[^"\\])*"|\'(?:\\.[^\']*|[^\\\'])\'', re.S)
VISIBILITY = r"(?:pub(?:\([^)]*\))? )?"
TEST_MODULE = re.compile(
    rf"#\[cfg\((?:test|all\(test\b[^)]*\))\)\]\s*(?:#\[[^\]]*\]\s*)*{VISIBILITY}mod (\w+)\s*([{{;])"
)
TYPE = re.compile(rf"^{VISIBILITY}(?:unsafe )?(?:struct|enum|union|trait|type) (\w+)", re.M)
USE = re.compile(rf"^[ \t]*{VISIBILITY}use ", re.M)


def code(text):
    """The text without comments, strings and test modules, every line where it was; test modules in other files."""
    text = TEXT.sub(lambda m: " " + "\n" * m[0].count("\n"), text)
    elsewhere = []
    while m := TEST_MODULE.search(text):
        end = m.end()
        if m[2] == ";":
            elsewhere.append(m[1])
        else:
            depth = 1
            while depth and end < len(text):
                depth += {"{": 1, "}": -1}.get(text[end], 0)
                end += 1
        text = text[: m.start()] + "\n" * text.count("\n", m.start(), end) + text[end:]
    return text, elsewhere


def use_tree(text, at):
    """Parses `a::b::{c, d as e, f::*}` from `at` on; returns [(path, name it is bound to)] and where it ends."""
    path = []
    while True:
        at += len(re.match(r"\s*", text[at:])[0])
        if text[at] == "{":
            found, at = [], at + 1
            while True:
                at += len(re.match(r"[\s,]*", text[at:])[0])
                if text[at] == "}":
                    return [(path + inner, name) for inner, name in found], at + 1
                below, at = use_tree(text, at)
                found += below
        if text[at] == "*":
            return [(path + ["*"], "*")], at + 1
        word = re.match(r"(?:r#)?\w+", text[at:])
        if not word:
            return [(path, path[-1])] if path else [], at + 1
        path.append(word[0])
        at += word.end()
        if text.startswith("::", at) and re.match(r"\s*[\w{*]", text[at + 2 :]):
            at += 2
            continue
        renamed = re.match(r"\s+as\s+(\w+)", text[at:])
        name = renamed[1] if renamed else path[-1] if path[-1] != "self" or len(path) == 1 else path[-2]
        if len(path) > 1 and path[-1] == "self":
            path.pop()
        return [(path, name)], at + (renamed.end() if renamed else 0)


class Crate:
    """The modules of one crate: `modules` maps a module's path, a tuple of names, to its file and code."""

    def __init__(self, folder):
        self.modules, tests = {}, []
        list_files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", folder / "src"]
        files = subprocess.run(list_files, check=True, capture_output=True, text=True).stdout.split("\0")
        for file in sorted(Path(f) for f in files if f.endswith(".rs")):
            parts = file.relative_to(folder / "src").with_suffix("").parts
            if not file.exists() or parts[0] == "bin":
                continue
            module = parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts
            text, elsewhere = code(file.read_text())
            self.modules[module] = (file, text)
            tests += [module + (name,) for name in elsewhere]
        self.modules = {m: v for m, v in self.modules.items() if not any(m[: len(t)] == t for t in tests)}
        self.imports = {m: self.imports_of(text) for m, (_, text) in self.modules.items()}

    @staticmethod
    def imports_of(text):
        found = {}
        for m in USE.finditer(text):
            for path, name in use_tree(text, m.end())[0]:
                found.setdefault(name, []).append(path)
        return found

    def resolve(self, module, path, seen=()):
        """The module that defines what `path` names inside `module`; None if it is in another crate."""
        if (module, tuple(path)) in seen:
            return None
        seen += ((module, tuple(path)),)
        at, path = module, list(path)
        relative = path and path[0] in ("crate", "self", "super")
        while path and path[0] in ("crate", "self", "super"):
            word = path.pop(0)
            at = () if word == "crate" else at if word == "self" else at[:-1]
        while path and at + (path[0],) in self.modules:
            at, relative = at + (path.pop(0),), True
        if not path or path[0] == "*":
            return at if relative else None
        for target in self.imports.get(at, {}).get(path[0], []):
            found = self.resolve(at, target + path[1:], seen)
            if found is not None:
                return found
        for target in self.imports.get(at, {}).get("*", []):
            source = self.resolve(at, target, seen)
            item = rf"\b(?:struct|enum|union|trait|type|fn|const|static) {path[0]}\b"
            if source not in (None, at) and re.search(item, self.modules[source][1]):
                return source
        return at if relative else None

    def edges(self):
        """Yields (from, to, file, line, path) for every path of one module into another."""
        for module, (file, text) in self.modules.items():
            for m in re.finditer(r"(?<![\w:$])(?:crate|self|super)::", text):
                for path, _ in use_tree(text, m.start())[0]:
                    target = self.resolve(module, path)
                    if target is not None and target != module:
                        yield module, target, file, text.count("\n", 0, m.start()) + 1, "::".join(path)

    def cycles(self):
        """Yields (names of the modules of a cycle, the paths that make it) among the children of any module."""
        graphs = collections.defaultdict(lambda: collections.defaultdict(list))
        for a, b, file, line, path in self.edges():
            common = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), None)
            if common is not None:
                graphs[a[:common]][a[common], b[common]].append(f"{file}:{line}: {path}")
        for parent, graph in sorted(graphs.items()):
            for names in components(graph):
                where = [p for (a, b), paths in sorted(graph.items()) if a in names and b in names for p in paths]
                yield {"::".join(parent + (name,)) for name in names}, where


def components(graph):
    """The strongly connected components of two nodes or more: sets of nodes that reach each other."""
    reach = collections.defaultdict(set)
    for a, b in graph:
        reach[a].add(b)
    grown = True
    while grown:
        grown = False
        for a in list(reach):
            more = set().union(*(reach[b] for b in reach[a] if b in reach)) - reach[a]
            reach[a] |= more
            grown |= bool(more)
    return sorted({frozenset(b for b in reach[a] if a in reach.get(b, ())) for a in reach if a in reach[a]}, key=sorted)


def main():
    crates, tools = (sorted(path.parent for path in Path(part).glob("*/Cargo.toml")) for part in ("crates", "tools"))
    names, failed = collections.defaultdict(list), False
    for folder in crates + tools:
        crate = Crate(folder)
        for cycle, where in crate.cycles():
            failed = True
            message = f"{folder}: a cycle of modules: {' <-> '.join(sorted(cycle))}"
            print("\n    ".join([message, *where]), file=sys.stderr)
        for file, text in crate.modules.values() if folder in crates else ():
            for m in TYPE.finditer(text):
                names[m[1]].append(f"{file}:{text.count(chr(10), 0, m.start()) + 1}")
    for name, places in sorted(names.items()):
        siblings = [p for p in places if name in NAMES_OF_SIBLINGS and re.search(NAMES_OF_SIBLINGS[name], p)]
        meanings = len(places) - len(siblings) + bool(siblings)
        if meanings > 1:
            failed = True
            print(f"{places[-1]}: a type name with {meanings} meanings: {name}: {', '.join(places)}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
