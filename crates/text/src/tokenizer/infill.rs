//! Prompts for fill-in-the-middle: a model that was trained for it writes what lies between a prefix and a suffix.
use super::Tokenizer;
use crate::error::TextError;
use crate::special::{SpecialTexts, free_characters, taken_characters};
use std::collections::HashSet;

/// The tokens with which a family of models tells the parts of such a prompt apart.
#[derive(Debug)]
struct Form {
    prefix: &'static str,
    suffix: &'static str,
    /// Follows the prefix and the suffix. `None`: the prefix comes last, and nothing follows it.
    middle: Option<&'static str>,
}

const FORMS: [Form; 8] = [
    // Qwen2.5-Coder, CodeGemma
    Form { prefix: "<|fim_prefix|>", suffix: "<|fim_suffix|>", middle: Some("<|fim_middle|>") },
    // StarCoder, Granite
    Form { prefix: "<fim_prefix>", suffix: "<fim_suffix>", middle: Some("<fim_middle>") },
    // SantaCoder
    Form { prefix: "<fim-prefix>", suffix: "<fim-suffix>", middle: Some("<fim-middle>") },
    // DeepSeek
    Form { prefix: "<｜fim▁begin｜>", suffix: "<｜fim▁hole｜>", middle: Some("<｜fim▁end｜>") },
    // CodeLlama
    Form { prefix: "▁<PRE>", suffix: "▁<SUF>", middle: Some("▁<MID>") },
    Form { prefix: "<PRE>", suffix: "<SUF>", middle: Some("<MID>") },
    // GLM
    Form { prefix: "<|code_prefix|>", suffix: "<|code_suffix|>", middle: Some("<|code_middle|>") },
    // Codestral
    Form { prefix: "[PREFIX]", suffix: "[SUFFIX]", middle: None },
];
/// Tokens before the name of a repository, whose files follow.
const REPOSITORY_NAMES: [&str; 4] = ["<|repo_name|>", "<repo_name>", "<reponame>", "<fim-repo>"];
/// Tokens before each file of a repository.
const FILE_SEPARATORS: [&str; 3] = ["<|file_sep|>", "<file_sep>", "<|file_separator|>"];
/// Tokens that end what is filled in, beside those above and the model's own ends.
const ENDS: [&str; 5] = ["<|fim_pad|>", "<fim_pad>", "<fim-pad>", "▁<EOT>", "<EOT>"];

/// How a model is asked to fill in the middle.
#[derive(Debug)]
pub struct FillInTheMiddle {
    form: &'static Form,
    repository_name: Option<&'static str>,
    file_separator: Option<&'static str>,
    /// The ids of the form's tokens and of those for repositories.
    controls: Vec<u32>,
    ends: Vec<u32>,
    /// The texts of these tokens and of all special ones.
    texts: SpecialTexts,
}

/// The text around a gap that is to be filled. All of it is text, also where it reads like a special token.
#[derive(Debug, Clone, Copy, Default)]
pub struct Infill<'a> {
    /// The text before the gap.
    pub prefix: &'a str,
    /// The text after the gap.
    pub suffix: &'a str,
    /// How the middle begins; the answer continues it.
    pub begun: &'a str,
    /// Other files, by name and text, that the model shall know.
    pub files: &'a [(String, String)],
}

