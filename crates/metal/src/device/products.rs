//! Weights in a GPU's memory, and products with them by the kernels of `kernels/products/`.
use crate::batch::rows_at_once;
use crate::executor::{Executor, Launch};
use crate::launch::{self, MATVEC_ROWS, ProductForm, ProductRows, ProductWeight, TileExperts};
use crate::limits::check_buffer;
use crate::tables::floats;
use candle_core::{Error, Result, bail};
use compute::Precision;
use half::f16;
use matmul::WeightType;
use std::borrow::Cow;
use std::sync::OnceLock;

/// Rows of x for which a weight is decoded once: a product that is cut is cut between those.
const ROWS_TOGETHER: usize = 64;

/// A weight `[n, k]` in a GPU's memory, and its bias, `[n]`.
pub(super) struct Placed<B> {
    kind: WeightType,
    n: usize,
    k: usize,
    /// A power of two: the weight times this is what lies in memory, or what the kernel makes of it.
    unit: f32,
    bytes: B,
    bias: Option<B>,
}

impl<B> Placed<B> {
    /// Copies a weight to the device: see [`Placed::stack`].
    ///
    /// Errors: the errors of `stack`.
    pub fn new<E: Executor<Buffer = B>>(
        executor: &E,
        weight: matmul::Weight<'_>,
        bias: Option<&[f32]>,
        precision: Precision,
    ) -> Result<Self> {
        let upload = |bias: &[f32]| executor.buffer(&floats(bias.iter().copied())).map_err(Error::wrap);
        let bias = bias.map(upload).transpose()?;
        Ok(Placed { bias, ..Self::stack(executor, &[weight], precision)? })
    }

    /// Copies weights of one type and size to the device, one after the other, in their own type where kernels
    /// multiply that: quantisation blocks and 16-bit floats as they are, f32 as f16. `Exact` weights become f32.
    ///
    /// Errors: weights that are not alike; no memory on the device, or more than one buffer of it holds; numbers among
    /// bf16 or f32 weights that are not finite.
    pub fn stack<E: Executor<Buffer = B>>(
        executor: &E,
        weights: &[matmul::Weight<'_>],
        precision: Precision,
    ) -> Result<Self> {
        let Some((n, k, from)) = weights.first().map(shape_and_type) else { bail!("a stack of no weights") };
        if let Some(other) = weights.iter().map(shape_and_type).find(|other| *other != (n, k, from)) {
            bail!("weights of experts are not alike: {from} [{n}, {k}] and {} [{}, {}]", other.2, other.0, other.1);
        }
        let (kind, scaled) = match (precision, from) {
            (Precision::Exact, _) => (WeightType::F32, false),
            (Precision::Fast, WeightType::F32) => (WeightType::F16, true),
            (Precision::Fast, kind) => (kind, kind == WeightType::Bf16),
        };
        let unit = weights.iter().filter(|_| scaled).map(|weight| unit_of(*weight));
        let unit = unit.reduce(|a, b| Ok(a?.min(b?))).unwrap_or(Ok(1.0))?;
        let each = launch::row_bytes(kind, k) * n;
        check_buffer(each * weights.len(), executor.largest_buffer()).map_err(Error::wrap)?;
        let buffer = executor.create((each * weights.len()).max(16)).map_err(Error::wrap)?;
        for (i, weight) in weights.iter().enumerate() {
            let bytes = match (kind, from) {
                (WeightType::F32, _) => Cow::Owned(converted(*weight, k, f32::to_le_bytes)),
                (WeightType::F16, WeightType::F32) => {
                    Cow::Owned(converted(*weight, padded(k), |x| f16::from_f32(x * unit).to_le_bytes()))
                }
                _ => rows_of(*weight),
            };
            executor.upload(&buffer, i * each, &bytes).map_err(Error::wrap)?;
        }
        Ok(Placed { kind, n, k, unit, bytes: buffer, bias: None })
    }

    /// Rows of the weight, or of each of a stack.
    pub fn n(&self) -> usize {
        self.n
    }

    fn as_product(&self) -> ProductWeight<'_, B> {
        ProductWeight { bytes: &self.bytes, n: self.n, bias: self.bias.as_ref(), unit: self.unit }
    }
}

