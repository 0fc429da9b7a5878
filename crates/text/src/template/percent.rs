//! Python's `%` after a text. Minijinja knows `%` for numbers alone, and no way to add to it, so that `'..' % value`
//! is written anew as a filter, `'..' | percent(value)`, before a template is compiled. Both bind to the text alone.

/// The filter's name, which no template has.
pub(super) const FILTER: &str = "__percent";
/// How deep operands may lie in each other; deeper ones stay as they are, which minijinja then refuses.
const MAX_DEPTH: usize = 16;

/// The template's source with each `%` after a literal text written as a filter.
pub(super) fn rewritten(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let end = match tag.as_bytes().get(1) {
            Some(b'#') => tag.find("#}").map_or(tag.len(), |end| end + 2),
            Some(b'{') => tag_end(tag, "}}"),
            Some(b'%') => tag_end(tag, "%}"),
            _ => 1,
        };
        let (tag, after) = tag.split_at(end);
        if tag.len() <= 2 || tag.starts_with("{#") {
            out.push_str(tag);
            rest = after;
            continue;
        }
        out.push_str(&tag[..2]);
        code(&tag[2..], 0, &mut out);
        rest = after;
        let words = tag.trim_matches(['{', '%', '-', '+', '}']);
        if tag.starts_with("{%") && words.trim() == "raw" {
            let end = rest.find("endraw").unwrap_or(rest.len());
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    out + rest
}

/// Where a tag ends that begins the text; strings may hold what looks like an end.
fn tag_end(tag: &str, end: &str) -> usize {
    let mut at = 2;
    while at < tag.len() && !tag[at..].starts_with(end) {
        at += token(&tag[at..]);
    }
    (at + end.len()).min(tag.len())
}

/// The length of a literal text, or else of one character.
fn token(code: &str) -> usize {
    let mut chars = code.char_indices();
    let Some((_, first)) = chars.next() else { return 0 };
    if first != '\'' && first != '"' {
        return first.len_utf8();
    }
    let mut escaped = false;
    for (at, c) in chars {
        if c == first && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    code.len()
}

fn code(text: &str, depth: usize, out: &mut String) {
    let mut rest = text;
    while !rest.is_empty() {
        let (part, after) = rest.split_at(token(rest));
        out.push_str(part);
        rest = after;
        if depth == MAX_DEPTH || !part.starts_with(['\'', '"']) {
            continue;
        }
        let operator = after.trim_start();
        if !operator.starts_with('%') || operator.starts_with("%}") {
            continue;
        }
        let value = operator[1..].trim_start();
        let (value, after) = value.split_at(operand(value));
        out.push_str(&format!(" | {FILTER}("));
        code(value, depth + 1, out);
        out.push(')');
        rest = after;
    }
}

/// The length of an operand: a name, a literal or something in brackets, with what is asked of it (`.name`, `[..]`,
/// `(..)`, `| filter`).
fn operand(code: &str) -> usize {
    let sign = code.len() - code.trim_start_matches(['-', '+', ' ']).len();
    let mut end = sign + primary(&code[sign..]);
    loop {
        let rest = &code[end..];
        let trimmed = rest.trim_start();
        let space = rest.len() - trimmed.len();
        end += match trimmed.as_bytes().first() {
            Some(b'[' | b'(') => space + brackets(trimmed),
            Some(b'.' | b'|') => {
                let name = trimmed[1..].trim_start();
                space + trimmed.len() - name.len() + primary(name)
            }
            _ => return end,
        };
    }
}

fn primary(code: &str) -> usize {
    match code.as_bytes().first() {
        Some(b'[' | b'(' | b'{') => brackets(code),
        Some(b'\'' | b'"') => token(code),
        _ => code.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(code.len()),
    }
}

/// The length of what is in the brackets that begin the text, and of the brackets.
fn brackets(code: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < code.len() {
        let long = token(&code[at..]);
        match &code[at..at + long] {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += long;
        if depth == 0 {
            return at;
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::{FILTER, MAX_DEPTH, rewritten};

    #[test]
    fn a_percent_behind_a_text_becomes_a_filter() {
        for (source, expected) in [
            ("{{ '%s' % a }}", "{{ '%s' | __percent(a) }}"),
            ("{{- \"%s %s\" % (a, 'b)') -}}", "{{- \"%s %s\" | __percent((a, 'b)')) -}}"),
            ("{% set x = '%d%%' % m.n[0](1) | trim + 2 %}", "{% set x = '%d%%' | __percent(m.n[0](1) | trim) + 2 %}"),
            ("{{ '%s' % ('%s' % a) }}", "{{ '%s' | __percent(('%s' | __percent(a))) }}"),
            ("{{ 7 % 3 }} {% if 'a' %}% {{ '}}' % b }}", "{{ 7 % 3 }} {% if 'a' %}% {{ '}}' | __percent(b) }}"),
            ("{# '%s' % a #}{% raw %}{{ '%s' % a }}{% endraw %}", "{# '%s' % a #}{% raw %}{{ '%s' % a }}{% endraw %}"),
            ("{%- raw -%}{{ '%s' % a }}{% endraw %}", "{%- raw -%}{{ '%s' % a }}{% endraw %}"),
            ("{{ raw }}{{ '%s' % a }}", "{{ raw }}{{ '%s' | __percent(a) }}"),
            ("'%s' % a { {", "'%s' % a { {"),
            ("{{ 'x", "{{ 'x"),
            ("{{ 'x' % ", "{{ 'x' | __percent()"),
        ] {
            assert_eq!(rewritten(source), expected, "{source}");
        }
        let nested = format!("{{{{ {} }}}}", "'%s' % (".repeat(100_000));
        assert_eq!(rewritten(&nested).matches(FILTER).count(), MAX_DEPTH);
    }
}
