//! What a model's steps need of memory, by its configuration alone.
use super::{DeltaNetSizes, LayerKind, ModelConfig};
use attention::StateLayout;

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
        let mixers = [self.attention_width(), self.delta_net.map_or(0, DeltaNetSizes::step_width)];
        let mixer = mixers.into_iter().max().unwrap_or(0);
        // The stream, what is added to it, its norm, and the rows of which hidden states are wanted.
        let row = 4 * hidden + mixer.max(self.feed_forward_width());
        // The tensor, and its copy outside of the device.
        let logits = logit_rows as u64 * (2 * self.vocab_size + hidden) as u64;
        (rows as u64 * row as u64).max(logits) * size_of::<f32>() as u64
    }

    /// Elements that attention needs for a row: what the projections give, with the gate that some families have; q as
    /// the backend rotates it, and the output with what the softmax keeps beside it; the block's output.
    fn attention_width(&self) -> usize {
        let (q, kv) = (self.num_heads * self.head_dim, self.kv_heads * self.head_dim);
        let gate = if self.delta_net.is_some() { 2 * q } else { 0 };
        // Norms of heads make another q and k.
        3 * q + gate + 3 * kv + 2 * (q + 2 * self.num_heads) + self.hidden_size
    }

    /// Elements that a feed-forward block needs for a row: gate, up, their product, and the output. Of a mixture, the
    /// outputs of all of a row's experts stay until they are added up.
    fn feed_forward_width(&self) -> usize {
        let dense = 3 * self.intermediate_size.unwrap_or(0) + self.hidden_size;
        let sparse = self.experts.as_ref().map_or(0, |experts| {
            // Input and inner elements of one expert, to which all rows may go.
            let one = self.hidden_size + 3 * experts.intermediate_size;
            one + experts.per_token * self.hidden_size + 2 * experts.num
        });
        dense.max(sparse)
    }
}

impl DeltaNetSizes {
    /// The channels of the convolution: q and k of all key heads, and v of all value heads.
    pub fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim
    }

    /// Elements of the convolution's last inputs, `[conv_kernel - 1][channels]`.
    pub fn conv_len(&self) -> usize {
        (self.conv_kernel - 1) * self.channels()
    }

    /// Elements that a layer keeps of a sequence: those, and the recurrent state `[value_heads][key_dim][value_dim]`.
    pub fn state_len(&self) -> usize {
        self.conv_len() + self.value_heads * self.key_dim * self.value_dim
    }

    /// Elements that a layer needs for a row: the projections with their copies for the CPU; what goes into the
    /// convolution and comes out; the output by head, in order, and as a tensor.
    fn step_width(self) -> usize {
        let values = self.value_heads * self.value_dim;
        2 * (self.channels() + values + 2 * self.value_heads) + 2 * self.channels() + 3 * values
    }
}
