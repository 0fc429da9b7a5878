//! What attention is held to: one table of cases, run in the emulator by `tests/kernels.rs` and on an NVIDIA GPU by
//! `metal-cuda check`.
use super::page::Page;
use super::{Cache, Case, KV_HEADS, relative};
use half::f16;
use metal::{AttendKernel, Executor};
use std::ops::Range;
use turboquant::Format::{self, *};
use turboquant::Side;

/// Every K format and every V format of the kernels, which `tests/kernels.rs` holds this list to.
pub const PAIRS: [(Format, Format); 12] = [
    (F16, F16),
    (Bf16, Bf16),
    (Tq8, Tq8),
    (Affine8, Int8),
    (Tc5, Tc5),
    (Tc4, Tc4),
    (Tc3, Tc3),
    (Tc2, Tc2),
    (Affine5, Lloyd3),
    (Affine4, Lloyd5),
    (Affine4, Lloyd4),
    (Affine4, Lloyd2),
];
pub const DIMS: [usize; 6] = [64, 80, 96, 128, 256, 512];

/// Writes a sequence and attends its last rows.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub case: Case,
    pub rows: Range<usize>,
}

fn last(case: Case, tokens: usize) -> Attempt {
    Attempt { case, rows: tokens - 1..tokens }
}

/// All formats in some head sizes, at 64 and 128 by both kernels, with blocks of 16 in one and of 32 in the other.
pub fn formats(dims: &[usize]) -> Vec<Attempt> {
    let mut all = Vec::new();
    for d in dims.iter().copied() {
        for (i, (k, v)) in PAIRS.into_iter().enumerate() {
            let block_size = if i % 2 == 0 { 16 } else { 32 };
            let decode = if (i + d / 16) % 2 == 0 { AttendKernel::Mma } else { AttendKernel::Vec };
            let case = Case { centred: k.is_rotated(), block_size, decode, ..Case::new(k, v, d) };
            all.push(last(case, 90));
            if d == 64 || d == 128 {
                let decode = if decode == AttendKernel::Mma { AttendKernel::Vec } else { AttendKernel::Mma };
                all.push(last(Case { decode, block_size: 48 - block_size, ..case }, 90));
            }
        }
    }
    all
}

/// Contexts at the edges of a block and of a partition, and a long one.
pub fn contexts() -> Vec<Attempt> {
    let mut all = Vec::new();
    for (i, (k, v, d)) in [(F16, F16, 64), (Tq8, Tc4, 80), (Tc4, Tc4, 64)].into_iter().enumerate() {
        for decode in [AttendKernel::Mma, AttendKernel::Vec] {
            let block_size = [16, 32, 32][i];
            let case = Case { centred: k.is_rotated(), decode, block_size, ..Case::new(k, v, d) };
            let edges = [1, block_size - 1, block_size, block_size + 1, 511, 512, 513];
            all.extend(edges.map(|tokens| last(case, tokens)));
        }
    }
    for decode in [AttendKernel::Mma, AttendKernel::Vec] {
        all.push(last(Case { centred: true, decode, group: 2, ..Case::new(Tc4, Tc3, 64) }, 5000));
    }
    all
}

pub fn groups_and_windows() -> Vec<Attempt> {
    let base = Case { centred: true, ..Case::new(Tc4, Tc4, 64) };
    let mut all: Vec<Attempt> = [1, 2, 7, 8, 16].map(|group| last(Case { group, ..base }, 70)).into();
    all.extend([1, 2, 3].map(|group| last(Case { group, decode: AttendKernel::Vec, ..base }, 70)));
    for (window, decode) in [
        (1, AttendKernel::Mma),
        (40, AttendKernel::Vec),
        (40, AttendKernel::Mma),
        (530, AttendKernel::Vec),
        (530, AttendKernel::Mma),
    ] {
        all.push(last(Case { window: Some(window), decode, ..base }, 600));
    }
    all
}

