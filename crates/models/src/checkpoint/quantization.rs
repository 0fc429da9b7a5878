//! How the weights of a model folder are quantised: as its tensors have it, and as the field `quantization` tells that
//! MLX writes to `config.json`.
use matmul::{Affine, WeightType};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How the elements of a quantised tensor are stored: MLX's `mode`, with `bits` and `group_size` where these vary, or
/// integers and FP8 with scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupMode {
    /// A scale and a bias for each group, floats of 16 bits.
    Affine {
        /// Bits of a code.
        bits: usize,
        /// Elements of a group.
        group: usize,
    },
    /// FP4 (E2M1), with a power of two (E8M0) for each 32 elements.
    Mxfp4,
    /// FP4 (E2M1), with a scale of FP8 (E4M3) for each 16 elements.
    Nvfp4,
    /// FP8 (E4M3), with a power of two (E8M0) for each 32 elements.
    Mxfp8,
    /// Integers around 0, with a scale for each group, a float of 16 bits.
    Integers {
        /// Bits of an integer.
        bits: usize,
        /// Elements of a group.
        group: usize,
        /// Whether they are stored as signed bytes, not as unsigned codes half of which stand for less than 0.
        signed: bool,
        /// Whether there is one scale for all groups of a row.
        one_scale: bool,
    },
    /// FP8 (E4M3), with a scale for each block of rows and columns.
    Fp8 {
        /// Rows and columns of a block.
        block: [usize; 2],
        /// The type of scales.
        scale: WeightType,
    },
}

impl GroupMode {
    /// Bits of a code.
    pub fn bits(self) -> usize {
        match self {
            GroupMode::Affine { bits, .. } | GroupMode::Integers { bits, .. } => bits,
            GroupMode::Mxfp4 | GroupMode::Nvfp4 => 4,
            GroupMode::Mxfp8 | GroupMode::Fp8 { .. } => 8,
        }
    }

    /// Elements of a group.
    pub fn group(self) -> usize {
        match self {
            GroupMode::Affine { group, .. } | GroupMode::Integers { group, .. } => group,
            GroupMode::Fp8 { block, .. } => block[1],
            GroupMode::Nvfp4 => 16,
            GroupMode::Mxfp4 | GroupMode::Mxfp8 => 32,
        }
    }

    /// The mode that fields of `config.json` name. What is missing is as MLX has it.
    ///
    /// Errors: a value that MLX does not have, as the rest of a sentence that begins with the field.
    fn of_fields(fields: &Map<String, Value>) -> Result<Self, String> {
        let size = |name: &str, default: usize| match fields.get(name).filter(|value| !value.is_null()) {
            None => Ok(default),
            Some(value) => {
                let size = value.as_u64().and_then(|n| usize::try_from(n).ok());
                size.ok_or_else(|| format!("has {name} {value}; it must be a whole number"))
            }
        };
        let is_set = |value: &&Value| !matches!(value, Value::Null | Value::Bool(false));
        if let Some(value) = fields.get("global_scale").filter(is_set) {
            let instead = "a scale of a whole tensor is not read; take a folder of mode affine";
            return Err(format!("has global_scale {value}: {instead}"));
        }
        let mode = fields.get("mode").filter(|value| !value.is_null());
        let named = match mode.map_or(Some("affine"), Value::as_str) {
            Some("affine") => {
                let (bits, group) = (size("bits", 4)?, size("group_size", 64)?);
                check("bits", bits, &Affine::BITS)?;
                check("group_size", group, &Affine::GROUPS)?;
                GroupMode::Affine { bits, group }
            }
            Some("mxfp4") => GroupMode::Mxfp4,
            Some("nvfp4") => GroupMode::Nvfp4,
            Some("mxfp8") => GroupMode::Mxfp8,
            _ => {
                let mode = mode.unwrap_or(&Value::Null);
                return Err(format!("has mode {mode}; known are affine, mxfp4, mxfp8 and nvfp4"));
            }
        };
        check("bits", size("bits", named.bits())?, &[named.bits()])?;
        check("group_size", size("group_size", named.group())?, &[named.group()])?;
        Ok(named)
    }
}

fn check(name: &str, value: usize, allowed: &[usize]) -> Result<(), String> {
    let names = || allowed.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    if allowed.contains(&value) { Ok(()) } else { Err(format!("has {name} {value}; allowed are {}", names())) }
}

/// How the layers of a folder of MLX's are quantised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MlxModes {
    /// The mode of layers that are not named.
    mode: GroupMode,
    /// Layers by name, such as `model.layers.0.mlp.down_proj`; `None` for one that is not quantised.
    exceptions: BTreeMap<String, Option<GroupMode>>,
}

impl MlxModes {
    /// Reads the fields of the object.
    ///
    /// Errors: modes, bits and groups that MLX does not have, as the rest of a sentence that begins with the object.
    pub fn of_fields(fields: &Map<String, Value>) -> Result<Self, String> {
        let mode = GroupMode::of_fields(fields)?;
        let mut exceptions = BTreeMap::new();
        for (name, value) in fields {
            let exception = match value {
                Value::Object(own) => {
                    Some(GroupMode::of_fields(own).map_err(|message| format!("{message} (for {name})"))?)
                }
                Value::Bool(false) => None,
                // Other fields name no layer.
                _ => continue,
            };
            exceptions.insert(name.clone(), exception);
        }
        Ok(MlxModes { mode, exceptions })
    }

    /// The mode of a layer; `None` if it is not quantised.
    pub fn of(&self, layer: &str) -> Option<GroupMode> {
        self.exceptions.get(layer).copied().unwrap_or(Some(self.mode))
    }
}
