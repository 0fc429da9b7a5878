//! How an embedding model makes one vector of a text, as `modules.json` of a sentence-transformers folder says.
use super::ConfigJson;
use crate::checkpoint::read_json;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Component, Path};

/// How the vector of a text is made of its tokens' hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The hidden state of the last token.
    Last,
    /// The mean of the hidden states of all tokens.
    Mean,
    /// The hidden state of the first token.
    First,
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct SentenceModule {
    /// The folder of its files.
    #[serde(default)]
    path: String,
    /// Its class in Python, with the modules that it lies in.
    #[serde(rename = "type")]
    class: String,
}

impl SentenceModule {
    fn name(&self) -> &str {
        self.class.rsplit('.').next().unwrap_or_default()
    }
}

impl Pooling {
    /// Reads the files beside a `config.json`.
    ///
    /// Errors: the reason why there is no pooling, written to follow the model's name, such as `has no modules.json`.
    pub(super) fn of_folder(config: &ConfigJson) -> Result<Self, String> {
        let folder = config.path.parent().unwrap_or(Path::new(""));
        let list = folder.join("modules.json");
        if !list.exists() {
            return Err("has no modules.json, which tells how the vector of a text is made".into());
        }
        let modules: Vec<SentenceModule> =
            read_json(&list).map_err(|e| format!("has a modules.json that is wrong: {e}"))?;
        let names: Vec<&str> = modules.iter().map(SentenceModule::name).collect();
        let pooling = match (&names[..], &modules[..]) {
            // Vectors are always normalised here.
            (["Transformer", "Pooling"] | ["Transformer", "Pooling", "Normalize"], [_, pooling, ..]) => pooling,
            _ => {
                let names = names.join(", ");
                return Err(format!(
                    "is made of {names}; only Transformer, Pooling and Normalize are known, in this order"
                ));
            }
        };
        for (field, bidirectional) in [("is_causal", false), ("use_bidirectional_attention", true)] {
            if config.get::<bool>(field).ok().flatten() == Some(bidirectional) {
                return Err(bidirectional_reason(&format!("{field} is {bidirectional}")));
            }
        }
        let path = Path::new(&pooling.path);
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(format!("has its pooling in {}, which is no folder below its own", pooling.path));
        }
        let file = folder.join(path).join("config.json");
        let fields = read_json(&file).map_err(|e| format!("has no readable pooling configuration: {e}"))?;
        Self::of_fields(&fields).map_err(|modes| {
            format!(
                "pools by {modes}, as {} says; known are lasttoken, mean_tokens and cls_token alone",
                file.display()
            )
        })
    }

    /// Errors: the modes that the fields name.
    fn of_fields(fields: &Map<String, Value>) -> Result<Self, String> {
        let flagged = fields.iter().filter(|(_, value)| **value == Value::Bool(true));
        let mut modes: Vec<&str> = flagged.filter_map(|(name, _)| name.strip_prefix("pooling_mode_")).collect();
        // Newer files name the mode, or a list of them.
        match fields.get("pooling_mode") {
            Some(Value::String(mode)) => modes.push(mode),
            Some(Value::Array(list)) => modes.extend(list.iter().filter_map(Value::as_str)),
            _ => {}
        }
        // Fields have no order.
        modes.sort_unstable();
        match modes[..] {
            ["lasttoken"] => Ok(Pooling::Last),
            ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
            ["cls_token" | "cls"] => Ok(Pooling::First),
            [] => Err("nothing".into()),
            _ => Err(modes.join(" and ")),
        }
    }
}

/// Returns the reason why a model whose tokens attend to later tokens too has no pooling. `setting` is the setting of
/// its files that says so, with its value.
pub(super) fn bidirectional_reason(setting: &str) -> String {
    format!("lets each token attend to later tokens too ({setting}), which is not supported")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(fields: Value) -> Result<Pooling, String> {
        Pooling::of_fields(fields.as_object().unwrap())
    }

    #[test]
    fn the_mode_is_the_one_that_is_set() {
        let old = json!({"word_embedding_dimension": 8, "pooling_mode_cls_token": false, "include_prompt": true,
                         "pooling_mode_lasttoken": true});
        assert_eq!(of(old), Ok(Pooling::Last));
        assert_eq!(of(json!({"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false})), Ok(Pooling::Mean));
        assert_eq!(of(json!({"pooling_mode": "cls"})), Ok(Pooling::First));
        assert_eq!(of(json!({"pooling_mode": ["lasttoken"]})), Ok(Pooling::Last));
        let two = json!({"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true});
        assert_eq!(of(two), Err("cls_token and mean_tokens".into()));
        assert_eq!(of(json!({"pooling_mode_weightedmean_tokens": true})), Err("weightedmean_tokens".into()));
        assert_eq!(of(json!({})), Err("nothing".into()));
    }
}
