//! GGUF files: metadata and where each tensor lies, borrowed from the file's bytes.
//!
//! The format is described at <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. What a file
//! says about its own size is not believed: a length or an offset beyond the bytes that are there is an error, and no
//! memory is taken in proportion to one.
#![warn(missing_docs)]
mod array;
mod reader;
mod shards;
mod types;

use reader::Reader;
use std::collections::BTreeMap;
use std::ops::Range;
use thiserror::Error;

pub use array::{Array, Value};
pub use shards::{Split, shards};
pub use types::TensorType;

/// What is wrong with a file. The messages continue a sentence that begins with the file's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GgufError {
    /// The first bytes, which are given, are not `GGUF`.
    #[error("is not a GGUF file: it begins with {0:02x?}")]
    Magic(Vec<u8>),
    /// The version of the format is another than those that are read.
    #[error("has GGUF version {0}; known are 2 and 3, little-endian")]
    Version(u32),
    /// The file is shorter than it says.
    #[error("ends inside {what}: {needed} bytes at offset {offset} are needed, {left} are left")]
    Truncated {
        /// What was being read.
        what: String,
        /// Where it begins, in bytes from the start of the file.
        offset: usize,
        /// How many bytes it takes.
        needed: u64,
        /// How many bytes the file has from there on.
        left: usize,
    },
    /// Some part of the header is not as the format says.
    #[error("{what}: {message}")]
    Malformed {
        /// The part, such as `tensor NAME`.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// A key that is needed is not there.
    #[error("metadata {key} is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// The value of a key is of another type, or is not allowed.
    #[error("metadata {key} {message}")]
    Metadata {
        /// The key.
        key: String,
        /// The value and what is allowed.
        message: String,
    },
}

/// A tensor's place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The sizes of the dimensions, outermost first: the rows of a matrix, then the elements of a row.
    pub shape: Vec<usize>,
    /// How the elements are stored.
    pub kind: TensorType,
    /// The tensor's bytes, counted from the start of the file.
    pub range: Range<usize>,
}

/// The key-value pairs of a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata<'a>(BTreeMap<&'a str, Value<'a>>);

/// A file's header.
#[derive(Debug, Clone, PartialEq)]
pub struct Gguf<'a> {
    /// The key-value pairs.
    pub metadata: Metadata<'a>,
    /// The tensors by name.
    pub tensors: BTreeMap<&'a str, TensorInfo>,
}

/// The largest number of tensors, and of metadata entries, that is believed. No model has as many, and a list of as
/// many is small.
const MAX_ENTRIES: u64 = 1 << 17;
/// The largest number of dimensions of a tensor in ggml (`GGML_MAX_DIMS`).
const MAX_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: usize = 32;

impl<'a> Gguf<'a> {
    /// Reads the header of a whole file's bytes.
    ///
    /// Errors: whatever is not as the format says, with the key or tensor it is about, and tensors that do not lie in
    /// the file.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, GgufError> {
        let Header { metadata, infos, alignment, data } = Header::read(bytes)?;
        let mut tensors = BTreeMap::new();
        for info in infos {
            let placed = info.place(data, alignment, bytes.len())?;
            if tensors.insert(info.name, placed).is_some() {
                return Err(malformed(format!("tensor {}", info.name), "stands there twice"));
            }
        }
        Ok(Gguf { metadata, tensors })
    }
}

/// The length in bytes of the header of a file that begins with `bytes`: where the tensors' data begin.
///
/// Errors: [`GgufError::Truncated`] where `bytes` are less than the header; whatever is not as the format says.
pub fn header_len(bytes: &[u8]) -> Result<usize, GgufError> {
    Ok(Header::read(bytes)?.data)
}

/// What stands before the tensors' data.
struct Header<'a> {
    metadata: Metadata<'a>,
    infos: Vec<Info<'a>>,
    /// What offsets of tensors are multiples of, bytes.
    alignment: usize,
    /// Where the tensors' data begin, bytes from the start of the file.
    data: usize,
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, GgufError> {
        let mut reader = Reader::new(bytes);
        let magic = reader.take(4, "the magic")?;
        if magic != b"GGUF" {
            return Err(GgufError::Magic(magic.to_vec()));
        }
        let version = reader.u32("the version")?;
        if ![2, 3].contains(&version) {
            return Err(GgufError::Version(version));
        }
        let num_tensors = count(reader.u64("the number of tensors")?, "the number of tensors")?;
        let num_values = count(reader.u64("the number of metadata entries")?, "the number of metadata entries")?;
        let mut metadata = BTreeMap::new();
        for _ in 0..num_values {
            let key = reader.string("a metadata key")?;
            let value = Value::read(&mut reader, key)?;
            if metadata.insert(key, value).is_some() {
                return Err(malformed(format!("metadata {key}"), "stands there twice"));
            }
        }
        let metadata = Metadata(metadata);
        let mut infos = Vec::new();
        for _ in 0..num_tensors {
            infos.push(Info::read(&mut reader)?);
        }
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(_) => metadata.size("general.alignment")?,
        };
        if !alignment.is_power_of_two() || alignment > 1 << 20 {
            return Err(malformed("metadata general.alignment", format!("is {alignment}; it must be a power of two")));
        }
        let data = reader.offset().next_multiple_of(alignment);
        Ok(Header { metadata, infos, alignment, data })
    }
}