/// Rows as products read them.
pub(super) struct GpuRows<B> {
    num_rows: usize,
    k: usize,
    form: RowsForm<B>,
}

enum RowsForm<B> {
    /// `[num_rows][k]` f32, and what `pack_rows` makes of them once a product needs it.
    Floats { floats: B, packed: OnceLock<Packed<B>> },
    /// A norm's rows, which are packed from the beginning.
    Packed(Packed<B>),
}

/// An operand's halves, and its sums.
pub(super) struct Packed<B> {
    pub halves: B,
    pub sums: B,
}

impl<B> Packed<B> {
    /// Memory for the operand of `rows` rows of `k` elements.
    pub fn create<E: Executor<Buffer = B>>(executor: &E, rows: usize, k: usize) -> Result<Self> {
        let [halves, sums] = launch::operand_bytes(rows, k).map(|bytes| executor.create_activation(bytes));
        Ok(Packed { halves: halves.map_err(Error::wrap)?, sums: sums.map_err(Error::wrap)? })
    }
}

impl<B> GpuRows<B> {
    /// Rows `[num_rows, k]` of f32.
    pub fn floats(floats: B, [num_rows, k]: [usize; 2]) -> Self {
        GpuRows { num_rows, k, form: RowsForm::Floats { floats, packed: OnceLock::new() } }
    }

    /// Rows that are packed already.
    pub fn packed(packed: Packed<B>, [num_rows, k]: [usize; 2]) -> Self {
        GpuRows { num_rows, k, form: RowsForm::Packed(packed) }
    }

    /// The rows from `first` on, `rows` of them, as an operand.
    ///
    /// Errors: no memory, or whatever failed on the device.
    fn operand<E: Executor<Buffer = B>>(&self, executor: &E, first: usize, rows: usize) -> Result<ProductRows<'_, B>> {
        let packed = match &self.form {
            RowsForm::Packed(packed) => packed,
            RowsForm::Floats { floats, packed } => match packed.get() {
                Some(packed) => packed,
                None => {
                    let new = Packed::create(executor, self.num_rows, self.k)?;
                    let launch = launch::pack_rows(self.num_rows, self.k, [floats, &new.halves, &new.sums]);
                    executor.run(&[launch]).map_err(Error::wrap)?;
                    packed.get_or_init(|| new)
                }
            },
        };
        Ok(ProductRows { halves: &packed.halves, sums: &packed.sums, first, rows, k: self.k, experts: None })
    }
}

/// The operand of some rows, and all else that their products are computed with.
pub(super) struct Products<'a, E: Executor> {
    pub executor: &'a E,
    pub rows: &'a GpuRows<E::Buffer>,
    /// Set where each weight is a stack of experts' weights.
    pub experts: Option<TileExperts<'a, E::Buffer>>,
    /// Bound where a kernel reads nothing.
    pub nothing: &'a E::Buffer,
    /// The types of weights with which few rows are multiplied by `matvec`.
    pub matvec_types: &'a [WeightType],
}

