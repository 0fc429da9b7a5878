//! One choice as its client sees it: the parts of its answer, stops, log-probabilities.
use super::request::{DraftTokens, Event, FinishReason, GenerationRequest, MatchedStop, TokenLogprob};
use super::runner::LogitsRow;
use super::sampler::SamplerState;
use std::sync::Arc;
use text::{AnswerEnd, AnswerPart, AnswerPipeline, ConstraintError, TokenMask, Tokenizer};
use tokio::sync::mpsc::UnboundedSender;

/// A choice that has not ended.
pub(super) struct ActiveChoice {
    index: usize,
    /// Draws its tokens.
    pub sampler: SamplerState,
    pipeline: AnswerPipeline,
    /// The tokens that may come next, once [`prepare`](Self::prepare) has found them out; `None`: all.
    mask: Result<Option<TokenMask>, ConstraintError>,
    /// The counts of its drafted tokens.
    pub drafts: DraftTokens,
    events: UnboundedSender<Event>,
}

impl ActiveChoice {
    /// The choice `index` of a request.
    pub fn new(
        index: usize,
        sampler: SamplerState,
        request: &GenerationRequest,
        tokenizer: &Arc<Tokenizer>,
        events: UnboundedSender<Event>,
    ) -> Self {
        let pipeline = AnswerPipeline::new(tokenizer, request.answer_options());
        ActiveChoice { index, sampler, pipeline, mask: Ok(None), drafts: DraftTokens::default(), events }
    }

    /// How many of the largest logits are enough to draw the next token; `None`: all are needed.
    pub fn needs(&self) -> Option<usize> {
        if self.is_held() { None } else { self.sampler.needs() }
    }

    /// Whether the next token can be drawn from these logits, which were asked for before the tokens that have come
    /// since.
    pub fn can_sample(&self, row: &LogitsRow<'_>) -> bool {
        match row {
            LogitsRow::Whole(_) => true,
            LogitsRow::Largest(largest) => self.needs().is_some_and(|count| count <= largest.len()),
        }
    }

    /// Whether the next token is held to a constraint, so that [`prepare`](Self::prepare) has work to do.
    pub fn is_held(&self) -> bool {
        self.pipeline.is_held()
    }

    /// Finds out which tokens may come next. It needs no logits, so that it can be done while they are computed.
    pub fn prepare(&mut self) {
        self.mask = self.pipeline.mask();
    }

    /// Draws the next token from `logits`, which are left changed. `None` if no logit is a number.
    ///
    /// Errors: the constraint cannot be followed.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<Option<u32>, ConstraintError> {
        let mask = std::mem::replace(&mut self.mask, Ok(None))?;
        if let Some(token) = self.forced() {
            return Ok(Some(token));
        }
        if let Some(mask) = mask {
            mask.apply(logits);
        }
        Ok(self.sampler.sample(logits))
    }

    /// Draws the next token from the largest logits. `None` if no logit is a number.
    pub fn sample_largest(&mut self, largest: &[(u32, f32)]) -> Option<u32> {
        self.forced().or_else(|| self.sampler.sample_largest(largest))
    }

    /// The next token, if it does not depend on the model.
    fn forced(&mut self) -> Option<u32> {
        let token = self.pipeline.forced()?;
        self.sampler.accept(token);
        Some(token)
    }

    /// Appends a sampled token and tells the client. `end`: why the token ends the answer by itself, if it does;
    /// `full`: the length limit is reached. True if the choice has ended.
    ///
    /// Errors: the constraint cannot be followed.
    pub fn push(
        &mut self,
        token: u32,
        logprob: Option<TokenLogprob>,
        end: Option<EndToken>,
        full: bool,
    ) -> Result<bool, ConstraintError> {
        let choice = self.index;
        if let Some(end) = end {
            // The token that ends the text is no part of it.
            self.send(Event::Delta { choice, parts: Vec::new(), in_thought: false, token, logprob });
            let matched_stop = matches!(end, EndToken::Stop).then_some(MatchedStop::Token(token));
            self.finish(FinishReason::Stop, matched_stop);
            return Ok(true);
        }
        let pushed = self.pipeline.push(token)?;
        self.send(Event::Delta { choice, parts: pushed.parts, in_thought: pushed.in_thought, token, logprob });
        match pushed.end {
            // What follows a stop string is no part of the answer.
            Some(AnswerEnd::StopString(stop)) => {
                self.send_end(Vec::new(), FinishReason::Stop, Some(MatchedStop::Text(stop)));
            }
            Some(AnswerEnd::Complete) => self.finish(FinishReason::Stop, None),
            None if full => self.finish(FinishReason::Length, None),
            None => return Ok(false),
        }
        Ok(true)
    }

    /// Sends what was held back for a stop string, a tag or an unfinished character, and ends the choice.
    fn finish(&mut self, reason: FinishReason, matched_stop: Option<MatchedStop>) {
        match self.pipeline.finish() {
            (parts, Some(stop)) => self.send_end(parts, FinishReason::Stop, Some(MatchedStop::Text(stop))),
            (parts, None) => self.send_end(parts, reason, matched_stop),
        }
    }

    fn send_end(&self, parts: Vec<AnswerPart>, reason: FinishReason, matched_stop: Option<MatchedStop>) {
        let reason = match reason {
            FinishReason::Stop if self.pipeline.has_calls() => FinishReason::ToolCalls,
            reason => reason,
        };
        self.send(Event::Finished { choice: self.index, parts, reason, matched_stop, drafts: self.drafts });
    }

    fn send(&self, event: Event) {
        // A client that went away is noticed by its abort message.
        let _ = self.events.send(event);
    }
}

/// Why a token ends the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndToken {
    /// It is one of the model's EOS ids.
    Eos,
    /// It is one of the request's `stop_token_ids`.
    Stop,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::SamplingParams;
    use tokio::sync::mpsc::unbounded_channel;

    /// What a client reads of an answer of these tokens by a SentencePiece model.
    fn answer(tokenizer: &Arc<Tokenizer>, ids: &[u32], begins_text: bool) -> String {
        let request = GenerationRequest { begins_text, ..GenerationRequest::greedy(vec![1], ids.len()) };
        let (send, mut events) = unbounded_channel();
        let sampler = SamplerState::new(SamplingParams::greedy(), 0, 0, &[]);
        let mut choice = ActiveChoice::new(0, sampler, &request, tokenizer, send);
        for (i, id) in ids.iter().enumerate() {
            choice.push(*id, None, None, i + 1 == ids.len()).unwrap();
        }
        let mut text = String::new();
        while let Ok(event) = events.try_recv() {
            if let Event::Delta { parts, .. } | Event::Finished { parts, .. } = event {
                text += &AnswerPart::text_of(&parts);
            }
        }
        text
    }

    #[test]
    fn a_chat_answer_has_no_space_before_its_first_word() {
        let path = testkit::repo("crates/text/tests/gguf/spm.gguf");
        let bytes = std::fs::read(&path).unwrap();
        let metadata = gguf::Gguf::parse(&bytes).unwrap().metadata;
        let tokenizer = Arc::new(Tokenizer::from_gguf(&metadata, &path).unwrap());
        let ids = tokenizer.encode("Hello there", false).unwrap();
        assert_eq!(answer(&tokenizer, &ids, true), "Hello there");
        assert_eq!(answer(&tokenizer, &ids, false), " Hello there");
    }
}
