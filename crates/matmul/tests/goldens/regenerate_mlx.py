"""Writes mlx.zlib: what MLX's quantisers give for random values, and what MLX makes of that.

    pip install 'mlx[cpu]==0.32.4' numpy
    python regenerate_mlx.py

Compressed by zlib; little-endian, for each type of `types()` in its order:

    codes of 128 elements, as `mx.quantize` packs them | scales | biases, of affine types | 128 f32 by `mx.dequantize`

Affine types have scales and biases of two groups or more; behind them come those of `mxfp4` and `nvfp4` with every
scale that is a number, 32 and 16 elements each, and then the 256 numbers of FP8 (E4M3) by `mxfp8` with a scale of 1.
"""

import pathlib
import zlib

import mlx.core as mx
import numpy as np

rng = np.random.default_rng(7)


def types():
    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64, 128):
            for dtype in (mx.float16, mx.bfloat16):
                yield bits, group, dtype


def raw(array: mx.array) -> bytes:
    return np.array(array.view(mx.uint8)).tobytes()


def affine(bits: int, group: int, dtype: mx.Dtype) -> list[bytes]:
    values = rng.standard_normal((1, 128)).astype(np.float32) + rng.choice([0, 3, -0.01])
    codes, scales, biases = mx.quantize(mx.array(values).astype(dtype), group_size=group, bits=bits)
    floats = (scales.astype(mx.float32), biases.astype(mx.float32))
    meaning = mx.dequantize(codes, *floats, group_size=group, bits=bits)
    return [raw(codes), raw(scales), raw(biases), np.array(meaning).astype("<f4").tobytes()]


def fp4(mode: str, group: int, scales: list[int]) -> list[bytes]:
    words = rng.permutation(16).reshape(2, 8) @ (16 ** np.arange(8))  # every number once
    codes = mx.array(np.tile(words.astype(np.uint32), (len(scales), group // 16)))
    scales = mx.array(np.array(scales, np.uint8).reshape(-1, 1))
    meaning = mx.dequantize(codes, scales, group_size=group, bits=4, mode=mode, dtype=mx.float32)
    return [raw(codes), raw(scales), np.array(meaning).astype("<f4").tobytes()]


def fp8() -> list[bytes]:
    codes = mx.array(np.arange(256, dtype=np.uint8).reshape(8, 32).view(np.uint32))
    ones = mx.array(np.full((8, 1), 127, np.uint8))
    meaning = mx.dequantize(codes, ones, group_size=32, bits=8, mode="mxfp8", dtype=mx.float32)
    return [np.array(meaning).astype("<f4").tobytes()]


def main() -> None:
    parts = [part for of in types() for part in affine(*of)]
    parts += fp4("mxfp4", 32, list(range(255)))
    parts += fp4("nvfp4", 16, [scale for scale in range(256) if scale & 127 != 127])
    parts += fp8()
    pathlib.Path(__file__).with_name("mlx.zlib").write_bytes(zlib.compress(b"".join(parts), 9))


main()
