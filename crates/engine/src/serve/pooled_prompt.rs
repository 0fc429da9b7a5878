//! The vector of a prompt, made of the hidden states of its chunks.
use super::request::EmbeddingParams;
use super::runner::ChunkNeed;
use models::Pooling;
use scheduler::Chunk;

/// The smallest Euclidean norm by which a vector is divided.
const MIN_NORM: f64 = 1e-12;

/// The sum of a prompt's hidden states so far, of which its vector is made.
pub(super) struct PooledPrompt {
    pooling: Pooling,
    params: EmbeddingParams,
    /// The sum of the hidden states that the vector is made of. They are added in the order of their tokens, so that
    /// the prompt's chunks do not show.
    sum: Vec<f64>,
    /// How many of the prompt's first tokens need no hidden states any more: they have been added, or were not needed.
    done_tokens: usize,
}

impl PooledPrompt {
    pub fn new(pooling: Pooling, params: EmbeddingParams) -> Self {
        PooledPrompt { pooling, params, sum: Vec::new(), done_tokens: 0 }
    }

    /// Returns which hidden states of a chunk are needed. Those that were added before a preemption are not needed
    /// again.
    pub fn need(&self, chunk: &Chunk) -> ChunkNeed {
        let rows = match self.pooling {
            Pooling::Mean => 0..chunk.len,
            Pooling::First if chunk.start == 0 => 0..1,
            // Only the prompt's last chunk has `samples`.
            Pooling::Last if !chunk.samples.is_empty() => chunk.len - 1..chunk.len,
            Pooling::First | Pooling::Last => 0..0,
        };
        let known = self.done_tokens.saturating_sub(chunk.start);
        ChunkNeed::HiddenStates(rows.start.max(known)..rows.end.max(known))
    }

    /// Adds the hidden states of a chunk that [`Self::need`] named.
    pub fn add<'a>(&mut self, chunk: &Chunk, hidden_states: impl Iterator<Item = &'a [f32]>) {
        for row in hidden_states {
            self.sum.resize(row.len(), 0.0);
            self.sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        self.done_tokens = self.done_tokens.max(chunk.start + chunk.len);
    }

    /// Returns the vector: the sum, cut to the dimensions that were asked for and scaled to length 1. Since it is
    /// scaled to length 1, the sum serves as well as the mean. `None` if a hidden state is NaN or infinite.
    pub fn vector(&self) -> Option<Vec<f32>> {
        let kept = self.params.dimensions.unwrap_or(self.sum.len()).min(self.sum.len());
        let kept = &self.sum[..kept];
        let norm = kept.iter().map(|x| x * x).sum::<f64>().sqrt();
        norm.is_finite().then(|| kept.iter().map(|x| (x / norm.max(MIN_NORM)) as f32).collect())
    }
}