/// A tensor as the header describes it, before its place has been checked.
struct Info<'a> {
    name: &'a str,
    shape: Vec<usize>,
    kind: TensorType,
    offset: u64,
}

impl<'a> Info<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, GgufError> {
        let name = reader.string("a tensor's name")?;
        let what = format!("tensor {name}");
        let dimensions = reader.u32(&what)?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            let message = format!("has {dimensions} dimensions; it must have 1 to {MAX_DIMENSIONS}");
            return Err(malformed(what, message));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = reader.u64(&what)?;
            let fits = usize::try_from(size).ok().filter(|n| *n > 0);
            shape.push(fits.ok_or_else(|| malformed(&what, format!("has a dimension of {size}")))?);
        }
        // The file has the elements of a row first.
        shape.reverse();
        let id = reader.u32(&what)?;
        let kind = TensorType::of(id).map_err(|message| malformed(&what, message))?;
        Ok(Info { name, shape, kind, offset: reader.u64(&what)? })
    }

    /// Where the tensor lies in a file of `len` bytes, of which the tensors' data begin at `data`.
    fn place(&self, data: usize, alignment: usize, len: usize) -> Result<TensorInfo, GgufError> {
        let what = || format!("tensor {}", self.name);
        let (shape, kind) = (&self.shape, self.kind);
        let row = shape[shape.len() - 1];
        if !row.is_multiple_of(kind.block_len) {
            let message = format!("has rows of {row}, not a multiple of {}'s {}", kind.name, kind.block_len);
            return Err(malformed(what(), message));
        }
        let blocks = shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size)).map(|n| n / kind.block_len);
        let bytes = blocks.and_then(|n| n.checked_mul(kind.block_bytes));
        let bytes =
            bytes.ok_or_else(|| malformed(what(), format!("has the shape {shape:?}, larger than any memory")))?;
        let start = usize::try_from(self.offset).ok().and_then(|offset| data.checked_add(offset));
        let range = start.and_then(|start| Some(start..start.checked_add(bytes)?));
        let range = range.filter(|range| range.end <= len).ok_or_else(|| {
            let message = format!(
                "of {bytes} bytes at offset {} of the data, which begins at {data}, ends past the file's {len}: the \
                 file is not whole, fetch it again",
                self.offset
            );
            malformed(what(), message)
        })?;
        if !self.offset.is_multiple_of(alignment as u64) {
            let message = format!("lies at offset {}, not a multiple of the alignment {alignment}", self.offset);
            return Err(malformed(what(), message));
        }
        Ok(TensorInfo { shape: shape.clone(), kind, range })
    }
}

impl<'a> Metadata<'a> {
    /// The value of a key, of whatever type.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.0.get(key)
    }

    /// The string that is the value of `key`.
    ///
    /// Errors: a missing key, or a value of another type. So it is for the accessors of other types.
    pub fn string(&self, key: &str) -> Result<&'a str, GgufError> {
        self.typed(key, "a string", Value::as_str)
    }

    /// The whole number that is the value of `key`, whichever integer type the file has it in.
    ///
    /// Errors: see [`Self::string`].
    pub fn size(&self, key: &str) -> Result<usize, GgufError> {
        self.typed(key, "a whole number that is not negative", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    /// The number that is the value of `key`, an integer or not.
    ///
    /// Errors: see [`Self::string`].
    pub fn float(&self, key: &str) -> Result<f64, GgufError> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// The truth value of `key`.
    ///
    /// Errors: see [`Self::string`].
    pub fn flag(&self, key: &str) -> Result<bool, GgufError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// The array that is the value of `key`.
    ///
    /// Errors: see [`Self::string`].
    pub fn array(&self, key: &str) -> Result<Array<'a>, GgufError> {
        self.typed(key, "an array", Value::as_array)
    }

    /// What `read`, one of the other accessors, gives for `key`; `None` for a key that is not there.
    ///
    /// Errors: a value of another type.
    pub fn optional<T>(
        &self,
        key: &str,
        read: impl Fn(&Self, &str) -> Result<T, GgufError>,
    ) -> Result<Option<T>, GgufError> {
        self.get(key).map(|_| read(self, key)).transpose()
    }

    fn typed<T>(&self, key: &str, wanted: &str, read: impl Fn(&Value<'a>) -> Option<T>) -> Result<T, GgufError> {
        let value = self.get(key).ok_or_else(|| GgufError::Missing { key: key.to_owned() })?;
        let wrong = || GgufError::Metadata { key: key.to_owned(), message: format!("is {value}; it must be {wanted}") };
        read(value).ok_or_else(wrong)
    }
}

fn count(n: u64, what: &str) -> Result<u64, GgufError> {
    if n > MAX_ENTRIES {
        return Err(malformed(what, format!("is {n}; more than {MAX_ENTRIES} are not believed")));
    }
    Ok(n)
}

fn malformed(what: impl Into<String>, message: impl Into<String>) -> GgufError {
    GgufError::Malformed { what: what.into(), message: message.into() }
}
