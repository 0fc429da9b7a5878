//! Every kernel against f64, by the cases that test it in the emulator.
use crate::common::attempts::{self, Attempt};
use crate::common::{Case, helpers, products};
use msl_emu::cuda::CudaExecutor;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use turboquant::Format;

/// One for each case.
pub type Open<'a> = &'a (dyn Fn() -> CudaExecutor + Sync);
type Job = (String, Box<dyn Fn(Open<'_>) -> Result<f64, String> + Sync>);

fn of_attempts(attempts: Vec<Attempt>) -> impl Iterator<Item = Job> {
    attempts.into_iter().map(|attempt: Attempt| -> Job {
        let name = format!("{attempt:?}");
        let run = move |open: Open<'_>| {
            let executor = open();
            if executor.device().is_some() {
                return attempt.run(executor);
            }
            attempt.launch(executor);
            Ok(0.0)
        };
        (name, Box::new(run))
    })
}

fn others() -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    for (k, v, d) in [(Format::Tc4, Format::Tc4, 64), (Format::Tc5, Format::Tc5, 80)] {
        let case = Case::new(k, v, d);
        jobs.push((
            format!("copy_blocks {case:?}"),
            Box::new(move |open| attempts::copies(open(), case).map(|()| 0.0)),
        ));
    }
    type Named = Vec<(String, Result<(), String>)>;
    fn no_error(results: Named) -> Result<f64, String> {
        let failed = |(name, result): (String, Result<(), String>)| result.err().map(|e| format!("{name}: {e}"));
        let errors: Vec<String> = results.into_iter().filter_map(failed).collect();
        if errors.is_empty() { Ok(0.0) } else { Err(errors.join("; ")) }
    }
    jobs.push(("helpers".to_owned(), Box::new(|open| no_error(helpers::all(|_| open())))));
    jobs.push(("products".to_owned(), Box::new(|open| no_error(products::all(|_| open())))));
    jobs
}

/// Runs the jobs whose name contains `filter`, as many at once as there are cores, since f64 takes longer than the GPU.
/// Without a device results mean nothing: what a case launches is compiled.
fn run(open: Open<'_>, mut jobs: Vec<Job>, filter: &str) -> Result<(), String> {
    jobs.retain(|(name, _)| name.contains(filter));
    let runs = open().device().is_some();
    let cores = if runs { thread::available_parallelism().map_or(1, usize::from) } else { 1 };
    let next = AtomicUsize::new(0);
    let work = || {
        let mut errors = Vec::new();
        while let Some((name, job)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = job(open);
            if runs {
                match &result {
                    Ok(error) => println!("{name}: {error:.1e}"),
                    Err(message) => println!("{name}: FAILED: {message}"),
                }
                errors.push(result.ok());
            }
        }
        errors
    };
    let errors: Vec<Option<f64>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|_| vec![None])).collect()
    });
    let failed = errors.iter().filter(|error| error.is_none()).count();
    let worst = errors.iter().flatten().copied().fold(0.0, f64::max);
    println!("{} cases, largest error {worst:.1e}, {failed} failed", jobs.len());
    if failed > 0 { Err(format!("{failed} cases failed")) } else { Ok(()) }
}

/// Everything that the emulator's tests run, and what would take them too long.
pub fn all(open: Open<'_>, filter: &str) -> Result<(), String> {
    let lists = [
        attempts::formats(&attempts::DIMS),
        attempts::contexts(),
        attempts::groups_and_windows(),
        attempts::chunks(),
        attempts::large_biases(),
        attempts::much(),
        attempts::at_length(),
    ];
    run(open, lists.into_iter().flat_map(of_attempts).chain(others()).collect(), filter)
}

/// What compute-sanitizer goes through: every kernel.
pub fn covering(open: Open<'_>, filter: &str) -> Result<(), String> {
    let lists = [attempts::covering(0), attempts::covering_large(), attempts::much()];
    run(open, lists.into_iter().flat_map(of_attempts).chain(others()).collect(), filter)
}
