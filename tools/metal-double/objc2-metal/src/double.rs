//! What a test can ask of the GPU and make it do.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicIsize, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// What the GPU has done since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Command buffers that were committed.
    pub commits: usize,
    /// Command buffers that were committed without a command in them.
    pub empty_commits: usize,
    /// Waits for a command buffer that had not completed.
    pub waits: usize,
    /// Dispatches that ran.
    pub dispatches: usize,
}

macro_rules! counters {
    ($($name:ident)+) => {
        $(pub(crate) static $name: AtomicUsize = AtomicUsize::new(0);)+
    };
}
counters! { COMMITS EMPTY_COMMITS WAITS DISPATCHES ALLOCATED }

static FAILS_IN: AtomicIsize = AtomicIsize::new(-1);

/// What was done so far.
pub fn counts() -> Counts {
    let [commits, empty_commits, waits, dispatches] =
        [&COMMITS, &EMPTY_COMMITS, &WAITS, &DISPATCHES].map(|counter| counter.load(Ordering::Relaxed));
    Counts { commits, empty_commits, waits, dispatches }
}

static CANDLE: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// How often each of Candle's kernels has run since the process began, by its name.
pub fn candle_kernels() -> BTreeMap<String, usize> {
    CANDLE.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

pub(crate) fn candle_ran(kernel: &str) {
    *CANDLE.lock().unwrap_or_else(PoisonError::into_inner).entry(kernel.to_owned()).or_default() += 1;
}

/// Bytes of all buffers that live.
pub fn allocated() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

/// Makes one command buffer fail when it runs: 0 is the next that is committed, 1 the one after it.
pub fn fail_commit(after: usize) {
    FAILS_IN.store(after as isize, Ordering::Relaxed);
}

/// Whether the command buffer that is committed now is to fail.
pub(crate) fn fails() -> bool {
    let counted = |left: isize| (left >= 0).then_some(left - 1);
    FAILS_IN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted) == Ok(0)
}

/// The environment variable of the number that the order of dispatches is drawn from.
pub const SEED: &str = "METAL_DOUBLE_SEED";
/// The environment variable with which kernels run in the emulator that finds races, some 10 times slower.
pub const CHECKED: &str = "METAL_DOUBLE_CHECKED";

/// The value of [`SEED`], or of the clock.
pub fn seed() -> u64 {
    static VALUE: OnceLock<u64> = OnceLock::new();
    *VALUE.get_or_init(|| {
        let given = std::env::var(SEED).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{SEED} is {text}")));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        given.unwrap_or_else(|| now.map_or(1, |since| u64::from(since.subsec_nanos())))
    })
}

/// The next of a row of numbers that look random.
pub(crate) fn random() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut x = seed().wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Ends the thread, naming who broke which rule.
#[track_caller]
pub(crate) fn broken(who: &str, rule: impl std::fmt::Display) -> ! {
    panic!("metal-double: {who}: {rule} ({SEED}={})", seed())
}
