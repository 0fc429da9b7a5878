//! A list of vectors, as OpenAI writes it.
use crate::generation::CollectedAnswer;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a vector is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VectorEncoding {
    /// A list of numbers.
    #[default]
    Float,
    /// The bytes of its elements, each an f32 of little endian, in base64.
    Base64,
}

/// The vectors of all texts, in the order of the texts.
#[derive(Serialize, JsonSchema)]
pub struct EmbeddingList {
    object: &'static str,
    data: Vec<EmbeddingEntry>,
    model: String,
    usage: EmbeddingUsage,
}

#[derive(Serialize, JsonSchema)]
struct EmbeddingEntry {
    object: &'static str,
    /// The number of the text, from 0.
    index: usize,
    embedding: WrittenVector,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum WrittenVector {
    Float(Vec<f32>),
    Base64(String),
}

/// The tokens of all texts.
#[derive(Serialize, JsonSchema)]
struct EmbeddingUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl EmbeddingList {
    pub fn new(model: String, answer: CollectedAnswer, encoding: VectorEncoding) -> Self {
        let CollectedAnswer { vectors, tally, .. } = answer;
        let entry = |(index, vector)| EmbeddingEntry {
            object: "embedding",
            index,
            embedding: WrittenVector::new(vector, encoding),
        };
        EmbeddingList {
            object: "list",
            data: vectors.into_iter().enumerate().map(entry).collect(),
            model,
            usage: EmbeddingUsage { prompt_tokens: tally.prompt, total_tokens: tally.prompt },
        }
    }
}

impl WrittenVector {
    fn new(vector: Vec<f32>, encoding: VectorEncoding) -> Self {
        match encoding {
            VectorEncoding::Float => WrittenVector::Float(vector),
            VectorEncoding::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                WrittenVector::Base64(STANDARD.encode(bytes))
            }
        }
    }
}
