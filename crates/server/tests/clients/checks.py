"""What the programs that drive a running server with somebody's package have in common.

A program marks its checks with `check`, and ends with `run`, which calls each with what the program made of `--url` and `--api-key`.
"""

import argparse
import sys
import traceback

import pydantic

CHECKS = []

QUESTION = "What is the weather in Paris?"
WEATHER = {
    "name": "get_weather",
    "description": "Tells the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 24}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TIME = {
    "name": "get_time",
    "description": "Tells the time of a city.",
    "parameters": WEATHER["parameters"],
}


class City(pydantic.BaseModel):
    """A city."""

    name: str = pydantic.Field(max_length=20)
    coastal: bool


# A prompt of more tokens than any context that scripts/check-clients.sh serves.
TOO_LONG = "word " * 5000
TOO_LONG_TEXT = "maximum context length is"


def check(function):
    CHECKS.append(function)
    return function


def equal(actual, expected, what=""):
    if actual != expected:
        raise AssertionError(f"{what}: {actual!r} is not {expected!r}")


def fails(status, call):
    """The error, of whatever type, with which the call fails with this status."""
    try:
        answer = call()
    except Exception as error:
        equal(getattr(error, "status_code", None), status, f"{type(error).__name__}: {error}")
        return error
    raise AssertionError(f"was not refused with {status}: {answer!r}")


def refused(status, code, param, call):
    """The call fails as OpenAI's package tells it, with this status, code and field."""
    error = fails(status, call)
    equal((error.code, error.param), (code, param), str(error))
    return error


def run(description, make_server, package):
    """Calls every check and exits, with 0 if all hold."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--api-key")
    parser.add_argument("--only", default="", help="runs the checks whose names contain this")
    args = parser.parse_args()
    server = make_server(args.url.rstrip("/"), args.api_key)
    checks = {function.__name__.replace("_", " "): function for function in CHECKS}
    checks = {name: function for name, function in checks.items() if args.only in name}
    failed = 0
    for name, function in checks.items():
        try:
            function(server)
            print(f"ok      {name}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc(limit=3, chain=False)}", flush=True)
    print(f"{len(checks) - failed} of {len(checks)} checks hold with {package}")
    sys.exit(1 if failed else 0)
