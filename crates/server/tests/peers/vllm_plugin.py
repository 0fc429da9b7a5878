"""A plugin for vLLM's tests, which need neither vLLM nor PyTorch with it: Tallow is started in the place of vLLM, and what else they import
from there is a mock. Tests that take no running server are left out."""

import importlib.abc
import importlib.machinery
import pathlib
import re
import socket
import sys
import time
import types
import unittest.mock

import anthropic
import httpx
import openai
from stand_in import parse, start

FLAGS = {"--enforce-eager", "--enable-prompt-tokens-details", "--no-enable-prefix-caching", "--enable-auto-tool-choice"}
FLAGS |= {"--enable-tokenizer-info-endpoint", "--enable-server-load-tracking", "--trust-remote-code", "--disable-frontend-multiprocessing"}
FLAGS |= {"--enable-chunked-prefill", "--return-tokens-as-token-ids", "--enable-prefix-caching"}
VALUES = {"--max-model-len": "--max-model-len", "--max-num-seqs": "--max-num-seqs", "--served-model-name": "--served-model-name"}
VALUES |= {"--api-key": "--api-key"}
VALUES |= dict.fromkeys(["--dtype", "--seed", "--gpu-memory-utilization", "--max-num-batched-tokens", "--tool-call-parser", "--load-format"])
VALUES |= dict.fromkeys(["--reasoning-parser", "--structured-outputs-config.backend", "--max-logprobs", "--generation-config"])
VALUES |= dict.fromkeys(["--attention-backend", "--logprobs-mode", "--tensor-parallel-size"])


class RemoteOpenAIServer:
    """Has the methods of the class of vLLM's tests that this name has there."""

    DUMMY_API_KEY = "token-abc123"

    def __init__(self, model, vllm_serve_args, *, env_dict=None, **_):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.host, self.url_root = "127.0.0.1", f"http://127.0.0.1:{self.port}"
        told = parse([str(argument) for argument in vllm_serve_args], FLAGS, VALUES)
        self.process = start(["--served-model-name", model, *told, "--port", str(self.port)])
        for _ in range(300):
            try:
                if httpx.get(self.url_for("health")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        self.process.kill()
        raise RuntimeError("the server does not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def url_for(self, *parts):
        return "/".join([self.url_root, *(part.strip("/") for part in parts)])

    def _client(self, make, base, options):
        return make(base_url=base, api_key=self.DUMMY_API_KEY, max_retries=0, **{"timeout": 60, **options})

    def get_client(self, **options):
        return self._client(openai.OpenAI, self.url_for("v1"), options)

    def get_async_client(self, **options):
        return self._client(openai.AsyncOpenAI, self.url_for("v1"), options)

    def get_client_anthropic(self, **options):
        return self._client(anthropic.Anthropic, self.url_root, options)

    def get_async_client_anthropic(self, **options):
        return self._client(anthropic.AsyncAnthropic, self.url_root, options)


class Mocks(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Any module of these packages is there, and has any name."""

    PACKAGES = {"vllm", "torch", "transformers", "cloudpickle", "cv2", "librosa", "soundfile", "openai_harmony", "ray", "fastapi", "starlette", "pybase64"}

    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in self.PACKAGES:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = unittest.mock.MagicMock(name=spec.name)
        module.__path__, module.__spec__, module.__name__ = [], spec, spec.name
        if spec.name == "vllm.platforms":
            for platform in ("cuda", "rocm", "xpu", "cpu", "tpu"):
                getattr(module.current_platform, f"is_{platform}").return_value = False
        return module

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, Mocks())
utils = types.ModuleType("tests.utils")
utils.__getattr__ = lambda name: unittest.mock.MagicMock(name=name)
utils.RemoteOpenAIServer, utils.ROCM_EXTRA_ARGS, utils.ROCM_ENV_OVERRIDES, utils.VLLM_PATH = RemoteOpenAIServer, [], {}, pathlib.Path()
for mark in ("multi_gpu_only", "requires_fp8"):
    setattr(utils, mark, lambda function=None, **_: function or (lambda other: other))
sys.modules["tests.utils"] = utils
sys.modules["tests.conftest"] = unittest.mock.MagicMock(name="tests.conftest")


# What fixtures that give a running server, or a client of it, are called.
FIXTURE = re.compile(r"(?:^|_)(?:client|server)$")


def pytest_collection_modifyitems(config, items):
    served = [item for item in items if any(FIXTURE.search(name) for name in item.fixturenames)]
    config.hook.pytest_deselected(items=[item for item in items if item not in served])
    items[:] = served
