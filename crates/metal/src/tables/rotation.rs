//! The tables of the codec's rotation, which kernels read.
use super::words;
use crate::shape::Shape;
use turboquant::Rotation;

/// The tables of the rotation, as bytes: the signs, a bit for each element, then the rows of the Paley matrix.
pub fn rotation_words(shape: &Shape) -> Vec<u8> {
    if !shape.record.k().is_rotated() && !shape.record.v().is_rotated() {
        return Vec::new();
    }
    let rotation = Rotation::new(shape.head_dim());
    let word = |signs: &[f32]| signs.iter().enumerate().fold(0u32, |w, (i, s)| w | u32::from(*s < 0.0) << i);
    words(rotation.signs().chunks(32).map(word).chain(rotation.paley_rows()))
}
