//! One choice as its client sees it: text, stops, log-probabilities.
use super::request::{Event, FinishReason, GenerationRequest, MatchedStop, TokenLogprob};
use super::sampler::SamplerState;
use std::sync::Arc;
use text::{Detokenizer, StopMatcher, Stopped, Tokenizer};
use tokio::sync::mpsc::UnboundedSender;

/// A choice that has not ended.
pub(super) struct ActiveChoice {
    index: usize,
    /// Draws its tokens.
    pub sampler: SamplerState,
    detokenizer: Detokenizer,
    matcher: StopMatcher,
    /// Tokens to come in whose text no stop string is looked for.
    unsearched: usize,
    tokenizer: Arc<Tokenizer>,
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
        let stop = &request.stop;
        let begin = if request.begins_text { Detokenizer::new } else { Detokenizer::after_prompt };
        ActiveChoice {
            index,
            sampler,
            detokenizer: begin(!stop.keep_special_tokens),
            matcher: StopMatcher::new(stop.stop.clone(), stop.include_stop_str_in_output),
            unsearched: stop.min_tokens,
            tokenizer: tokenizer.clone(),
            events,
        }
    }

    /// Appends a sampled token and tells the client. `end`: why the token ends the answer by itself, if it does;
    /// `full`: the length limit is reached. True if the choice has ended.
    pub fn push(&mut self, token: u32, logprob: Option<TokenLogprob>, end: Option<EndToken>, full: bool) -> bool {
        let choice = self.index;
        if let Some(end) = end {
            // The token that ends the text is no part of it.
            self.send(Event::Delta { choice, text: String::new(), token, logprob });
            let matched_stop = matches!(end, EndToken::Stop).then_some(MatchedStop::Token(token));
            return self.finish(FinishReason::Stop, matched_stop);
        }
        let text = self.detokenizer.push(&self.tokenizer, token);
        let stopped = match self.unsearched.checked_sub(1) {
            Some(left) => {
                self.unsearched = left;
                Stopped { text: self.matcher.pass(&text), matched: None }
            }
            None => self.matcher.push(&text),
        };
        self.send(Event::Delta { choice, text: stopped.text, token, logprob });
        if let Some(stop) = stopped.matched {
            let matched_stop = Some(MatchedStop::Text(stop));
            self.send(Event::Finished { choice, text: String::new(), reason: FinishReason::Stop, matched_stop });
            return true;
        }
        full && self.finish(FinishReason::Length, None)
    }

    /// Sends the text that was held back for a stop string or an unfinished character, and ends the choice.
    fn finish(&mut self, reason: FinishReason, matched_stop: Option<MatchedStop>) -> bool {
        let rest = self.detokenizer.flush();
        let stopped = self.matcher.push(&rest);
        let (text, reason, matched_stop) = match stopped.matched {
            Some(stop) => (stopped.text, FinishReason::Stop, Some(MatchedStop::Text(stop))),
            None => (stopped.text + &self.matcher.flush(), reason, matched_stop),
        };
        self.send(Event::Finished { choice: self.index, text, reason, matched_stop });
        true
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
            choice.push(*id, None, None, i + 1 == ids.len());
        }
        let mut text = String::new();
        while let Ok(event) = events.try_recv() {
            if let Event::Delta { text: part, .. } | Event::Finished { text: part, .. } = event {
                text += &part;
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
