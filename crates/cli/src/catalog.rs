//! Short names of models that are served well, by the size of the Mac that they are for.
use crate::output;

/// A model that has a short name. What a start takes is told by `tallow plan`, from the files themselves.
pub struct KnownModel {
    /// The short name, which stands wherever a model is named.
    pub name: &'static str,
    /// The model's name on the hub.
    pub hub: &'static str,
    /// Its licence by the identifier that the hub has for it.
    pub licence: &'static str,
    /// Memory of the smallest Mac on which it has a context of 32,768 tokens, stored as `near-lossless` does, GiB.
    pub mac: u64,
    /// What its file takes on disk and its weights of memory, about, in tenths of 10^9 bytes.
    weights: u64,
    /// Layers that own a cache, their kv heads, and elements of a head.
    #[cfg_attr(not(test), allow(dead_code))]
    cache: [usize; 3],
}

/// A model by its short name, its name on the hub, its licence, the Mac, its weights and its cache.
const fn known(
    name: &'static str,
    hub: &'static str,
    licence: &'static str,
    mac: u64,
    weights: u64,
    cache: [usize; 3],
) -> KnownModel {
    KnownModel { name, hub, licence, mac, weights, cache }
}

const APACHE: &str = "apache-2.0";
const LLAMA_3B: &str = "bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M";
const LLAMA_8B: &str = "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF:Q4_K_M";
const CODER_7B: &str = "Qwen/Qwen2.5-Coder-7B-Instruct-GGUF:Q4_K_M";
const CODER_30B: &str = "unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF:Q4_K_M";

/// The models, by the Mac that they are for.
pub const MODELS: [KnownModel; 14] = [
    known("qwen3:0.6b", "Qwen/Qwen3-0.6B-GGUF:Q8_0", APACHE, 8, 6, [28, 8, 128]),
    known("qwen3.5:0.8b", "unsloth/Qwen3.5-0.8B-GGUF:Q8_0", APACHE, 8, 9, [6, 2, 256]),
    known("llama3.2:1b", "bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0", "llama3.2", 8, 13, [16, 8, 64]),
    known("qwen3:1.7b", "Qwen/Qwen3-1.7B-GGUF:Q8_0", APACHE, 8, 18, [28, 8, 128]),
    known("llama3.2:3b", LLAMA_3B, "llama3.2", 8, 20, [28, 8, 128]),
    known("qwen3:4b", "Qwen/Qwen3-4B-GGUF:Q4_K_M", APACHE, 8, 25, [36, 8, 128]),
    known("qwen3.5:4b", "unsloth/Qwen3.5-4B-GGUF:Q4_K_M", APACHE, 8, 28, [8, 4, 256]),
    known("qwen2.5-coder:7b", CODER_7B, APACHE, 16, 47, [28, 4, 128]),
    known("llama3.1:8b", LLAMA_8B, "llama3.1", 16, 49, [32, 8, 128]),
    known("qwen3:8b", "Qwen/Qwen3-8B-GGUF:Q4_K_M", APACHE, 16, 50, [36, 8, 128]),
    known("qwen3.5:9b", "unsloth/Qwen3.5-9B-GGUF:Q4_K_M", APACHE, 16, 57, [8, 4, 256]),
    known("qwen3:14b", "Qwen/Qwen3-14B-GGUF:Q4_K_M", APACHE, 24, 90, [40, 8, 128]),
    known("qwen3:30b", "Qwen/Qwen3-30B-A3B-GGUF:Q4_K_M", APACHE, 32, 186, [48, 4, 128]),
    known("qwen3-coder:30b", CODER_30B, APACHE, 32, 186, [48, 4, 128]),
];

/// The model with this short name.
pub fn find(name: &str) -> Option<&'static KnownModel> {
    MODELS.iter().find(|model| model.name.eq_ignore_ascii_case(name))
}

/// The short name that is spelt most like `name`, which may lack a size.
pub fn nearest(name: &str) -> &'static str {
    let lower = name.to_lowercase();
    let likeness = |model: &&KnownModel| strsim::jaro_winkler(model.name, &lower);
    MODELS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).map_or("", |model| model.name)
}

/// Prints the table of short names.
pub fn print() {
    output::line(format_args!("{:<18}{:<9}{:>9}   {:<12}on the hub", "name", "for a Mac", "fetched", "licence"));
    for model in &MODELS {
        let (mac, fetched) = (format!("of {} GB", model.mac), format!("{:.1} GB", model.weights as f64 / 10.0));
        let KnownModel { name, hub, licence, .. } = model;
        output::line(format_args!("{name:<18}{mac:<9}{fetched:>9}   {licence:<12}{hub}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Mac;
    use turboquant::Format;

    /// Bytes that a start takes beside weights and cache: some more than the largest model of the table does.
    const BESIDE: u64 = 600_000_000;
    const LEAST_CONTEXT: u64 = 32_768;

    /// Tokens of context, K and V as `near-lossless` stores them, that half of what is free holds.
    fn context(model: &KnownModel, mac: u64) -> u64 {
        let free =
            format!("M2 {mac}GB").parse::<Mac>().unwrap().memory().free.saturating_sub(model.weights * 100_000_000);
        let cache = (free / 2).min(free.saturating_sub(BESIDE));
        let [layers, heads, head_dim] = model.cache;
        // A quarter is for recurrent states, and a quarter of the rest for snapshots.
        let share = if model.name.starts_with("qwen3.5") { 0.75 * 0.75 } else { 1.0 };
        (cache as f64 * share) as u64 / (2 * layers * heads * Format::Tc5.row_bytes(head_dim)) as u64
    }

    #[test]
    fn a_model_of_the_table_has_a_context_for_work_on_its_mac_and_on_no_smaller_one() {
        for (at, model) in MODELS.iter().enumerate() {
            assert!(context(model, model.mac) >= LEAST_CONTEXT, "{}: {}", model.name, context(model, model.mac));
            let smaller = [8, 16, 24, 32].into_iter().rfind(|mac| *mac < model.mac);
            assert!(smaller.is_none_or(|mac| context(model, mac) < LEAST_CONTEXT), "{}", model.name);
            assert!(MODELS[..at].iter().all(|other| other.mac <= model.mac && other.name != model.name));
            assert!(hub::ModelName::parse(model.hub).is_some_and(|hub| hub.quant.is_some()));
            assert!(!model.licence.is_empty());
        }
    }

    #[test]
    fn a_short_name_is_found_and_a_wrong_one_names_the_nearest() {
        assert_eq!(find("Qwen3:4B").map(|model| model.hub), Some("Qwen/Qwen3-4B-GGUF:Q4_K_M"));
        assert!(find("qwen3").is_none() && find("qwen3:5b").is_none());
        for (name, near) in
            [("qwen3:5b", "qwen3:8b"), ("llama3.1", "llama3.1:8b"), ("qwen2.5-code:7b", "qwen2.5-coder:7b")]
        {
            let found = nearest(name);
            assert!(found == near || found.split(':').next() == near.split(':').next(), "{name}: {found}");
        }
    }
}
