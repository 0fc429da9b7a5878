//! Rewrites in one pass over the tokens, which tracks scopes and statements.
use crate::lex::{Token, TokenKind, lex};
use crate::words::{is_vector, literal};
use crate::{Error, Instance, Unit};
use std::collections::HashMap;

mod declarations;

/// Rewrites MSL text that went through `clang -E`.
///
/// # Errors
/// [`Error`] if a kernel's parameters cannot be bound, or if a variable at program scope is not `constant`.
pub fn rewrite(source: &str) -> Result<Unit, Error> {
    let mut rewriter = Rewriter::new(source);
    let mut i = 0;
    while i < rewriter.significant.len() {
        if i == rewriter.statement {
            rewriter.constant_variable(i);
            rewriter.threadgroup_variable(i);
        }
        if let Some(next) = rewriter.kernel(i)? {
            (i, rewriter.statement) = (next, next);
            continue;
        }
        rewriter.word(i);
        rewriter.scope(i)?;
        i += 1;
    }
    Ok(rewriter.finish())
}

/// What a pair of braces encloses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scope {
    Namespace,
    Class,
    Function,
    /// An initialiser or an enumeration.
    Other,
}

/// The first words of statements at program scope that declare no variable.
const NO_VARIABLE: [&str; 13] = [
    "using",
    "typedef",
    "struct",
    "class",
    "enum",
    "union",
    "template",
    "static_assert",
    "namespace",
    "extern",
    "friend",
    "#pragma",
    "",
];

struct Rewriter {
    tokens: Vec<Token>,
    /// The indices of the tokens that are not white space. A "position" in this module is an index of this list.
    significant: Vec<usize>,
    /// Text to be inserted before tokens, by their indices.
    before: HashMap<usize, String>,
    /// Text to be inserted after tokens, by their indices.
    after: HashMap<usize, String>,
    unit: Unit,
    scopes: Vec<Scope>,
    /// The position at which the current statement starts.
    statement: usize,
    /// The number of open parentheses.
    parentheses: i32,
}

impl Rewriter {
    fn new(source: &str) -> Self {
        let tokens = lex(source);
        let significant = (0..tokens.len()).filter(|i| tokens[*i].kind != TokenKind::Space).collect();
        Rewriter {
            tokens,
            significant,
            before: HashMap::new(),
            after: HashMap::new(),
            unit: Unit::default(),
            scopes: vec![Scope::Namespace],
            statement: 0,
            parentheses: 0,
        }
    }

    fn finish(mut self) -> Unit {
        for (i, token) in self.tokens.iter().enumerate() {
            for text in [self.before.get(&i), Some(&token.text), self.after.get(&i)].into_iter().flatten() {
                self.unit.text.push_str(text);
            }
        }
        for kernel in self.unit.kernels.iter().filter(|kernel| !kernel.is_template) {
            let name = || kernel.name.clone();
            self.unit.instances.push(Instance { host_name: name(), expression: name(), kernel: name() });
        }
        self.unit
    }

    /// Returns the text at a position as it is now; it is empty past the end and where a token was dropped.
    fn text(&self, i: usize) -> &str {
        self.significant.get(i).map_or("", |token| &self.tokens[*token].text)
    }

    fn ended(&self, i: usize) -> bool {
        i >= self.significant.len()
    }

    fn is_identifier(&self, i: usize) -> bool {
        self.significant.get(i).is_some_and(|token| self.tokens[*token].kind == TokenKind::Identifier)
    }

    fn set(&mut self, i: usize, text: impl Into<String>) {
        self.tokens[self.significant[i]].text = text.into();
    }

    fn drop(&mut self, range: std::ops::Range<usize>) {
        for i in range.start..range.end.min(self.significant.len()) {
            self.set(i, "");
        }
    }

    fn insert_before(&mut self, i: usize, text: &str) {
        self.before.entry(self.significant[i]).or_default().push_str(text);
    }

    fn insert_after(&mut self, i: usize, text: &str) {
        self.after.entry(self.significant[i]).or_default().push_str(text);
    }

    fn join(&self, range: std::ops::Range<usize>) -> String {
        range.map(|i| self.text(i)).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
    }

    fn top(&self) -> Scope {
        self.scopes.last().copied().unwrap_or(Scope::Namespace)
    }

