"""Writes blocks.bin: what ggml and the `gguf` package make of the same values and bytes.

    pip install gguf==0.19.0 ggml-python==0.0.45 numpy    # the latter builds ggml 0.15.3
    python regenerate.py

Two independent sources: ggml's C quantisers (`ggml_quantize_chunk`, no importance matrix) give the blocks, `gguf.quants`
(numpy) what blocks mean. Little-endian, in this order:

    512 f32 values: normal, then a quarter with an offset, a zero block and a block of one value
    for each type of TYPES: blocks of the values by ggml | these as f32 by gguf
                            | 512 elements' blocks of random bytes (with finite f16) | these as f32 by gguf
"""

import ctypes
import pathlib

import ggml
import gguf
import numpy as np

# name: offsets of f16 fields in a block
TYPES = {
    "Q8_0": [0],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}
N = 512

rng = np.random.default_rng(20)
values = rng.standard_normal(N).astype(np.float32)
values[128:256] += 2
values[320:352] = 0
values[352:384] = -0.75


def quantize(ty: gguf.GGMLQuantizationType, size: int) -> np.ndarray:
    out = np.zeros(size, np.uint8)
    floats = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    ggml.ggml_quantize_chunk(int(ty), floats, out.ctypes.data_as(ctypes.c_void_p), 0, 1, N, None)
    return out


def main() -> None:
    parts = [values.tobytes()]
    for name, halves in TYPES.items():
        ty = gguf.GGMLQuantizationType[name]
        length, block = gguf.GGML_QUANT_SIZES[ty]
        size = N // length * block
        blocks = quantize(ty, size)
        noise = rng.integers(0, 256, (N // length, block), np.uint8)
        for at in halves:
            d = rng.standard_normal((N // length, 1)).astype(np.float16)
            d[0] = 2**-20  # subnormal
            noise[:, at : at + 2] = d.view(np.uint8)
        for part in (blocks, noise.reshape(-1)):
            parts += [part.tobytes(), gguf.quants.dequantize(part, ty).astype("<f4").tobytes()]
    pathlib.Path(__file__).with_name("blocks.bin").write_bytes(b"".join(parts))


main()
