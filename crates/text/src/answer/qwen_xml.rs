//! Calls as XML between `<tool_call>` and `</tool_call>`.
use super::hermes::{CLOSE, OPEN};
use super::json::{escape_into, quoted};
use super::output::{Output, is_space};
use super::schema::{KnownTools, ParameterTypes};
use super::section::{CallReader, CallSyntax, Opening, ReadFlow};
use super::tags::{Enclosed, Scanned, TagScanner};
use super::typed;

const FUNCTION: &str = "<function=";
const FUNCTION_END: &str = "</function>";
const PARAMETER: &str = "<parameter=";
const PARAMETER_END: &str = "</parameter>";

/// The format's syntax.
pub(super) const CALLS: CallSyntax = CallSyntax {
    // Models leave the first tag out at times.
    openings: &[Opening::Tag(OPEN), Opening::Kept(FUNCTION)],
    close: Some(CLOSE),
    inner_tags: &[],
    is_in_template: |source| [OPEN, FUNCTION, PARAMETER].iter().all(|tag| source.contains(tag)),
    begin: |tools, opening| Box::new(QwenXml::new(tools, opening != Opening::Tag(OPEN))),
};

/// Reads the calls of a section.
#[derive(Debug)]
struct QwenXml {
    tools: KnownTools,
    /// The section is one call, since it began with one; then a tool must have its name.
    single: bool,
    place: XmlPlace,
    scanner: TagScanner,
    /// The name that is being read, of a function or a parameter.
    word: String,
    function: String,
    has_parameters: bool,
}

/// Where the reading of a section is.
#[derive(Debug)]
enum XmlPlace {
    /// Outside of calls.
    Between,
    /// Within a function's name.
    Function,
    /// Between parameters.
    Parameters,
    /// Within a parameter's name.
    Key,
    /// Within a value that can be nothing but a string.
    Text(Enclosed),
    /// Within a value that is kept up to its end, since its type is then known.
    Value(Enclosed, ParameterTypes, String),
    /// Within a call that broke.
    Broken,
}

impl QwenXml {
    fn new(tools: &KnownTools, single: bool) -> Self {
        QwenXml {
            tools: tools.clone(),
            single,
            place: XmlPlace::Between,
            scanner: TagScanner::new(vec![OPEN, CLOSE, FUNCTION, FUNCTION_END, PARAMETER, PARAMETER_END]),
            word: String::new(),
            function: String::new(),
            has_parameters: false,
        }
    }

    /// Reads up to the next tag outside of values: how it goes on, and how many bytes were read if it does.
    fn read_to_tag(&mut self, text: &str, out: &mut Output) -> (ReadFlow, usize) {
        let Scanned { plain, tag } = self.scanner.push(text);
        match self.place {
            XmlPlace::Between => out.text(&plain),
            XmlPlace::Parameters if !plain.chars().all(is_space) => self.place = XmlPlace::Broken,
            _ => {}
        }
        let Some((tag, read)) = tag else { return (ReadFlow::More, text.len()) };
        match (&self.place, tag) {
            (XmlPlace::Between, FUNCTION) => self.place = XmlPlace::Function,
            (XmlPlace::Parameters, PARAMETER) => self.place = XmlPlace::Key,
            (XmlPlace::Parameters, FUNCTION_END | CLOSE) => {
                out.arguments("}");
                out.close_call();
                self.place = XmlPlace::Between;
            }
            (XmlPlace::Parameters, _) => self.place = XmlPlace::Broken,
            _ => {}
        }
        match tag {
            CLOSE => (ReadFlow::Closed(read), 0),
            FUNCTION_END if self.single => (ReadFlow::Closed(read), 0),
            OPEN => (ReadFlow::Reopened(read), 0),
            _ => (ReadFlow::More, read),
        }
    }

    /// Reads a name up to the bracket after it: how it goes on, and how many bytes were read if it does.
    fn in_name(&mut self, text: &str, out: &mut Output) -> (ReadFlow, usize) {
        let end = text.find(['>', '<', '\n']);
        self.word.push_str(text.get(..end.unwrap_or(text.len())).unwrap_or_default());
        let Some(end) = end else { return (ReadFlow::More, text.len()) };
        let closed = text.as_bytes().get(end) == Some(&b'>');
        let word = std::mem::take(&mut self.word);
        let name = word.trim();
        if matches!(self.place, XmlPlace::Key) {
            if closed {
                self.begin_value(name, out);
                return (ReadFlow::More, end + 1);
            }
            self.place = XmlPlace::Broken;
            return (ReadFlow::More, end);
        }
        if closed && !name.is_empty() && (!self.single || self.tools.has(name)) {
            out.open_call(name.to_owned());
            out.arguments("{");
            self.function = name.to_owned();
            self.has_parameters = false;
            self.place = XmlPlace::Parameters;
            return (ReadFlow::More, end + 1);
        }
        out.text(FUNCTION);
        out.text(&word);
        self.place = XmlPlace::Between;
        if self.single { (ReadFlow::Closed(end), 0) } else { (ReadFlow::More, end) }
    }

    fn begin_value(&mut self, key: &str, out: &mut Output) {
        if std::mem::replace(&mut self.has_parameters, true) {
            out.arguments(", ");
        }
        out.arguments(&quoted(key));
        out.arguments(": ");
        let text = Enclosed::new(vec![PARAMETER_END]);
        let types = self.tools.types(&self.function, key);
        self.place = if types == ParameterTypes::STRING {
            out.arguments("\"");
            XmlPlace::Text(text)
        } else {
            XmlPlace::Value(text, types, String::new())
        };
    }
}

impl CallReader for QwenXml {
    fn push(&mut self, text: &str, out: &mut Output) -> ReadFlow {
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let read = match &mut self.place {
                XmlPlace::Text(value) => {
                    let mut json = String::new();
                    let end = value.push(rest, |piece| piece.chars().for_each(|c| escape_into(c, &mut json)));
                    if end.is_some() {
                        json.push('"');
                        self.place = XmlPlace::Parameters;
                    }
                    out.arguments(&json);
                    end.map_or(rest.len(), |(_, read)| read)
                }
                XmlPlace::Value(value, types, held) => match value.push(rest, |piece| held.push_str(piece)) {
                    None => rest.len(),
                    Some((_, read)) => {
                        out.arguments(&typed::to_json(held, *types));
                        self.place = XmlPlace::Parameters;
                        read
                    }
                },
                place => {
                    let in_name = matches!(place, XmlPlace::Function | XmlPlace::Key);
                    match if in_name { self.in_name(rest, out) } else { self.read_to_tag(rest, out) } {
                        (ReadFlow::More, read) => read,
                        (flow, _) => return flow.after(at),
                    }
                }
            };
            at += read;
        }
        ReadFlow::More
    }

    fn finish(&mut self, out: &mut Output) {
        match &self.place {
            // What is held back directly after a call began the closing tag.
            XmlPlace::Between if !out.is_after_section() => out.text(&self.scanner.flush()),
            XmlPlace::Function => {
                out.text(FUNCTION);
                out.text(&self.word);
            }
            _ => {}
        }
    }

    fn has_opened(&self) -> bool {
        // A tag has opened the section.
        true
    }
}
