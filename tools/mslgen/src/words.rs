//! Literals and the names of vector types.

const SCALARS: [&str; 12] =
    ["float", "half", "bfloat", "int", "uint", "short", "ushort", "char", "uchar", "long", "ulong", "bool"];

/// Whether `name` is a vector type, such as `float4`.
pub(crate) fn is_vector(name: &str) -> bool {
    name.strip_suffix(['2', '3', '4']).is_some_and(|scalar| SCALARS.contains(&scalar))
}

/// Returns a floating-point literal of MSL in C++, or `None` for another token. A literal without a suffix is a float
/// in MSL.
pub(crate) fn literal(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    if lower.starts_with("0x") {
        return None;
    }
    let decimal = |digits: &str| {
        let point = if digits.contains(['.', 'e', 'E']) { "" } else { ".0" };
        format!("{digits}{point}")
    };
    if lower.ends_with("bf") {
        return Some(format!("bfloat({}f)", decimal(&text[..text.len() - 2])));
    }
    if lower.ends_with('h') {
        return Some(format!("half({}f)", decimal(&text[..text.len() - 1])));
    }
    let plain = lower.ends_with(|c: char| c.is_ascii_digit() || c == '.');
    (plain && lower.contains(['.', 'e'])).then(|| format!("{text}f"))
}
