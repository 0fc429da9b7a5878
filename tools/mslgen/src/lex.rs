//! Cuts preprocessed MSL into tokens.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TokenKind {
    Identifier,
    Number,
    String,
    Punctuation,
    /// White space, a comment or a linemarker.
    Space,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub kind: TokenKind,
    pub text: String,
}

/// Cuts `source` into tokens, whose texts join to `source`. `[[` and `::` are one token each; `]]` is two.
pub(crate) fn lex(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let (mut at, mut line_start) = (0, true);
    let mut tokens = Vec::new();
    while at < chars.len() {
        let (kind, end) = next(&chars, at, line_start);
        let text: String = chars[at..end].iter().collect();
        line_start = kind == TokenKind::Space && (text.ends_with('\n') || (line_start && !text.contains('#')));
        tokens.push(Token { kind, text });
        at = end;
    }
    tokens
}

fn next(chars: &[char], at: usize, line_start: bool) -> (TokenKind, usize) {
    let peek = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let run =
        |from: usize, more: &dyn Fn(usize) -> bool| (from..chars.len()).find(|i| !more(*i)).unwrap_or(chars.len());
    let (c, following) = (chars[at], peek(at + 1));
    if (c == '#' && line_start) || (c == '/' && following == '/') {
        return (TokenKind::Space, run(at, &|i| chars[i] != '\n'));
    }
    if c == '/' && following == '*' {
        let end = run(at + 2, &|i| !(chars[i] == '*' && peek(i + 1) == '/'));
        return (TokenKind::Space, (end + 2).min(chars.len()));
    }
    if c.is_whitespace() {
        return (TokenKind::Space, run(at, &|i| chars[i].is_whitespace()));
    }
    if c.is_alphabetic() || c == '_' {
        return (TokenKind::Identifier, run(at, &|i| chars[i].is_alphanumeric() || chars[i] == '_'));
    }
    if c.is_ascii_digit() || (c == '.' && following.is_ascii_digit()) {
        let hex = c == '0' && matches!(following, 'x' | 'X');
        let exponent = |i: usize| matches!(chars[i - 1], 'p' | 'P') || (!hex && matches!(chars[i - 1], 'e' | 'E'));
        let part = |i: usize| {
            chars[i].is_alphanumeric()
                || matches!(chars[i], '.' | '_' | '\'')
                || (matches!(chars[i], '+' | '-') && exponent(i))
        };
        return (TokenKind::Number, run(at + 1, &part));
    }
    if c == '"' || c == '\'' {
        let mut end = at + 1;
        while end < chars.len() && chars[end] != c {
            end += if chars[end] == '\\' { 2 } else { 1 };
        }
        return (TokenKind::String, (end + 1).min(chars.len()));
    }
    let double = (c == '[' || c == ':') && following == c;
    (TokenKind::Punctuation, at + 1 + usize::from(double))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_join_to_the_source() {
        let source =
            "# 1 \"a.metal\"\nfloat x = 1.5e-3f + 0x1eu - 'a'; // note\n[[buffer(0)]] a::b /* c */ \"s\\\"t\" .5h";
        let tokens = lex(source);
        assert_eq!(tokens.iter().map(|t| t.text.as_str()).collect::<String>(), source);
        let of = |kind| tokens.iter().filter(|t| t.kind == kind).map(|t| t.text.as_str()).collect::<Vec<_>>();
        assert_eq!(of(TokenKind::Number), ["1.5e-3f", "0x1eu", "0", ".5h"]);
        assert_eq!(of(TokenKind::String), ["'a'", "\"s\\\"t\""]);
        assert!(of(TokenKind::Punctuation).contains(&"[[") && of(TokenKind::Punctuation).contains(&"::"));
    }

    #[test]
    fn an_unterminated_literal_ends_with_the_file() {
        assert_eq!(lex("\"abc\\").len(), 1);
        assert_eq!(lex("/* abc").len(), 1);
    }
}
