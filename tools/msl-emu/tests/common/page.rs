//! A record as the kernels lay it out, by its description in `kernels/common/formats.h`.
use half::{bf16, f16};
use turboquant::{Format, RecordLayout, Rotation, Side};

pub struct Page {
    pub record: RecordLayout,
    pub bytes: Vec<u8>,
}

/// Bits of the main plane, and whether a plane of top bits follows.
fn planes(format: Format) -> (usize, bool) {
    use Format::*;
    match format {
        F16 | Bf16 => (16, false),
        Tq8 | Affine8 | Int8 => (8, false),
        Affine5 => (4, true),
        Affine4 => (4, false),
        Tc5 | Tc4 | Tc3 | Tc2 => {
            let code = trellis(format);
            (code.k, code.free)
        }
        _ => match format.magnitudes().len() {
            16 => (5, false),
            8 => (4, false),
            4 => (2, true),
            2 => (2, false),
            n => unreachable!("not on a GPU: {format:?} with {n} magnitudes"),
        },
    }
}

fn scale_bytes(format: Format, d: usize) -> usize {
    format.row_bytes(d) - {
        let (bits, top) = planes(format);
        d * (bits + usize::from(top)) / 8
    }
}

/// What a trellis code is made of, by the letters of its definition (`turboquant`'s `trellis.rs`).
struct TrellisCode {
    k: usize,
    free: bool,
    n: usize,
    r: usize,
    b: f64,
    c: f64,
    e: f64,
}

fn trellis(format: Format) -> TrellisCode {
    match format {
        Format::Tc5 => TrellisCode { k: 4, free: true, n: 4, r: 5, b: -0.159, c: 2.653, e: 0.601 },
        Format::Tc4 => TrellisCode { k: 4, free: false, n: 4, r: 5, b: -0.22, c: 2.443, e: 0.667 },
        Format::Tc3 => TrellisCode { k: 2, free: true, n: 5, r: 6, b: -0.2795, c: 2.392, e: 0.667 },
        Format::Tc2 => TrellisCode { k: 2, free: false, n: 5, r: 6, b: -0.186, c: 1.642, e: 0.8975 },
        other => unreachable!("{other:?} is no trellis code"),
    }
}

/// The values of a vector's codes, of which the one before the first is the last.
pub fn trellis_values(format: Format, codes: &[u32]) -> Vec<f64> {
    let TrellisCode { k, free, n, r, b, c, e } = trellis(format);
    let d = codes.len();
    let chained = |i: usize| (codes[i % d] & ((1 << k) - 1)) as usize;
    let value = |i: usize| {
        let history = (0..9usize.div_ceil(k)).map(|back| chained(i + d - back) << (k * back)).sum::<usize>();
        let upper = (history ^ history >> r) & ((1 << k) - 1) | (codes[i] as usize >> k) << k;
        let point = upper << n | history & ((1 << n) - 1);
        let t = point as f64 / (1 << (k + n + usize::from(free) - 1)) as f64 - 1.0;
        c * t * ((t * t + b).powi(2) + e)
    };
    (0..d).map(value).collect()
}

/// How the codes of a lane's string lie in a plane.
#[derive(Clone, Copy)]
enum PlaneKind {
    Ordered,
    /// The older in the higher bits of each half word.
    Chained,
    /// Free bits: of up to 16 codes, those whose chained bits lie in the lower bytes of half words before the others.
    Free,
}

/// The code that lies at a place of a string of chained codes, `each` a half word.
fn chained_code(d: usize, each: usize, place: usize) -> usize {
    let first = place / each * each;
    first + each.min(d / 8 - first) - 1 - (place - first)
}

/// The code whose free bit lies at a place of a string: in the order of the lower bytes of the words of chained codes,
/// then of the upper ones; the codes of a last word that is not full take turns.
fn free_code(d: usize, each: usize, place: usize) -> usize {
    let codes = d / 8;
    let first = place / 16 * 16;
    let part: Vec<usize> = (first..codes.min(first + 16)).collect();
    let whole = part.len() / each * each;
    let mut bytes = [Vec::new(), Vec::new()];
    for word in part[..whole].chunks(each) {
        for (i, code) in word.iter().rev().enumerate() {
            bytes[i / (each / 2)].push(*code);
        }
    }
    part[whole..].iter().enumerate().for_each(|(i, code)| bytes[i % 2].push(*code));
    bytes.concat()[place % 16]
}

