//! The header `x-tallow-cache`, by which an answer tells how much of its prompts was in the cache, and why not more.
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use engine::{Event, PrefixReport};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The header's name.
pub const CACHE: HeaderName = HeaderName::from_static("x-tallow-cache");

tokio::task_local! {
    /// What is found of the prompts of the HTTP request that the task works on.
    static FOUND: FoundPrefixes;
}

/// What was found of the prompts of one HTTP request. All clones share it.
#[derive(Debug, Clone, Default)]
pub struct FoundPrefixes(Arc<Mutex<Vec<Option<PrefixReport>>>>);

impl FoundPrefixes {
    /// What the header of the current request's answer is made of. There is no header until it is known what was found
    /// of each of the `prompts` prompts.
    pub fn of_answer(prompts: usize) -> Self {
        let found = FOUND.try_with(FoundPrefixes::clone).unwrap_or_default();
        found.reports().resize(prompts, None);
        found
    }

    fn reports(&self) -> MutexGuard<'_, Vec<Option<PrefixReport>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in an event about a prompt. While a prompt is computed, it may take over what others compute of it; so its
    /// end tells more than its beginning.
    pub fn note(&self, prompt: usize, event: &Event) {
        match (self.reports().get_mut(prompt), event) {
            (Some(report), Event::Admitted(admitted)) => *report = Some(admitted.clone()),
            (Some(Some(report)), Event::Prompt { cached_tokens, .. }) => {
                report.from_memory = cached_tokens.saturating_sub(report.from_archive);
            }
            _ => {}
        }
    }

    /// What was found of all prompts together, and why the rest of the first one was computed. `None`: there are no
    /// prompts, or one of them is not known yet.
    pub fn sum(&self) -> Option<PrefixReport> {
        let reports = self.reports();
        let mut sum = PrefixReport { miss: reports.first()?.as_ref()?.miss.clone(), ..PrefixReport::default() };
        for report in reports.iter() {
            let report = report.as_ref()?;
            sum.prompt += report.prompt;
            sum.from_memory += report.from_memory;
            sum.from_archive += report.from_archive;
        }
        Some(sum)
    }
}

/// Adds the header to the answer, if it is known by then what was found of all prompts.
pub async fn tell(request: Request, next: Next) -> Response {
    let found = FoundPrefixes::default();
    let mut response = FOUND.scope(found.clone(), next.run(request)).await;
    if let Some(value) = found.sum().and_then(|report| HeaderValue::try_from(dictionary(&report)).ok()) {
        response.headers_mut().insert(CACHE, value);
    }
    response
}

/// The header's value, a dictionary of RFC 8941.
fn dictionary(report: &PrefixReport) -> String {
    let (memory, disk) = (report.from_memory, report.from_archive);
    let counts = format!("prompt={}, memory={memory}, disk={disk}, computed={}", report.prompt, report.computed());
    // Reasons have neither quotes nor backslashes.
    report.miss.as_ref().map_or_else(|| counts.clone(), |miss| format!("{counts}, miss=\"{miss}\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Miss;

    fn admitted(prompt: usize, from_memory: usize, from_archive: usize, miss: Option<Miss>) -> Event {
        Event::Admitted(PrefixReport { prompt, from_memory, from_archive, miss })
    }

    #[test]
    fn a_sum_is_known_once_all_prompts_are() {
        let found = FoundPrefixes::of_answer(2);
        found.note(1, &admitted(50, 32, 0, Some(Miss::Cold)));
        assert_eq!(found.sum(), None);
        let miss = Miss::Diverged { at: 6890, from: 6880, known: [7].into() };
        found.note(0, &admitted(7000, 64, 6816, Some(miss)));
        let told = || dictionary(&found.sum().unwrap());
        assert_eq!(told(), "prompt=7050, memory=96, disk=6816, computed=138, miss=\"diverged at token 6890\"");
        // The first prompt takes over 32 tokens that another request computed meanwhile.
        found.note(0, &Event::Prompt { tokens: 7000, cached_tokens: 6912, logprobs: None });
        assert_eq!(told(), "prompt=7050, memory=128, disk=6816, computed=106, miss=\"diverged at token 6890\"");
    }

    #[test]
    fn a_prompt_that_missed_nothing_names_no_reason() {
        let found = FoundPrefixes::of_answer(1);
        found.note(0, &admitted(100, 96, 0, None));
        assert_eq!(dictionary(&found.sum().unwrap()), "prompt=100, memory=96, disk=0, computed=4");
        assert_eq!(FoundPrefixes::default().sum(), None);
    }
}
