//! Mixtures of experts by the kernels of `kernels/experts/`.
use super::GpuDevice;
use super::products::{GpuRows, Packed, Placed, Products};
use crate::executor::Executor;
use crate::launch::{self, Gate, GroupBuffers, MOST_CHOICES, MOST_EXPERTS, RoutedRowsLayout, TileExperts};
use candle_core::{Error, Result, Tensor, bail};
use compute::{ExpertWeights, Precision, Routing, StoredMatrix};
use std::sync::Arc;

/// The experts of a layer in a GPU's memory: a stack of weights for each of their three projections.
pub(super) struct PlacedExperts<B> {
    gate: Placed<B>,
    up: Placed<B>,
    down: Placed<B>,
    num: usize,
    routing: Routing,
}

impl<B> PlacedExperts<B> {
    /// Errors: more experts than kernels take, weights that are not alike, no memory.
    pub fn new<E: Executor<Buffer = B>>(executor: &E, weights: ExpertWeights) -> Result<Self> {
        let ExpertWeights { gate, up, down, routing } = weights;
        let (num, choices) = (gate.len(), routing.per_token);
        if !(1..=MOST_EXPERTS).contains(&num) || !(1..=MOST_CHOICES.min(num)).contains(&choices) {
            bail!(
                "{choices} of {num} experts a token; on a GPU there are at most {MOST_CHOICES} of at most \
                 {MOST_EXPERTS}"
            );
        }
        let stack = |matrices: Vec<Arc<dyn StoredMatrix>>| {
            let views: Vec<_> = matrices.iter().map(|matrix| matrix.view()).collect();
            if views.len() != num {
                bail!("{} weights of {num} experts", views.len());
            }
            let placed = Placed::stack(executor, &views, Precision::Fast)?;
            matrices.iter().for_each(|matrix| matrix.forget());
            Ok(placed)
        };
        Ok(PlacedExperts { gate: stack(gate)?, up: stack(up)?, down: stack(down)?, num, routing })
    }
}

/// The routed rows of a step, in a GPU's memory.
struct RoutedStep<B> {
    routed: RoutedRowsLayout,
    /// The weights of each row's experts.
    weights: B,
    expert_of_tile: B,
    row_of_place: B,
    /// The place of each routed row.
    places: B,
}

impl<E: Executor + 'static> GpuDevice<E> {
    /// Computes a mixture by seven launches, whichever experts are chosen: one chooses the experts, one sorts the rows
    /// by them, one packs the rows, one multiplies with gate and up, one packs what they give, one multiplies with
    /// down, and one sums what a row's experts gave.
    pub(super) fn experts_of(&self, experts: &PlacedExperts<E::Buffer>, x: &Tensor, logits: &Tensor) -> Result<Tensor> {
        let (rows, hidden) = x.dims2()?;
        if logits.dims() != [rows, experts.num] {
            bail!("logits of {:?} for {rows} rows and {} experts", logits.dims(), experts.num);
        }
        let routes = self.route(experts, rows, logits)?;
        let x = self.operand(&routes, &self.executor.import(x)?, (hidden, true))?;
        let PlacedExperts { gate, up, down, .. } = experts;
        let inner = match self.by_expert(&routes, &x).gated(gate, up)? {
            Some(inner) => inner,
            None => {
                let each = self.by_expert(&routes, &x).each(&[gate, up])?;
                let count = routes.routed.places() * gate.n();
                let out = self.executor.create_activation(count * 4).map_err(Error::wrap)?;
                self.launch(&[launch::gate_mul(count, Gate::Silu, [&each[0], &each[1], &out])])?;
                out
            }
        };
        let inner = self.operand(&routes, &inner, (gate.n(), false))?;
        let [y] = &self.by_expert(&routes, &inner).each(&[down])?[..] else { bail!("as many products as weights") };
        let out = self.executor.create_activation(rows * down.n() * 4).map_err(Error::wrap)?;
        let buffers = [y, &routes.weights, &routes.places, &out];
        self.launch(&[launch::sum_experts(&routes.routed, down.n(), buffers)])?;
        self.executor.export(&out, &[rows, down.n()], &self.tensors)
    }

    fn route(&self, experts: &PlacedExperts<E::Buffer>, rows: usize, logits: &Tensor) -> Result<RoutedStep<E::Buffer>> {
        let routed = RoutedRowsLayout::new(rows, experts.routing.per_token, experts.num);
        let room = |words: usize| self.executor.create_activation(words * 4).map_err(Error::wrap);
        let count = rows * routed.choices;
        let (chosen, weights, places) = (room(count)?, room(count)?, room(count)?);
        let (expert_of_tile, row_of_place) = (room(routed.tiles)?, room(routed.places())?);
        let logits = self.executor.import(logits)?;
        let buffers = GroupBuffers {
            chosen: &chosen,
            expert_of_tile: &expert_of_tile,
            row_of_place: &row_of_place,
            places: &places,
        };
        self.launch(&[
            launch::route(&routed, experts.routing.normalized, [&logits, &chosen, &weights]),
            launch::group_by_expert(&routed, &buffers),
        ])?;
        Ok(RoutedStep { routed, weights, expert_of_tile, row_of_place, places })
    }

    /// The operand of all places, of `k` elements each. `gathered`: x has the rows that are routed, else those of
    /// places.
    fn operand(
        &self,
        routes: &RoutedStep<E::Buffer>,
        x: &E::Buffer,
        (k, gathered): (usize, bool),
    ) -> Result<GpuRows<E::Buffer>> {
        let [halves, sums] = routes.routed.operand_bytes(k).map(|bytes| self.executor.create_activation(bytes));
        let packed = Packed { halves: halves.map_err(Error::wrap)?, sums: sums.map_err(Error::wrap)? };
        let buffers = [x, &routes.expert_of_tile, &routes.row_of_place, &packed.halves, &packed.sums];
        self.launch(&[launch::pack_routed(&routes.routed, (k, gathered), buffers)])?;
        Ok(GpuRows::packed(packed, [routes.routed.places(), k]))
    }

    /// Prepares the products of routed rows with their experts' weights.
    fn by_expert<'a>(&'a self, routes: &'a RoutedStep<E::Buffer>, x: &'a GpuRows<E::Buffer>) -> Products<'a, E> {
        let experts = Some(TileExperts { numbers: &routes.expert_of_tile, tile: routes.routed.tile });
        Products { executor: self.executor(), rows: x, experts, nothing: &self.nothing, matvec_types: &[] }
    }
}
