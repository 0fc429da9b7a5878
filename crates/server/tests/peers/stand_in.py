"""Starts Tallow where the tests of another server would start theirs, and tells what it has no counterpart of.

TALLOW is the binary; the bundled model is served, with the template hermes.jinja, which tells of tools.
"""

import os
import pathlib
import subprocess

TEMPLATE = pathlib.Path(__file__).parent.parent / "hermes.jinja"


class NoCounterpart(Exception):
    """The tests ask for something that Tallow has not."""


def parse(arguments, flags, values):
    """The arguments of another server as those of Tallow.

    `flags` have no value and no meaning here; `values` map an option with a value to Tallow's, or to None where it has no meaning here.
    """
    told = []
    rest = iter(arguments)
    for argument in rest:
        name, _, value = argument.partition("=")
        if name in values:
            value = value or next(rest)
            told += [values[name], str(value)] if values[name] else []
        elif name not in flags:
            raise NoCounterpart(f"no counterpart of {name}")
    return told


def command(arguments):
    """The command of a server with these arguments; later ones replace the first."""
    first = {"--chat-template": str(TEMPLATE), "--kv-cache-memory": "64MiB", "--max-num-seqs": "16", "--max-tokens-default": "64"}
    for option, value in zip(arguments[::2], arguments[1::2]):
        # The bundled model has a context of 4,096 tokens; -1 is no limit elsewhere.
        if option == "--max-model-len":
            value = str(min(int(value), 4096))
        if value != "-1":
            first[option] = value
    return [os.environ["TALLOW"], "serve", *(word for pair in first.items() for word in pair)]


def start(arguments, **more):
    return subprocess.Popen(command(arguments), stderr=subprocess.DEVNULL, **more)
