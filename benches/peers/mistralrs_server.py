#!/usr/bin/env python3
"""mistral.rs (wheel mistralrs) behind /v1/completions, as far as measure.py needs it: the wheel has no server. usage: mistralrs_server.py MODEL.gguf PORT"""
import http.server
import json
import os
import sys
import tempfile
from mistralrs import ChatCompletionRequest, Runner, Which

path, port = sys.argv[1], int(sys.argv[2])
folder, file = os.path.split(path)
# Only chat requests stream; this template passes the prompt on as it is.
template = {"chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}"}
template_file = tempfile.NamedTemporaryFile("w", suffix=".json")
json.dump(template, template_file)
template_file.flush()
which = Which.GGUF(tok_model_id=folder, quantized_model_id=folder, quantized_filename=file)
runner = Runner(which=which, no_paged_attn=True, prefix_cache_n=0, chat_template=template_file.name)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()
        messages = [{"role": "user", "content": body["prompt"]}]
        request = ChatCompletionRequest(model="default", messages=messages, max_tokens=body["max_tokens"], temperature=0.0, stream=True, ignore_eos=True)
        for _ in runner.send_chat_completion_request(request):
            self.wfile.write(b'data: {"choices": [{}]}\n\n')

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
