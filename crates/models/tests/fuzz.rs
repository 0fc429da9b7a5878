//! Checkpoints with broken bytes end in an error or in a model, never in a panic.
#![allow(clippy::unwrap_used)] // helpers of tests
use compute::{ComputeDevice, CpuDevice};
use models::{Checkpoint, LoadOptions, ModelError, Reading};
use proptest::prelude::*;
use proptest::sample::Index;
use std::path::Path;
use std::sync::Arc;

fn open(path: &Path) -> Result<(), ModelError> {
    let device: Arc<dyn ComputeDevice> = Arc::new(CpuDevice);
    models::open(&Checkpoint::open(path, Reading::Mapped)?)?.load(&device, &LoadOptions::default()).map(|_| ())
}

/// Overwrites bytes of the first `head`, where all that is not numbers lies.
fn change(bytes: &mut [u8], head: usize, changes: &[(Index, u8)]) {
    for (at, byte) in changes {
        bytes[at.index(head)] = *byte;
    }
}

fn changes() -> impl Strategy<Value = Vec<(Index, u8)>> {
    // Small numbers and the largest find more than others.
    let byte = prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()];
    prop::collection::vec((any::<Index>(), byte), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(testkit::cases(400)))]

    #[test]
    fn gguf(changes in changes()) {
        for file in ["tiny-smollm3-bf16.gguf", "tiny-qwen3moe-q8_0.gguf"] {
            let mut bytes = std::fs::read(testkit::repo(&format!("fixtures/gguf/{file}"))).unwrap();
            // Without the tokenizer's lists, which loading weights does not read.
            let head = bytes.windows(20).position(|w| w == b"tokenizer.ggml.model").unwrap();
            let infos = bytes.windows(17).position(|w| w == b"token_embd.weight").unwrap();
            change(&mut bytes, head, &changes);
            change(&mut bytes[infos..], 1024, &changes);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(file);
            std::fs::write(&path, bytes).unwrap();
            let _ = open(&path);
        }
    }

    #[test]
    fn safetensors(changes in changes()) {
        let (from, folder) = (testkit::repo("models/tiny-mistral"), tempfile::tempdir().unwrap());
        for file in ["config.json", "model.safetensors"] {
            let mut bytes = std::fs::read(from.join(file)).unwrap();
            let head = bytes.len().min(2000);
            change(&mut bytes, head, &changes);
            std::fs::write(folder.path().join(file), bytes).unwrap();
        }
        let _ = open(folder.path());
    }

    /// Folders of MLX's, whose configuration and three tensors a layer must fit each other.
    #[test]
    fn mlx(changes in changes(), of_weights in any::<bool>()) {
        for name in ["mlx-qwen3", "mlx-qwen35moe"] {
            let (from, folder) = (testkit::repo(&format!("models/{name}")), tempfile::tempdir().unwrap());
            for (file, is_changed) in [("config.json", !of_weights), ("model.safetensors", of_weights)] {
                let mut bytes = std::fs::read(from.join(file)).unwrap();
                let head = bytes.len().min(6000);
                if is_changed {
                    change(&mut bytes, head, &changes);
                }
                std::fs::write(folder.path().join(file), bytes).unwrap();
            }
            let _ = open(folder.path());
        }
    }

    /// Numbers of a configuration that fit no tensor are errors, whatever they are.
    #[test]
    fn configurations(field in prop::sample::select(vec![
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "max_position_embeddings", "sliding_window",
    ]), value in prop_oneof![any::<u64>(), 0u64..300]) {
        let (from, folder) = (testkit::repo("models/tiny-mistral"), tempfile::tempdir().unwrap());
        std::fs::copy(from.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
        let text = std::fs::read_to_string(from.join("config.json")).unwrap();
        let at = text.find(&format!("\"{field}\": ")).unwrap() + field.len() + 4;
        let end = at + text[at..].find([',', '\n']).unwrap();
        std::fs::write(folder.path().join("config.json"), format!("{}{value}{}", &text[..at], &text[end..])).unwrap();
        let _ = open(folder.path());
    }
}
