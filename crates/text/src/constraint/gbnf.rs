//! GBNF, llama.cpp's notation of grammars, in Lark's.
//!
//! GBNF knows single characters alone, while Lark's terminals take the longest match. Texts therefore become sequences
//! of characters, each a terminal of its own, so that the language stays the same.
use std::collections::BTreeMap;
use std::fmt::Write;

/// Parentheses that may be open at once.
const MAX_DEPTH: usize = 100;

/// Whether `rules` is GBNF rather than Lark: that is how it defines rules.
pub(super) fn is_gbnf(rules: &str) -> bool {
    rules.contains("::=")
}

/// The rules of a grammar whose first rule is `root`, with `start` in its place.
///
/// Errors: what is wrong, with its line.
pub(super) fn to_lark(rules: &str) -> Result<String, String> {
    let mut reader = GbnfReader { rest: rules, text: rules, names: BTreeMap::new() };
    let mut lark = String::new();
    let mut defined = Vec::new();
    reader.skip(true);
    while !reader.rest.is_empty() {
        let name = reader.name().ok_or_else(|| reader.wrong("the name of a rule"))?;
        reader.skip(false);
        reader.expect("::=")?;
        reader.skip(true);
        let body = reader.alternatives(0)?;
        let rule = reader.rule(name);
        let _ = writeln!(lark, "{rule}: {body}");
        defined.push(name);
        reader.skip(true);
    }
    match reader.names.keys().find(|name| !defined.contains(name)) {
        Some(missing) => Err(format!("the rule {missing} is used but not defined")),
        None if !defined.contains(&"root") => Err("there is no rule root".into()),
        None => Ok(lark),
    }
}

struct GbnfReader<'a> {
    rest: &'a str,
    text: &'a str,
    /// Lark's names of the rules, which may hold no hyphens or capitals.
    names: BTreeMap<&'a str, String>,
}

impl<'a> GbnfReader<'a> {
    fn wrong(&self, wanted: &str) -> String {
        let line = 1 + self.text[..self.text.len() - self.rest.len()].matches('\n').count();
        let found: String = self.rest.chars().take(20).take_while(|c| *c != '\n').collect();
        format!("line {line}: {found:?} stands where {wanted} should")
    }

    /// Lark's name of a rule.
    fn rule(&mut self, name: &'a str) -> String {
        let next = self.names.len();
        let new = || if name == "root" { "start".to_owned() } else { format!("rule_{next}") };
        self.names.entry(name).or_insert_with(new).clone()
    }

