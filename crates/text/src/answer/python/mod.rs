//! Values as Python writes them, read in pieces and written as JSON.
mod number;
mod string;
mod value;

pub(super) use value::{PythonValue, literal_to_json};
