//! A tensor of a quantised layer, before it is joined with the layer's others.
use super::{Entry, FilePart, Tensors};
use crate::error::ModelError;

/// A tensor of a quantised layer.
pub(super) struct LayerTensor {
    pub name: String,
    pub entry: Entry,
}

impl LayerTensor {
    /// Takes a tensor out of those of a checkpoint; `None` if it is not there.
    pub fn take(tensors: &mut Tensors, name: &str) -> Option<Self> {
        Some(LayerTensor { name: name.to_owned(), entry: tensors.remove(name)? })
    }

    pub fn error(&self, message: String) -> ModelError {
        ModelError::Tensor { path: self.entry.path.clone(), tensor: self.name.clone(), message }
    }

    /// The name of the type of the elements.
    pub fn kind(&self) -> &str {
        self.entry.kind.as_ref().map_or_else(String::as_str, |kind| kind.name())
    }

    /// `of`: what the tensor belongs to, for the error.
    ///
    /// Errors: another type.
    pub fn check_kind(&self, wanted: &str, of: &str) -> Result<(), ModelError> {
        if wanted.split(" or ").any(|kind| kind == self.kind()) {
            return Ok(());
        }
        Err(self.error(format!("is of type {}; that of {of} must be {wanted}", self.kind())))
    }

    /// Errors: another shape.
    pub fn check_shape(&self, wanted: &[usize], of: &str) -> Result<(), ModelError> {
        if self.entry.shape == wanted {
            return Ok(());
        }
        Err(self.error(format!("has the shape {:?}; {of} asks for {wanted:?}", self.entry.shape)))
    }

    pub fn into_file_part(self) -> FilePart {
        FilePart { file: self.entry.file, range: self.entry.range }
    }
}
