#!/usr/bin/env python3
"""Serves a GGUF with llama.cpp's own server (wheel xllamacpp). usage: llamacpp.py MODEL.gguf PORT CONTEXT PARALLEL K_TYPE V_TYPE THREADS
[CACHE_MIB]"""
import sys
import threading
import xllamacpp

path, port, context, parallel, k, v, threads, *cache = sys.argv[1:]
kind = lambda name: getattr(xllamacpp.ggml_type, "GGML_TYPE_" + name.upper())
p = xllamacpp.CommonParams()
p.model.path, p.port, p.n_ctx, p.n_parallel = path, int(port), int(context), int(parallel)
p.cache_type_k, p.cache_type_v = kind(k), kind(v)
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = int(threads)
p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
p.ctx_shift, p.cache_ram_mib = False, int(cache[0]) if cache else 0
server = xllamacpp.Server(p)
print("listening", server.listening_address, flush=True)
threading.Event().wait()