pub fn chunks() -> Vec<Attempt> {
    let mut all = Vec::new();
    for (i, (k, v)) in PAIRS.into_iter().enumerate() {
        let (d, group) = ([64, 128, 80, 96][i % 4], [4, 7, 1, 8][(i + i / 4) % 4]);
        all.push(Attempt { case: Case { centred: k.is_rotated(), group, ..Case::new(k, v, d) }, rows: 40..75 });
    }
    let base = Case { centred: true, block_size: 32, ..Case::new(Tc4, Tc4, 64) };
    all.push(Attempt { case: base, rows: 480..560 });
    all.push(Attempt { case: Case { window: Some(100), ..base }, rows: 480..560 });
    // The largest head size that has a kernel for chunks, and one that has none.
    all.push(Attempt { case: Case::new(Tc5, Tc5, 256), rows: 10..40 });
    all.push(Attempt { case: Case::new(F16, F16, 512), rows: 10..40 });
    all
}

/// Keys stored as floats with a bias 30 times as large as they are themselves, which is followed exactly.
pub fn large_biases() -> Vec<Attempt> {
    let mut all = Vec::new();
    for (i, d) in DIMS.into_iter().enumerate() {
        let case = Case { centred: true, bias: 30.0, ..Case::new(if i % 2 == 0 { Bf16 } else { F16 }, F16, d) };
        for decode in [AttendKernel::Mma, AttendKernel::Vec] {
            all.push(last(Case { decode, ..case }, 90));
            all.push(last(Case { decode, block_size: 32, ..case }, 600));
        }
        all.push(Attempt { case, rows: 490..530 });
    }
    all
}

/// What a checker of memory and of races goes through: every kernel of attention and both kinds of record. `order`: of
/// lanes.
pub fn covering(order: u32) -> Vec<Attempt> {
    let mut all = Vec::new();
    for (i, (k, v)) in PAIRS.into_iter().enumerate() {
        let d = [64, 80, 96, 128][(i + order as usize) % 4];
        let decode = if (i / 2 + order as usize).is_multiple_of(2) { AttendKernel::Mma } else { AttendKernel::Vec };
        all.push(last(Case { centred: k.is_rotated(), decode, order, ..Case::new(k, v, d) }, 35));
    }
    all.push(Attempt { case: Case { centred: true, order, ..Case::new(Tc5, Tc4, 64) }, rows: 20..60 });
    all.push(Attempt { case: Case { order, ..Case::new(F16, F16, 80) }, rows: 20..60 });
    let exact = Case { centred: true, bias: 30.0, order, ..Case::new(Bf16, Bf16, 64) };
    all.push(Attempt { case: exact, rows: 20..60 });
    all.push(last(Case { decode: AttendKernel::Vec, ..exact }, 35));
    all
}

/// As `covering`, of the largest head sizes.
pub fn covering_large() -> Vec<Attempt> {
    let of = |d, decode| last(Case { centred: true, decode, order: 3, ..Case::new(Tc4, Tc3, d) }, 35);
    [256, 512].into_iter().flat_map(|d| [AttendKernel::Mma, AttendKernel::Vec].map(|decode| of(d, decode))).collect()
}

/// Rows and partitions enough that `query` follows four partitions at once, and that `reduce` merges an item a
/// simdgroup.
pub fn much() -> Vec<Attempt> {
    let case = Case { centred: true, group: 16, ..Case::new(Tc4, Tc4, 64) };
    vec![Attempt { case, rows: 8100..8192 }]
}

