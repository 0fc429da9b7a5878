//! What keeps the threads that compute awake for the length of a pass.
//!
//! A pass on the CPU is some hundred parallel parts of tens of microseconds with serial ones between them. Rayon's idle
//! threads go to sleep in such a gap, and waking them takes as long as the part they are woken for.
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How often an idle thread looks for work before it lets other programs have the core for once.
const SPINS: u32 = 1 << 10;

/// How long a step waits at most for the other threads to wake. It needs them at once in any case, and waking one takes
/// some 50 µs where a core is free for it.
const WAKING: Duration = Duration::from_micros(100);

/// Set in [`WaitingThreads::joined`] when the step has begun, beside the number of threads that had joined by then.
const BEGUN: usize = 1 << (usize::BITS - 1);

/// Runs `step`, during which the other threads of the calling thread's pool look for work without sleeping.
///
/// A thread that looks for work until the step is done must not stand on a part of that step: the part would wait for
/// the thread, the step for the part and the thread for the step. A thread may come to look for work from within a
/// part, because Rayon hands other jobs to a thread that waits for the other half of its own. Therefore only those
/// threads wait that join before the step begins; one that comes later works and sleeps as Rayon lets it.
pub(crate) fn with_spinning_pool<R>(step: impl FnOnce() -> R) -> R {
    let leader = rayon::current_thread_index();
    let others = rayon::current_num_threads() - 1;
    if leader.is_none() || others == 0 {
        return step();
    }
    let waiting = WaitingThreads { joined: AtomicUsize::new(0), done: AtomicBool::new(false) };
    rayon::in_place_scope(|scope| {
        let _finish = Finish(&waiting.done);
        scope.spawn_broadcast(|_, context| {
            // The leader may come across its own copy while it waits for a part.
            if Some(context.index()) != leader && waiting.join() {
                waiting.look_for_work();
            }
        });
        waiting.begin(others);
        step()
    })
}

/// The threads that wait for one step's parts.
struct WaitingThreads {
    /// How many threads have joined, and [`BEGUN`].
    joined: AtomicUsize,
    done: AtomicBool,
}

impl WaitingThreads {
    /// Counts the calling thread among those that wait. False where the step has begun already.
    fn join(&self) -> bool {
        // A thread that comes late counts itself too, after nobody looks at the number any more.
        self.joined.fetch_add(1, Ordering::AcqRel) & BEGUN == 0
    }

    /// Waits until `others` threads have joined, for [`WAKING`] at most, and lets no more join.
    fn begin(&self, others: usize) {
        let start = Instant::now();
        while self.joined.load(Ordering::Acquire) < others && start.elapsed() < WAKING {
            std::hint::spin_loop();
        }
        self.joined.fetch_or(BEGUN, Ordering::AcqRel);
    }

    /// Takes on parts of the step until it is done.
    fn look_for_work(&self) {
        let mut idle = 0;
        while !self.done.load(Ordering::Acquire) {
            if rayon::yield_now() == Some(rayon::Yield::Executed) {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle == SPINS {
                std::thread::yield_now();
                idle = 0;
            }
            std::hint::spin_loop();
        }
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

    /// A thread within a part of the step is handed the job of waiting for that step's end.
    #[test]
    fn a_thread_never_waits_on_top_of_a_part_of_the_step() {
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
