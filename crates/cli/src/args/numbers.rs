//! Numbers as flags and variables give them.

/// Reads a whole number.
///
/// Errors: what it must be.
pub fn whole<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let number = text.trim().parse::<u64>().ok().and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| "it must be a whole number that is not negative".to_owned())
}

/// Reads a number of tokens; a `k` after it means 1,024.
///
/// Errors: what it must be.
pub fn tokens(text: &str) -> Result<usize, String> {
    let (number, unit) = match text.trim().strip_suffix(['k', 'K']) {
        Some(thousands) => (thousands, 1024),
        None => (text.trim(), 1),
    };
    let tokens = number.trim_end().parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    tokens.ok_or_else(|| "it must be a number of tokens, such as 32768 or 32k".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_in_ones_or_in_1024s() {
        for (text, number) in [("4096", 4096), ("32k", 32_768), (" 128 K ", 131_072), ("0", 0)] {
            assert_eq!(tokens(text), Ok(number), "{text}");
        }
        for text in ["", "k", "-1", "1.5k", "32kB", "32 000", "18446744073709551615k"] {
            assert!(tokens(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_whole_number_fits_its_type() {
        assert_eq!(whole::<usize>("7"), Ok(7));
        assert_eq!(whole::<u8>("255"), Ok(255));
        for text in ["256", "-1", "1e2", "7 s", ""] {
            assert!(whole::<u8>(text).is_err(), "{text}");
        }
    }
}
