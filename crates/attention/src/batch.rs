//! The tokens of one step, flattened: rows of all sequences one after the other.
use kv::{BlockId, BlockTable};
use std::ops::Range;

/// Prefill chunks and decode rows of one step, in one list of rows ("varlen").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchLayout {
    /// First row of each sequence, and the number of rows: `[num_seqs + 1]`.
    pub cu_seqlens_q: Vec<u32>,
    /// Tokens of each sequence in the cache once this step's are written: `[num_seqs]`.
    pub seq_lens: Vec<u32>,
    /// Position of each row in its sequence: `[num_tokens]`.
    pub positions: Vec<u32>,
    /// Where each row's K and V go, block x block_size + offset: `[num_tokens]`.
    pub slot_mapping: Vec<u32>,
    /// Blocks of each sequence, in order: `[num_seqs]`, of different lengths.
    pub block_tables: Vec<Vec<BlockId>>,
}

impl Default for BatchLayout {
    fn default() -> Self {
        BatchLayout {
            cu_seqlens_q: vec![0],
            seq_lens: Vec::new(),
            positions: Vec::new(),
            slot_mapping: Vec::new(),
            block_tables: Vec::new(),
        }
    }
}

impl BatchLayout {
    /// Adds tokens `start..start + len` of a sequence whose blocks are `table`.
    pub fn push(&mut self, start: usize, len: usize, table: &BlockTable) {
        self.cu_seqlens_q.push((self.num_tokens() + len) as u32);
        self.seq_lens.push((start + len) as u32);
        self.positions.extend((start..start + len).map(|p| p as u32));
        self.slot_mapping.extend((start..start + len).map(|p| table.slot(p)));
        self.block_tables.push(table.ids());
    }

    /// Rows of the batch.
    pub fn num_tokens(&self) -> usize {
        self.positions.len()
    }

    /// Sequences of the batch.
    pub fn num_seqs(&self) -> usize {
        self.seq_lens.len()
    }

    /// The rows of sequence `seq`, counted from 0 within the batch.
    pub fn rows(&self, seq: usize) -> Range<usize> {
        self.cu_seqlens_q[seq] as usize..self.cu_seqlens_q[seq + 1] as usize
    }
}
