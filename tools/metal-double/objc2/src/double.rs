//! What a test can ask about objects.
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

static LIVE: Mutex<BTreeMap<&'static str, usize>> = Mutex::new(BTreeMap::new());
static UNPOOLED: AtomicUsize = AtomicUsize::new(0);

/// How many objects live, by their protocol.
pub fn live() -> BTreeMap<&'static str, usize> {
    LIVE.lock().unwrap_or_else(|e| e.into_inner()).clone()
}

/// How many autoreleased objects this process has made with no pool in place. Such an object lives until its thread
/// ends.
pub fn unpooled() -> usize {
    UNPOOLED.load(Ordering::Relaxed)
}

pub(crate) fn born(class: &'static str) {
    *LIVE.lock().unwrap_or_else(|e| e.into_inner()).entry(class).or_default() += 1;
}

pub(crate) fn died(class: &'static str) {
    *LIVE.lock().unwrap_or_else(|e| e.into_inner()).entry(class).or_default() -= 1;
}

pub(crate) fn leaked() {
    if UNPOOLED.fetch_add(1, Ordering::Relaxed) == 0 {
        let backtrace = std::backtrace::Backtrace::force_capture();
        eprintln!(
            "metal-double: an object is autoreleased with no pool in place, the first of this process:\n{backtrace}"
        );
    }
}
