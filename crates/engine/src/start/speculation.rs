//! Whether answers' tokens are drafted: only where what is accepted has the bits that decoding would have given.
use super::config::EngineConfig;
use super::device::DecodeKernel;
use super::loading::ModelBundle;

/// The most tokens of a draft. The log says where they are none although drafts were not turned off.
pub(super) fn max_draft_tokens(config: &EngineConfig, bundle: &ModelBundle) -> usize {
    let gpu = !bundle.device.tensors().is_cpu();
    let obstacle = if gpu && bundle.decode_kernel == DecodeKernel::Vec {
        Some("--decode-kernel vec sums a single row in another order than several")
    } else if !bundle.device.is_exact_by_row() {
        Some("--gpu-products fast multiplies one or two rows in another order than more")
    } else {
        None
    };
    match (config.max_draft_tokens, obstacle) {
        // A model without a head answers nothing.
        (0, _) => 0,
        _ if !bundle.model.has_head() => 0,
        (_, Some(obstacle)) => {
            tracing::info!("speculation: off, since {obstacle}");
            0
        }
        (most, None) => {
            tracing::info!("speculation: drafts of up to {most} tokens from a request's own tokens");
            most
        }
    }
}
