//! Values as Python writes them, read in pieces and written as JSON.
mod number;
mod text;
mod value;

pub(super) use value::{PythonValue, literal_to_json};
