//! A stack for work whose depth a template decides: minijinja's compiler and the values of a template call themselves
//! once a level, and a stack that overflows ends the process.
use crate::error::TextError;
use std::thread::{Builder, scope};

/// Most bytes of a template's source, so most levels of its expressions. The largest that models ship have some 30 KiB.
pub(super) const MAX_SOURCE: usize = 256 << 10;

/// Bytes of the stack, of which only the pages that are used take memory. Expressions have at most [`MAX_SOURCE`] / 2
/// levels, of some 2 KiB each while they are compiled. Values have at most a level for each 8 instructions that a
/// template has fuel for, half a million, of some 1 KiB each where they are written out.
const STACK: usize = 1 << 30;

/// Runs `work` on a deep stack.
///
/// Errors: no thread to be had. A panic of `work` goes on here.
pub(super) fn with_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, TextError> {
    scope(|scope| {
        let thread = Builder::new().name("tallow-template".into()).stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|e| TextError::Render(format!("there is no thread for the chat template: {e}")))?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