/// Where time does not matter: every pair at 64 and 128 by all kernels behind two partitions, every head size with
/// groups and windows.
pub fn at_length() -> Vec<Attempt> {
    let mut all = Vec::new();
    for d in [64, 128] {
        for (k, v) in PAIRS {
            let case = Case { centred: k.is_rotated(), ..Case::new(k, v, d) };
            all.extend([AttendKernel::Mma, AttendKernel::Vec].map(|decode| last(Case { decode, ..case }, 1300)));
            all.push(Attempt { case, rows: 1230..1300 });
        }
    }
    for (d, (k, v)) in DIMS.into_iter().zip([(Tq8, Tc4), (Tc5, Tc5), (Tc4, Tc4), (Tc4, Tc3), (F16, F16), (Tc3, Tc3)]) {
        for (group, window) in [1, 2, 4, 7, 8].into_iter().flat_map(|group| [None, Some(600)].map(|w| (group, w))) {
            let case = Case { centred: k.is_rotated(), group, window, ..Case::new(k, v, d) };
            // The reference takes d^2 a token.
            let tokens = if d < 256 { 1300 } else { 700 };
            all.push(last(case, tokens));
            if group <= 4 {
                all.push(last(Case { decode: AttendKernel::Vec, ..case }, tokens));
            }
            all.push(Attempt { case, rows: tokens - 70..tokens });
        }
    }
    all
}

impl Attempt {
    /// The launches alone, for an executor that only compiles them.
    pub fn launch<E: Executor>(&self, executor: E) {
        let mut cache = Cache::new(executor, self.case, self.rows.end);
        cache.write();
        let q = cache.query(9, self.rows.len());
        cache.attend(&q, self.rows.start, self.rows.end);
    }

    /// Writes and attends; bytes of some tokens against turboquant's, attention of single rows by six queries and of
    /// eight rows of a chunk against f64. Gives the relative error.
    pub fn run<E: Executor>(&self, executor: E) -> Result<f64, String> {
        let Attempt { case, rows } = self;
        let mut cache = Cache::new(executor, *case, rows.end);
        cache.write();
        check_bytes(&cache, &[0, 1, 7, rows.end / 2, rows.end - 1].map(|t| t.min(rows.end - 1)))?;
        let (mut got, mut want) = (Vec::new(), Vec::new());
        if rows.len() == 1 {
            for seed in 5..11 {
                let q = cache.query(seed, 1);
                got.extend(cache.attend(&q, rows.start, rows.end));
                want.extend(cache.expect(&q, rows.start));
            }
        } else {
            let q = cache.query(9, rows.len());
            let all = cache.attend(&q, rows.start, rows.end);
            let width = all.len() / rows.len();
            let last = rows.len().saturating_sub(6)..rows.len();
            for row in [0, rows.len() / 2].into_iter().chain(last) {
                let range = row * width..(row + 1) * width;
                got.extend_from_slice(&all[range.clone()]);
                want.extend(cache.expect(&q[range], rows.start + row));
            }
        }
        let error = relative(&got, &want);
        if error < bound(case) { Ok(error) } else { Err(format!("error {error:.1e}, allowed {:.1e}", bound(case))) }
    }
}

/// Allowed relative error of attention.
///
/// Half rounds by 1.7e-4 rms. In `Mma` queries and P are half: 2.4e-4. Decoding adds, to a logit of rms 1 and to the
/// output: codebooks up to .9e-4; trellis codes, whose polynomial has three roundings and two
/// rounded constants, up to 3.3e-4; group scales another 1.7e-4, where an operand has to be half again. Together up to
/// 3.4e-4, with trellis codes 5.2e-4; `Vec` 2.4e-4 and 4.6e-4. Pair scales that do not suit the noise make the products
/// that are rounded 1.05 times as large (the root of the mean squares of a scale and of its inverse, multiplied):
/// 3.6e-4, 5.5e-4, 2.5e-4 and 4.8e-4. What is left is for chance: a result rests on some ten tokens.
fn bound(case: &Case) -> f64 {
    match (case.decode == AttendKernel::Vec, case.k.is_trellis() || case.v.is_trellis()) {
        (true, false) => 3e-4,
        (false, false) => 4.8e-4,
        (true, true) => 5.8e-4,
        (false, true) => 6.8e-4,
    }
}

