//! How many blocks the cache gets, and how long a context may be.
use crate::error::StartError;
use kv::KvLayout;

/// Share of the free memory that the cache takes where nobody says how much; the rest is for activations and other
/// programs.
pub(super) const SHARE_OF_FREE: f64 = 0.5;
/// Share of the cache's memory, without the states of running sequences, that snapshots take of a model with recurrent
/// states.
const SHARE_OF_SNAPSHOTS: f64 = 0.25;
/// Share of the cache's memory that the states of running sequences take at most, where nobody says how many run.
const SHARE_OF_STATES: f64 = 0.25;
/// Sequences that run at once, where nobody says how many and their states leave room.
pub(super) const DEFAULT_NUM_SEQS: usize = 64;
/// Most snapshots for each sequence that may run.
const SNAPSHOTS_A_SEQUENCE: usize = 8;

/// How many blocks the cache has, and the longest context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBudget {
    /// Blocks of the pool.
    pub num_blocks: usize,
    /// The longest context, tokens of prompt and answer together.
    pub max_model_len: usize,
    /// Snapshots of recurrent states that are kept; 0 for a model without such states.
    pub num_snapshots: usize,
}

/// What bounds the cache: what was asked for, what the model can use, what memory there is.
#[derive(Debug, Clone, Copy)]
pub struct MemoryLimits {
    /// `--kv-cache-memory`, bytes.
    pub kv_cache_memory: Option<u64>,
    /// `--max-model-len`, tokens.
    pub max_model_len: Option<usize>,
    /// The longest context that the model was made for, tokens.
    pub model_limit: usize,
    /// `--max-num-seqs`, or [`MemoryLimits::sequences`].
    pub max_num_seqs: usize,
    /// Bytes of one sequence's recurrent states; those of `max_num_seqs` sequences, and of snapshots, come out of the
    /// cache's memory.
    pub state_bytes: u64,
    /// Whether snapshots are kept.
    pub snapshots: bool,
    /// Free memory of the machine less what mapped weights will take, bytes; `None` if unknown.
    pub free_memory: Option<u64>,
    /// The share of it that the cache may take where nobody says how much.
    pub share_of_free: f64,
    /// All memory of the machine, or of the container, bytes; `None` if unknown.
    pub total_memory: Option<u64>,
    /// Whether `--memory` says how much that is.
    pub is_named: bool,
    /// What is needed beside the cache.
    pub needs: MemoryNeeds,
}

/// What a model and its steps need of memory beside the cache, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryNeeds {
    /// Weights that stay in their files; the system has their pages in memory as they are read.
    pub mapped_weights: u64,
    /// Weights that were made at load, or read into memory.
    pub owned_weights: u64,
    /// The largest step.
    pub activations: u64,
    /// What waits to be written to disk.
    pub disk_staging: u64,
    /// Tokenizer and token masks.
    pub text: u64,
    /// What is not counted.
    pub margin: u64,
}

/// A term of what is needed of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryTerm {
    /// What it is for.
    pub name: &'static str,
    /// How much it is.
    pub bytes: u64,
}

impl MemoryNeeds {
    /// All that a start or a step takes beside weights and cache.
    pub(super) fn beside_weights(&self) -> u64 {
        [self.activations, self.disk_staging, self.text, self.margin].into_iter().fold(0, u64::saturating_add)
    }

    /// All that must be in memory beside the cache. Mapped weights that are larger than the machine are read again and
    /// again, but they are served.
    pub(super) fn resident(&self, total: u64) -> u64 {
        let mapped = if self.mapped_weights < total { self.mapped_weights } else { 0 };
        mapped.saturating_add(self.owned_weights).saturating_add(self.beside_weights())
    }
}

