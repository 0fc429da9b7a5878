//! Trellis codes: formats in which the value of an element depends on its own code and on those of the elements before.
//!
//! An element has k *chained* bits c and, in `tc5` and `tc3`, one *free* bit b. Its *history* is made of its own
//! chained bits and those of the elements before it, `H_i = c_i + c_{i-1} 2^k + c_{i-2} 2^2k + ..`, where the elements
//! of a vector form a circle: the one before element 0 is the last. The *point* of an element is
//!
//! `P_i = b_i 2^(k+n)  |  ((H_i ^ (H_i >> r)) mod 2^k) 2^n  |  (H_i mod 2^n)`,
//!
//! and with m bits in P and `t = P / 2^(m-1) - 1` its value is `C t ((t² + B)² + E)`, times the vector's scale. The
//! upper bits of a point, those above n, are its *level*: the values of a level lie beside each other, and whatever the
//! elements before are, an element can reach one point of each level. So a vector's codes are chosen together, by the
//! Viterbi algorithm (`simd::viterbi`), which is what makes the error .57 to .65 times that of a codebook of as many
//! bits; the polynomial makes the values those that a normal distribution needs. Trellis-coded quantisation is from
//! Marcellin and Fischer, IEEE Transactions on Communications 38 (1990); values computed from a shift register of codes
//! are from QTIP (Tseng et al., arXiv:2406.11235).

/// A trellis code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trellis {
    /// Four chained bits and a free one.
    Tc5,
    /// Four chained bits.
    Tc4,
    /// Two chained bits and a free one.
    Tc3,
    /// Two chained bits.
    Tc2,
}

/// How many units of the integers the value 1 has.
pub(crate) const UNIT: f32 = 8192.0;
/// Points of the largest code.
pub(crate) const MOST_POINTS: usize = 512;
/// Levels of the largest code.
pub(crate) const MOST_LEVELS: usize = 32;
/// Levels that an encoder tries an element on: the one whose middle is nearest to it, and those beside it. With all the
/// error is not smaller, with 2 it is 2 to 3 % larger.
pub(crate) const TRIED: usize = 3;
/// Largest integer of [`Segments`].
pub(crate) const LARGEST: u8 = 127;

/// What a code is made of, by the letters of the module's formulas.
pub(crate) struct TrellisShape {
    pub k: usize,
    pub free: usize,
    pub n: usize,
    pub r: usize,
    pub b: f32,
    pub c: f32,
    pub e: f32,
}

/// Begins where a cache line does, so that no register is loaded from two lines.
#[repr(align(64))]
#[derive(Clone, Copy)]
pub(crate) struct Aligned<T>(pub T);

/// What encoders and decoders look up of a code.
pub(crate) struct TrellisTables {
    /// The value of each point.
    pub values: [f32; MOST_POINTS],
    /// These values in units of 1 / [`UNIT`], as encoders compare with.
    pub integers: [i16; MOST_POINTS],
    /// These integers in units of 1 / ([`UNIT`] 2^[`Trellis::fineness`]), modulo 2^16.
    pub finer: Aligned<[u16; MOST_POINTS]>,
    /// From which integer on an element is nearer to the middle of level i + 1 than to that of level i.
    pub bounds: [i16; MOST_LEVELS],
    /// The largest integer of an element. From those within it and the values that they are compared with differences
    /// in the finer units fit 16 bits.
    pub limit: i16,
    /// The state before each of 64 states on level 0. On another level it is this XOR a mask that depends on the level
    /// alone.
    pub home: [[u16; 32]; 2],
    /// The masks of the levels tried from each level on. Entry i is the mask of the level that is i mod 4 higher; where
    /// i mod 4 is [`TRIED`], the number that a cost of 65535 or more has, it is that of the first level again.
    pub turns: Aligned<[[u8; 16]; MOST_LEVELS]>,
}

static TABLES: [TrellisTables; 4] =
    [Trellis::Tc5.new_tables(), Trellis::Tc4.new_tables(), Trellis::Tc3.new_tables(), Trellis::Tc2.new_tables()];

