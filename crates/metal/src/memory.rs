//! How much of a Mac's memory its GPU may take.

/// Bytes that may still be taken, from what Metal recommends, what the machine has and what this process has taken. A
/// recommendation below two thirds of the memory is not believed (macOS itself allows two thirds to three quarters),
/// nor one beyond all of it.
pub fn usable(recommended: u64, physical: u64, allocated: u64) -> u64 {
    let least = physical / 3 * 2;
    recommended.clamp(least, physical.max(least)).saturating_sub(allocated)
}

#[cfg(test)]
mod tests {
    use super::usable;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_recommendation_is_believed_between_two_thirds_and_all_of_the_memory() {
        assert_eq!(usable(12 * GIB, 16 * GIB, 0), 12 * GIB);
        assert_eq!(usable(2 * GIB, 9 * GIB, 0), 6 * GIB);
        assert_eq!(usable(40 * GIB, 8 * GIB, 0), 8 * GIB);
        assert_eq!(usable(12 * GIB, 16 * GIB, 5 * GIB), 7 * GIB);
        assert_eq!(usable(GIB, 9 * GIB, 7 * GIB), 0);
    }
}
