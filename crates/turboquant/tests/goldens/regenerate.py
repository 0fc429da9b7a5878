#!/usr/bin/env python3
"""Writes trellis.txt: vectors of independent normal elements, the codes that a plain Viterbi search over all levels finds
for them in each trellis code, the values of these codes and their error. Needs numpy.

Independent of the crate: histories are taken by indices modulo the vector's length, and the search keeps the cost of every
state and tries every code, in double precision. Usage: crates/turboquant/tests/goldens/regenerate.py"""
import pathlib
import numpy as np

D = 64
VECTORS = 6
# name: chained bits, free bits, r, n, C, B, E, as in src/trellis.rs
CODES = {
    "tc5": (4, 1, 5, 4, 2.653, -0.159, 0.601),
    "tc4": (4, 0, 5, 4, 2.443, -0.22, 0.667),
    "tc3": (2, 1, 6, 5, 2.392, -0.2795, 0.667),
    "tc2": (2, 0, 6, 5, 1.642, -0.186, 0.8975),
}


def value(code, bits, before):
    """The value of an element of code `bits`, after elements of the chained bits `before`, the nearest first."""
    k, free, r, n, c, b, e = code
    chained = bits % 2**k
    history = chained + sum(x << (k * (i + 1)) for i, x in enumerate(before))
    point = (bits >> k) << (k + n) | ((history ^ history >> r) % 2**k) << n | history % 2**n
    t = point / 2 ** (k + n + free - 1) - 1
    return c * t * ((t * t + b) ** 2 + e)


def values(code, codes):
    k = code[0]
    before = lambda i: [codes[(i - j) % len(codes)] % 2**k for j in (1, 2, 3)]
    return np.array([value(code, x, before(i)) for i, x in enumerate(codes)])


def search(code, x):
    """The closed path of the least error: for each first state the best path that returns to it."""
    k, free = code[:2]
    states = [(a, b, c) for a in range(2**k) for b in range(2**k) for c in range(2**k)] if k == 2 else [
        (a, b) for a in range(2**k) for b in range(2)
    ]
    number = {s: i for i, s in enumerate(states)}
    edges = []  # state, code, next state, value
    for s, i in number.items():
        for bits in range(2 ** (k + free)):
            chained = bits % 2**k
            after = (chained, s[0], s[1]) if k == 2 else (chained, s[0] % 2)
            edges.append((i, bits, number[after], value(code, bits, s)))
    start, bits, after, level = (np.array(column) for column in zip(*edges))
    best = (np.inf, None)
    for first in range(len(states)):
        cost = np.full(len(states), np.inf)
        cost[first] = 0
        back = []
        for z in x:
            new = cost[start] + (z - level) ** 2
            order = np.lexsort((new, after))
            chosen = order[np.searchsorted(after[order], np.arange(len(states)))]
            cost = new[chosen]
            back.append(chosen)
        if cost[first] < best[0]:
            state, codes = first, []
            for chosen in reversed(back):
                codes.append(int(bits[chosen[state]]))
                state = start[chosen[state]]
            best = (cost[first], codes[::-1])
    return best


lines = ["# Written by regenerate.py. A code's name, then a vector, its codes, and the codes' values."]
rng = np.random.default_rng(20)
for name, code in CODES.items():
    for _ in range(VECTORS):
        x = rng.standard_normal(D)
        x *= np.sqrt(D / (x @ x))
        x = x.astype(np.float32).astype(float)
        _, codes = search(code, x)
        lines.append(name)
        lines.append(" ".join(f"{v:.9g}" for v in x))
        lines.append(" ".join(map(str, codes)))
        lines.append(" ".join(f"{v:.9g}" for v in values(code, codes)))
pathlib.Path(__file__).with_name("trellis.txt").write_text("\n".join(lines) + "\n")