impl MemoryBudget {
    /// Divides the memory. Of what the states of running sequences leave, snapshots get a quarter, but not more than
    /// [`SNAPSHOTS_A_SEQUENCE`] for each sequence; blocks get the rest. With a context of L tokens and blocks of B
    /// tokens the cache can use at most ceil(L / B) × `max_num_seqs` blocks; memory that no flag names is taken up to
    /// that.
    ///
    /// Errors: a context that the model or the memory does not hold, with what would be needed.
    pub fn new(layout: &KvLayout, limits: &MemoryLimits) -> Result<Self, StartError> {
        let wanted = limits.max_model_len.unwrap_or(limits.model_limit);
        if limits.model_limit < 2 {
            let message = format!("is {} tokens; a prompt and an answer need 2 at least", limits.model_limit);
            return Err(StartError::flag("the model's context", message));
        }
        if wanted < 2 || wanted > limits.model_limit {
            let message = format!("is {wanted}; it must lie in [2, {}], the model's context", limits.model_limit);
            return Err(StartError::flag("--max-model-len", message));
        }
        let (block_size, block_bytes) = (layout.block_size(), layout.bytes_per_block());
        let max_useful_blocks = wanted.div_ceil(block_size).saturating_mul(limits.max_num_seqs);
        let (num_blocks, num_snapshots) = match limits.kv_cache_memory {
            Some(bytes) => {
                limits.check_total(Some(bytes))?;
                let (rest, snapshots) = limits.beside_states(bytes)?;
                (layout.blocks_in(rest), snapshots)
            }
            None => {
                limits.check_total(None)?;
                let unknown = || {
                    StartError::flag("--kv-cache-memory", "the system does not say how much memory is free; name it")
                };
                let free = limits.free_memory.ok_or_else(unknown)?;
                let most = ((free as f64 * limits.share_of_free) as u64)
                    .min(free.saturating_sub(limits.needs.beside_weights()));
                let (rest, snapshots) = limits.beside_states(most)?;
                (layout.blocks_in(rest).min(max_useful_blocks), snapshots)
            }
        };
        // The number of a slot has 32 bits.
        let num_blocks = num_blocks.min(u32::MAX as usize / block_size);
        let capacity = num_blocks * block_size;
        if let (0, Some(bytes)) = (num_blocks, limits.kv_cache_memory) {
            let message = format!("is {bytes} bytes; a block of {block_size} tokens takes {block_bytes}");
            return Err(StartError::flag("--kv-cache-memory", message));
        }
        if capacity < 2 || (limits.max_model_len.is_some() && capacity < wanted) {
            let needed = wanted.div_ceil(block_size) * block_bytes;
            let message = format!(
                "{wanted} tokens need {needed} bytes of KV cache; there is memory for {capacity} tokens. Raise \
                 {}, lower --max-model-len or choose a smaller --k-quant and --v-quant. Needed beside the cache: {}",
                if limits.is_named { "--memory" } else { "--kv-cache-memory" },
                listed(&limits.needs.terms())
            );
            return Err(StartError::flag("--max-model-len", message));
        }
        Ok(MemoryBudget { num_blocks, max_model_len: wanted.min(capacity), num_snapshots })
    }
}

impl MemoryLimits {
    /// How many sequences run at once where nobody says so, if each has `state_bytes` of recurrent states: as many as
    /// take a quarter of the cache's memory, but one at least and [`DEFAULT_NUM_SEQS`] at most. `cache`: bytes; `None`
    /// if unknown.
    pub(super) fn sequences(state_bytes: u64, cache: Option<u64>) -> usize {
        let of_states = cache.map(|cache| (cache as f64 * SHARE_OF_STATES) as u64);
        match of_states.and_then(|bytes| bytes.checked_div(state_bytes)) {
            Some(sequences) => sequences.clamp(1, DEFAULT_NUM_SEQS as u64) as usize,
            None => DEFAULT_NUM_SEQS,
        }
    }

    /// The bytes that recurrent states and snapshots leave for blocks, and the number of snapshots.
    ///
    /// Errors: memory that does not hold the states of `max_num_seqs` sequences.
    fn beside_states(&self, bytes: u64) -> Result<(u64, usize), StartError> {
        let states = self.state_bytes.saturating_mul(self.max_num_seqs as u64);
        let message = format!(
            "{bytes} bytes are less than the {states} of recurrent states for --max-num-seqs {}; raise the one or \
             lower the other",
            self.max_num_seqs
        );
        let rest = bytes.checked_sub(states).ok_or_else(|| StartError::flag("--kv-cache-memory", message))?;
        if !self.snapshots || self.state_bytes == 0 {
            return Ok((rest, 0));
        }
        let most = self.max_num_seqs.saturating_mul(SNAPSHOTS_A_SEQUENCE) as u64;
        let snapshots = ((rest as f64 * SHARE_OF_SNAPSHOTS) as u64 / self.state_bytes).min(most);
        Ok((rest - snapshots * self.state_bytes, snapshots as usize))
    }

    /// What is needed of memory for a cache of this budget, term by term.
    pub(super) fn terms(&self, layout: &KvLayout, budget: &MemoryBudget) -> Vec<MemoryTerm> {
        let term = |name, bytes| MemoryTerm { name, bytes };
        let mut terms = self.needs.terms();
        terms.push(term("KV cache", (budget.num_blocks * layout.bytes_per_block()) as u64));
        terms.push(term("recurrent states", self.state_bytes * self.max_num_seqs as u64));
        terms.push(term("snapshots", self.state_bytes * budget.num_snapshots as u64));
        terms
    }