impl Trellis {
    pub(crate) const fn shape(self) -> TrellisShape {
        match self {
            Trellis::Tc5 => TrellisShape { k: 4, free: 1, n: 4, r: 5, b: -0.159, c: 2.653, e: 0.601 },
            Trellis::Tc4 => TrellisShape { k: 4, free: 0, n: 4, r: 5, b: -0.22, c: 2.443, e: 0.667 },
            Trellis::Tc3 => TrellisShape { k: 2, free: 1, n: 5, r: 6, b: -0.2795, c: 2.392, e: 0.667 },
            Trellis::Tc2 => TrellisShape { k: 2, free: 0, n: 5, r: 6, b: -0.186, c: 1.642, e: 0.8975 },
        }
    }

    /// Chained bits of an element.
    pub(crate) const fn chained(self) -> usize {
        self.shape().k
    }

    /// Whether an element has a free bit.
    pub(crate) const fn has_free_bit(self) -> bool {
        self.shape().free == 1
    }

    /// Bits of a code: the chained ones, above them the free one.
    pub(crate) const fn bits(self) -> usize {
        self.shape().k + self.shape().free
    }

    /// log2 of the points of a level.
    pub(crate) const fn level_shift(self) -> usize {
        self.shape().n
    }

    /// Levels of the code.
    pub(crate) const fn levels(self) -> usize {
        1 << self.bits()
    }

    pub(crate) const fn tables(self) -> &'static TrellisTables {
        &TABLES[self as usize]
    }

    /// log2 of how much finer than 1 / [`UNIT`] the unit is in which encoders take differences: the smaller the error,
    /// the finer.
    pub(crate) const fn fineness(self) -> usize {
        matches!(self, Trellis::Tc5) as usize
    }

    const fn new_tables(self) -> TrellisTables {
        let (shape, size) = (self.shape(), 1 << self.level_shift());
        let (mut values, mut integers) = ([0.0; MOST_POINTS], [0; MOST_POINTS]);
        let mut finer = [0; MOST_POINTS];
        let mut p = 0;
        while p < self.levels() * size {
            let t = p as f32 / (self.levels() * size / 2) as f32 - 1.0;
            let inner = t * t + shape.b;
            values[p] = shape.c * t * (inner * inner + shape.e);
            let rounded = if t < 0.0 { values[p] * UNIT - 0.5 } else { values[p] * UNIT + 0.5 };
            integers[p] = rounded as i16;
            finer[p] = (integers[p] as u16) << self.fineness();
            p += 1;
        }
        let (mut bounds, mut home, mut turns) = ([0; MOST_LEVELS], [[0; 32]; 2], [[0; 16]; MOST_LEVELS]);
        let mut level = 0;
        while level < self.levels() {
            let mut i = 0;
            while i < 32 {
                home[0][i] = self.before(i, 0) as u16;
                home[1][i] = self.before(32 + i, 0) as u16;
                turns[level][i % 16] = self.before(0, level + i % 4 % TRIED) as u8;
                i += 1;
            }
            if level > 0 {
                let (below, above) = (level * size - size / 2, level * size + size / 2);
                let middles = integers[below] as i32 + integers[above] as i32;
                bounds[level - 1] = (middles / 2) as i16;
            }
            level += 1;
        }
        let limit = (i16::MAX >> self.fineness()) as i32 + integers[(self.levels() - TRIED) * size] as i32;
        let limit = if limit < i16::MAX as i32 { limit as i16 } else { i16::MAX };
        TrellisTables { values, integers, finer: Aligned(finer), bounds, limit, home, turns: Aligned(turns) }
    }

    /// The only state from which an element reaches `level` and the state `after`. A state is what the next element's
    /// history has of the elements before it.
    #[inline(always)]
    pub(crate) const fn before(self, after: usize, level: usize) -> usize {
        let TrellisShape { k, r, .. } = self.shape();
        let mask = (1 << k) - 1;
        ((level ^ after) & mask) << (r - k) | after >> k
    }

    /// The code and the point of an element by which the state `after` is reached from `before`, on one of the
    /// [`TRIED`] levels from `low` on.
    #[inline(always)]
    pub(crate) const fn element(self, before: u16, after: u16, low: u16) -> (u8, u16) {
        let TrellisShape { k, r, n, .. } = self.shape();
        let mask = (1 << k) - 1;
        let level = low + ((before >> (r - k) ^ after).wrapping_sub(low) & mask);
        ((after & mask | level >> k << k) as u8, level << n | after & ((1 << n) - 1))
    }

    /// Calls `f(element, point)` for every element of a vector of codes.
    #[inline(always)]
    pub(crate) fn each_point(self, codes: &[u8], mut f: impl FnMut(usize, usize)) {
        let TrellisShape { k, n, r, .. } = self.shape();
        let chained = |code: u8| usize::from(code) & ((1 << k) - 1);
        // The history of the element before, of 9 or 8 bits; a circle begins with the last elements.
        let mut history = codes[codes.len() - 4..].iter().fold(0, |history, code| history << k | chained(*code));
        for (i, code) in codes.iter().enumerate() {
            history = (history << k | chained(*code)) & ((1 << (r + k)) - 1);
            let level = (history ^ history >> r) & ((1 << k) - 1) | usize::from(*code) >> k << k;
            f(i, level << n | history & ((1 << n) - 1));
        }
    }

    /// What CPU kernels multiply in place of the values: integers of 8 bits.
    pub(crate) const fn segments(self) -> &'static Segments {
        match self {
            Trellis::Tc5 => &SEGMENTS5,
            Trellis::Tc4 => &SEGMENTS4,
            Trellis::Tc3 => &SEGMENTS3,
            Trellis::Tc2 => &SEGMENTS2,
        }
    }
}

