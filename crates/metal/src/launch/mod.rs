//! Builders of launches: plain functions of a layer's shape, sizes and buffers. Nothing else knows kernels' names,
//! grids and buffer indices.
mod attend;
mod cache;
mod delta_net;
mod experts;
mod params;
mod products;
mod rowwise;

pub(crate) use attend::attend_some;
pub(crate) use delta_net::{KEY_DIMS, MOST_VALUES, SIMD_COLUMNS};
pub(crate) use experts::{MOST_CHOICES, MOST_EXPERTS};

pub use attend::{AttendBuffers, QueryBuffers, ReduceBuffers, attend, query, reduce};
pub use cache::{WriteBuffers, copy_blocks, write};
pub use delta_net::{ConvolveBuffers, DeltaBuffers, convolve, delta_rule};
pub use experts::{GroupBuffers, RoutedRowsLayout, group_by_expert, pack_routed, route, sum_experts};
pub use params::{
    AttendParams, ConvolveParams, CopyParams, DeltaParams, ExactParams, GateParams, GroupParams, NormOperandParams,
    NormParams, PackParams, PackRoutedParams, Params, ProductParams, QueryParams, ReduceParams, RouteParams,
    RowsParams, SumExpertsParams, TileParams, TopParams, WriteParams,
};
pub use products::{
    MATVEC_ROWS, NormOperandBuffers, ProductForm, ProductRows, ProductWeight, TileExperts, has_matvec, matvec,
    norm_operand, operand_bytes, pack_rows, product, product_f32, row_bytes,
};
pub use rowwise::{Gate, NormBuffers, TOP_SLICE, TopBuffers, add_rms_norm, gate_mul, gather_rows, top, top_slices};

use crate::executor::{Access, Binding};

/// Bindings in order of index: what is read, then what is written.
fn bind<'a, B>(read: &[&'a B], written: &[&'a B]) -> Vec<Binding<'a, B>> {
    let all = read.iter().map(|b| (*b, Access::Read)).chain(written.iter().map(|b| (*b, Access::Write)));
    all.enumerate().map(|(i, (buffer, access))| Binding { index: i as u32, buffer, offset: 0, access }).collect()
}