impl FillInTheMiddle {
    /// What the vocabulary of `inner` has for it. `None` for models that were not trained for it.
    ///
    /// Errors: more special tokens than can be searched for.
    pub(super) fn of(inner: &tokenizers::Tokenizer) -> Result<Option<Self>, aho_corasick::BuildError> {
        let added = inner.get_added_tokens_decoder();
        let id = |text: &str| inner.token_to_id(text).filter(|id| added.contains_key(id));
        let first = |texts: &[&'static str]| texts.iter().copied().find(|text| id(text).is_some());
        let Some(form) = FORMS.iter().find(|form| form.texts().all(|text| id(text).is_some())) else {
            return Ok(None);
        };
        let (repository_name, file_separator) = (first(&REPOSITORY_NAMES), first(&FILE_SEPARATORS));
        let extra = || repository_name.into_iter().chain(file_separator);
        let mut texts: Vec<&str> = form.texts().chain(extra()).collect();
        texts.extend(added.values().filter(|token| token.special).map(|token| token.content.as_str()));
        Ok(Some(FillInTheMiddle {
            form,
            repository_name,
            file_separator,
            controls: form.texts().chain(extra()).filter_map(id).collect(),
            ends: ENDS.into_iter().chain(extra()).filter_map(id).collect(),
            texts: SpecialTexts::new(texts.into_iter())?,
        }))
    }

    /// The ids of the tokens that end what is filled in, beside the model's own ends.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The token ids of the prompt, with BOS where the model expects one before a text.
    ///
    /// Errors: the tokenizer fails at the text.
    pub fn encode(&self, tokenizer: &Tokenizer, infill: &Infill<'_>) -> Result<Vec<u32>, TextError> {
        let parts = self.parts(infill);
        let given = parts.iter().filter_map(Part::given);
        let taken: HashSet<char> = given.flat_map(taken_characters).collect();
        let mark = free_characters(&taken).next();
        let mark = mark.ok_or_else(|| TextError::Encode("it holds every character".into()))?;
        let mut text = String::new();
        let mut controls = Vec::new();
        for part in &parts {
            match part {
                Part::Control(token) => {
                    text += token;
                    controls.extend(tokenizer.inner.token_to_id(token));
                }
                Part::Given(given) => text += self.texts.marked(given, mark).as_deref().unwrap_or(given),
            }
        }
        let ids = tokenizer.encode_marked_beside(&text, mark, true, &self.controls)?;
        if ids.iter().copied().filter(|id| self.controls.contains(id)).ne(controls) {
            return Err(TextError::Encode("its parts cannot be told apart by this model's tokens".into()));
        }
        Ok(ids)
    }

    /// The prompt's parts in order.
    fn parts<'a>(&self, infill: &Infill<'a>) -> Vec<Part<'a>> {
        let Form { prefix, suffix, middle } = self.form;
        let mut parts = self.files(infill.files);
        let (before, after) = ([Part::Control(prefix), Part::Given(infill.prefix)], Part::Given(infill.suffix));
        match middle {
            Some(middle) => {
                parts.extend(before);
                parts.extend([Part::Control(suffix), after, Part::Control(middle)]);
            }
            None => {
                parts.extend([Part::Control(suffix), after]);
                parts.extend(before);
            }
        }
        parts.push(Part::Given(infill.begun));
        parts
    }

    /// The parts before the file with the gap. Names that a form asks for and that are not known are those that
    /// llama.cpp's server gives.
    fn files<'a>(&self, files: &'a [(String, String)]) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        if files.is_empty() {
            return parts;
        }
        if let Some(token) = self.repository_name {
            parts.extend([Part::Control(token), Part::Given("myproject\n")]);
        }
        for (name, text) in files {
            if let Some(token) = self.file_separator {
                parts.extend([Part::Control(token), Part::Given(name), Part::Given("\n")]);
            }
            parts.extend([Part::Given(text), Part::Given("\n")]);
        }
        if let Some(token) = self.file_separator {
            parts.extend([Part::Control(token), Part::Given("filename\n")]);
        }
        parts
    }
}

impl Form {
    fn texts(&self) -> impl Iterator<Item = &'static str> + use<> {
        [self.prefix, self.suffix].into_iter().chain(self.middle)
    }
}

/// A part of a prompt.
enum Part<'a> {
    /// A token by its text.
    Control(&'static str),
    /// A text that stays text.
    Given(&'a str),
}

impl<'a> Part<'a> {
    fn given(&self) -> Option<&'a str> {
        match self {
            Part::Given(text) => Some(text),
            Part::Control(_) => None,
        }
    }
}