    /// Errors: what is needed, with `cache` bytes of cache if these are named, is more than there is, whatever else the
    /// machine does.
    fn check_total(&self, cache: Option<u64>) -> Result<(), StartError> {
        let Some(total) = self.total_memory else { return Ok(()) };
        let needed = self.needs.resident(total);
        if cache.unwrap_or(0).saturating_add(needed) <= total {
            return Ok(());
        }
        let terms = listed(&self.needs.terms());
        let room = total.saturating_sub(needed);
        let whose = if self.is_named { "--memory names" } else { "this machine, or the container, has" };
        let message = match cache {
            Some(bytes) if room > 0 => format!(
                "is {bytes} bytes; {whose} {total} bytes in all, of which {needed} are \
                 needed beside the cache: {terms}. It must be at most {room}; left out, it is what fits"
            ),
            _ => {
                let message = format!(
                    "needs {needed} bytes beside the cache, and {whose} {total} in all: \
                     {terms}. Take smaller weights, or lower --max-num-batched-tokens and --max-num-seqs"
                );
                return Err(StartError::flag("the model", message));
            }
        };
        Err(StartError::flag("--kv-cache-memory", message))
    }
}

impl MemoryNeeds {
    pub(super) fn terms(&self) -> Vec<MemoryTerm> {
        let terms = [
            ("weights in their files", self.mapped_weights),
            ("weights in memory", self.owned_weights),
            ("activations of the largest step", self.activations),
            ("what waits to be written to disk", self.disk_staging),
            ("tokenizer and token masks", self.text),
            ("margin", self.margin),
        ];
        terms.map(|(name, bytes)| MemoryTerm { name, bytes }).into()
    }
}

