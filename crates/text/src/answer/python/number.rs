//! Python's numbers.

/// A Python number as JSON. `None` if it is none, or none that JSON has.
pub(super) fn to_json(text: &str) -> Option<String> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", text.get(1..)?),
        b'+' => ("", text.get(1..)?),
        _ => ("", text),
    };
    let digits = without_underscores(digits)?;
    let (base, body) = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (16, digits.get(2..)?),
        Some("0o") => (8, digits.get(2..)?),
        Some("0b") => (2, digits.get(2..)?),
        _ => (10, digits.as_str()),
    };
    if base != 10 {
        let is_number = body.chars().all(|c| c.is_digit(base));
        return is_number
            .then(|| u128::from_str_radix(body, base).ok())
            .flatten()
            .map(|value| format!("{sign}{value}"));
    }
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (body.get(..at)?, Some(body.get(at + 1..)?)),
        None => (body, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let power = exponent.map(|power| power.strip_prefix(['+', '-']).unwrap_or(power));
    let is_number = are_digits(whole)
        && fraction.is_none_or(are_digits)
        && power.is_none_or(|power| !power.is_empty() && are_digits(power))
        && whole.len() + fraction.map_or(0, str::len) > 0;
    let is_float = fraction.is_some() || exponent.is_some();
    let trimmed = match whole.trim_start_matches('0') {
        "" => "0",
        trimmed => trimmed,
    };
    // Python has no integers with leading zeros but zero itself.
    if !is_number || (!is_float && trimmed != whole && trimmed != "0") {
        return None;
    }
    let fraction = match fraction {
        None => String::new(),
        Some("") => ".0".into(),
        Some(fraction) => format!(".{fraction}"),
    };
    let exponent = exponent.map(|exponent| format!("e{exponent}")).unwrap_or_default();
    Some(format!("{sign}{trimmed}{fraction}{exponent}"))
}

/// Digits without underscores, which may stand between two of them.
fn without_underscores(text: &str) -> Option<String> {
    let well_placed = !text.starts_with('_') && !text.ends_with('_') && !text.contains("__");
    well_placed.then(|| text.replace('_', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Expected values: Python's.
    #[test]
    fn numbers_are_pythons() {
        for (python, json) in [
            ("0", "0"),
            ("000", "0"),
            ("7", "7"),
            ("-12", "-12"),
            ("+5", "5"),
            ("1_000", "1000"),
            ("0x1F", "31"),
            ("-0b101", "-5"),
            ("0o17", "15"),
            ("1.", "1.0"),
            (".5", "0.5"),
            ("-.5e3", "-0.5e3"),
            ("1e-5", "1e-5"),
            ("2E+10", "2e+10"),
            ("01.5", "1.5"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
        ] {
            assert_eq!(to_json(python).as_deref(), Some(json), "{python}");
            assert!(serde_json::from_str::<f64>(json).is_ok(), "{json}");
        }
        for broken in ["", "-", ".", "1.2.3", "1e", "0x", "0xg", "007", "1__0", "_1", "1j", "--1", "e5", "1e5.0", "é"]
        {
            assert_eq!(to_json(broken), None, "{broken}");
        }
    }
}
