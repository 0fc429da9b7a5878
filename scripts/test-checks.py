#!/usr/bin/env python3
"""The checks of the source find what they should: each mistake is planted in a small repository of its own."""
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent


class Checks(unittest.TestCase):
    def run_check(self, script, files):
        """What the check prints about a repository of `files`, path -> text."""
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["git", "init", "-q", folder], check=True)
            for path, text in files.items():
                file = Path(folder, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            done = subprocess.run([sys.executable, SCRIPTS / script], cwd=folder, capture_output=True, text=True)
            self.assertEqual(done.returncode, int(bool(done.stderr)), done.stderr)
            return done.stderr.splitlines()

    def crate(self, **modules):
        files = {f"crates/a/src/{name.replace('__', '/')}.rs": text for name, text in modules.items()}
        return self.run_check("check-structure.py", {"crates/a/Cargo.toml": "", **files})

    def test_comments_that_lean_on_another(self):
        text = "/// Of a row.\nfn a() {}\n\n//! Half\n/// Like that.\n\n/// A row,\n/// Of course.\n\n//// Of\n// Of\n"
        self.assertEqual(
            self.run_check("check-text.py", {"src/a.rs": text}),
            ['src/a.rs:1: a comment that begins with "Of a": name its subject'],
        )

    def test_long_lines_and_files(self):
        text = "a" * 121 + "\n" + "b\n" * 399
        self.assertEqual(self.run_check("check-text.py", {"a.rs": text}), ["a.rs:1: 121 columns, 120 are allowed"])
        self.assertEqual(
            self.run_check("check-text.py", {"a.rs": "b\n" * 401}),
            ["a.rs:401: 401 lines, 400 are allowed: split the file"],
        )

    def test_functions_of_kernels_that_are_only_asked_to_be_inlined(self):
        text = "// inline\n#define INLINE inline\nINLINE int a();\nstatic inline int b();\ninline int c();\n"
        found = self.run_check("check-text.py", {"kernels/a/a.h": text, "src/a.rs": "fn inline() {}\n"})
        self.assertEqual([line.split(": ")[0] for line in found], ["kernels/a/a.h:4", "kernels/a/a.h:5"])

    def test_cycles_of_files(self):
        b, c = "use crate::c::C;\npub struct B;\n", "pub struct C(\n  super::b::B);\n"
        found = self.crate(lib="mod b;\nmod c;\n", b=b, c=c)
        self.assertEqual(
            found,
            [
                "crates/a: a cycle of modules: b <-> c",
                "    crates/a/src/b.rs:1: crate::c::C",
                "    crates/a/src/c.rs:2: super::b::B",
            ],
        )

    def test_cycles_through_a_re_export_and_between_folders(self):
        lib = "mod b;\nmod c;\npub use b::{x::X, y};\n"
        b = {"b__mod": "mod x;\nmod y;\n", "b__x": "pub struct X;\n", "b__y": "use crate::c::C;\n"}
        found = self.crate(lib=lib, c="use crate::{X};\n", **b)
        self.assertEqual(found[0], "crates/a: a cycle of modules: b <-> c")
        self.assertEqual(len(found), 3)

    def test_parents_tests_and_comments_make_no_cycle(self):
        b = '// crate::c::C\nconst A: &str = "crate::c";\n#[cfg(test)]\nmod tests {\n    use crate::c::C;\n}\n'
        self.assertEqual(self.crate(lib="mod b;\nmod c;\nuse b::B;\n", b=b, c="use crate::b::B;\nuse crate::D;\n"), [])

    def test_names_with_two_meanings(self):
        found = self.crate(lib="pub struct New;\n", b="enum New {}\n", c="#[cfg(test)]\nmod tests {\nstruct New;\n}\n")
        self.assertEqual(len(found), 1)
        self.assertIn("crates/a/src/lib.rs:1: a type name with 2 meanings: New: ", found[0])

    def test_messages_that_the_program_does_not_have(self):
        rows = "| `--flag is ..; it must be 1` | x |\n| `no such model` | x |\n## Without a message\n| `nor this one` | x |\n"
        program = 'error("--flag is {n}; it must \\\n    be 1")'
        found = self.run_check("check-messages.py", {"docs/troubleshooting.md": rows, "crates/a/src/b/c.rs": program})
        self.assertEqual(found, ["docs/troubleshooting.md:2: no message has this: no such model"])

    def test_links_of_the_book_that_lead_out_of_it(self):
        text = "[a](b.md) [c](../D.md#e) ![f](../g.png) `[h](../i)`\n```\n[j](../k)\n```\n[l](https://m)"
        chapter = {"Chapter": {"content": text, "path": "n.md", "sub_items": []}}
        book = json.dumps([{}, {"items": [chapter, "Separator"]}])
        for repository, href in (("", "../../D%2Emd#e"), ("https://r/o", "https://r/o/blob/main/D.md#e")):
            command = [sys.executable, SCRIPTS / "book-links.py"]
            environment = {"REPOSITORY": repository}
            done = subprocess.run(command, input=book, env=environment, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout)["items"][0]["Chapter"]["content"]
            self.assertEqual(found, text.replace("[c](../D.md#e)", f'<a href="{href}">c</a>'))

    def test_the_page_of_an_acceptance_run_tells_what_is_not_right_and_not_fast(self):
        speed = [{"k": "bf16", "v": "bf16", "context": 2048, "batch": n, "prefill": {"median": 900}, "decode": {"median": 55 - n}} for n in (1, 2)]
        files = {
            "parts.tsv": "1 build\tpassed\n2 kernels\tFAILED (101)\n",
            "speed-gpu.json": json.dumps(speed),
            "growth.txt": "70000\n",
        }
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                Path(folder, name).write_text(text)
            command = [sys.executable, SCRIPTS / "mac-summary.py", folder]
            page = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = page.split("What is not\n")[1].splitlines()
        self.assertEqual(
            [line.strip() for line in found], ["2 kernels", "memory over 2,000 tokens", "two clients against one, GPU"]
        )


if __name__ == "__main__":
    unittest.main()
