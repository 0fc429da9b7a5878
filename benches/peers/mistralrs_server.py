#!/usr/bin/env python3
"""mistral.rs (wheel mistralrs) behind /v1/completions, as far as measure.py needs it: the wheel has no server. usage: mistralrs_server.py MODEL.gguf PORT"""
import http.server
import json
import os
import sys
from mistralrs import CompletionRequest, Runner, Which

path, port = sys.argv[1], int(sys.argv[2])
folder, file = os.path.split(path)
runner = Runner(which=Which.GGUF(tok_model_id=folder, quantized_model_id=folder, quantized_filename=file), no_paged_attn=True)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()
        request = CompletionRequest(model="m", prompt=body["prompt"], max_tokens=body["max_tokens"], temperature=0.0, stream=True)
        for _ in runner.send_completion_request(request):
            self.wfile.write(b'data: {"choices": [{}]}\n\n')

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
