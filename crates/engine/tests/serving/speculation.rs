//! Drafts change nothing that a client sees but the counts of their own tokens.
use super::*;
use engine::{DraftTokens, Event, TokenLogprob};
use text::{ConstraintFactory, Grammar};

/// What a client sees of one choice.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    tokens: Vec<u32>,
    parts: Vec<Vec<AnswerPart>>,
    logprobs: Vec<Option<TokenLogprob>>,
    end: Option<(FinishReason, Option<MatchedStop>)>,
}

/// All choices of a request, and what became of their drafts.
fn seen(mut stream: RequestStream, n: usize) -> (Vec<Seen>, DraftTokens) {
    let mut all: Vec<Seen> = (0..n).map(|_| Seen::default()).collect();
    let mut total = DraftTokens::default();
    while let Some(event) = stream.blocking_next() {
        match event {
            Event::Delta { choice, parts, token, logprob, .. } => {
                all[choice].tokens.push(token);
                all[choice].parts.push(parts);
                all[choice].logprobs.push(logprob);
            }
            Event::Finished { choice, parts, reason, matched_stop, drafts } => {
                assert!(drafts.accepted < all[choice].tokens.len(), "the first token of a step is never drafted");
                all[choice].parts.push(parts);
                all[choice].end = Some((reason, matched_stop));
                total.accepted += drafts.accepted;
                total.rejected += drafts.rejected;
            }
            Event::Failed(error) => panic!("{error}"),
            Event::Admitted(_) | Event::Prompt { .. } | Event::Embedded { .. } => {}
        }
    }
    (all, total)
}

/// A prompt that says everything twice, so that its answer may do so too.
fn repetitive(i: usize) -> Vec<u32> {
    let golden = testkit::Golden::read("demo");
    let text = golden.text(i % 11, 40 + 7 * i);
    [&text[..], &text, &text[..20]].concat()
}

/// Requests of all kinds. `text` is what the first of them is answered with.
fn requests(handle: &EngineHandle, text: &str) -> Vec<GenerationRequest> {
    let greedy = |i: usize| {
        let mut request = GenerationRequest::greedy(repetitive(i), 45);
        request.stop.ignore_eos = true;
        request
    };
    let sampled = |i: usize, params: SamplingParams| GenerationRequest { sampling: params, ..greedy(i) };
    let cool = SamplingParams { temperature: 0.4, seed: Some(5), ..Default::default() };
    let letters: Vec<char> = text.chars().collect();
    let stopped = |from: usize, len: usize, least: usize| {
        let mut request = greedy(0);
        request.stop.stop = vec![letters[from..from + len].iter().collect()];
        request.stop.min_tokens = least;
        request
    };
    let info = handle.info();
    let factory = ConstraintFactory::new(handle.tokenizer(), &info.turn_ends, info.vocab_size).unwrap();
    let held = |i: usize, grammar: Grammar| {
        let constraint = Some(factory.answer(Some(&grammar), None, None).unwrap());
        GenerationRequest { constraint, ..greedy(i) }
    };
    let middle = letters.len() / 2;
    vec![
        greedy(0),
        greedy(1),
        sampled(1, cool.clone()),
        sampled(2, SamplingParams { top_k: 20, top_p: 0.9, ..cool.clone() }),
        GenerationRequest { n: 3, ..sampled(3, cool.clone()) },
        GenerationRequest { logprobs: Some(3), ..greedy(2) },
        sampled(0, SamplingParams { presence_penalty: 0.2, frequency_penalty: 0.1, ..SamplingParams::greedy() }),
        sampled(1, SamplingParams { repetition_penalty: 1.05, min_p: 0.05, ..cool }),
        sampled(0, SamplingParams { logit_bias: vec![(300, 2.0)], ..SamplingParams::greedy() }),
        stopped(middle, 7, 0),
        stopped(middle / 2, 1, 30),
        held(4, Grammar::Regex("(one two three four )+".into())),
        held(5, Grammar::json_object()),
        GenerationRequest { stop: StopParams { max_tokens: Some(23), ..Default::default() }, ..greedy(0) },
    ]
}

#[test]
fn drafts_change_nothing_that_a_client_sees() {
    let run = |max_draft_tokens: usize, text: Option<&str>| {
        let engine = start(&EngineConfig { max_draft_tokens, ..config() }).unwrap();
        let own = answer(&engine.0, GenerationRequest::greedy(repetitive(0), 45)).text;
        let requests = requests(&engine.0, text.unwrap_or(&own));
        // All at once, and then one after the other.
        let streams: Vec<_> = requests.iter().map(|request| engine.0.submit(request.clone()).unwrap()).collect();
        let together: Vec<_> = streams.into_iter().zip(&requests).map(|(stream, r)| seen(stream, r.n)).collect();
        let alone: Vec<_> = requests.into_iter().map(|r| seen(engine.0.submit(r.clone()).unwrap(), r.n)).collect();
        idle_within(&engine.0, Duration::from_secs(1));
        stop(engine);
        (own, together.into_iter().chain(alone).collect::<Vec<_>>())
    };
    let (text, plain) = run(0, None);
    let (same, drafted) = run(8, Some(&text));
    assert_eq!(same, text);
    let mut total = DraftTokens::default();
    for (i, ((want, none), (got, drafts))) in plain.iter().zip(&drafted).enumerate() {
        assert_eq!(got, want, "request {i}");
        assert_eq!(*none, DraftTokens::default());
        total.accepted += drafts.accepted;
        total.rejected += drafts.rejected;
    }
    assert!(total.accepted > 40 && total.rejected > 0, "{total:?}");
}
