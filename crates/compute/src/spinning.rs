//! What keeps the threads that compute awake for the length of a pass.
//!
//! A pass on the CPU is some hundred parallel parts of tens of microseconds with serial ones between them. Rayon's idle
//! threads go to sleep in such a gap, and waking them takes as long as the part they are woken for.
use std::sync::atomic::{AtomicBool, Ordering};

/// How often an idle thread looks for work before it lets other programs have the core for once.
const SPINS: u32 = 1 << 10;

/// Runs `step`, during which the other threads of the calling thread's pool look for work without sleeping.
pub(crate) fn with_spinning_pool<R>(step: impl FnOnce() -> R) -> R {
    let leader = rayon::current_thread_index();
    if leader.is_none() || rayon::current_num_threads() < 2 {
        return step();
    }
    let done = AtomicBool::new(false);
    rayon::in_place_scope(|scope| {
        let _finish = Finish(&done);
        scope.spawn_broadcast(|_, context| {
            // The leader may come across its own copy while it waits for a part.
            if Some(context.index()) != leader {
                look_for_work(&done);
            }
        });
        step()
    })
}

/// Ends the waiting of the other threads when it is dropped, also when the step panics.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Takes on parts of the step until it is done.
fn look_for_work(done: &AtomicBool) {
    let mut idle = 0;
    while !done.load(Ordering::Acquire) {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            idle = 0;
            continue;
        }
        idle += 1;
        if idle % SPINS == 0 {
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn a_step_computes_as_without_and_its_threads_are_free_again() {
        let sum = || (0..1000u64).into_par_iter().map(|x| x * x).sum::<u64>();
        for threads in [1, 2, 5] {
            let pool = pool(threads);
            for _ in 0..50 {
                assert_eq!(pool.install(|| with_spinning_pool(sum)), 332_833_500);
                assert_eq!(pool.install(sum), 332_833_500);
            }
        }
        assert_eq!(with_spinning_pool(sum), 332_833_500);
    }

    #[test]
    fn a_panicking_step_ends_the_waiting() {
        let pool = pool(3);
        for _ in 0..10 {
            let step = || with_spinning_pool(|| -> () { panic!("a step") });
            assert!(pool.install(|| std::panic::catch_unwind(step).is_err()));
        }
        assert_eq!(pool.install(|| (0..100).into_par_iter().count()), 100);
    }
}
