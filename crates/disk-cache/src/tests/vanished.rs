//! A folder that vanishes, or cannot be written: misses and one log line, and it goes on later.
use super::*;
use crate::{DiskError, DiskWriteState};

const LIMIT: u64 = 1 << 20;

#[test]
fn a_folder_that_vanishes_is_one_log_line_and_is_made_again() {
    keep_log();
    let root = tempfile::tempdir().expect("a folder");
    let dir = root.path().join("cache");
    let tuning = Tuning { retry_after: Duration::from_millis(50), ..Tuning::default() };
    let cache = DiskCache::open_tuned(&options(&dir, LIMIT), &contents(1), tuning).expect("a cache");
    let keys = chain(1, 0, 20);
    store(&cache, &keys);
    std::fs::remove_dir_all(&dir).expect("removed");
    // A file in the folder's place: no attempt can succeed.
    std::fs::write(&dir, "").expect("written");
    let more = chain(1, 1, 5);
    for _ in 0..5 {
        store(&cache, &more);
        assert!(matches!(cache.stats().write_state, DiskWriteState::Failed(_)));
        std::thread::sleep(Duration::from_millis(60));
    }
    assert_eq!(hits(&cache, &keys), 20, "the open file can still be read");
    assert_eq!(cache.offer(block(&more, 1)), Offered::Staged, "it is tried again after a while");
    assert!(cache.flush(WAIT));
    assert_eq!(cache.offer(block(&more, 1)), Offered::Off, "but not at once");
    std::fs::remove_file(&dir).expect("removed");
    std::thread::sleep(Duration::from_millis(60));
    store(&cache, &more);
    assert_eq!((cache.stats().write_state, hits(&cache, &more)), (DiskWriteState::On, 5));
    assert_eq!(hits(&cache, &keys), 0);
    assert_eq!(warnings(&dir).len(), 1, "{:?}", warnings(&dir));
    drop(cache);
    assert_eq!(hits(&open(&dir, LIMIT, 1), &more), 5);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_at_the_start() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    for dir in [file.path().join("cache"), "/proc/self/cache".into()] {
        let error = DiskCache::open(&options(&dir, LIMIT), &contents(1)).err().expect("an error");
        assert!(matches!(error, DiskError::Io { .. }), "{error}");
        assert!(error.to_string().contains(&dir.display().to_string()), "{error}");
    }
}
