//! Tensors of folders in which a quantised layer is `weight` or `weight_packed`, and its scales are `weight_scale` or
//! `weight_scale_inv`: integers as compressed-tensors writes them, and FP8 as transformers and compressed-tensors do.
//! Here the two become one.
use super::layer_tensor::LayerTensor;
use super::{Entry, GroupMode, GroupParts, Tensors};
use crate::error::ModelError;
use matmul::{Affine, HalfFloat, WeightType};
use serde_json::{Map, Value};

/// What compressed-tensors calls the ways to store integers and FP8 that are read.
const FORMATS: [&str; 4] = ["pack-quantized", "int-quantized", "float-quantized", "naive-quantized"];

/// What the configuration says of weights that are integers or FP8 times scales. The rest is in the tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScaledWeights {
    /// Bits of packed integers.
    bits: usize,
    /// Rows and columns that share a scale of FP8, where the configuration gives them.
    block: Option<[usize; 2]>,
}

impl ScaledWeights {
    /// FP8 as transformers writes it.
    ///
    /// Errors: a `weight_block_size` that is none, as the rest of a sentence that begins with the fields' name.
    pub fn of_fp8(fields: &Map<String, Value>) -> Result<Self, String> {
        let block = match fields.get("weight_block_size").filter(|value| !value.is_null()) {
            None => None,
            Some(value) => Some(block_of(value).ok_or_else(|| {
                format!("has weight_block_size {value}; it must be two whole numbers of at least 1, such as [128, 128]")
            })?),
        };
        Ok(ScaledWeights { bits: 8, block })
    }

    /// Weights as compressed-tensors writes them.
    ///
    /// Errors: another way than [`FORMATS`]; integers of other bits than 4 and 8, and those that lie not around 0.
    pub fn of_compressed(fields: &Map<String, Value>) -> Result<Self, String> {
        let format = fields.get("format").and_then(Value::as_str).unwrap_or("none");
        if !FORMATS.contains(&format) {
            let instead = "take its float weights or a GGUF file of it";
            return Err(format!("has format {format}; known are {}: {instead}", FORMATS.join(", ")));
        }
        let groups = fields.get("config_groups").and_then(Value::as_object);
        let weights = groups.into_iter().flat_map(Map::values).filter_map(|group| group.get("weights"));
        let mut scheme = ScaledWeights { bits: 0, block: None };
        for weights in weights.filter_map(Value::as_object) {
            let bits = weights.get("num_bits").and_then(Value::as_u64).unwrap_or(0) as usize;
            if !matches!(bits, 4 | 8) || scheme.bits != 0 && scheme.bits != bits {
                return Err(format!("has num_bits {bits}; allowed are 4 or 8, the same in all groups"));
            }
            if weights.get("symmetric").and_then(Value::as_bool) == Some(false) {
                return Err("has symmetric false; weights with zero points are not read".into());
            }
            scheme = ScaledWeights { bits, block: weights.get("block_structure").and_then(block_of) };
        }
        match scheme.bits {
            0 => Err("has no config_groups with weights".into()),
            _ => Ok(scheme),
        }
    }

    /// Puts the codes and scales of each quantised layer together whose weight is asked for.
    ///
    /// Errors: a layer that lacks codes, or has zero points or an order of its own; types and shapes that do not fit
    /// each other.
    pub fn join_parts(self, tensors: &mut Tensors, is_asked_for: impl Fn(&str) -> bool) -> Result<(), ModelError> {
        for end in [".weight_scale", ".weight_scale_inv"] {
            let layers = tensors.keys().filter_map(|name| Some(name.strip_suffix(end)?.to_owned())).collect::<Vec<_>>();
            for layer in layers.into_iter().filter(|layer| is_asked_for(&format!("{layer}.weight"))) {
                for unread in ["weight_zero_point", "weight_g_idx"] {
                    if let Some(tensor) = LayerTensor::take(tensors, &format!("{layer}.{unread}")) {
                        return Err(tensor.error("is there, and weights with such a tensor are not read".into()));
                    }
                }
                let Some(scales) = LayerTensor::take(tensors, &format!("{layer}{end}")) else { continue };
                let codes = ["weight_packed", "weight"];
                let codes = codes.iter().find_map(|part| LayerTensor::take(tensors, &format!("{layer}.{part}")));
                let Some(codes) = codes else {
                    return Err(scales.error(format!("is there, and the codes {layer}.weight are missing")));
                };
                tensors.insert(format!("{layer}.weight"), self.joined(codes, scales)?);
            }
        }
        Ok(())
    }

