//! Fields of requests that no endpoint reads.
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Fields that are remembered as logged. A client may invent any number of them.
const MAX_FIELDS: usize = 1000;
/// Characters of a field's name that are logged and remembered. A client may make it as long as a body.
const MAX_NAME: usize = 100;

/// Logs each unknown field once, so that a client's typing error can be found without filling the log.
#[derive(Default)]
pub struct UnknownFields(Mutex<HashSet<String>>);

impl UnknownFields {
    /// Logs those of `fields` that the endpoint at `path` has not been sent before.
    pub fn log(&self, path: &str, fields: impl IntoIterator<Item = String>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for field in fields {
            let field: String = field.chars().take(MAX_NAME).collect();
            let name = format!("{path} {field}");
            if seen.len() < MAX_FIELDS && seen.insert(name) {
                tracing::warn!(endpoint = path, field, "unknown field ignored");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_unknown_fields_is_bounded() {
        let fields = UnknownFields::default();
        fields.log("/a", ["é".repeat(1 << 20)]);
        fields.log("/a", (0..2 * MAX_FIELDS).map(|i| format!("{i}")));
        let seen = fields.0.lock().unwrap();
        assert_eq!(seen.len(), MAX_FIELDS);
        assert!(seen.contains("/a 0"));
        assert!(
            seen.iter().all(|name| name.chars().count() <= MAX_NAME + 3),
            "{:?}",
            seen.iter().map(String::len).max()
        );
    }
}
