//! Tensors that hold all experts of a layer.
use super::{Entry, GroupParts, piece};

/// More experts than any layer has. Each expert of a tensor becomes an entry of its own, so a file must not ask for any
/// number.
pub(super) const MAX_EXPERTS: usize = 1 << 12;

/// The projection that holds the rows of `gate_proj` and, below them, those of `up_proj`.
const GATE_AND_UP: &str = "gate_up_proj";

/// The tensors of single experts, `PREFIX.N.PROJECTION.KIND`, of a tensor `[experts, n, k]` that holds a projection of
/// all of them. One of gate and up becomes two tensors an expert. Rows are whole quantisation blocks, so that each
/// expert's part is; a shape of fewer dimensions gives tensors that no model asks for.
pub(super) fn by_expert(prefix: &str, projection: &str, kind: &str, entry: &Entry) -> Vec<(String, Entry)> {
    let parts: &[&str] = if projection == GATE_AND_UP { &["gate_proj", "up_proj"] } else { &[projection] };
    let (experts, mut shape) =
        (entry.shape.first().copied().unwrap_or(0), entry.shape.get(1..).unwrap_or(&[]).to_vec());
    if let Some(rows) = shape.first_mut() {
        *rows /= parts.len();
    }
    let count = experts * parts.len();
    let all = (0..experts).flat_map(|expert| parts.iter().enumerate().map(move |(i, part)| (expert, i, part)));
    let tensor = |(expert, i, part): (usize, usize, &&str)| {
        let index = expert * parts.len() + i;
        let groups = entry.groups.as_ref().map(|groups| {
            let biases = groups.biases.as_ref().map(|biases| biases.piece(index, count));
            Box::new(GroupParts { scales: groups.scales.piece(index, count), biases, ..**groups })
        });
        let entry = Entry { range: piece(&entry.range, index, count), shape: shape.clone(), groups, ..entry.clone() };
        (format!("{prefix}.{expert}.{part}.{kind}"), entry)
    };
    all.map(tensor).collect()
}