    fn joined(self, codes: LayerTensor, scales: LayerTensor) -> Result<Entry, ModelError> {
        match codes.kind() {
            "F8_E4M3" => self.fp8(codes, scales),
            "I32" => integers(codes, scales, self.bits, false),
            "I8" => integers(codes, scales, 8, true),
            kind => {
                let message = format!("is of type {kind}, and has scales; codes of types F8_E4M3, I8 and I32 are read");
                Err(codes.error(message))
            }
        }
    }

    /// Errors: scales of another type, or of other blocks than those that are known.
    fn fp8(self, codes: LayerTensor, scales: LayerTensor) -> Result<Entry, ModelError> {
        let [n, k] = codes.entry.shape[..] else {
            return Err(codes.error(format!("has the shape {:?}; codes are a matrix", codes.entry.shape)));
        };
        scales.check_kind("F32 or BF16 or F16", "FP8")?;
        let count = scales.entry.shape.iter().product::<usize>();
        // One scale for all, one a row, or one a block.
        let block = match self.block {
            _ if count == 1 => [n, k],
            Some(block) => block,
            None => [1, k],
        };
        let of_block = [n.div_ceil(block[0].max(1)), k.div_ceil(block[1].max(1))];
        if count != of_block[0] * of_block[1] {
            let message = format!("has the shape {:?}; blocks of {block:?} ask for {of_block:?}", scales.entry.shape);
            return Err(scales.error(message));
        }
        let scale = scales.entry.kind.clone().map_err(|kind| scales.error(format!("is of type {kind}")))?;
        let mode = GroupMode::Fp8 { block, scale };
        let groups = GroupParts { mode, scales: scales.into_file_part(), biases: None };
        Ok(Entry { kind: Ok(WeightType::F32), groups: Some(Box::new(groups)), ..codes.entry })
    }
}

fn block_of(value: &Value) -> Option<[usize; 2]> {
    let sizes = value.as_array()?.iter().map(|size| usize::try_from(size.as_u64()?).ok());
    let sizes: [usize; 2] = sizes.collect::<Option<Vec<_>>>()?.try_into().ok()?;
    sizes.iter().all(|size| (1..=1 << 28).contains(size)).then_some(sizes)
}

/// Integers around 0: as unsigned codes, they are affine ones whose bias is the scale times minus half of all codes.
///
/// Errors: shapes that do not fit each other; groups that no affine type has.
fn integers(codes: LayerTensor, scales: LayerTensor, bits: usize, signed: bool) -> Result<Entry, ModelError> {
    scales.check_kind("F16 or BF16", "integers")?;
    let [n, columns] = codes.entry.shape[..] else {
        return Err(codes.error(format!("has the shape {:?}; codes are a matrix", codes.entry.shape)));
    };
    let k = if signed { columns } else { columns * 32 / bits };
    let per_row = scales.entry.shape.get(1).copied().unwrap_or(1);
    // A row with one scale becomes the largest groups that divide it, each with that scale.
    let largest = Affine::GROUPS.into_iter().rev().find(|group| k.is_multiple_of(*group));
    let group = if per_row == 1 { largest.unwrap_or(0) } else { k / per_row.max(1) };
    let half = if scales.kind() == "F16" { HalfFloat::F16 } else { HalfFloat::Bf16 };
    let kind = Affine::new(bits, group, half).filter(|of| {
        k.is_multiple_of(of.group()) && scales.entry.shape.first() == Some(&n) && (per_row == 1 || per_row * group == k)
    });
    let Some(kind) = kind else {
        let groups = Affine::GROUPS.map(|group| group.to_string()).join(", ");
        let message = format!(
            "has the shape {:?} for {n} rows of {k} codes; known are scales of groups of {groups}, or one a row",
            scales.entry.shape
        );
        return Err(scales.error(message));
    };
    let mode = GroupMode::Integers { bits, group, signed, one_scale: per_row == 1 };
    let groups = GroupParts { mode, scales: scales.into_file_part(), biases: None };
    let (kind, shape) = (Ok(WeightType::Affine(kind)), vec![n, k]);
    Ok(Entry { kind, shape, groups: Some(Box::new(groups)), ..codes.entry })
}