    /// Passes over spaces and comments, and over newlines if `lines` is set.
    fn skip(&mut self, lines: bool) {
        loop {
            self.rest = self.rest.trim_start_matches(|c| c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r')));
            if !self.rest.starts_with('#') {
                return;
            }
            self.rest = self.rest.trim_start_matches(|c| c != '\n');
        }
    }

    fn expect(&mut self, text: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(text).ok_or_else(|| self.wrong(text))?;
        Ok(())
    }

    fn name(&mut self) -> Option<&'a str> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        (!name.is_empty()).then(|| {
            self.rest = rest;
            name
        })
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// Alternatives up to a closing parenthesis or, outside of any, the end of the rule.
    fn alternatives(&mut self, depth: usize) -> Result<String, String> {
        if depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} parentheses are open at once"));
        }
        let mut alternatives = vec![Vec::new()];
        loop {
            self.skip(depth > 0);
            match self.rest.chars().next() {
                Some('|') => {
                    self.next();
                    // An alternative may begin on a line of its own.
                    self.skip(true);
                    alternatives.push(Vec::new());
                    continue;
                }
                None | Some(')' | '\n' | '\r') => {
                    let more = self.rest.trim_start().starts_with('|') && depth == 0;
                    if !more {
                        break;
                    }
                    self.skip(true);
                    continue;
                }
                _ => {}
            }
            let item = self.item(depth)?;
            let item = item + &self.repetition()?;
            if let Some(last) = alternatives.last_mut() {
                last.push(item);
            }
        }
        // Lark has no empty alternative; the empty text stands for it.
        let joined = |items: Vec<String>| if items.is_empty() { "\"\"".into() } else { items.join(" ") };
        Ok(alternatives.into_iter().map(joined).collect::<Vec<String>>().join(" | "))
    }

    fn item(&mut self, depth: usize) -> Result<String, String> {
        match self.rest.chars().next() {
            Some('"') => {
                self.next();
                self.literal()
            }
            Some('[') => {
                self.next();
                self.class()
            }
            Some('.') => {
                self.next();
                Ok("/(?s:.)/".into())
            }
            Some('(') => {
                self.next();
                let inner = self.alternatives(depth + 1)?;
                self.expect(")")?;
                Ok(format!("({inner})"))
            }
            _ => {
                let name = self.name().ok_or_else(|| self.wrong("a rule, a text, a class of characters or ("))?;
                Ok(self.rule(name))
            }
        }
    }

    /// `*`, `+`, `?` or `{m,n}` after an item, as it is in Lark too.
    fn repetition(&mut self) -> Result<String, String> {
        let mut found = String::new();
        if let Some(sign @ ('*' | '+' | '?')) = self.rest.chars().next() {
            self.next();
            found.push(sign);
        } else if self.rest.starts_with('{') {
            let end = self.rest.find('}').ok_or_else(|| self.wrong("{m,n}"))?;
            let inside = &self.rest[1..end];
            if !inside.chars().all(|c| c.is_ascii_digit() || c == ',' || c == ' ') {
                return Err(self.wrong("{m,n}"));
            }
            found = format!("{{{inside}}}");
            self.rest = &self.rest[end + 1..];
        }
        Ok(found)
    }

    /// A text up to its closing quote, character by character.
    fn literal(&mut self) -> Result<String, String> {
        let mut parts = Vec::new();
        loop {
            match self.character('"')? {
                Some(c) => parts.push(serde_json::Value::from(c.to_string()).to_string()),
                None if parts.is_empty() => return Ok("\"\"".into()),
                None => return Ok(format!("({})", parts.join(" "))),
            }
        }
    }

    /// A class of characters up to its closing bracket, as a regular expression.
    fn class(&mut self) -> Result<String, String> {
        let mut regex = String::from("/[");
        if let Some(rest) = self.rest.strip_prefix('^') {
            self.rest = rest;
            regex.push('^');
        }
        while let Some(first) = self.character(']')? {
            push_escaped(&mut regex, first);
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.next();
                let last = self.character(']')?.ok_or_else(|| self.wrong("the end of a range"))?;
                if last < first {
                    return Err(format!("the range {first:?} to {last:?} is empty"));
                }
                regex.push('-');
                push_escaped(&mut regex, last);
            }
        }
        regex += "]/";
        Ok(regex)
    }

    /// The next character of a text or class, with its escape undone; `None` at `end`, which is passed over.
    fn character(&mut self, end: char) -> Result<Option<char>, String> {
        let wrong = |reader: &Self| reader.wrong("the rest of a text or class");
        match self.next().ok_or_else(|| wrong(self))? {
            c if c == end => Ok(None),
            '\\' => {
                let kind = self.next().ok_or_else(|| wrong(self))?;
                let digits = match kind {
                    'n' => return Ok(Some('\n')),
                    'r' => return Ok(Some('\r')),
                    't' => return Ok(Some('\t')),
                    'x' => 2,
                    'u' => 4,
                    'U' => 8,
                    other => return Ok(Some(other)),
                };
                let code = self.rest.get(..digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
                let c = code.and_then(char::from_u32).ok_or_else(|| self.wrong("the number of a character"))?;
                self.rest = &self.rest[digits..];
                Ok(Some(c))
            }
            c => Ok(Some(c)),
        }
    }
}

/// Appends a character of a class to a regular expression between slashes.
fn push_escaped(regex: &mut String, c: char) {
    match c {
        '\n' => *regex += "\\n",
        '\r' => *regex += "\\r",
        '\t' => *regex += "\\t",
        c if c.is_ascii_alphanumeric() || !c.is_ascii() => regex.push(c),
        c => {
            let _ = write!(regex, "\\x{:02x}", u32::from(c));
        }
    }
}