/// Terms as a part of a sentence, in MiB.
fn listed(terms: &[MemoryTerm]) -> String {
    let list: Vec<_> = terms.iter().map(|term| format!("{} {} MiB", term.name, term.bytes.div_ceil(1 << 20))).collect();
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use turboquant::Format;

    fn layout() -> KvLayout {
        KvLayout::new(16, [(2, 64, Format::Bf16, Format::Bf16)]).unwrap()
    }

    const LIMITS: MemoryLimits = MemoryLimits {
        kv_cache_memory: None,
        max_model_len: None,
        model_limit: 4096,
        max_num_seqs: 4,
        state_bytes: 0,
        snapshots: true,
        free_memory: Some(1 << 30),
        share_of_free: SHARE_OF_FREE,
        total_memory: Some(1 << 32),
        is_named: false,
        needs: MemoryNeeds {
            mapped_weights: 1 << 20,
            owned_weights: 0,
            activations: 0,
            disk_staging: 0,
            text: 0,
            margin: 0,
        },
    };

    #[test]
    fn a_pool_is_no_larger_than_what_can_be_used() {
        let budget = MemoryBudget::new(&layout(), &LIMITS).unwrap();
        assert_eq!(budget, MemoryBudget { num_blocks: 4 * 256, max_model_len: 4096, num_snapshots: 0 });
        let all = MemoryLimits { model_limit: usize::MAX, max_num_seqs: scheduler::MAX_NUM_SEQS, ..LIMITS };
        assert_eq!(MemoryBudget::new(&layout(), &all).unwrap().num_blocks, (1 << 29) / layout().bytes_per_block());
    }

    #[test]
    fn memory_that_is_named_is_taken_whole_and_bounds_the_context() {
        let bytes = 10 * layout().bytes_per_block() as u64 + 5;
        let budget = MemoryBudget::new(&layout(), &MemoryLimits { kv_cache_memory: Some(bytes), ..LIMITS }).unwrap();
        assert_eq!(budget, MemoryBudget { num_blocks: 10, max_model_len: 160, num_snapshots: 0 });
    }

    #[test]
    fn a_pool_that_is_larger_than_the_machine_is_refused_with_the_numbers() {
        let with = |bytes: u64, mapped_weights: u64| {
            let limits = MemoryLimits {
                kv_cache_memory: Some(bytes),
                needs: MemoryNeeds { mapped_weights, ..LIMITS.needs },
                ..LIMITS
            };
            MemoryBudget::new(&layout(), &limits).map_err(|error| error.to_string())
        };
        let total = LIMITS.total_memory.unwrap();
        assert!(with(total - 5, 5).is_ok());
        for (bytes, weights) in [(total + 1, 0), (total - 5, 6), (u64::MAX, 5)] {
            let error = with(bytes, weights).unwrap_err();
            for number in [bytes, weights, total, total - weights] {
                assert!(error.starts_with("--kv-cache-memory: is ") && error.contains(&number.to_string()), "{error}");
            }
        }
        // Weights that do not fit themselves are mapped.
        assert!(with(1 << 20, total + 1).is_ok() && with(total + 1, total + 1).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused_with_every_term() {
        const MIB: u64 = 1 << 20;
        let total = LIMITS.total_memory.unwrap();
        let needs = MemoryNeeds {
            mapped_weights: total - 1000 * MIB,
            owned_weights: 100 * MIB,
            activations: 200 * MIB,
            disk_staging: 64 * MIB,
            text: 37 * MIB,
            margin: 99 * MIB,
        };
        let budget = |kv_cache_memory, needs| {
            let limits = MemoryLimits { kv_cache_memory, needs, ..LIMITS };
            MemoryBudget::new(&layout(), &limits).map_err(|error| error.to_string())
        };
        assert!(budget(Some(500 * MIB), needs).is_ok());
        let with_cache = budget(Some(500 * MIB + 1), needs).unwrap_err();
        assert!(with_cache.contains(&format!("at most {}", 500 * MIB)), "{with_cache}");
        // No cache fits.
        let larger = MemoryNeeds { activations: 701 * MIB, ..needs };
        let (named, left_out) = (budget(Some(1), larger).unwrap_err(), budget(None, larger).unwrap_err());
        assert_eq!(named, left_out);
        for (error, activations) in [(with_cache, 200), (named, 701)] {
            for term in
                ["files 3096", "in memory 100", &format!("step {activations}"), "disk 64", "masks 37", "margin 99"]
            {
                assert!(error.contains(&format!("{term} MiB")), "{term}: {error}");
            }
        }
        // A cache that nobody names leaves place for the rest.
        let limits = MemoryLimits { free_memory: Some(600 * MIB), needs, ..LIMITS };
        let budget = MemoryBudget::new(&layout(), &MemoryLimits { max_num_seqs: 1000, ..limits }).unwrap();
        assert_eq!(budget.num_blocks as u64, 200 * MIB / layout().bytes_per_block() as u64);
    }

    #[test]
    fn recurrent_states_come_out_of_the_same_memory() {
        let block = layout().bytes_per_block() as u64;
        let limits = MemoryLimits { kv_cache_memory: Some(44 * block), state_bytes: block, ..LIMITS };
        let budget = |limits| MemoryBudget::new(&layout(), &limits).unwrap();
        let MemoryBudget { num_blocks, num_snapshots, .. } = budget(limits);
        assert_eq!((num_blocks, num_snapshots), (30, 10));
        let without = budget(MemoryLimits { snapshots: false, ..limits });
        assert_eq!((without.num_blocks, without.num_snapshots), (40, 0));
        // Eight for each sequence are enough.
        assert_eq!(budget(MemoryLimits { kv_cache_memory: Some(1000 * block), ..limits }).num_snapshots, 32);
        let error = MemoryBudget::new(&layout(), &MemoryLimits { state_bytes: 11 * block + 1, ..limits }).unwrap_err();
        assert!(error.to_string().contains("--max-num-seqs 4"), "{error}");
    }

    #[test]
    fn a_context_that_does_not_fit_is_refused_with_the_bytes_it_needs() {
        let limits = MemoryLimits { kv_cache_memory: Some(100_000), max_model_len: Some(4096), ..LIMITS };
        let error = MemoryBudget::new(&layout(), &limits).unwrap_err().to_string();
        assert!(error.contains("--max-model-len") && error.contains(&(256 * 8192).to_string()), "{error}");
        assert!(error.contains("Raise --kv-cache-memory"), "{error}");
        let named = MemoryLimits { is_named: true, free_memory: Some(100_000), kv_cache_memory: None, ..limits };
        let error = MemoryBudget::new(&layout(), &named).unwrap_err().to_string();
        assert!(error.contains("Raise --memory"), "{error}");
        let error = MemoryBudget::new(&layout(), &MemoryLimits { max_model_len: Some(5000), ..LIMITS }).unwrap_err();
        assert!(error.to_string().contains("[2, 4096]"), "{error}");
        let none = MemoryLimits { kv_cache_memory: Some(5), ..LIMITS };
        let error = MemoryBudget::new(&layout(), &none).unwrap_err().to_string();
        assert!(error.contains("--kv-cache-memory: is 5 bytes") && error.contains("takes 8192"), "{error}");
        let error = MemoryBudget::new(&layout(), &MemoryLimits { model_limit: 1, ..LIMITS }).unwrap_err().to_string();
        assert!(error.contains("the model's context") && error.contains("is 1 tokens"), "{error}");
    }
}
