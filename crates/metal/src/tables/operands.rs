//! Left operands of the kernels' 8x8 products.
use half::f16;

/// `count` matrices of 8 rows and 8 pairs as words: `[two matrices][high parts, low parts][row][2 pairs a column]`.
/// `of` gives (cos, sin) of a pair, 0 to 7, in a row, counted over all matrices.
pub(super) fn left_operands(count: usize, of: impl Fn(usize, usize) -> [f64; 2]) -> Vec<u32> {
    let at = |i: usize| {
        let (row, column) = (i / 64 * 16 + i % 32 / 4, i % 4);
        operands([row, row + 8].map(|row| [of(2 * column, row), of(2 * column + 1, row)]), i / 32 % 2 == 1)
    };
    (0..32 * count).flat_map(at).collect()
}

/// (cos, sin) of two RoPE pairs in each of two matrices as words of two halves: the cosines in both matrices, then the
/// sines. With `low` the words hold what is lost when the values are rounded to halves.
fn operands(angles: [[[f64; 2]; 2]; 2], low: bool) -> [u32; 4] {
    let part = |x: f64| if low { x - f16::from_f64(x).to_f64() } else { x };
    let word = |matrix: usize, k: usize| {
        let [first, second] = angles[matrix].map(|angle| u32::from(f16::from_f64(part(angle[k])).to_bits()));
        first | second << 16
    };
    [word(0, 0), word(1, 0), word(0, 1), word(1, 1)]
}
