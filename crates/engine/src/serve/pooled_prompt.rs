//! The vector of a prompt, made of the hidden states that its chunks give.
use super::request::EmbeddingParams;
use super::runner::ChunkNeed;
use models::Pooling;
use scheduler::Chunk;

/// The smallest length by which a vector is divided.
const MIN_LENGTH: f64 = 1e-12;

/// The hidden states of a prompt so far, as its vector needs them.
pub(super) struct PooledPrompt {
    pooling: Pooling,
    params: EmbeddingParams,
    /// The sum of the hidden states that the vector is made of. They are added in the order of their tokens, so that
    /// the prompt's chunks do not show.
    sum: Vec<f64>,
    /// The tokens from the prompt's first on whose hidden states have been taken, or are not needed.
    taken: usize,
}

impl PooledPrompt {
    pub fn new(pooling: Pooling, params: EmbeddingParams) -> Self {
        PooledPrompt { pooling, params, sum: Vec::new(), taken: 0 }
    }

    /// What is needed of a chunk. What a prefill had before it was preempted is not needed again.
    pub fn need(&self, chunk: &Chunk) -> ChunkNeed {
        let rows = match self.pooling {
            Pooling::Mean => 0..chunk.len,
            Pooling::First if chunk.start == 0 => 0..1,
            // A prompt's last chunk is the one that would be sampled from.
            Pooling::Last if !chunk.samples.is_empty() => chunk.len - 1..chunk.len,
            Pooling::First | Pooling::Last => 0..0,
        };
        let known = self.taken.saturating_sub(chunk.start);
        ChunkNeed::HiddenStates(rows.start.max(known)..rows.end.max(known))
    }

    /// Takes the hidden states that were needed of a chunk.
    pub fn take<'a>(&mut self, chunk: &Chunk, hidden_states: impl Iterator<Item = &'a [f32]>) {
        for row in hidden_states {
            self.sum.resize(row.len(), 0.0);
            self.sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        self.taken = self.taken.max(chunk.start + chunk.len);
    }

    /// The vector, cut to the dimensions that were asked for, of length 1. It is the same for a sum as for a mean.
    /// `None` if the model gave what are no numbers.
    pub fn vector(&self) -> Option<Vec<f32>> {
        let kept = self.params.dimensions.unwrap_or(self.sum.len()).min(self.sum.len());
        let kept = &self.sum[..kept];
        let length = kept.iter().map(|x| x * x).sum::<f64>().sqrt();
        length.is_finite().then(|| kept.iter().map(|x| (x / length.max(MIN_LENGTH)) as f32).collect())
    }
}
