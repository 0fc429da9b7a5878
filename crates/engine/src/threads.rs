//! The threads that compute.

/// A pool of the threads that compute; `None`: one a core.
///
/// Errors: threads that the system does not give.
pub fn compute_pool(threads: Option<usize>) -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    builder.thread_name(|i| format!("tallow-compute-{i}")).build()
}
