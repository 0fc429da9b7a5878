//! How much of a Mac's memory its GPU may take.

/// Bytes that may still be taken, from what Metal recommends, what the machine has and what this process has taken.
/// A recommendation of 0 is none, as some virtual machines give it: then two thirds of the memory, as macOS has it on
/// small Macs. A user who lowers `iogpu.wired_limit_mb` lowers the recommendation.
pub fn usable(recommended: u64, physical: u64, allocated: u64) -> u64 {
    let most = if recommended == 0 { physical / 3 * 2 } else { recommended };
    most.saturating_sub(allocated)
}

#[cfg(test)]
mod tests {
    use super::usable;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_recommendation_is_kept_to_and_none_is_two_thirds_of_the_memory() {
        assert_eq!(usable(12 * GIB, 16 * GIB, 0), 12 * GIB);
        assert_eq!(usable(2 * GIB, 9 * GIB, 0), 2 * GIB);
        assert_eq!(usable(0, 9 * GIB, GIB), 5 * GIB);
        assert_eq!(usable(12 * GIB, 16 * GIB, 5 * GIB), 7 * GIB);
        assert_eq!(usable(GIB, 9 * GIB, 7 * GIB), 0);
    }
}
