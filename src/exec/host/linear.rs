//! A linear map on the processor, with the low-rank deltas of the texts that choose one.

use super::Run;
use super::parts::{self, Form};
use super::space::{Products, fit};
use crate::exec::weights::numbers;
use crate::kernels::host::Act;
use crate::kernels::host::follow::follow;
use crate::kernels::host::gemm::{Into, Rows, product};
use crate::kernels::host::pack::Packed;
use crate::network::{Linear, LoadError, LowRank};
use std::ops::Range;

/// See `network::Linear`; or several of one input as one.
pub(super) struct LinearOp {
    map: Packed,
    /// For each adapter the deltas of the maps that this is made of.
    adapters: Vec<Vec<DeltaOp>>,
}

/// See `network::LowRank`. In f32 whatever the map is in: it is small.
struct DeltaOp {
    down: Packed,
    /// Times the scale.
    up: Packed,
    /// The columns of the whole that it adds to.
    columns: Range<usize>,
}

impl LinearOp {
    pub(super) fn new(linear: &Linear, form: Form) -> Result<Self, LoadError> {
        Self::stack(&[linear], form)
    }

    /// Maps of one input as one, in order.
    pub(super) fn stack(maps: &[&Linear], form: Form) -> Result<Self, LoadError> {
        let mut adapters: Vec<Vec<DeltaOp>> = Vec::new();
        let mut first = 0;
        for map in maps {
            let columns = first..first + map.weight.shape()[0];
            adapters.resize_with(adapters.len().max(map.adapters.len()), Vec::new);
            for (deltas, delta) in adapters.iter_mut().zip(&map.adapters) {
                deltas.push(DeltaOp::new(delta, columns.clone(), form.exact())?);
            }
            first = columns.end;
        }
        Ok(Self { map: parts::stack(maps, form)?, adapters })
    }

    /// Length of a row that goes in.
    pub(super) fn inner(&self) -> usize {
        self.map.inner()
    }

    /// Length of a row that comes out.
    pub(super) fn columns(&self) -> usize {
        self.map.columns()
    }

    /// Rows of `x` to rows of `out`, both side by side.
    pub(super) fn forward(&self, x: &[f32], out: &mut [f32], how: Into, products: &mut Products, run: &Run) {
        if run.adapters.iter().all(|(adapter, _)| self.adapters.get(*adapter).is_none()) {
            return self.product(x, out, how, products, run);
        }
        if let Into::Place(Act::Identity) | Into::Sum = how {
            self.product(x, out, how, products, run);
            return self.add_deltas(x, out, products, run);
        }
        // What follows sees the sum of both.
        let mut apart = std::mem::take(&mut products.apart);
        let whole = fit(&mut apart, out.len());
        self.product(x, whole, Into::Place(Act::Identity), products, run);
        self.add_deltas(x, whole, products, run);
        follow(run.cpu, how, whole, out);
        products.apart = apart;
    }

    fn product(&self, x: &[f32], out: &mut [f32], how: Into, products: &mut Products, run: &Run) {
        let rows = Rows::dense(x, x.len() / self.inner(), self.inner());
        product(run.team, products.turned.operand(run.team, rows, &self.map), &self.map, out, self.columns(), how);
    }

    /// To each text's rows the delta that it chose.
    fn add_deltas(&self, x: &[f32], out: &mut [f32], products: &mut Products, run: &Run) {
        let (inner, columns) = (self.inner(), self.columns());
        let Products { turned, low, .. } = products;
        for (adapter, rows) in run.adapters {
            for delta in self.adapters.get(*adapter).into_iter().flatten() {
                let low = fit(low, rows.len() * delta.down.columns());
                let x = Rows::dense(&x[rows.start * inner..rows.end * inner], rows.len(), inner);
                product(run.team, turned.operand(run.team, x, &delta.down), &delta.down, low, delta.down.columns(), Into::Place(Act::Identity));
                let low = Rows::dense(low, rows.len(), delta.down.columns());
                let out = &mut out[rows.start * columns + delta.columns.start..rows.end * columns];
                product(run.team, turned.operand(run.team, low, &delta.up), &delta.up, out, columns, Into::Sum);
            }
        }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        let deltas = self.adapters.iter().flatten().map(|delta| delta.down.bytes() + delta.up.bytes());
        self.map.bytes() + deltas.sum::<usize>()
    }
}

impl DeltaOp {
    fn new(delta: &LowRank, columns: Range<usize>, form: Form) -> Result<Self, LoadError> {
        let LowRank { down, up, scale } = delta;
        let packed = |numbers: &[f32], inner: usize| Packed::new(form.cpu, form.element, numbers, inner, &[]);
        let scaled: Vec<f32> = numbers(up)?.iter().map(|number| (f64::from(*number) * scale) as f32).collect();
        Ok(Self { down: packed(&numbers(down)?, down.shape()[1]), up: packed(&scaled, up.shape()[1]), columns })
    }
}
