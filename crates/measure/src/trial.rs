//! The cache of a scheme with some sequences in it, computed as serving computes them.
use crate::Scheme;
use attention::AttentionBackend;
use engine::{ModelBundle, ModelRef, PrivateSequences, StartError};
use std::ops::Range;

/// The cache of a scheme with some sequences in it.
pub(crate) struct Trial<'a> {
    model: ModelRef<'a>,
    pub backend: Box<dyn AttentionBackend>,
    /// Whether keys are centred.
    pub centred: bool,
    sequences: PrivateSequences,
}

impl<'a> Trial<'a> {
    /// Room for `count` sequences of at most `max_len` tokens each.
    pub fn new(bundle: &'a ModelBundle, scheme: &Scheme, max_len: usize, count: usize) -> Result<Self, StartError> {
        let (mut backend, centred) = scheme.backend(bundle)?;
        let model = ModelRef { model: &*bundle.model, device: &*bundle.device };
        let sequences = PrivateSequences::new(model, &mut *backend, count, max_len)?;
        Ok(Trial { model, backend, centred, sequences })
    }

    /// One pass over a range of positions of each of some sequences; `tokens` are theirs, one sequence after the other.
    /// Returns the logits of the rows `logit_rows`, row after row.
    pub fn forward(
        &mut self,
        ranges: &[(usize, Range<usize>)],
        tokens: &[u32],
        logit_rows: &[u32],
    ) -> Result<Vec<f32>, StartError> {
        let logits = self.sequences.forward(self.model, &mut *self.backend, ranges, tokens, logit_rows)?;
        Ok(self.model.device.read(&[&logits])?.remove(0))
    }

    /// Gives sequence `to` the cache and the states of sequence `from`, in blocks of its own.
    pub fn copy(&self, from: usize, to: usize) -> Result<(), StartError> {
        Ok(self.sequences.copy(&*self.backend, from, to)?)
    }
}
