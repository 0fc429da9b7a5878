//! What a file in `families` tells the rest of the crate about its family.
use crate::checkpoint::{GgufNames, Tensors};
use crate::config::{ConfigJson, GgufKeys, LayerKind, ModelConfig, config_of_gguf, config_of_json};
use crate::error::LoadResult;
use crate::model::Model;
use crate::weights::Weights;

/// Architectures that share one file of `families`: their names, what their configuration has beside that of other
/// models, and how their layers are loaded.
pub(crate) struct Family {
    /// Names in `config.json`: the one of `architectures`, and the `model_type` of the text part.
    pub names: &'static [(&'static str, &'static str)],
    /// Names in GGUF files; `None` where llama.cpp's files are not read.
    pub gguf: Option<GgufNames>,
    /// Adds to the configuration what only this family reads from `config.json`.
    pub extend_json: fn(&ConfigJson, &mut ModelConfig) -> LoadResult<()>,
    /// Adds to the configuration what only this family reads from GGUF metadata.
    pub extend_gguf: fn(&GgufKeys<'_>, &mut ModelConfig) -> LoadResult<()>,
    /// Loads a model of this family.
    pub load: LoadModel,
}

/// Loads a model of a family.
pub(crate) type LoadModel = fn(&ModelConfig, &Weights) -> LoadResult<Box<dyn Model>>;

impl Family {
    /// A dense model whose configuration has no fields of its own.
    pub const fn dense(names: &'static [(&'static str, &'static str)], load: LoadModel) -> Self {
        Family { names, gguf: None, extend_json: |_, _| Ok(()), extend_gguf: |_, _| Ok(()), load }
    }

    /// The `model_type` of a checkpoint that gives none.
    pub fn model_type(&self) -> &'static str {
        self.names[0].1
    }

    /// The configuration of a model folder.
    ///
    /// Errors: missing fields, and values that no model of this family can have.
    pub fn config_of_json(&self, json: &ConfigJson) -> LoadResult<ModelConfig> {
        let mut config = config_of_json(json, self.model_type())?;
        (self.extend_json)(json, &mut config)?;
        if config.layers.contains(&LayerKind::Linear) && config.delta_net.is_none() {
            let message = "names linear_attention; layers of this model are full_attention or sliding_attention";
            return Err(json.error("layer_types", message));
        }
        Ok(config)
    }

    /// The configuration of a GGUF file.
    ///
    /// Errors: missing keys, and values that no model of this family can have.
    pub fn config_of_gguf(&self, keys: &GgufKeys<'_>, tensors: &Tensors) -> LoadResult<ModelConfig> {
        let mut config = config_of_gguf(keys, tensors, self.model_type())?;
        (self.extend_gguf)(keys, &mut config)?;
        Ok(config)
    }
}
