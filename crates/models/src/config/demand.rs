//! The memory that a model's steps need, by its configuration alone.
use super::{LayerKind, ModelConfig};
use attention::StateLayout;
use compute::DeltaNetSizes;

impl ModelConfig {
    /// The sizes of the states that recurrent layers keep of each sequence.
    pub fn state_layout(&self) -> StateLayout {
        let recurrent = self.layers.iter().filter(|kind| **kind == LayerKind::Linear);
        StateLayout::new(recurrent.filter_map(|_| Some(self.delta_net?.state_len())))
    }

    /// An upper bound of the bytes that a step of `rows` rows needs at once, beside weights and cache, if `logit_rows`
    /// of them get logits. A layer's tensors are freed before the next layer's are made, so that the widest part of a
    /// layer counts, with the residual stream; the logits come after all layers. Everything is f32.
    pub fn step_bytes(&self, rows: usize, logit_rows: usize) -> u64 {
        let hidden = self.hidden_size;
        let mixers = [self.attention_width(), self.delta_net.map_or(0, delta_net_width)];
        let mixer = mixers.into_iter().max().unwrap_or(0);
        let widest = (rows * mixer).max(self.feed_forward_len(rows));
        // The tensor, and its copy outside of the device.
        let logits = logit_rows as u64 * (2 * self.vocab_size + hidden) as u64;
        // The stream, what is added to it, its norm, and the rows of which hidden states are wanted.
        let layer = (4 * rows * hidden + widest) as u64;
        layer.max(logits) * size_of::<f32>() as u64
    }

    /// Elements that attention needs for a row: what the projections give, with the gate that some families have; q as
    /// the backend rotates it, and the output with what the softmax keeps beside it; the block's output.
    fn attention_width(&self) -> usize {
        let (q, kv) = (self.num_heads * self.head_dim, self.kv_heads * self.head_dim);
        let gate = if self.delta_net.is_some() { 2 * q } else { 0 };
        // Norms of heads make another q and k.
        3 * q + gate + 3 * kv + 2 * (q + 2 * self.num_heads) + self.hidden_size
    }

    /// Elements that a feed-forward block needs for some rows: gate, up, their product, and the output. Of a mixture,
    /// the rows of each expert, as products take them, their inner elements, and the outputs of all experts.
    fn feed_forward_len(&self, rows: usize) -> usize {
        let dense = rows * (3 * self.intermediate_size.unwrap_or(0) + self.hidden_size);
        let sparse = self.experts.as_ref().map_or(0, |experts| {
            // A GPU computes an expert's rows in eights or, where it has that many, in thirty-twos.
            let pairs = rows * experts.per_token;
            let columns = (8 * pairs).min(2 * pairs + 7 * experts.num);
            let shared = experts.shared_size.map_or(0, |size| rows * (4 * size + self.hidden_size));
            columns * 2 * (self.hidden_size + experts.intermediate_size) + 2 * rows * experts.num + shared
        });
        dense.max(sparse)
    }
}

/// Elements that a delta net needs for a row: what the projections give; what goes into the convolution and comes out;
/// the output by head, in order, and as a product takes it.
fn delta_net_width(sizes: DeltaNetSizes) -> usize {
    3 * sizes.channels() + 4 * sizes.values() + 2 * sizes.value_heads
}