/// Codes equal turboquant's, or one apart where the element lies at a boundary; scales equal or neighbours.
fn check_bytes<E: Executor>(cache: &Cache<E>, tokens: &[usize]) -> Result<(), String> {
    let (kernel, case) = (cache.kernel(), cache.case);
    let (mut differing, mut all, mut vectors, mut paths) = (0, 0, 0, 0);
    for head in 0..KV_HEADS {
        let pages = cache.pages(head);
        for (token, side) in tokens.iter().flat_map(|t| [(*t, Side::K), (*t, Side::V)]) {
            let page = &pages[token / case.block_size];
            let (got, got_scales) = page.codes(side, token % case.block_size);
            let x = cache.given(side, token, head);
            let (want, want_scales) = kernel.encode(side, &x);
            if want.is_empty() {
                // A key of up to 1.73 without its mean, which is exact here but for a rounding at the size of the bias;
                // RoPE adds two products of up to 1.73 sqrt(2) each, three roundings of f32.
                let turned = match side {
                    Side::K => 6e-7 * if case.centred { 1.0 + f64::from(case.bias) } else { 1.0 },
                    Side::V => 1e-7,
                };
                for (got, x) in page.vector(side, token % case.block_size).iter().zip(&x) {
                    let step = if page.record.format(side) == F16 { 11 } else { 8 };
                    let allowed = f64::from(x.abs()) / f64::from(1 << step) * 1.001 + turned;
                    if (got - f64::from(*x)).abs() > allowed || got.is_nan() {
                        return Err(format!("{side} token {token}: {got} for {x}"));
                    }
                }
                continue;
            }
            if page.record.format(side).is_trellis() {
                vectors += 1;
                if got.iter().zip(&want).any(|(got, want)| *got != u32::from(*want)) {
                    paths += 1;
                    as_near(page, side, token % case.block_size, &want, want_scales[0], &x)
                        .map_err(|message| format!("{side} token {token}: {message}"))?;
                    continue;
                }
            }
            for (got, want) in got_scales.iter().zip(&want_scales) {
                if got.to_bits().abs_diff(want.to_bits()) > 1 {
                    return Err(format!("{side} token {token}: scale {got} for {want}"));
                }
            }
            for (i, (got, want)) in got.iter().zip(want).enumerate() {
                all += 1;
                if *got != u32::from(want) {
                    differing += 1;
                    if !neighbours(page.record.format(side), *got, u32::from(want)) {
                        return Err(format!("{side} token {token} element {i}: code {got} for {want}"));
                    }
                }
            }
        }
    }
    // A boundary is hit by chance alone: elements within some 1e-6 of one. Scales that are neighbours move int8 codes
    // as well.
    if differing * 500 > all {
        return Err(format!("{differing} codes of {all} differ"));
    }
    // Rotations that round otherwise move an element's integer by one, which rarely makes another path the best.
    if paths * 8 <= vectors + 8 { Ok(()) } else { Err(format!("{paths} paths of {vectors} differ")) }
}

/// Whether another path than turboquant's is nearly as near to the vector as that one.
fn as_near(page: &Page, side: Side, slot: usize, codes: &[u8], scale: f16, x: &[f32]) -> Result<(), String> {
    let error = |values: &[f64]| values.iter().zip(x).map(|(a, b)| (a - f64::from(*b)).powi(2)).sum::<f64>();
    let codes: Vec<u32> = codes.iter().map(|code| u32::from(*code)).collect();
    let (got, want) = (error(&page.vector(side, slot)), error(&page.decode(side, &codes, &[scale])));
    if got <= 1.02 * want { Ok(()) } else { Err(format!("squared error {got} for {want}")) }
}

fn neighbours(format: Format, a: u32, b: u32) -> bool {
    let n = format.magnitudes().len() as i64;
    let rank = |code: u32| match format {
        Tq8 | Int8 => i64::from(code as u8 as i8),
        _ if n == 0 || i64::from(code) < n => i64::from(code),
        _ => n - 1 - i64::from(code),
    };
    rank(a).abs_diff(rank(b)) == 1
}

/// Copies of blocks of a written cache.
pub fn copies<E: Executor>(executor: E, case: Case) -> Result<(), String> {
    let mut cache = Cache::new(executor, case, 5 * case.block_size);
    cache.write();
    cache.copy()
}
