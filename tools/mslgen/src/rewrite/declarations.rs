//! Finds the declarations that a launcher has to know: constants, threadgroup memory, kernels and their instances.
use super::{Rewriter, Scope};
use crate::{Binding, Error, FunctionConstant, Instance, Kernel};

impl Rewriter {
    /// Rewrites the statement at `i` if it is a `constant` variable or a function constant at program scope.
    pub(super) fn constant_variable(&mut self, i: usize) {
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

    /// Rewrites the statement at `i` if it is a `threadgroup` variable of a function. Pointers to threadgroup memory
    /// stay.
    pub(super) fn threadgroup_variable(&mut self, i: usize) {
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

    /// Takes in a kernel's signature or an explicit instantiation at `i`. Returns the position after an instantiation,
    /// which is dropped.
    pub(super) fn kernel(&mut self, i: usize) -> Result<Option<usize>, Error> {
        let attribute = self.text(i) == "[[" && self.text(i + 1) == "kernel";
        let starts = (self.text(i) == "kernel" || attribute) && self.top() == Scope::Namespace && self.parentheses == 0;
        if !starts {
            return Ok(None);
        }
        let returns = if attribute { self.attributes_end(i) } else { i + 1 };
        if self.text(self.statement) == "template" && self.text(self.statement + 1) != "<" {
            return Ok(Some(self.instantiation(i, returns)));
        }
        if self.text(returns) == "void" && self.text(returns + 2) == "(" {
            let most_threads = self.most_threads(i..returns, self.text(returns + 1))?;
            self.signature(returns + 1, most_threads)?;
            if attribute {
                self.drop(i..returns);
                self.set(i, "MSL_KERNEL");
            }
        }
        Ok(None)
    }

    /// Drops `template [[host_name("x")]] kernel void f<..>(..);` or `.. decltype(f<..>) f<..>;` and keeps its
    /// [`Instance`]. The launcher instantiates the template, since C++ has another grammar for such attributes.
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

    /// Returns the position after the `]]` that closes the attributes which open at `i`.
    fn attributes_end(&self, i: usize) -> usize {
        let mut at = i + 1;
        while !self.ended(at) && self.text(at) != "]" {
            at += 1;
        }
        at + 2
    }

    /// Returns N of `[[kernel, max_total_threads_per_threadgroup(N)]]`, if it is among `range`.
    fn most_threads(&self, range: std::ops::Range<usize>, name: &str) -> Result<Option<u32>, Error> {
        let Some(at) = range.into_iter().find(|j| self.text(*j) == "max_total_threads_per_threadgroup") else {
            return Ok(None);
        };
        let number = self.text(at + 2);
        let refused = || Error::Threads { kernel: name.to_owned(), number: number.to_owned() };
        number.parse().map(Some).map_err(|_| refused())
    }

    /// Binds the parameters of the kernel whose name is at `at`, and drops their attributes.
    fn signature(&mut self, at: usize, most_threads: Option<u32>) -> Result<(), Error> {
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
        self.unit.kernels.push(Kernel { name, is_template, most_threads, parameters });
        Ok(())
    }

    /// Returns the first position of each parameter of the list that starts at `at`, and the position after it; `None`
    /// if the list does not end.
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
}