/// A code's values in integers, for kernels that multiply codes as int8: sixteen straight pieces, since a product of
/// bytes and a look-up of 16 entries are what every instruction set has.
///
/// The argument is a byte: of `tc4` and `tc3` the point, of `tc2` twice the point, and of `tc5` the point's lower eight
/// bits where the free bit is set, else 256 less these bits (255 for 0), the integer then being negated. Argument
/// `16 h + l` stands for `base[h] + (slope[h] l >> 5)`, of which one unit is `1 / scale`.
///
/// Found by a search over all slopes and bases for the least mean squared difference from the values of each piece.
pub(crate) struct Segments {
    pub base: [i8; 16],
    pub slope: [u8; 16],
    pub scale: f32,
}

/// Segments as instruction sets look them up, all integers raised by the same number (mod 256).
pub(crate) struct RaisedSegments {
    pub base: [u8; 16],
    pub slope: [u8; 16],
    /// The integer of each argument.
    pub all: [u8; 256],
}

impl Segments {
    pub(crate) const fn raised(&self, by: u8) -> RaisedSegments {
        let (mut base, mut all, mut i) = ([0; 16], [0; 256], 0);
        while i < 256 {
            base[i / 16] = (self.base[i / 16] as u8).wrapping_add(by);
            all[i] = base[i / 16].wrapping_add(((self.slope[i / 16] as u16 * (i % 16) as u16) >> 5) as u8);
            i += 1;
        }
        RaisedSegments { base, slope: self.slope, all }
    }
}
const SEGMENTS5: Segments = Segments {
    base: [0, 4, 8, 12, 15, 19, 23, 26, 30, 35, 40, 47, 57, 69, 83, 103],
    slope: [9, 8, 8, 7, 8, 7, 6, 9, 11, 11, 16, 20, 22, 28, 41, 52],
    scale: 37.103974,
};
const SEGMENTS4: Segments = Segments {
    base: [-125, -83, -58, -43, -33, -25, -17, -8, 0, 9, 18, 26, 33, 43, 58, 83],
    slope: [87, 52, 32, 22, 16, 16, 18, 16, 19, 18, 15, 15, 22, 30, 51, 85],
    scale: 40.759969,
};
const SEGMENTS3: Segments = Segments {
    base: [-125, -83, -59, -45, -35, -27, -19, -10, 0, 10, 20, 28, 36, 45, 60, 84],
    slope: [86, 48, 29, 20, 15, 16, 20, 22, 22, 20, 15, 16, 19, 30, 47, 82],
    scale: 44.762448,
};
const SEGMENTS2: Segments = Segments {
    base: [-126, -87, -63, -47, -36, -27, -18, -9, 0, 10, 19, 28, 37, 48, 63, 87],
    slope: [80, 52, 32, 22, 16, 16, 16, 19, 20, 16, 16, 16, 22, 30, 48, 78],
    scale: 49.576886,
};

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const ALL: [Trellis; 4] = [Trellis::Tc5, Trellis::Tc4, Trellis::Tc3, Trellis::Tc2];

    /// A vector, the codes of its best path, and their values.
    pub(crate) struct Golden {
        pub trellis: Trellis,
        pub vector: Vec<f32>,
        pub codes: Vec<u8>,
        pub values: Vec<f32>,
    }

    /// What an independent implementation made (`tests/goldens/regenerate.py`).
    pub(crate) fn goldens() -> Vec<Golden> {
        let lines: Vec<&str> = include_str!("../tests/goldens/trellis.txt").lines().skip(1).collect();
        let floats = |line: &str| line.split(' ').map(|x| x.parse().unwrap()).collect();
        let golden = |lines: &[&str; 4]| Golden {
            trellis: ALL[["tc5", "tc4", "tc3", "tc2"].iter().position(|name| *name == lines[0]).unwrap()],
            vector: floats(lines[1]),
            codes: lines[2].split(' ').map(|x| x.parse().unwrap()).collect(),
            values: floats(lines[3]),
        };
        lines.as_chunks().0.iter().map(golden).collect()
    }

    #[test]
    fn values_are_those_of_an_independent_decoder() {
        let goldens = goldens();
        assert_eq!(goldens.len(), 24);
        for Golden { trellis, codes, values, .. } in goldens {
            // Products of f32, three of them after each other.
            trellis.each_point(&codes, |i, point| {
                let (got, want) = (trellis.tables().values[point], values[i]);
                assert!((got - want).abs() < 4.0 * f32::EPSILON * 3.5, "{trellis:?} element {i}: {got} {want}");
            });
        }
    }

    /// Going forward by the definition and back by `before` agree, from every state by every code.
    #[test]
    fn the_state_before_is_the_only_one() {
        for trellis in ALL {
            let TrellisShape { k, r, .. } = trellis.shape();
            for (state, code) in (0..1 << r).flat_map(|state| (0..trellis.levels()).map(move |code| (state, code))) {
                let history = state << k | code & ((1 << k) - 1);
                let level = (history ^ history >> r) & ((1 << k) - 1) | code >> k << k;
                let after = history & ((1 << r) - 1);
                assert_eq!(trellis.before(after, level), state, "{trellis:?}");
                let (n, tables) = (trellis.level_shift(), trellis.tables());
                let point = level << n | history & ((1 << n) - 1);
                for low in level.saturating_sub(TRIED - 1)..=level.min(trellis.levels() - TRIED) {
                    let turn = tables.turns.0[low][level - low];
                    assert_eq!(
                        usize::from(tables.home.as_flattened()[after]) ^ usize::from(turn),
                        state,
                        "{trellis:?}"
                    );
                    let element = trellis.element(state as u16, after as u16, low as u16);
                    assert_eq!(element, (code as u8, point as u16), "{trellis:?}");
                }
            }
        }
    }

    /// An element and the values of the levels that it is tried on differ by less than 2^15 of the finer units, so that
    /// their difference modulo 2^16 is exact and its square does not overflow.
    #[test]
    fn differences_fit_16_bits() {
        for trellis in ALL {
            let TrellisTables { integers, bounds, limit, .. } = trellis.tables();
            for x in -limit..=*limit {
                let nearest = bounds[..trellis.levels() - 1].iter().filter(|bound| x >= **bound).count();
                let low = nearest.saturating_sub(1).min(trellis.levels() - TRIED);
                for value in &integers[low << trellis.level_shift()..(low + TRIED) << trellis.level_shift()] {
                    let difference = (i32::from(x) - i32::from(*value)) << trellis.fineness();
                    assert!(difference.abs() < 1 << 15, "{trellis:?}: {x} {value}");
                }
            }
            // A vector of normal elements has one beyond this in a thousand.
            assert!(f32::from(*limit) > 3.2 * UNIT, "{trellis:?}: {limit}");
        }
    }

    /// What each argument of a code's segments should give, in integers, and how often it occurs: by the density of the
    /// normal distribution, of which a value stands for what is nearest to it.
    fn wanted(trellis: Trellis) -> Vec<(u8, f64, f64)> {
        let (shape, unit) = (trellis.shape(), f64::from(trellis.segments().scale));
        let value = |t: f64| {
            let inner = t * t + f64::from(shape.b);
            f64::from(shape.c) * t * (inner * inner + f64::from(shape.e))
        };
        let argument = |p: u8| match trellis {
            Trellis::Tc5 => f64::from(p) / 256.0,
            _ => f64::from(p) / 128.0 - 1.0,
        };
        let step = if trellis == Trellis::Tc2 { 2 } else { 1 };
        let all = (0..=255).step_by(step).map(|p| {
            let (t, half) = (argument(p), argument(step as u8) - argument(0));
            let weight = (-0.5 * value(t).powi(2)).exp() * (value(t + half) - value(t - half));
            (p, unit * value(t), weight)
        });
        all.collect()
    }

    fn integer(base: i32, slope: i32, p: u8) -> f64 {
        f64::from(base + ((slope * i32::from(p & 15)) >> 5))
    }

    /// The search that the segments came from; their rms error relative to the vector, which is added to that of the
    /// codes; and their mean error, which would not average out over tokens.
    #[test]
    fn segments_are_the_best_of_all_slopes_and_bases() {
        for (trellis, most) in ALL.into_iter().zip([0.0100, 0.0105, 0.0100, 0.0080]) {
            let Segments { base, slope, scale } = trellis.segments();
            let (wanted, mut square, mut sum, mut weights) = (wanted(trellis), 0.0, 0.0, 0.0);
            for (h, piece) in wanted.chunks(wanted.len() / 16).enumerate() {
                let error = |base: i32, slope: i32| -> f64 {
                    piece.iter().map(|(p, want, _)| (integer(base, slope, *p) - want).powi(2)).sum()
                };
                let own = error(base[h].into(), slope[h].into());
                let within = |base: i32, slope: i32| base >= -127 && integer(base, slope, 15) <= 127.0;
                let tried = (0..128).flat_map(|slope| (-127..128).map(move |base| (base, slope)));
                let best = tried.filter(|(b, s)| within(*b, *s)).map(|(b, s)| error(b, s)).fold(f64::MAX, f64::min);
                assert!(own <= best + 1e-9, "{trellis:?} piece {h}: {own} against {best}");
                for (p, want, weight) in piece {
                    let difference = integer(base[h].into(), slope[h].into(), *p) - want;
                    (square, sum, weights) =
                        (square + weight * difference.powi(2), sum + weight * difference, weights + weight);
                }
            }
            let rms = (square / weights).sqrt() / f64::from(*scale);
            // Half of tc5's integers are the others negated, so that the errors of the two halves cancel.
            let mean = if trellis == Trellis::Tc5 { 0.0 } else { sum / weights / f64::from(*scale) };
            assert!(mean.abs() < 0.0014, "{trellis:?}: {mean}");
            assert!(rms < most, "{trellis:?}: {rms}");
        }
    }
}
