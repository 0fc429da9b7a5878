//! Formats as function constants.
use turboquant::Format;

/// The kernels' number of a format (`enum Format` of `kernels/formats.h`); nothing for `f32`, which is for CPUs.
pub fn format_id(format: Format) -> Option<u32> {
    Some(match format {
        Format::F32 => return None,
        Format::F16 => 0,
        Format::Bf16 => 1,
        Format::Tq8 => 2,
        Format::Tq5 => 3,
        Format::Tq4 => 4,
        Format::Tq3 => 5,
        Format::Tq2 => 6,
        Format::Affine8 => 7,
        Format::Affine5 => 8,
        Format::Affine4 => 9,
        Format::Int8 => 10,
        Format::Lloyd5 => 11,
        Format::Lloyd4 => 12,
        Format::Lloyd3 => 13,
        Format::Lloyd2 => 14,
    })
}
