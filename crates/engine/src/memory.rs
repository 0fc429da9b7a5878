//! How many blocks the cache gets, and how long a context may be.
use crate::error::StartError;
use kv::KvLayout;

/// Share of the free memory that the cache takes where nobody says how much; the rest is for activations and other programs.
const SHARE_OF_FREE: f64 = 0.5;

/// Blocks of the pool and the longest context, both settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBudget {
    pub num_blocks: usize,
    pub max_model_len: usize,
}

/// What was asked for and what there is.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// `--kv-cache-memory` in bytes.
    pub kv_cache_memory: Option<u64>,
    /// `--max-model-len`.
    pub max_model_len: Option<usize>,
    /// The model's own limit.
    pub model_limit: usize,
    pub max_num_seqs: usize,
    /// Recurrent states of `max_num_seqs` sequences, bytes; they come out of the cache's memory.
    pub state_bytes: u64,
    /// Free memory of the machine, bytes, weights taken off; `None` if unknown.
    pub free_memory: Option<u64>,
}

impl MemoryBudget {
    /// Errors: a context that the model or the memory does not hold, with what would be needed.
    pub fn settle(layout: &KvLayout, demand: &Demand) -> Result<Self, StartError> {
        let wanted = demand.max_model_len.unwrap_or(demand.model_limit);
        if wanted < 2 || wanted > demand.model_limit {
            let message = format!("is {wanted}; it must lie in [2, {}], the model's context", demand.model_limit);
            return Err(StartError::flag("--max-model-len", message));
        }
        let (block_size, block_bytes) = (layout.block_size(), layout.bytes_per_block());
        let useful = wanted.div_ceil(block_size).saturating_mul(demand.max_num_seqs);
        let beside_states = |bytes: u64| {
            let message = format!(
                "{bytes} bytes are less than the {} of recurrent states for --max-num-seqs {}; raise the one or lower the other",
                demand.state_bytes, demand.max_num_seqs
            );
            bytes.checked_sub(demand.state_bytes).ok_or_else(|| StartError::flag("--kv-cache-memory", message))
        };
        let num_blocks = match demand.kv_cache_memory {
            Some(bytes) => layout.blocks_in(beside_states(bytes)?),
            None => {
                let unknown = || {
                    StartError::flag("--kv-cache-memory", "the system does not say how much memory is free; name it")
                };
                let free = demand.free_memory.ok_or_else(unknown)?;
                layout.blocks_in(beside_states((free as f64 * SHARE_OF_FREE) as u64)?).min(useful)
            }
        };
        // Slots are counted in 32 bits.
        let num_blocks = num_blocks.min(u32::MAX as usize / block_size);
        let capacity = num_blocks * block_size;
        if capacity < 2 || (demand.max_model_len.is_some() && capacity < wanted) {
            let needed = wanted.div_ceil(block_size) * block_bytes;
            let message = format!(
                "{wanted} tokens need {needed} bytes of KV cache; there is memory for {capacity} tokens. Raise \
                 --kv-cache-memory, lower --max-model-len or choose a smaller --k-quant and --v-quant"
            );
            return Err(StartError::flag("--max-model-len", message));
        }
        Ok(MemoryBudget { num_blocks, max_model_len: wanted.min(capacity) })
    }
}

/// Memory of this machine in bytes; 0 where the system does not say.
#[cfg(all(target_os = "macos", feature = "metal"))]
pub(crate) fn physical_memory() -> u64 {
    sysinfo::System::new().map_or(0, |mut system| {
        system.refresh_memory();
        system.total_memory()
    })
}

/// Free memory of this machine in bytes; `None` where the system does not say.
pub fn free_memory() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let free = system.available_memory();
    // A container's limit counts where there is one.
    Some(system.cgroup_limits().map_or(free, |limits| free.min(limits.free_memory)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use turboquant::Format;

    fn layout() -> KvLayout {
        KvLayout::new(16, [(2, 64, Format::Bf16, Format::Bf16)]).unwrap()
    }

    const DEMAND: Demand = Demand {
        kv_cache_memory: None,
        max_model_len: None,
        model_limit: 4096,
        max_num_seqs: 4,
        state_bytes: 0,
        free_memory: Some(1 << 30),
    };

    #[test]
    fn a_pool_is_no_larger_than_what_can_be_used() {
        let budget = MemoryBudget::settle(&layout(), &DEMAND).unwrap();
        assert_eq!(budget, MemoryBudget { num_blocks: 4 * 256, max_model_len: 4096 });
        let all = Demand { model_limit: usize::MAX, max_num_seqs: scheduler::MAX_SEATS, ..DEMAND };
        assert_eq!(MemoryBudget::settle(&layout(), &all).unwrap().num_blocks, (1 << 29) / layout().bytes_per_block());
    }

    #[test]
    fn memory_that_is_named_is_taken_whole_and_bounds_the_context() {
        let bytes = 10 * layout().bytes_per_block() as u64 + 5;
        let budget = MemoryBudget::settle(&layout(), &Demand { kv_cache_memory: Some(bytes), ..DEMAND }).unwrap();
        assert_eq!(budget, MemoryBudget { num_blocks: 10, max_model_len: 160 });
    }

    #[test]
    fn recurrent_states_come_out_of_the_same_memory() {
        let block = layout().bytes_per_block() as u64;
        let demand = Demand { kv_cache_memory: Some(10 * block), state_bytes: 3 * block - 1, ..DEMAND };
        assert_eq!(MemoryBudget::settle(&layout(), &demand).unwrap().num_blocks, 7);
        let error = MemoryBudget::settle(&layout(), &Demand { state_bytes: 10 * block + 1, ..demand }).unwrap_err();
        assert!(error.to_string().contains("--max-num-seqs 4"), "{error}");
    }

    #[test]
    fn a_context_that_does_not_fit_is_refused_with_the_bytes_it_needs() {
        let demand = Demand { kv_cache_memory: Some(100_000), max_model_len: Some(4096), ..DEMAND };
        let error = MemoryBudget::settle(&layout(), &demand).unwrap_err().to_string();
        assert!(error.contains("--max-model-len") && error.contains(&(256 * 8192).to_string()), "{error}");
        let error = MemoryBudget::settle(&layout(), &Demand { max_model_len: Some(5000), ..DEMAND }).unwrap_err();
        assert!(error.to_string().contains("[2, 4096]"), "{error}");
    }
}