/// The element that a lane of K has in column `e` of its `j`-th pair. Of a trellis code it has neighbours, of which a
/// word of `each` codes a half holds the older in its high half.
fn key_dim(format: Format, d: usize, c: usize, j: usize, e: usize) -> usize {
    if format.is_trellis() {
        let each = 16 / trellis(format).k;
        let first = j / each * each;
        let count = each.min(d / 8 - first);
        return c * d / 4 + 2 * first + (1 - e) * count + j % each;
    }
    if j < d / 32 * 4 { j / 4 * 32 + e * 16 + c * 4 + j % 4 } else { d / 32 * 32 + c * 4 + e * 2 + j % 2 }
}

fn value_dim(format: Format, d: usize, r: usize, j: usize) -> usize {
    if format.is_trellis() {
        let each = 16 / trellis(format).k;
        let first = j / each * each;
        return 8 * first + r * each.min(d / 8 - first) + j - first;
    }
    if j < d / 32 * 4 { j / 4 * 32 + r * 4 + j % 4 } else { d / 32 * 32 + r * 2 + j % 2 }
}

fn word_offset(words: usize, w: usize, lane: usize, lanes: usize) -> usize {
    let piece = [4, 2, 1].into_iter().find(|p| words.is_multiple_of(*p)).unwrap();
    ((w / piece * lanes + lane) * piece + w % piece) * 4
}

impl Page {
    fn bits(&self, byte: usize, bit: usize, n: usize) -> u32 {
        (0..n).fold(0, |x, i| x | u32::from(self.bytes[byte + (bit + i) / 8] >> ((bit + i) % 8) & 1) << i)
    }

    /// Elements of a plane of `b` bits that starts at `plane`.
    fn plane(&self, side: Side, plane: usize, b: usize, slot: usize, kind: PlaneKind) -> Vec<u32> {
        let (d, format) = (self.record.head_dim(), self.record.format(side));
        let mut out = vec![u32::MAX; d];
        let (lanes, strings) = if side == Side::K { (4, 0..2) } else { (8, slot % 2..slot % 2 + 1) };
        for lane in 0..lanes {
            for e in strings.clone() {
                let bits = self.string(side, plane, b, slot, lane, e);
                for (place, code) in bits.chunks(b).enumerate() {
                    let j = match kind {
                        PlaneKind::Chained => chained_code(d, 16 / b, place),
                        PlaneKind::Free => free_code(d, 16 / trellis(format).k, place),
                        PlaneKind::Ordered => place,
                    };
                    let dim = match side {
                        Side::K => key_dim(format, d, lane, j, e),
                        Side::V => value_dim(format, d, lane, j),
                    };
                    out[dim] = code.iter().rev().fold(0, |x, bit| x << 1 | bit);
                }
            }
        }
        out
    }

    /// The bits of a lane's string `e` of `d` / 8 codes: first words of either string, if codes are of 5 bits, then
    /// words of 16 bits of both, then what is left.
    fn string(&self, side: Side, plane: usize, b: usize, slot: usize, lane: usize, e: usize) -> Vec<u32> {
        let (d, bs) = (self.record.head_dim(), self.record.block_size());
        let bits = d / 8 * b;
        let words = if b == 5 { bits / 32 } else { 0 };
        let (shared, rest) = ((bits - 32 * words) / 16, bits % 16);
        let (lanes, row) = if side == Side::K { (4, slot) } else { (8, slot / 2) };
        let mut out = Vec::new();
        let mut take = |byte, bit, n| out.extend((0..n).map(|i| self.bits(byte, bit + i, 1)));
        for w in 0..words {
            take(plane + row * lanes * 8 * words + word_offset(2 * words, e * words + w, lane, lanes), 0, 32);
        }
        let plane = plane + 32 * words * bs;
        for w in 0..shared {
            take(plane + row * lanes * 4 * shared + word_offset(shared, w, lane, lanes), 16 * e, 16);
        }
        let plane = plane + 16 * shared * bs;
        match side {
            Side::K => take(plane + slot * rest, (lane * 2 + e) * rest, rest),
            // A byte a lane: those of a pair of tokens alternate.
            Side::V if rest == 8 => take(plane + row * 16 + lane * 2 + e, 0, 8),
            Side::V => take(plane + slot * rest, lane * rest, rest),
        }
        out
    }