impl<E: Executor> Products<'_, E> {
    /// The products with each weight, `[rows][n]` f32. Weights of one type that follow each other share a launch.
    pub fn each(&self, weights: &[&Placed<E::Buffer>]) -> Result<Vec<E::Buffer>> {
        let outs = weights.iter().map(|weight| self.room(weight)).collect::<Result<Vec<_>>>()?;
        let mut done = 0;
        while done < weights.len() {
            let kind = weights[done].kind;
            let alike = weights[done..].iter().take(if kind == WeightType::F32 { 1 } else { 3 });
            let count = alike.take_while(|weight| weight.kind == kind).count();
            let (some, to) = (&weights[done..done + count], &outs[done..done + count]);
            match kind {
                WeightType::F32 => self.exact(some[0], &to[0])?,
                _ => self.launch(some, &ProductForm::Each(&to.iter().collect::<Vec<_>>()))?,
            }
            done += count;
        }
        Ok(outs)
    }

    /// The sum of `residual`, `[rows][n]`, and a product; `None` for a weight that no kernel adds with.
    pub fn onto(&self, weight: &Placed<E::Buffer>, residual: &E::Buffer) -> Result<Option<E::Buffer>> {
        if weight.kind == WeightType::F32 {
            return Ok(None);
        }
        let out = self.room(weight)?;
        self.launch(&[weight], &ProductForm::Onto { residual, out: &out })?;
        Ok(Some(out))
    }

    /// silu(gate) x up, `[rows][n]`; `None` for weights of two types, which no kernel multiplies together.
    ///
    /// Errors: weights of two sizes.
    pub fn gated(&self, gate: &Placed<E::Buffer>, up: &Placed<E::Buffer>) -> Result<Option<E::Buffer>> {
        if gate.n != up.n {
            bail!("a gate of {} elements for {}", gate.n, up.n);
        }
        if gate.kind != up.kind || gate.kind == WeightType::F32 {
            return Ok(None);
        }
        let out = self.room(gate)?;
        self.launch(&[gate, up], &ProductForm::Gated(&out))?;
        Ok(Some(out))
    }

    fn room(&self, weight: &Placed<E::Buffer>) -> Result<E::Buffer> {
        if weight.k != self.rows.k {
            bail!("rows of {} elements for a weight of [{}, {}]", self.rows.k, weight.n, weight.k);
        }
        self.executor.create_activation(self.rows.num_rows * weight.n * 4).map_err(Error::wrap)
    }

    /// Launches products, cut into several of fewer rows where one of all would keep the GPU from the display for too
    /// long. That changes no bit.
    fn launch(&self, weights: &[&Placed<E::Buffer>], form: &ProductForm<'_, E::Buffer>) -> Result<()> {
        let of = weights.iter().map(|weight| weight.as_product()).collect::<Vec<_>>();
        let (kind, num_rows, k) = (weights[0].kind, self.rows.num_rows, self.rows.k);
        let by_matvec = self.matvec_types.contains(&kind) && launch::has_matvec(kind, k) && num_rows <= MATVEC_ROWS;
        if by_matvec && let RowsForm::Floats { floats, .. } = &self.rows.form {
            let launch = launch::matvec(kind, (floats, num_rows, k), &of, form, self.nothing);
            return self.executor.run(&[launch]).map_err(Error::wrap);
        }
        self.cut(|first, rows| {
            let operand = self.rows.operand(self.executor, first, rows)?;
            let operand = ProductRows { experts: self.experts, ..operand };
            Ok(launch::product(weights[0].kind, &operand, &of, form, self.nothing))
        })
    }

    fn exact(&self, weight: &Placed<E::Buffer>, out: &E::Buffer) -> Result<()> {
        let RowsForm::Floats { floats, .. } = &self.rows.form else { bail!("a norm's rows for a weight of f32") };
        let bias = weight.bias.as_ref().unwrap_or(self.nothing);
        self.cut(|first, rows| {
            let buffers = [floats, &weight.bytes, bias, out];
            Ok(launch::product_f32(weight.n, weight.k, (first, rows), weight.bias.is_some(), buffers))
        })
    }

    fn cut<'b>(&self, launch: impl Fn(usize, usize) -> Result<Launch<'b, E::Buffer>>) -> Result<()>
    where
        E::Buffer: 'b,
    {
        let rows = self.rows.num_rows;
        let beginning = launch(0, ROWS_TOGETHER.min(rows))?;
        if rows <= ROWS_TOGETHER {
            return self.executor.run(&[beginning]).map_err(Error::wrap);
        }
        let most = self.executor.most_work();
        let at_once = rows_at_once(rows.div_ceil(ROWS_TOGETHER), beginning.work, most) * ROWS_TOGETHER;
        let launches = (0..rows).step_by(at_once).map(|first| launch(first, at_once.min(rows - first)));
        self.executor.run(&launches.collect::<Result<Vec<_>>>()?).map_err(Error::wrap)
    }
}

fn shape_and_type(weight: &matmul::Weight<'_>) -> (usize, usize, WeightType) {
    (weight.n(), weight.k(), weight.weight_type())
}

