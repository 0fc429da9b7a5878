//! The memory of one layer's cache.
use candle_core::{Error, Result, bail};
use kv::BlockId;
use memmap2::MmapMut;
use rayon::prelude::*;

/// Pages of one layer, block after block; a page is one record a kv head.
pub struct Pages {
    kv_heads: usize,
    page_bytes: usize,
    num_blocks: usize,
    /// Anonymous memory: zero, page-aligned, taken only when touched, and able to ask for huge pages.
    memory: Option<MmapMut>,
}

impl Pages {
    pub fn empty(kv_heads: usize, page_bytes: usize) -> Self {
        Pages { kv_heads, page_bytes, num_blocks: 0, memory: None }
    }

    pub fn allocate(&mut self, num_blocks: usize) -> Result<()> {
        self.memory = None;
        self.num_blocks = 0;
        let bytes = num_blocks * self.page_bytes;
        if bytes > 0 {
            let memory = MmapMut::map_anon(bytes)
                .map_err(|e| Error::Msg(format!("{bytes} bytes for the KV cache of a layer: {e}")))?;
            // Only speed depends on it: with 4 KB pages a long context spends its time on page-table walks.
            #[cfg(target_os = "linux")]
            let _ = memory.advise(memmap2::Advice::HugePage);
            self.memory = Some(memory);
        }
        self.num_blocks = num_blocks;
        Ok(())
    }

    pub fn num_bytes(&self) -> usize {
        self.bytes().len()
    }

    pub fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    fn bytes(&self) -> &[u8] {
        self.memory.as_deref().unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.as_deref_mut().unwrap_or_default()
    }

    fn start(&self, block: BlockId) -> Result<usize> {
        if block.0 as usize >= self.num_blocks {
            bail!("block {} of a pool of {}", block.0, self.num_blocks);
        }
        Ok(block.0 as usize * self.page_bytes)
    }

    pub fn page(&self, block: BlockId) -> Result<&[u8]> {
        let start = self.start(block)?;
        Ok(&self.bytes()[start..][..self.page_bytes])
    }

    pub fn page_mut(&mut self, block: BlockId) -> Result<&mut [u8]> {
        let (start, len) = (self.start(block)?, self.page_bytes);
        Ok(&mut self.bytes_mut()[start..][..len])
    }

    /// The record of one kv head. Panics on a block outside of the pool.
    pub fn record(&self, block: BlockId, head: usize) -> &[u8] {
        let len = self.page_bytes / self.kv_heads;
        &self.bytes()[block.0 as usize * self.page_bytes + head * len..][..len]
    }

    pub fn copy(&mut self, from: BlockId, to: BlockId) -> Result<()> {
        let (from, to, len) = (self.start(from)?, self.start(to)?, self.page_bytes);
        self.bytes_mut().copy_within(from..from + len, to);
        Ok(())
    }

    /// Calls `put(row, kv head, record, offset in the block)` for every row and kv head; blocks are written in
    /// parallel.
    pub fn store(
        &mut self,
        slots: &[u32],
        block_size: usize,
        put: impl Fn(usize, usize, &mut [u8], usize) + Sync,
    ) -> Result<()> {
        let mut rows: Vec<(usize, usize)> = slots.iter().enumerate().map(|(row, slot)| (*slot as usize, row)).collect();
        rows.sort_unstable();
        let (page_bytes, kv_heads, num_blocks) = (self.page_bytes, self.kv_heads, self.num_blocks);
        // Distinct pages, cut out of the memory in ascending order.
        let mut pages = Vec::new();
        let (mut rest, mut at) = (self.bytes_mut(), 0);
        for rows in rows.chunk_by(|a, b| a.0 / block_size == b.0 / block_size) {
            let block = rows[0].0 / block_size;
            if block >= num_blocks {
                bail!("slot {} lies outside of a pool of {num_blocks} blocks", rows[0].0);
            }
            let (page, after) = rest[(block - at) * page_bytes..].split_at_mut(page_bytes);
            pages.push((page, rows));
            (rest, at) = (after, block + 1);
        }
        let store = |(page, rows): (&mut [u8], &[(usize, usize)])| {
            for (head, record) in page.chunks_exact_mut(page_bytes / kv_heads).enumerate() {
                rows.iter().for_each(|(slot, row)| put(*row, head, record, slot % block_size));
            }
        };
        // A decode step's few rows are stored sooner than threads are woken.
        if rows.len() * kv_heads < 32 {
            pages.into_iter().for_each(store);
        } else {
            pages.into_par_iter().for_each(store);
        }
        Ok(())
    }
}
