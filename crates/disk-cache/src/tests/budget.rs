//! The day's budget of bytes.
use super::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

#[test]
fn no_more_than_the_budget_is_written_in_a_day_also_over_a_restart() {
    const DAY: u64 = 86_400;
    const BUDGET: u64 = 20 * BLOCK as u64;
    let dir = tempfile::tempdir().expect("a folder");
    let clock = Arc::new(AtomicU64::new(20_000 * DAY + 5));
    let open = || {
        let clock = clock.clone();
        let now = move || UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::Relaxed));
        let tuning = Tuning { now: Arc::new(now), ..Tuning::default() };
        let options = DiskOptions { writes_per_day: BUDGET, ..options(dir.path(), 1 << 20) };
        DiskCache::open_tuned(&options, &contents(1), tuning).expect("a cache")
    };
    let keys = chain(1, 0, 100);
    let fill = |cache: &DiskCache| {
        for n in 1..keys.len() {
            cache.offer(block(&keys, n));
            assert!(cache.flush(WAIT));
        }
        let stats = cache.stats();
        assert!(stats.written_today <= BUDGET, "{} bytes", stats.written_today);
        stats.values
    };
    let cache = open();
    let first = fill(&cache);
    // Headers and the head page take less than a quarter of it.
    assert!((15..20).contains(&first), "{first} values");
    assert_eq!(cache.offer(block(&keys, 100)), Offered::BudgetSpent);
    drop(cache);
    let cache = open();
    assert_eq!(fill(&cache), first);
    assert_eq!(hits(&cache, &keys), first as usize);
    clock.fetch_add(DAY, Ordering::Relaxed);
    assert_eq!(cache.stats().written_today, 0);
    assert!(fill(&cache) >= first + 15);
    drop(cache);
    clock.fetch_add(DAY, Ordering::Relaxed);
    assert!(fill(&open()) >= first + 30);
}
