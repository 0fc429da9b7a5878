//! Metadata values.
use crate::reader::Reader;
use crate::{GgufError, malformed};
use std::fmt;

/// The value of a metadata key. Numbers of all widths are widened to 64 bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A number of one of the unsigned integer types.
    Unsigned(u64),
    /// A number of one of the signed integer types.
    Signed(i64),
    /// A number of one of the floating-point types.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A string.
    String(&'a str),
    /// An array.
    Array(Array<'a>),
}

/// Values of one type, read from the file's bytes whenever they are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    kind: ValueType,
    len: u64,
    bytes: &'a [u8],
}

/// The types of values, in the order of their numbers in the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

const KINDS: [ValueType; 13] = [
    ValueType::U8,
    ValueType::I8,
    ValueType::U16,
    ValueType::I16,
    ValueType::U32,
    ValueType::I32,
    ValueType::F32,
    ValueType::Bool,
    ValueType::String,
    ValueType::Array,
    ValueType::U64,
    ValueType::I64,
    ValueType::F64,
];

impl ValueType {
    fn read(reader: &mut Reader<'_>, what: &str) -> Result<Self, GgufError> {
        let id = reader.u32(what)?;
        KINDS.get(id as usize).copied().ok_or_else(|| malformed(what, format!("is of type {id}, which is not known")))
    }

    /// The bytes of a value; `None` for types whose values differ in length.
    fn width(self) -> Option<u64> {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => Some(1),
            ValueType::U16 | ValueType::I16 => Some(2),
            ValueType::U32 | ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::U64 | ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::String | ValueType::Array => None,
        }
    }
}

impl<'a> Value<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>, key: &str) -> Result<Self, GgufError> {
        let what = format!("metadata {key}");
        let kind = ValueType::read(reader, &what)?;
        Self::read_kind(kind, reader, &what)
    }

    fn read_kind(kind: ValueType, reader: &mut Reader<'a>, what: &str) -> Result<Self, GgufError> {
        if kind == ValueType::String {
            return reader.string(what).map(Value::String);
        }
        let Some(width) = kind.width() else {
            return Array::read(reader, what).map(Value::Array);
        };
        let mut bytes = [0; 8];
        let read = reader.take(width, what)?;
        bytes[..read.len()].copy_from_slice(read);
        let unsigned = u64::from_le_bytes(bytes);
        Ok(match kind {
            ValueType::I8 => Value::Signed(i64::from(unsigned as i8)),
            ValueType::I16 => Value::Signed(i64::from(unsigned as i16)),
            ValueType::I32 => Value::Signed(i64::from(unsigned as i32)),
            ValueType::I64 => Value::Signed(unsigned as i64),
            ValueType::F32 => Value::Float(f64::from(f32::from_bits(unsigned as u32))),
            ValueType::F64 => Value::Float(f64::from_bits(unsigned)),
            ValueType::Bool => Value::Bool(unsigned != 0),
            _ => Value::Unsigned(unsigned),
        })
    }

    /// The string, if the value is one.
    pub fn as_str(&self) -> Option<&'a str> {
        if let Value::String(s) = self { Some(s) } else { None }
    }

    /// The truth value, if the value is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(b) = self { Some(*b) } else { None }
    }

    /// The array, if the value is one.
    pub fn as_array(&self) -> Option<Array<'a>> {
        if let Value::Array(a) = self { Some(*a) } else { None }
    }

    /// The number, if the value is a whole number of any type that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Unsigned(n) => Some(*n),
            Value::Signed(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// The number, if the value is one of any type.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Unsigned(n) => Some(*n as f64),
            Value::Signed(n) => Some(*n as f64),
            Value::Float(x) => Some(*x),
            _ => None,
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Unsigned(n) => write!(f, "{n}"),
            Value::Signed(n) => write!(f, "{n}"),
            Value::Float(x) => write!(f, "{x}"),
            Value::Bool(b) => write!(f, "{b}"),
            // A value may be a whole chat template.
            Value::String(s) => write!(f, "{:?}", s.chars().take(40).collect::<String>()),
            Value::Array(a) => write!(f, "an array of {} values", a.len),
        }
    }
}

impl<'a> Array<'a> {
    /// Reads an array and checks every value, so that reading the values later cannot fail.
    fn read(reader: &mut Reader<'a>, what: &str) -> Result<Self, GgufError> {
        let kind = ValueType::read(reader, what)?;
        let len = reader.u64(what)?;
        if let Some(width) = kind.width() {
            let bytes = len.checked_mul(width).ok_or_else(|| malformed(what, format!("has {len} values")))?;
            return Ok(Array { kind, len, bytes: reader.take(bytes, what)? });
        }
        if kind == ValueType::Array {
            return Err(malformed(what, "is an array of arrays, which no model's metadata has"));
        }
        let mut ahead = Reader::new(reader.rest());
        for _ in 0..len {
            ahead.string(what)?;
        }
        Ok(Array { kind, len, bytes: reader.take(ahead.offset() as u64, what)? })
    }

    /// How many values the array has.
    pub fn len(&self) -> usize {
        // Each value has a byte at least, and all lie in memory.
        self.len as usize
    }

    /// Whether the array has no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values in order.
    pub fn values(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (mut reader, kind) = (Reader::new(self.bytes), self.kind);
        (0..self.len).map_while(move |_| Value::read_kind(kind, &mut reader, "a value").ok())
    }

    /// The values of an array of strings; `None` for an array of another type.
    pub fn strings(&self) -> Option<Vec<&'a str>> {
        (self.kind == ValueType::String).then(|| self.values().filter_map(|v| v.as_str()).collect())
    }
}
