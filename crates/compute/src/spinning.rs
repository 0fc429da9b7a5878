//! Keeps the threads that compute awake for the length of a pass.
//!
//! A pass on the CPU is some hundred parallel parts of tens of microseconds with serial ones between them. Rayon's idle
//! threads go to sleep in such a gap, and waking them takes as long as the part they are woken for.
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often an idle thread looks for work before it looks at the time, and lets other programs have the core for once.
const SPINS: u32 = 1 << 10;

/// How long a thread looks for work in vain before it sleeps. What is serial between a step's parts takes tens of
/// microseconds.
const PATIENCE: Duration = Duration::from_micros(500);

/// Runs `step`, during which the other threads of the calling thread's pool look for work without sleeping.
///
/// Rayon hands other jobs to a thread that waits for the other half of its own, so that a thread may come to look for
/// work on top of a part of the step. It must not do so until the step is done: the part would wait for the thread, the
/// step for the part and the thread for the step. After [`PATIENCE`] it goes back to the part.
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

/// Takes on parts of the step until it is done, or until there have been none for [`PATIENCE`].
fn look_for_work(done: &AtomicBool) {
    let (mut spins, mut idle_since) = (0, Instant::now());
    while !done.load(Ordering::Acquire) {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            (spins, idle_since) = (0, Instant::now());
            continue;
        }
        spins += 1;
        if spins == SPINS {
            if idle_since.elapsed() > PATIENCE {
                return;
            }
            std::thread::yield_now();
            spins = 0;
        }
        std::hint::spin_loop();
    }
}

/// Ends the waiting of the other threads when it is dropped, also when the step panics.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
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

    /// A thread within a part of the step is handed the job of looking for work until that step's end.
    #[test]
    fn a_thread_goes_back_to_a_part_that_the_step_waits_for() {
        let patience = Duration::from_secs(20);
        let until = |flag: &AtomicBool| {
            let start = Instant::now();
            while !flag.load(Ordering::Acquire) {
                assert!(start.elapsed() < patience, "the step and a part of it wait for each other");
                std::thread::yield_now();
            }
        };
        let [running, begun, ended] = [const { AtomicBool::new(false) }; 3];
        pool(2).in_place_scope(|scope| {
            scope.spawn(|scope| {
                scope.spawn(|_| {
                    running.store(true, Ordering::Release);
                    until(&begun);
                    rayon::yield_now();
                    ended.store(true, Ordering::Release);
                });
                until(&running);
                with_spinning_pool(|| {
                    begun.store(true, Ordering::Release);
                    until(&ended);
                });
            });
        });
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
