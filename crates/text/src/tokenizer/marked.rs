//! Texts in which some special tokens are text, because a mark breaks them.
use super::Tokenizer;
use crate::error::TextError;
use crate::special::{free_characters, taken_characters};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use tokenizers::tokenizer::{AddedToken, AddedVocabulary, Model, OffsetReferential, OffsetType, PreTokenizer};

/// A special token of a text.
struct Special {
    /// Its bytes, with the white space around it that it takes in.
    range: Range<usize>,
    id: u32,
}

/// Characters that stand for special tokens in a text.
struct Guards {
    /// Stands for those that are recognised as they are written.
    plain: String,
    /// Stand for those that are recognised in the normalised text, where what is around them decides, by their ids.
    normalized: BTreeMap<u32, String>,
    /// The ids that the characters are recognised by.
    ids: Vec<u32>,
}

impl Tokenizer {
    /// The token ids of `text` without its marks. A special token with `mark` in it is text; all others are recognised.
    ///
    /// A text without special tokens that are broken gives the ids of [`encode`](Tokenizer::encode): what lies between
    /// special tokens is normalised, split and merged as there.
    ///
    /// Errors: the tokenizer fails at the text.
    pub(crate) fn encode_marked(
        &self,
        text: &str,
        mark: char,
        add_special_tokens: bool,
    ) -> Result<Vec<u32>, TextError> {
        self.encode_marked_beside(text, mark, add_special_tokens, &[])
    }

    /// Does the same as [`encode_marked`](Tokenizer::encode_marked), where the added tokens `controls` are taken for
    /// special ones, whatever the model's files say.
    pub(super) fn encode_marked_beside(
        &self,
        text: &str,
        mark: char,
        add_special_tokens: bool,
        controls: &[u32],
    ) -> Result<Vec<u32>, TextError> {
        let fail = |e: tokenizers::Error| TextError::Encode(e.to_string());
        let special = self.special_in(text, controls);
        let (model, normalizer) = (self.inner.get_model(), self.inner.get_normalizer());
        // Special tokens are recognised by now. Where they stand, characters that are tokens of their own keep what is
        // before and after them apart, in a vocabulary that knows no special tokens.
        let mut vocabulary = self.inner.get_added_vocabulary().clone();
        vocabulary.set_encode_special_tokens(true);
        if !controls.is_empty() {
            let added = self.inner.get_added_tokens_decoder();
            let controls = controls.iter().filter_map(|id| added.get(id)).map(|token| token.clone().special(true));
            vocabulary.add_tokens(controls, model, normalizer).map_err(fail)?;
        }
        let guards = self.guards(text, mark, &special, &mut vocabulary)?;
        let guarded = self.guarded(text, mark, &special, &guards);

        let mut pieces = vocabulary.extract_and_normalize(normalizer, &guarded);
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces).map_err(fail)?;
        }
        pieces.tokenize(|piece| model.tokenize(piece.get())).map_err(fail)?;
        let encoding = pieces.into_encoding(None, 0, OffsetType::None).map_err(fail)?;
        let encoding = self.inner.post_process(encoding, None, add_special_tokens).map_err(fail)?;
        let mut special = special.into_iter();
        let ids = encoding.get_ids().iter().filter_map(|id| match guards.ids.contains(id) {
            true => special.next().map(|special| special.id),
            false => Some(*id),
        });
        Ok(self.with_ends(ids.collect(), text, add_special_tokens))
    }

    /// The special tokens, and those of `controls`, that are recognised in `text`.
    fn special_in(&self, text: &str, controls: &[u32]) -> Vec<Special> {
        let pieces = self.inner.get_added_vocabulary().extract_and_normalize(self.inner.get_normalizer(), text);
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let special = pieces.into_iter().filter_map(|(_, (start, end), tokens)| {
            let id = tokens.as_ref()?.first()?.id;
            (self.is_special(id) || controls.contains(&id)).then_some(Special { range: start..end, id })
        });
        special.collect()
    }

    /// Adds guards for `special`, characters that `text` does not hold, to the vocabulary.
    fn guards(
        &self,
        text: &str,
        mark: char,
        special: &[Special],
        vocabulary: &mut AddedVocabulary,
    ) -> Result<Guards, TextError> {
        let taken: HashSet<char> = taken_characters(text).chain([mark]).collect();
        let mut free = free_characters(&taken);
        let mut ids = Vec::new();
        let mut add = |like: AddedToken| -> Result<String, TextError> {
            let content = free.next().ok_or_else(|| TextError::Encode("it holds every character".into()))?.to_string();
            let token = AddedToken { content: content.clone(), special: false, ..like };
            let (model, normalizer) = (self.inner.get_model(), self.inner.get_normalizer());
            vocabulary.add_tokens([token], model, normalizer).map_err(|e| TextError::Encode(e.to_string()))?;
            ids.extend(vocabulary.token_to_id(&content, model));
            Ok(content)
        };
        let plain = add(AddedToken::from("", false).normalized(false))?;
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        let mut normalized = BTreeMap::new();
        for Special { id, .. } in special {
            if let Some(token) = added.get(id).filter(|token| token.normalized && !normalized.contains_key(id)) {
                normalized.insert(*id, add(token.clone())?);
            }
        }
        Ok(Guards { plain, normalized, ids })
    }

    /// `text` without marks, with a guard in place of each special token.
    fn guarded(&self, text: &str, mark: char, special: &[Special], guards: &Guards) -> String {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for Special { range, id } in special {
            out.extend(text[from..range.start].chars().filter(|c| *c != mark));
            match (guards.normalized.get(id), added.get(id)) {
                (Some(guard), Some(token)) => out.push_str(&text[range.clone()].replacen(&token.content, guard, 1)),
                _ => out.push_str(&guards.plain),
            }
            from = range.end;
        }
        out.extend(text[from..].chars().filter(|c| *c != mark));
        out
    }
}
