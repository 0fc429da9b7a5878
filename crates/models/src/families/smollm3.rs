//! SmolLM3 (Bakouch et al., "SmolLM3: smol, multilingual, long-context reasoner", Hugging Face, 2025): Llama's layers,
//! of which every fourth leaves q and k as they are, wherever their tokens stand (Yang et al., "Rope to Nope and Back
//! Again: A New Hybrid Attention Strategy", arXiv:2501.18795).
use super::llama;
use crate::checkpoint::GgufNames;
use crate::family::Family;

pub(crate) const FAMILY: Family = Family {
    gguf: Some(GgufNames { interleaved_rope: true, ..GgufNames::dense("smollm3") }),
    extend_json: |json, config| {
        let interval = json.size_or("no_rope_layer_interval", INTERVAL)?;
        // 1 where a layer rotates, in spite of the field's name.
        let listed = json.get::<Vec<u8>>("no_rope_layers")?;
        if let Some(listed) = listed.as_ref().filter(|listed| listed.len() != config.layers.len()) {
            let message = format!("has {} entries for num_hidden_layers {}", listed.len(), config.layers.len());
            return Err(json.error("no_rope_layers", message));
        }
        config.rotate_in(|layer| match &listed {
            Some(listed) => listed[layer] != 0,
            None => !(layer + 1).is_multiple_of(interval),
        });
        Ok(())
    },
    extend_gguf: |_, config| {
        config.rotate_in(|layer| !(layer + 1).is_multiple_of(INTERVAL));
        Ok(())
    },
    ..Family::dense(&[("SmolLM3ForCausalLM", "smollm3")], llama::load)
};

/// How many layers lie between those that do not rotate, as llama.cpp's files, which do not say, have it.
const INTERVAL: usize = 4;