/// Elements of a row of floats with its padding, as kernels read it.
fn padded(k: usize) -> usize {
    launch::row_bytes(WeightType::F16, k) / 2
}

/// The bytes of a weight, rows of floats padded to whole groups.
fn rows_of(weight: matmul::Weight<'_>) -> Cow<'_, [u8]> {
    let (bytes, to) = (weight.bytes(), launch::row_bytes(weight.weight_type(), weight.k()));
    let row = bytes.len() / weight.n().max(1);
    if row == to {
        return Cow::Borrowed(bytes);
    }
    let mut all = vec![0; to * weight.n()];
    all.chunks_exact_mut(to).zip(bytes.chunks_exact(row)).for_each(|(to, row)| to[..row.len()].copy_from_slice(row));
    Cow::Owned(all)
}

/// The elements of a weight in another type, rows padded with zeros to `width` elements.
fn converted<const N: usize>(weight: matmul::Weight<'_>, width: usize, convert: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
    let mut row = vec![0f32; weight.k()];
    let mut all = vec![0; weight.n() * width * N];
    for (i, to) in all.chunks_exact_mut(width * N).enumerate() {
        matmul::dequantize_row(weight, i, &mut row);
        to.as_chunks_mut().0.iter_mut().zip(&row).for_each(|(to, x)| *to = convert(*x));
    }
    all
}

/// The power of two that brings the largest element to 128 .. 256. None overflows then, since halves end at 65,504, and
/// what is 2^21 times smaller than the largest still has all of its bits, since normal halves begin at 2^-14.
///
/// Errors: an element that is not finite.
fn unit_of(weight: matmul::Weight<'_>) -> Result<f32> {
    let mut row = vec![0f32; weight.k()];
    let mut largest = 0f32;
    for i in 0..weight.n() {
        matmul::dequantize_row(weight, i, &mut row);
        if !row.iter().all(|x| x.is_finite()) {
            bail!("row {i} of a weight has an element that is not a finite number");
        }
        largest = row.iter().fold(largest, |largest, x| largest.max(x.abs()));
    }
    // 2^e <= largest < 2^(e + 1); a weight of zeros, or of numbers that no product shows, has any unit.
    let e = (largest.max(f32::MIN_POSITIVE).to_bits() >> 23) as i32 - 127;
    Ok(2f32.powi((7 - e).clamp(-126, 126)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use matmul::Weight;

    #[test]
    fn units_bring_the_largest_weight_to_where_halves_have_room() {
        for largest in [1.0f32, 0.02, 3.9, 7e4, 1e-30] {
            let bytes: Vec<u8> = [0.0, -largest, largest / 3.0].iter().flat_map(|x: &f32| x.to_le_bytes()).collect();
            let unit = unit_of(Weight::new(WeightType::F32, 1, 3, &bytes).unwrap()).unwrap();
            assert!((128.0..256.0).contains(&(largest * unit)), "{largest}: {unit}");
        }
        for wrong in [f32::NAN, f32::INFINITY] {
            let bytes: Vec<u8> = [1.0, wrong, 2.0].iter().flat_map(|x: &f32| x.to_le_bytes()).collect();
            for (n, k) in [(3, 1), (1, 3)] {
                assert!(unit_of(Weight::new(WeightType::F32, n, k, &bytes).unwrap()).is_err(), "{wrong}");
            }
        }
    }

    #[test]
    fn rows_of_floats_are_padded_and_blocks_are_not() {
        let values: Vec<f32> = (0..66).map(|i| i as f32).collect();
        let bytes = matmul::quantize(WeightType::F16, &values).unwrap();
        let rows = rows_of(Weight::new(WeightType::F16, 2, 33, &bytes).unwrap());
        assert_eq!(rows.len(), 2 * 64 * 2);
        assert_eq!((&rows[..66], &rows[66..128]), (&bytes[..66], &[0; 62][..]));
        assert_eq!(&rows[128..194], &bytes[66..]);
        let blocks = matmul::quantize(WeightType::Q8_0, &values[..64]).unwrap();
        assert_eq!(*rows_of(Weight::new(WeightType::Q8_0, 2, 32, &blocks).unwrap()), *blocks);
    }
}
