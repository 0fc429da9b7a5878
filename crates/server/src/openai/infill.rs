//! Prompts for fill-in-the-middle, of `suffix` and of llama.cpp's `/infill`.
use crate::http::error::{ApiError, ErrorCode};
use engine::EngineHandle;
use text::{FillInTheMiddle, Infill};

/// A gap that the answer fills.
#[derive(Debug, Default)]
pub struct Gap {
    /// What comes before it.
    pub prefix: String,
    /// What comes after it.
    pub suffix: String,
    /// How what fills it begins.
    pub begun: String,
    /// Other files, by name and text.
    pub files: Vec<(String, String)>,
}

/// How the model is asked to fill in the middle. `field` is the one that asks for it.
///
/// Errors: a model that was not trained for it.
pub fn form<'a>(engine: &'a EngineHandle, field: &str) -> Result<&'a FillInTheMiddle, ApiError> {
    engine.tokenizer().fill_in_the_middle().ok_or_else(|| {
        let message = format!(
            "{field} asks to fill in the middle, for which this model's vocabulary has no tokens; take a model that \
             was trained for it, such as Qwen2.5-Coder"
        );
        ApiError::new(ErrorCode::UnsupportedParameter, message).at(field)
    })
}

/// The token ids of the prompts for these gaps, made off the threads that serve connections.
///
/// Errors: those of [`form`]; the tokenizer fails at a text.
pub async fn encode_gaps(
    engine: &EngineHandle,
    gaps: Vec<Gap>,
    field: &'static str,
) -> Result<Vec<Vec<u32>>, ApiError> {
    let engine = engine.clone();
    let encode = move || {
        let form = form(&engine, field)?;
        let encode = |gap: &Gap| {
            let Gap { prefix, suffix, begun, files } = gap;
            form.encode(engine.tokenizer(), &Infill { prefix, suffix, begun, files })
                .map_err(|e| ApiError::from_text(e, field))
        };
        gaps.iter().map(encode).collect()
    };
    tokio::task::spawn_blocking(encode).await?
}
