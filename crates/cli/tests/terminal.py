#!/usr/bin/env python3
"""The release binary on a terminal: what `serve` shows at its start, and a conversation with the commands of `chat`.

usage: terminal.py TALLOW
"""
import json
import os
import pathlib
import pty
import re
import select
import signal
import sys
import tempfile
import time

# Neither a command nor an answer of the bundled model takes so long on any machine.
LIMIT = 120


class Terminal:
    """A program on a terminal of 100 columns and what it has shown, without colours and cursor movements."""

    def __init__(self, *command: str):
        self.shown = ""
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", COLUMNS="100", LINES="40")
            os.execv(command[0], command)

    def read(self) -> bool:
        """Takes in what the program shows; False once it has ended."""
        try:
            data = os.read(self.file, 65536)
        except OSError:
            return False
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\r", "", data.decode("utf-8", "replace"))
        self.shown += text
        return bool(data)

    def expect(self, pattern: str) -> re.Match:
        """Waits until the program has shown the pattern, and forgets what came before its end."""
        deadline = time.monotonic() + LIMIT
        while True:
            if found := re.search(pattern, self.shown):
                self.shown = self.shown[found.end() :]
                return found
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.file], [], [], left)[0] or not self.read():
                sys.exit(f"not shown: {pattern}\nbut: {self.shown[-3000:]}")

    def type(self, line: str) -> None:
        """Types a line at the prompt of `chat`; the line editor throws away what is typed before it."""
        self.expect("> $")
        os.write(self.file, line.encode() + b"\r")

    def end(self) -> int:
        """Waits for the program's end; its exit status."""
        while self.read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def starts_with_a_block(tallow: str) -> None:
    """Model, context and cache, address and page, and how to stop."""
    terminal = Terminal(tallow, "serve", "--port", "0")
    for pattern in ("Serving demo", r"http://127\.0\.0\.1:[0-9]+", "context", "Ctrl-C"):
        terminal.expect(pattern)
    os.kill(terminal.pid, signal.SIGINT)
    assert terminal.end() == 0


def talks(tallow: str, folder: pathlib.Path) -> None:
    """A conversation of two turns, retried, counted, saved and cleared."""
    terminal = Terminal(tallow, "chat")
    terminal.expect(r"/help for commands")
    terminal.type("/hlep")
    terminal.expect(r"/hlep is no command; did you mean /help\?")
    terminal.type("/retry")
    terminal.expect("nothing to answer yet")
    terminal.type("Say hello.")
    terminal.expect("of the prompt were known")
    terminal.type("/retry")
    terminal.expect("of the prompt were known")
    terminal.type("/thought")
    terminal.expect("nothing was thought")
    terminal.type("/tokens")
    terminal.expect(r"[0-9]+ tokens")
    saved = folder / "talk.json"
    terminal.type(f"/save {saved}")
    terminal.expect("has the conversation")
    roles = [message["role"] for message in json.loads(saved.read_text())]
    assert roles == ["user", "assistant"], roles
    terminal.type("/system Be brief.")
    terminal.type("/tokens")
    terminal.expect("nothing was answered yet")
    terminal.type(f"/save {folder}")
    terminal.expect("directory")
    terminal.type("/exit")
    assert terminal.end() == 0


def main() -> None:
    tallow = str(pathlib.Path(sys.argv[1]).resolve())
    starts_with_a_block(tallow)
    with tempfile.TemporaryDirectory() as folder:
        talks(tallow, pathlib.Path(folder))
    print("2 passed, 0 failed")


main()
