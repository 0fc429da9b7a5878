//! A tokenizer as the configuration files of transformers describe one.
use super::Tokenizer;
use serde_json::{Map, Value, json};

/// The class of transformers that reads any tokenizer.json.
const ANY_CLASS: &str = "PreTrainedTokenizerFast";

impl Tokenizer {
    /// The tokenizer under transformers' names: its class, the special tokens that have a role, whether BOS is added,
    /// and the tokens beside the model's own vocabulary by their ids.
    pub fn description(&self) -> Map<String, Value> {
        let roles = self.special_token_roles.iter().map(|(role, token)| (role.clone(), json!(token)));
        let mut description: Map<String, Value> = roles.collect();
        let class = self.class.as_deref().unwrap_or(ANY_CLASS);
        description.insert("tokenizer_class".into(), class.into());
        description.insert("add_bos_token".into(), self.adds_bos.into());
        let added = self.inner.get_added_tokens_decoder();
        let mut added: Vec<_> = added.iter().collect();
        added.sort_unstable_by_key(|(id, _)| **id);
        let added: Map<String, Value> = added.into_iter().map(|(id, token)| (id.to_string(), json!(token))).collect();
        description.insert("added_tokens_decoder".into(), added.into());
        description
    }
}
