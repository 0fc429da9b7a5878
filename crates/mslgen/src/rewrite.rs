//! The rewriter: one pass over the tokens that tracks scopes and statements.
use crate::lex::{Kind, Token, lex};
use crate::words::{is_vector, literal};
use crate::{Binding, Error, FunctionConstant, Instance, Kernel, Unit};
use std::collections::HashMap;

/// Rewrites MSL text that went through `clang -E`.
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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scope {
    Namespace,
    Class,
    Function,
    /// Initialisers and enumerations.
    Other,
}

/// Statements of a namespace that declare no variable.
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
    /// Indices of the tokens that are not white space; positions below are positions in here.
    significant: Vec<usize>,
    before: HashMap<usize, String>,
    after: HashMap<usize, String>,
    unit: Unit,
    scopes: Vec<Scope>,
    /// Where the current statement starts.
    statement: usize,
    parentheses: i32,
}

impl Rewriter {
    fn new(source: &str) -> Self {
        let tokens = lex(source);
        let significant = (0..tokens.len()).filter(|i| tokens[*i].kind != Kind::Space).collect();
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

    /// Text at a position as it is now; nothing past the end or where a token was dropped.
    fn text(&self, i: usize) -> &str {
        self.significant.get(i).map_or("", |token| &self.tokens[*token].text)
    }

    fn ended(&self, i: usize) -> bool {
        i >= self.significant.len()
    }

    fn is_identifier(&self, i: usize) -> bool {
        self.significant.get(i).is_some_and(|token| self.tokens[*token].kind == Kind::Identifier)
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

    /// After the bracket that closes the one at `i`.
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

    /// A `constant` variable or function constant at namespace scope.
    fn constant_variable(&mut self, i: usize) {
        let at = i + usize::from(matches!(self.text(i), "static" | "inline" | "constexpr"));
        if self.top() != Scope::Namespace || self.text(at) != "constant" {
            return;
        }
        let (mut name_at, mut index, mut depth, mut j) = (None, None, 0, at);
        while !(self.ended(j) || (self.text(j) == ";" && depth == 0)) {
            match self.text(j) {
                "(" if depth == 0 && name_at.is_none() => return,
                "[[" if self.text(j + 1) == "function_constant" => {
                    index = self.text(j + 3).parse::<u32>().ok();
                    name_at = name_at.or(Some(j - 1));
                }
                "[" | "=" | "{" => name_at = name_at.or(Some(j - 1)),
                _ => {}
            }
            depth += i32::from(matches!(self.text(j), "{" | "(")) - i32::from(matches!(self.text(j), "}" | ")"));
            j += 1;
        }
        let name_at = name_at.unwrap_or(j - 1);
        let name = self.text(name_at).to_owned();
        let Some(index) = index else {
            self.set(at, "MSL_CONSTVAR");
            self.unit.constants.push(name);
            return;
        };
        let ty = self.join(at + 1..name_at);
        self.set(at, "MSL_FCVAR");
        self.drop(name_at + 1..j);
        self.insert_after(name_at, &format!(" MSL_FCINIT({index})"));
        if !self.ended(j) {
            self.insert_after(j, &format!(" MSL_FCDEF({name})"));
        }
        self.unit.function_constants.push(FunctionConstant { index, name, ty });
    }

    /// A `threadgroup` variable of a function; pointers to threadgroup memory are left alone.
    fn threadgroup_variable(&mut self, i: usize) {
        if self.top() != Scope::Function || self.text(i) != "threadgroup" {
            return;
        }
        let (mut names, mut angles, mut depth, mut j) = (Vec::new(), 0, 0, i + 1);
        while !self.ended(j) {
            let text = self.text(j);
            if depth == 0 && (text == "=" || (names.is_empty() && matches!(text, "*" | "&"))) {
                return;
            }
            angles += i32::from(text == "<") - i32::from(text == ">");
            if depth == 0 && angles == 0 && matches!(text, "[" | "," | ";") && j > i + 1 && self.is_identifier(j - 1) {
                names.push(self.text(j - 1).to_owned());
            }
            depth += i32::from(matches!(text, "[" | "(")) - i32::from(matches!(text, "]" | ")"));
            if text == ";" {
                break;
            }
            j += 1;
        }
        if names.is_empty() || self.ended(j) {
            return;
        }
        self.set(i, "MSL_TGVAR");
        let touches: String = names.iter().map(|name| format!(" MSL_TG_TOUCH({name})")).collect();
        self.insert_after(j, &touches);
    }

    /// A kernel's signature, or an explicit instantiation: the position after it.
    fn kernel(&mut self, i: usize) -> Result<Option<usize>, Error> {
        let attribute = self.text(i) == "[[" && self.text(i + 1) == "kernel";
        let starts = (self.text(i) == "kernel" || attribute) && self.top() == Scope::Namespace && self.parentheses == 0;
        if !starts {
            return Ok(None);
        }
        let returns = if attribute { i + 4 } else { i + 1 };
        if self.text(self.statement) == "template" && self.text(self.statement + 1) != "<" {
            return Ok(Some(self.instantiation(i, returns)));
        }
        if self.text(returns) == "void" && self.text(returns + 2) == "(" {
            self.signature(returns + 1)?;
            if attribute {
                self.drop(i..i + 4);
            }
        }
        Ok(None)
    }

    /// `template [[host_name("x")]] kernel void f<..>(..);` or `.. decltype(f<..>) f<..>;`. It is dropped: the launcher
    /// instantiates, which keeps differences of attribute grammar out.
    fn instantiation(&mut self, i: usize, returns: usize) -> usize {
        let mut host_name = String::new();
        for j in self.statement..=i {
            if self.text(j) == "host_name" {
                let strings = (j + 2..).map(|q| self.text(q)).take_while(|text| text.starts_with('"'));
                host_name = strings.map(|text| text.trim_matches('"')).collect();
            }
        }
        let (mut end, mut depth) = (i, 0);
        while !(self.ended(end) || (self.text(end) == ";" && depth == 0)) {
            depth += i32::from(self.text(end) == "(") - i32::from(self.text(end) == ")");
            end += 1;
        }
        let at = if self.text(returns) == "decltype" { self.closed(returns + 1, "(", ")") } else { returns + 1 };
        let after = if self.text(at + 1) == "<" { self.closed(at + 1, "<", ">") } else { at + 1 };
        let (kernel, expression) = (self.text(at).to_owned(), self.join(at..after));
        if host_name.is_empty() {
            host_name.clone_from(&kernel);
        }
        self.unit.instances.push(Instance { host_name, expression, kernel });
        self.drop(self.statement..end + 1);
        end + 1
    }

    /// Binds the parameters of the kernel whose name is at `at`, and drops their attributes.
    fn signature(&mut self, at: usize) -> Result<(), Error> {
        let name = self.text(at).to_owned();
        let mut parameters = Vec::new();
        for (start, end) in self.parameters(at + 2).ok_or_else(|| Error::Unterminated(name.clone()))? {
            let missing = || Error::NoAttribute { kernel: name.clone(), parameter: self.join(start..end) };
            let attribute = (start..end).find(|j| self.text(*j) == "[[").ok_or_else(missing)?;
            let declaration = self.join(start..attribute);
            let index = self.text(attribute + 3).parse().unwrap_or(0);
            let binding = match self.text(attribute + 1) {
                "buffer" if declaration.contains('*') => Binding::Pointer(index),
                "buffer" => Binding::Reference(index),
                "threadgroup" => Binding::Threadgroup(index),
                builtin => Binding::Builtin(builtin.to_owned()),
            };
            self.drop(attribute..end);
            parameters.push((binding, declaration));
        }
        let is_template = self.text(self.statement) == "template";
        self.unit.kernels.push(Kernel { name, is_template, parameters });
        Ok(())
    }

    /// First and last position of each parameter of a list that starts at `at`.
    fn parameters(&self, at: usize) -> Option<Vec<(usize, usize)>> {
        let (mut found, mut start, mut depth, mut j) = (Vec::new(), at, 0, at);
        loop {
            match self.text(j) {
                "" => return None,
                "(" | "[" | "<" => depth += 1,
                "[[" => depth += 2,
                ")" if depth == 0 => break,
                ")" | "]" | ">" => depth -= 1,
                "," if depth == 0 => {
                    found.push((start, j));
                    start = j + 1;
                }
                _ => {}
            }
            j += 1;
        }
        if j > start {
            found.push((start, j));
        }
        Some(found)
    }

    /// Literals, address spaces, vector constructors.
    fn word(&mut self, i: usize) {
        let text = self.text(i).to_owned();
        if self.tokens[self.significant[i]].kind == Kind::Number {
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

    /// Variables at program scope must be `constant`.
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
