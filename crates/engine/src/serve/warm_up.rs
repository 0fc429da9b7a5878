//! A prompt and an answer that nobody asked for, on devices that compile what they run when they first run it.
use super::runner::{ChunkNeed, ModelRunner};
use candle_core::{Error, Result};
use scheduler::{Chunk, NewRequest, RequestKey, Scheduler};
use turboquant::PARTITION;

/// The key of the request, which no client's request has.
const KEY: RequestKey = RequestKey::MAX;

/// The lengths of short prompts. Each is computed in one step of so few rows that devices have kernels of their own for
/// it.
const FEW: [usize; 5] = [2, 4, 8, 16, 32];

/// Tokens of the long prompt. Its last ones see more than one partition, and it ends within a block, which the second
/// of two answers gets a copy of.
const PROMPT: usize = PARTITION + 127;

/// Tokens of the first choice's answer. The second choice ends two tokens earlier.
const OUTPUT: usize = 5;

/// Has the model compute what serving will need: prompts of few rows, then a long prompt, then two steps with two
/// sequences, then two steps with one. Of each two steps one reads the largest logits, the other whole rows of logits.
/// Where the cache or the context is too small for that, prompts are shorter. Afterwards no block is held.
///
/// Errors: whatever the model refuses, such as a kernel that the device's compiler does.
pub(crate) fn warm_up(scheduler: &mut Scheduler, runner: &mut ModelRunner, max_model_len: usize) -> Result<()> {
    let config = scheduler.config();
    let choices = config.max_num_seqs.min(2);
    let capacity = config.num_blocks * config.block_size / choices;
    let prompt = PROMPT.min(max_model_len.min(capacity).saturating_sub(OUTPUT));
    for few in FEW.into_iter().filter(|few| *few < prompt) {
        answer(scheduler, runner, few, 1, 1)?;
    }
    if prompt > 0 {
        answer(scheduler, runner, prompt, choices, OUTPUT)?;
    }
    Ok(())
}

/// Answers a prompt of `prompt` tokens `choices` times, the first time in `output` tokens.
fn answer(
    scheduler: &mut Scheduler,
    runner: &mut ModelRunner,
    prompt: usize,
    choices: usize,
    output: usize,
) -> Result<()> {
    let request = NewRequest {
        key: KEY,
        client: String::new(),
        prompt: vec![0; prompt],
        choices: choices as u32,
        max_len: prompt + output,
        prefix: None,
    };
    scheduler.add(request).map_err(|e| Error::Msg(e.to_string()))?;
    let computed = compute(scheduler, runner, output);
    scheduler.abort(KEY);
    computed
}

fn compute(scheduler: &mut Scheduler, runner: &mut ModelRunner, output: usize) -> Result<()> {
    let needs = match runner.model().has_head() {
        true => [ChunkNeed::LargestLogits(1), ChunkNeed::LastLogits],
        false => [ChunkNeed::HiddenStates(0..1), ChunkNeed::HiddenStates(0..usize::MAX)],
    };
    // No token comes twice, so that nothing is drafted and steps have the rows that are meant.
    let mut tokens = 1u32..;
    for need in needs.into_iter().cycle() {
        let step = scheduler.schedule();
        if step.chunks.is_empty() {
            break;
        }
        runner.run(&step, scheduler, |_| need.clone())?;
        let sampled: Vec<_> = step.chunks.iter().flat_map(Chunk::sampled).zip(&mut tokens).collect();
        scheduler.update(&step, &sampled);
        for (id, _) in sampled {
            let early = if id.choice > 0 { 2 } else { 0 };
            if scheduler.sequence(id).is_some_and(|seq| seq.output().len() + early >= output) {
                scheduler.finish(id);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::start::{EngineConfig, cache_layout, load};
    use ::metal::{AttendKernel, Constant, ExecError, Executor, GpuBackend, Launch};
    use attention::Centring;
    use scheduler::SchedulerConfig;
    use std::collections::HashSet;
    use std::sync::{Arc, Mutex};
    use turboquant::{Format, KvPair};

    /// Kernels with their constants.
    type Compiled = HashSet<(String, Vec<Constant>)>;

    /// A GPU that notes what it would have to compile, and computes nothing.
    #[derive(Clone, Default)]
    struct Compiler(Arc<Mutex<Compiled>>);

    impl Executor for Compiler {
        type Buffer = ();

        fn create(&self, _: usize) -> std::result::Result<(), ExecError> {
            Ok(())
        }
        fn upload(&self, (): &(), _: usize, _: &[u8]) -> std::result::Result<(), ExecError> {
            Ok(())
        }
        fn download(&self, (): &(), _: usize, _: &mut [u8]) -> std::result::Result<(), ExecError> {
            Ok(())
        }
        fn run(&self, launches: &[Launch<'_, ()>]) -> std::result::Result<(), ExecError> {
            let kernels = launches.iter().map(|launch| (launch.kernel.clone(), launch.constants.clone()));
            self.0.lock().unwrap().extend(kernels);
            Ok(())
        }
    }

    #[test]
    fn nothing_is_left_to_be_compiled_in_a_step_that_serves() {
        const MAX_LEN: usize = 2048;
        for decode in [AttendKernel::Mma, AttendKernel::Vec] {
            let bundle = load(&EngineConfig::new(testkit::repo("models/demo"))).unwrap();
            let geometry = bundle.model.geometry().clone();
            let layout = cache_layout(KvPair::both(Format::Tc4), 16, &geometry).unwrap();
            let (compiler, centring) = (Compiler::default(), Centring::none(&geometry));
            let backend = GpuBackend::new(compiler.clone(), layout, &geometry, &centring, decode).unwrap();
            let config = SchedulerConfig {
                block_size: 16,
                num_blocks: 2 * MAX_LEN / 16,
                max_num_seqs: 8,
                max_num_batched_tokens: 512,
                max_step_time: None,
                max_draft_tokens: 0,
                has_states: false,
                num_snapshots: 0,
            };
            let mut scheduler = Scheduler::new(config).unwrap();
            let slots = scheduler.num_state_slots();
            let mut runner =
                ModelRunner::new(bundle.model, Box::new(backend), 2 * MAX_LEN / 16, slots, bundle.device).unwrap();
            warm_up(&mut scheduler, &mut runner, MAX_LEN).unwrap();
            let warm = std::mem::take(&mut *compiler.0.lock().unwrap());
            for (prompt, choices) in [(1, 1), (2, 1), (3, 2), (7, 1), (16, 2), (100, 1), (513, 2), (1500, 1)] {
                answer(&mut scheduler, &mut runner, prompt, choices, OUTPUT).unwrap();
            }
            let served = compiler.0.lock().unwrap();
            let cold: Vec<_> = served.difference(&warm).map(|(kernel, _)| kernel).collect();
            assert!(cold.is_empty(), "{decode:?}: {cold:?}");
            assert!(
                served.iter().any(|(kernel, _)| kernel == "copy_blocks"),
                "no second answer got a block of its own"
            );
        }
    }
}