    /// Codes as `turboquant::Kernel::encode` gives them (floats: their bits), and scales.
    pub fn codes(&self, side: Side, slot: usize) -> (Vec<u32>, Vec<f16>) {
        let (format, d, bs) = (self.record.format(side), self.record.head_dim(), self.record.block_size());
        let (k, v) = (self.record.k(), self.record.v());
        let code_bytes = |f: Format| f.row_bytes(d) - scale_bytes(f, d);
        let (values, key_scales) = (bs * code_bytes(k), bs * (code_bytes(k) + code_bytes(v)));
        let value_scales = key_scales + bs * scale_bytes(k, d);
        let (plane, scales) = if side == Side::K { (0, key_scales) } else { (values, value_scales) };
        let (bits, top) = planes(format);
        let (main, top_kind) = match format.is_trellis() {
            true => (PlaneKind::Chained, PlaneKind::Free),
            false => (PlaneKind::Ordered, PlaneKind::Ordered),
        };
        let mut codes = self.plane(side, plane, bits, slot, main);
        if top {
            let tops = self.plane(side, plane + bs * d * bits / 8, 1, slot, top_kind);
            codes.iter_mut().zip(tops).for_each(|(code, top)| *code |= top << bits);
        }
        if format == Format::Lloyd2 {
            // Kept in ascending order.
            let half = 1 << (bits - 1);
            codes.iter_mut().for_each(|c| *c = if *c < half { half | (half - 1 - *c) } else { *c - half });
        }
        let n = scale_bytes(format, d);
        // One a vector: beside that of the token 8 further on.
        let slot = if n == 2 { slot / 16 * 16 + slot % 8 * 2 + slot / 8 % 2 } else { slot };
        let scales = self.bytes[scales + slot * n..][..n].as_chunks().0.iter().map(|b| f16::from_le_bytes(*b));
        (codes, scales.collect())
    }

    /// The decoded and un-rotated vector.
    pub fn vector(&self, side: Side, slot: usize) -> Vec<f64> {
        let (codes, scales) = self.codes(side, slot);
        self.decode(side, &codes, &scales)
    }

    /// The vector that codes and scales stand for.
    pub fn decode(&self, side: Side, codes: &[u32], scales: &[f16]) -> Vec<f64> {
        let (format, d) = (self.record.format(side), self.record.head_dim());
        if !format.is_rotated() {
            let float = |c: &u32| match format {
                Format::F16 => f16::from_bits(*c as u16).to_f64(),
                _ => bf16::from_bits(*c as u16).to_f64(),
            };
            return codes.iter().map(float).collect();
        }
        let z: Vec<f64> = if format.is_trellis() {
            trellis_values(format, codes).iter().map(|x| x * scales[0].to_f64()).collect()
        } else {
            codes.iter().enumerate().map(|(i, code)| value(format, *code, scales, i)).collect()
        };
        unrotate(d, &z)
    }
}

fn value(format: Format, code: u32, scales: &[f16], i: usize) -> f64 {
    use Format::*;
    match format {
        Affine8 | Affine5 | Affine4 => scales[i / 32 * 2 + 1].to_f64() + scales[i / 32 * 2].to_f64() * f64::from(code),
        Tq8 => scales[0].to_f64() * f64::from(code as u8 as i8),
        Int8 => scales[i / 32].to_f64() * f64::from(code as u8 as i8),
        _ => {
            let magnitudes = format.magnitudes();
            let scale = if scales.len() == 1 { scales[0] } else { scales[i / 32] }.to_f64();
            let size = f64::from(magnitudes[code as usize % magnitudes.len()]) * scale;
            if code as usize >= magnitudes.len() { -size } else { size }
        }
    }
}

/// diag(signs) Hᵀ z / sqrt(d), by definition.
fn unrotate(d: usize, z: &[f64]) -> Vec<f64> {
    let rotation = Rotation::new(d);
    let rows = rotation.paley_rows();
    let walsh = d / rows.len().max(1);
    let mut x = vec![0.0; d];
    for (row, z) in z.iter().enumerate() {
        for (col, x) in x.iter_mut().enumerate() {
            let outer = rows.get(row / walsh).is_some_and(|bits| bits >> (col / walsh) & 1 == 1);
            let odd = ((row % walsh) & (col % walsh)).count_ones() % 2 == 1;
            *x += if outer != odd { -z } else { *z };
        }
    }
    let norm = 1.0 / (d as f64).sqrt();
    x.iter().zip(rotation.signs()).map(|(x, sign)| x * norm * f64::from(*sign)).collect()
}
