//! Short names of models that are served well, by the size of the Mac that they are for.
use crate::output;
use engine::WeightQuant;

/// A model that has a short name. What a start takes is told by `tallow plan`, from the files themselves.
pub struct KnownModel {
    /// The short name, which stands wherever a model is named.
    pub name: &'static str,
    /// The model's name on the hub.
    pub hub: &'static str,
    /// Its licence by the identifier that the hub has for it.
    pub licence: &'static str,
    /// What its float weights are quantised to at load; `None` where its file is quantised.
    pub weight_quant: Option<WeightQuant>,
    /// Sequences that run at once, where nothing else is asked for: recurrent states take memory for each.
    pub max_num_seqs: Option<usize>,
    /// Memory of the smallest Mac on which it has a context of 32,768 tokens, stored as `near-lossless` does, GiB.
    pub mac: u64,
    /// What is fetched, about, in tenths of 10^9 bytes.
    download: u64,
    /// What its weights take of memory, about, in tenths of 10^9 bytes.
    #[cfg_attr(not(test), allow(dead_code))]
    weights: u64,
    /// Layers that own a cache, their kv heads, and elements of a head.
    #[cfg_attr(not(test), allow(dead_code))]
    cache: [usize; 3],
}

/// A model whose file is of quantised weights, which are as many bytes in memory.
const fn gguf(
    name: &'static str,
    hub: &'static str,
    licence: &'static str,
    mac: u64,
    weights: u64,
    cache: [usize; 3],
) -> KnownModel {
    KnownModel { name, hub, licence, weight_quant: None, max_num_seqs: None, mac, download: weights, weights, cache }
}

/// A model of Qwen3.5 by its float weights. The states of a sequence take some 50 MB, so that few run at once.
const fn qwen3_5(
    name: &'static str,
    hub: &'static str,
    quant: WeightQuant,
    mac: u64,
    [download, weights]: [u64; 2],
    cache: [usize; 3],
) -> KnownModel {
    let (licence, weight_quant, max_num_seqs) = (APACHE, Some(quant), Some(8));
    KnownModel { name, hub, licence, weight_quant, max_num_seqs, mac, download, weights, cache }
}

const APACHE: &str = "apache-2.0";
const LLAMA_3B: &str = "bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M";
const LLAMA_8B: &str = "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF:Q4_K_M";
const CODER_7B: &str = "Qwen/Qwen2.5-Coder-7B-Instruct-GGUF:Q4_K_M";
const CODER_30B: &str = "unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF:Q4_K_M";

/// The models, by the Mac that they are for.
pub const MODELS: [KnownModel; 14] = [
    gguf("qwen3:0.6b", "Qwen/Qwen3-0.6B-GGUF:Q8_0", APACHE, 8, 6, [28, 8, 128]),
    qwen3_5("qwen3.5:0.8b", "Qwen/Qwen3.5-0.8B", WeightQuant::Q8_0, 8, [17, 10], [6, 2, 256]),
    gguf("llama3.2:1b", "bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0", "llama3.2", 8, 13, [16, 8, 64]),
    gguf("qwen3:1.7b", "Qwen/Qwen3-1.7B-GGUF:Q8_0", APACHE, 8, 18, [28, 8, 128]),
    gguf("llama3.2:3b", LLAMA_3B, "llama3.2", 8, 20, [28, 8, 128]),
    gguf("qwen3:4b", "Qwen/Qwen3-4B-GGUF:Q4_K_M", APACHE, 8, 25, [36, 8, 128]),
    qwen3_5("qwen3.5:4b", "Qwen/Qwen3.5-4B", WeightQuant::Q4K, 8, [93, 33], [8, 4, 256]),
    gguf("qwen2.5-coder:7b", CODER_7B, APACHE, 16, 47, [28, 4, 128]),
    gguf("llama3.1:8b", LLAMA_8B, "llama3.1", 16, 49, [32, 8, 128]),
    gguf("qwen3:8b", "Qwen/Qwen3-8B-GGUF:Q4_K_M", APACHE, 16, 50, [36, 8, 128]),
    qwen3_5("qwen3.5:9b", "Qwen/Qwen3.5-9B", WeightQuant::Q4K, 16, [193, 64], [8, 4, 256]),
    gguf("qwen3:14b", "Qwen/Qwen3-14B-GGUF:Q4_K_M", APACHE, 24, 90, [40, 8, 128]),
    gguf("qwen3:30b", "Qwen/Qwen3-30B-A3B-GGUF:Q4_K_M", APACHE, 32, 186, [48, 4, 128]),
    gguf("qwen3-coder:30b", CODER_30B, APACHE, 32, 186, [48, 4, 128]),
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
        let (mac, download) = (format!("of {} GB", model.mac), format!("{:.1} GB", model.download as f64 / 10.0));
        let KnownModel { name, hub, licence, weight_quant, .. } = model;
        let quant = WeightQuant::NAMES
            .into_iter()
            .find(|name| weight_quant.is_some() && WeightQuant::parse(name) == *weight_quant);
        let quant = quant.map(|name| format!(", {name} at load")).unwrap_or_default();
        output::line(format_args!("{name:<18}{mac:<9}{download:>9}   {licence:<12}{hub}{quant}"));
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
    const STATE: u64 = 55_000_000;

    /// Tokens of context, K and V as `near-lossless` stores them, that half of what is free holds.
    fn context(model: &KnownModel, mac: u64) -> u64 {
        let free =
            format!("M2 {mac}GB").parse::<Mac>().unwrap().memory().free.saturating_sub(model.weights * 100_000_000);
        let states = STATE * model.max_num_seqs.unwrap_or(0) as u64;
        let cache = (free / 2).min(free.saturating_sub(BESIDE)).saturating_sub(states);
        let [layers, heads, head_dim] = model.cache;
        // A quarter is for snapshots.
        let share = if model.max_num_seqs.is_some() { 0.75 } else { 1.0 };
        (cache as f64 * share) as u64 / (2 * layers * heads * Format::Tc5.row_bytes(head_dim)) as u64
    }

    #[test]
    fn a_model_of_the_table_has_a_context_for_work_on_its_mac_and_on_no_smaller_one() {
        for (at, model) in MODELS.iter().enumerate() {
            assert!(context(model, model.mac) >= LEAST_CONTEXT, "{}: {}", model.name, context(model, model.mac));
            let smaller = [8, 16, 24, 32].into_iter().rfind(|mac| *mac < model.mac);
            assert!(smaller.is_none_or(|mac| context(model, mac) < LEAST_CONTEXT), "{}", model.name);
            assert!(MODELS[..at].iter().all(|other| other.mac <= model.mac && other.name != model.name));
            assert!(
                hub::ModelName::parse(model.hub).is_some_and(|hub| hub.quant.is_some() == model.weight_quant.is_none())
            );
            assert!(model.weights <= model.download && !model.licence.is_empty());
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