    /// Returns the position after the bracket that closes the one at `i`.
    fn closed(&self, i: usize, open: &str, close: &str) -> usize {
        let (mut depth, mut at) = (0, i);
        while !self.ended(at) {
            depth += i32::from(self.text(at) == open) - i32::from(self.text(at) == close);
            at += 1;
            if depth == 0 {
                break;
            }
        }
        at
    }

    /// Rewrites the token at `i` if it is a literal, an address space or a vector constructor.
    fn word(&mut self, i: usize) {
        let text = self.text(i).to_owned();
        if self.tokens[self.significant[i]].kind == TokenKind::Number {
            if let Some(number) = literal(&text) {
                self.set(i, number);
            }
            return;
        }
        let previous = if i == 0 { "" } else { self.text(i - 1) };
        if matches!(text.as_str(), "device" | "constant" | "threadgroup" | "thread" | "kernel") {
            self.set(i, format!("MSL_{}", text.to_uppercase()));
        } else if is_vector(&text) && self.text(i + 1) == "(" && !matches!(previous, "." | "struct") {
            self.set(i, format!("MSL_CTOR({text})"));
        } else if text == "vec" && self.text(i + 1) == "<" {
            let after = self.closed(i + 1, "<", ">");
            if self.text(after) == "(" {
                self.insert_before(i, "MSL_CTOR(");
                self.insert_after(after - 1, ")");
            }
        }
    }

    /// Tracks scopes and statements at `i`.
    fn scope(&mut self, i: usize) -> Result<(), Error> {
        match self.text(i) {
            "(" => self.parentheses += 1,
            ")" => self.parentheses -= 1,
            "{" => self.open(i),
            "}" => {
                let closed = self.scopes.pop().unwrap_or(Scope::Namespace);
                if matches!(closed, Scope::Function | Scope::Namespace) {
                    self.statement = i + 1;
                }
            }
            ";" if self.parentheses == 0 => {
                self.check_program_scope(i)?;
                self.statement = i + 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// Opens the scope whose brace is at `i`.
    fn open(&mut self, i: usize) {
        let head: Vec<&str> = (self.statement..i).map(|j| self.text(j)).filter(|text| !text.is_empty()).collect();
        let (called, last) = (head.contains(&"("), head.last().copied().unwrap_or(""));
        let outside = matches!(self.top(), Scope::Namespace | Scope::Class);
        let has = |words: &[&str]| head.iter().any(|text| words.contains(text));
        let kind = if !called && has(&["namespace"]) {
            Scope::Namespace
        } else if !called && has(&["struct", "class", "union"]) {
            Scope::Class
        } else if (outside && called && (matches!(last, ")" | "const") || last.starts_with("MSL_")))
            || self.top() == Scope::Function
        {
            Scope::Function
        } else {
            Scope::Other
        };
        if kind == Scope::Function && outside {
            let mut at = self.statement;
            if self.text(at) == "template" {
                at = self.closed(at + 1, "<", ">");
            }
            while matches!(self.text(at), "" | "public" | "private" | ":") && at < i {
                at += 1;
            }
            if !matches!(self.text(at), "kernel" | "MSL_KERNEL") {
                self.insert_before(at, "MSL_FN ");
            }
        }
        self.scopes.push(kind);
        if kind != Scope::Other {
            self.statement = i + 1;
        }
    }

    /// Refuses the statement that ends at `i` if it declares a variable at program scope that is not `constant`.
    fn check_program_scope(&self, i: usize) -> Result<(), Error> {
        let head: Vec<&str> = (self.statement..i).map(|j| self.text(j)).filter(|text| !text.is_empty()).collect();
        let exempt = NO_VARIABLE.contains(head.first().unwrap_or(&""))
            || head.iter().any(|text| matches!(*text, "MSL_CONSTVAR" | "MSL_FCVAR"));
        let position = |wanted: &str| head.iter().position(|text| *text == wanted);
        let variable = match (position("="), position("(")) {
            (_, None) => true,
            (assigned, Some(called)) => assigned.is_some_and(|assigned| assigned < called),
        };
        if self.top() == Scope::Namespace && !exempt && head.len() > 1 && variable {
            return Err(Error::ProgramScope(head.join(" ")));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
