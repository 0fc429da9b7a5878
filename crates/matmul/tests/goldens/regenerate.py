"""Writes blocks.zlib and grids.zlib: what ggml and the `gguf` package make of the same values and bytes.

    pip install gguf==0.19.0 ggml-python==0.0.45 numpy    # the latter builds ggml 0.15.3
    python regenerate.py

Two independent sources: ggml's C quantisers (`ggml_quantize_chunk`, no importance matrix) give the blocks, `gguf.quants`
(numpy) what blocks mean. Compressed by zlib; little-endian, in this order:

    512 f32 values: normal, then a quarter with an offset, a zero block and a block of one value
    for each type of TYPES: blocks of the values by ggml | these as f32 by gguf
                            | 512 elements' blocks of random bytes (with finite f16) | these as f32 by gguf

grids.zlib has, for each type of GRIDS, blocks that name every entry of the type's grid once, with random signs and a
scale that makes their values integers | these as int8 by gguf.
"""

import ctypes
import pathlib
import zlib

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
    "IQ4_NL": [0],
    "IQ4_XS": [0],
    "MXFP4": [],
    "IQ3_S": [0],
    "IQ3_XXS": [0],
    "IQ2_S": [0],
    "IQ2_XS": [0],
    "IQ2_XXS": [0],
    "TQ2_0": [64],
    "TQ1_0": [52],
}
# name: the scale that makes values integers
GRIDS = {"IQ3_S": 1, "IQ3_XXS": 4, "IQ2_S": 8, "IQ2_XS": 8, "IQ2_XXS": 8}
N = 512

rng = np.random.default_rng(20)
values = rng.standard_normal(N).astype(np.float32)
values[128:256] += 2
values[320:352] = 0
values[352:384] = -0.75


def quantize(ty: gguf.GGMLQuantizationType, size: int) -> np.ndarray:
    out = np.zeros(size, np.uint8)
    pointer = ctypes.POINTER(ctypes.c_float)
    # Two types are not quantised without an importance matrix.
    importance = np.ones(N, np.float32).ctypes.data_as(pointer) if ggml.ggml_quantize_requires_imatrix(int(ty)) else None
    floats = values.ctypes.data_as(pointer)
    ggml.ggml_quantize_chunk(int(ty), floats, out.ctypes.data_as(ctypes.c_void_p), 0, 1, N, importance)
    return out


def random_blocks(name: str, count: int, size: int) -> np.ndarray:
    noise = rng.integers(0, 256, (count, size), np.uint8)
    for at in TYPES[name]:
        d = rng.standard_normal((count, 1)).astype(np.float16)
        d[0] = 2**-20  # subnormal
        noise[:, at : at + 2] = d.view(np.uint8)
    if name == "MXFP4":
        noise[:, 0] = rng.integers(96, 160, count)
        noise[:4, 0] = [0, 1, 2, 255]
    return noise


def every_entry(name: str) -> np.ndarray:
    """Blocks of 256 elements with the fields of `ggml-common.h`; scales of groups are 0, which stands for 1."""
    ty = gguf.GGMLQuantizationType[name]
    entries, width = gguf.quants._type_traits[ty].grid_shape
    index = np.arange(entries, dtype=np.uint32).reshape(-1, 256 // width)  # of each block
    count = len(index)
    low = index.astype(np.uint8)
    signs = lambda groups: rng.integers(0, 256, (count, groups), np.uint8)
    high = lambda bits: np.sum((index >> 8).reshape(count, -1, 8 // bits) << np.arange(0, 8, bits, np.uint32), axis=2, dtype=np.uint8)
    seven_bits = rng.integers(0, 2**28, (count, 8), np.uint32)
    zeros = lambda size: np.zeros((count, size), np.uint8)
    d = np.full((count, 1), GRIDS[name], np.float16)
    match name:
        case "IQ3_S":
            fields = [d, low, high(1), signs(32), zeros(4)]
        case "IQ3_XXS":
            fields = [d, low, seven_bits]
        case "IQ2_S":
            fields = [d, low, signs(32), high(2), zeros(8)]
        case "IQ2_XS":
            fields = [d, (index | rng.integers(0, 128, index.shape, np.uint32) << 9).astype(np.uint16), zeros(8)]
        case "IQ2_XXS":
            fields = [d, np.stack([np.ascontiguousarray(low).view(np.uint32), seven_bits], axis=2).reshape(count, -1)]
    blocks = np.concatenate([np.ascontiguousarray(field).view(np.uint8) for field in fields], axis=1)
    groups = np.abs(gguf.quants.dequantize(blocks.reshape(-1), ty)).reshape(entries, width)
    assert blocks.shape[1] == gguf.GGML_QUANT_SIZES[ty][1] and len(np.unique(groups, axis=0)) == entries
    return blocks.reshape(-1)


def write(name: str, parts: list[bytes]) -> None:
    pathlib.Path(__file__).with_name(f"{name}.zlib").write_bytes(zlib.compress(b"".join(parts), 9))


def main() -> None:
    parts = [values.tobytes()]
    for name in TYPES:
        ty = gguf.GGMLQuantizationType[name]
        length, block = gguf.GGML_QUANT_SIZES[ty]
        size = N // length * block
        blocks = quantize(ty, size)
        noise = random_blocks(name, N // length, block)
        for part in (blocks, noise.reshape(-1)):
            parts += [part.tobytes(), gguf.quants.dequantize(part, ty).astype("<f4").tobytes()]
    write("blocks", parts)
    parts = []
    for name in GRIDS:
        blocks = every_entry(name)
        meaning = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name])
        assert np.all(meaning == meaning.astype(np.int8))
        parts += [blocks.tobytes(), meaning.astype(np.int8).tobytes()]
    write("grids", parts)


main()
