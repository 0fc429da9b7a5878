//! Tensors of MLX's folders. A quantised layer has three: `weight`, its codes as one string of bits a row in words of
//! 32 bits, `scales` and, in the mode `affine`, `biases`. Here they become one.
use super::layer_tensor::LayerTensor;
use super::{Entry, GroupMode, GroupParts, MlxModes, Tensors};
use crate::error::ModelError;
use matmul::{Affine, HalfFloat, WeightType};

/// Puts the codes, scales and biases of each quantised layer together whose weight is asked for.
///
/// Errors: a layer that lacks one of them; types and shapes that do not fit each other, or what the configuration says.
pub(super) fn join_parts(
    tensors: &mut Tensors,
    modes: &MlxModes,
    is_asked_for: impl Fn(&str) -> bool,
) -> Result<(), ModelError> {
    let layers = tensors.keys().filter_map(|name| Some(name.strip_suffix(".scales")?.to_owned())).collect::<Vec<_>>();
    for layer in layers.into_iter().filter(|layer| is_asked_for(&format!("{layer}.weight"))) {
        let name = |part: &str| format!("{layer}.{part}");
        let mut take = |part: &str| LayerTensor::take(tensors, &name(part));
        let (Some(scales), codes, biases) = (take("scales"), take("weight"), take("biases")) else { continue };
        let Some(mode) = modes.of(&layer) else {
            return Err(scales.error("is there, and config.json says that the layer is not quantised".into()));
        };
        let Some(codes) = codes else {
            return Err(scales.error(format!("is there, and the codes {} are missing", name("weight"))));
        };
        let entry = joined(mode, codes, scales, biases)?;
        tensors.insert(name("weight"), entry);
    }
    Ok(())
}

/// A mode as errors name it.
fn described(mode: GroupMode) -> String {
    match mode {
        GroupMode::Affine { bits, group } => format!("codes of {bits} bits in groups of {group}"),
        GroupMode::Mxfp4 => "mxfp4".into(),
        GroupMode::Nvfp4 => "nvfp4".into(),
        GroupMode::Mxfp8 => "mxfp8".into(),
        GroupMode::Integers { bits, .. } => format!("integers of {bits} bits"),
        GroupMode::Fp8 { .. } => "FP8".into(),
    }
}

/// One tensor of codes, scales and biases.
///
/// Errors: as [`join_parts`].
fn joined(
    mode: GroupMode,
    codes: LayerTensor,
    scales: LayerTensor,
    biases: Option<LayerTensor>,
) -> Result<Entry, ModelError> {
    codes.check_kind("U32", &described(mode))?;
    let Some((words, rows)) = codes.entry.shape.split_last().filter(|(_, rows)| !rows.is_empty()) else {
        return Err(codes.error(format!("has the shape {:?}; codes have rows", codes.entry.shape)));
    };
    // A tensor that lies in a file has fewer words than would overflow.
    let (k, rest) = (words * 32 / mode.bits(), words * 32 % mode.bits());
    if rest != 0 || !k.is_multiple_of(mode.group()) {
        let message = format!("has rows of {words} words, which are no whole number of {}", described(mode));
        return Err(codes.error(message));
    }
    let shape_of = |last: usize| rows.iter().copied().chain([last]).collect::<Vec<_>>();
    let of_groups = shape_of(k / mode.group());
    let what = format!("{} of shape {:?} as {}", codes.name, codes.entry.shape, described(mode));
    scales.check_shape(&of_groups, &what)?;
    let kind = match mode {
        GroupMode::Affine { bits, group } => {
            scales.check_kind("F16 or BF16", &described(mode))?;
            let Some(biases) = &biases else {
                return Err(scales.error("has no biases beside it, which the mode affine needs".into()));
            };
            biases.check_shape(&of_groups, &what)?;
            biases.check_kind(scales.kind(), &described(mode))?;
            let half = if scales.entry.kind == Ok(WeightType::F16) { HalfFloat::F16 } else { HalfFloat::Bf16 };
            Affine::new(bits, group, half).map(WeightType::Affine)
        }
        GroupMode::Mxfp4 => Some(WeightType::Mxfp4),
        GroupMode::Nvfp4 => Some(WeightType::Nvfp4),
        GroupMode::Mxfp8 => Some(WeightType::Bf16),
        GroupMode::Integers { .. } | GroupMode::Fp8 { .. } => None,
    };
    let kind = kind.ok_or_else(|| codes.error(format!("is of {}, which is not known", described(mode))))?;
    if !matches!(mode, GroupMode::Affine { .. }) {
        scales.check_kind("U8", &described(mode))?;
        if let Some(biases) = &biases {
            return Err(biases.error(format!("is there; {} has no biases", described(mode))));
        }
    }
    let shape = shape_of(k);
    let groups = GroupParts { mode, scales: scales.into_file_part(), biases: biases.map(LayerTensor::into_file_part) };
    Ok(Entry { kind: Ok(kind), shape, groups: Some(Box::new(groups)), ..codes.entry })
}

/// Whether a folder's tensors are as mlx-lm's converter writes Qwen3.5's: it adds the 1 that other folders leave out of
/// the weights of norms, and moves the channel of each filter of `conv1d` after its taps, by which it is known.
pub(crate) fn has_whole_norms(tensors: &Tensors) -> bool {
    let filters = tensors.iter().filter(|(name, _)| name.ends_with(".conv1d.weight"));
    filters.map(|(_, entry)| &entry.shape).any(|shape| matches!(shape[..], [_, taps, 1] if taps > 1))
}
