"""A Tallow server for the length of a `with`, for the scripts in the folders beside this file."""
import contextlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import typing
import urllib.request


class Server(typing.NamedTuple):
    url: str
    pid: int
    log: pathlib.Path

    def post(self, path: str, body: dict) -> dict:
        return post(self.url + path, body)


def post(url: str, body: dict) -> dict:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


@contextlib.contextmanager
def serve(binary: pathlib.Path, model: pathlib.Path, *flags: str) -> typing.Iterator[Server]:
    """Starts `tallow serve MODEL` on a free port, and goes on once it is healthy; if it ends before, so does the script, with its log."""
    with tempfile.NamedTemporaryFile("w+") as log:
        process = subprocess.Popen([binary, "serve", model, "--port", "0", *flags], stderr=log)
        try:
            path = pathlib.Path(log.name)
            yield Server(wait(process, path), process.pid, path)
        finally:
            process.terminate()
            process.wait()


def wait(process: subprocess.Popen, log: pathlib.Path) -> str:
    while process.poll() is None:
        address = re.search(r"http://[0-9.:]+", log.read_text())
        with contextlib.suppress(OSError):
            if address and urllib.request.urlopen(f"{address[0]}/health").status == 200:
                return address[0]
        time.sleep(0.02)
    sys.exit(log.read_text())
