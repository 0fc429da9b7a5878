"""Many clients that ask a running server for streams and do not read them: monitoring is answered, and once the clients
have left, nothing runs for them any more."""

import argparse
import json
import re
import socket
import time
import urllib.request
from urllib.parse import urlsplit

ANSWER_WITHIN = 5.0
BEGUN_WITHIN = 30.0
GONE_WITHIN = 30.0


def ask(address, body):
    """A connection over which a stream is asked for, whose system takes little of the answer."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(10)
    client.connect(address)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    return client


def get(url):
    """The text at `url`, which must come in time."""
    begin = time.monotonic()
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    took = time.monotonic() - begin
    assert took < ANSWER_WITHIN, f"{url} took {took:.1f} s"
    return text


def requests(url):
    """How many requests run or wait."""
    names = r"^vllm:num_requests_(?:running|waiting)\{.*\} ([0-9.]+)$"
    return sum(float(n) for n in re.findall(names, get(url + "/metrics"), re.MULTILINE))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    url = urlsplit(args.url)
    message = {"role": "user", "content": "Tell a long story."}
    body = json.dumps({"messages": [message], "stream": True, "ignore_eos": True}).encode()
    readers = [ask((url.hostname, url.port), body) for _ in range(args.readers)]
    begun = time.monotonic() + BEGUN_WITHIN
    while requests(args.url) == 0:
        assert time.monotonic() < begun, "nothing runs"
        time.sleep(0.2)
    end = time.monotonic() + args.seconds
    while time.monotonic() < end:
        get(args.url + "/health")
        assert requests(args.url) > 0, "nothing runs any more"
        time.sleep(0.2)
    for reader in readers:
        reader.close()
    end = time.monotonic() + GONE_WITHIN
    while requests(args.url) > 0:
        assert time.monotonic() < end, "requests run whose clients have left"
        time.sleep(0.2)
    print(f"{args.readers} slow readers: /health and /metrics were answered, and nothing is left of them")


if __name__ == "__main__":
    main()
