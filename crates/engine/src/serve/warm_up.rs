//! A prompt and an answer that nobody asked for, on devices that compile what they run when they first run it.
use super::runner::{ChunkNeed, ModelRunner};
use candle_core::{Error, Result};
use scheduler::{NewRequest, RequestKey, Scheduler, SeqId};
use turboquant::PARTITION;

/// The key of the request, which no client's request has.
const KEY: RequestKey = RequestKey::MAX;

/// Tokens of the prompt: its last ones see more than one partition.
const PROMPT: usize = PARTITION + 128;

/// Tokens of the first choice's answer. The second choice ends two tokens earlier.
const OUTPUT: usize = 5;

/// Has the model compute what serving will: a prompt, then two sequences at once, then one alone, two steps each, of
/// which one reads whole rows of logits and one the largest of them. Where the cache or the context is too small for
/// that, a shorter prompt. Afterwards no block is held.
///
/// Errors: whatever the model refuses, such as a kernel that the device's compiler does.
pub(crate) fn warm_up(scheduler: &mut Scheduler, runner: &mut ModelRunner, max_model_len: usize) -> Result<()> {
    let config = scheduler.config();
    let choices = config.max_num_seqs.min(2);
    let capacity = config.num_blocks * config.block_size / choices;
    let prompt = PROMPT.min(max_model_len.min(capacity).saturating_sub(OUTPUT));
    if prompt == 0 {
        return Ok(());
    }
    let request = NewRequest {
        key: KEY,
        client: String::new(),
        prompt: vec![0; prompt],
        choices: choices as u32,
        max_len: prompt + OUTPUT,
        prefix: None,
    };
    scheduler.add(request).map_err(|e| Error::Msg(e.to_string()))?;
    let computed = compute(scheduler, runner);
    scheduler.abort(KEY);
    computed
}

fn compute(scheduler: &mut Scheduler, runner: &mut ModelRunner) -> Result<()> {
    let needs = match runner.model().has_head() {
        true => [ChunkNeed::LargestLogits(1), ChunkNeed::LastLogits],
        false => [ChunkNeed::HiddenStates(0..1), ChunkNeed::HiddenStates(0..usize::MAX)],
    };
    for need in needs.into_iter().cycle() {
        let step = scheduler.schedule();
        if step.chunks.is_empty() {
            break;
        }
        runner.run(&step, scheduler, |_| need.clone())?;
        let sampled = step.chunks.iter().flat_map(|chunk| {
            let id = chunk.seq;
            chunk.samples.clone().map(move |choice| (SeqId { choice, ..id }, 0))
        });
        let sampled: Vec<(SeqId, u32)> = sampled.collect();
        scheduler.update(&step, &sampled);
        for (id, _) in sampled {
            let early = if id.choice > 0 { 2 } else { 0 };
            if scheduler.sequence(id).is_some_and(|seq| seq.output().len() + early >= OUTPUT) {
                scheduler.finish(id);
            }
        }
    }
    Ok(())
}
