//! Disentangled attention on the processor: what queries and keys make of distances, a head at a time.

use super::Run;
use super::parts::{self, Form};
use super::space::fit;
use crate::exec::weights::numbers;
use crate::kernels::host::attention::{Bias, Content, Projected, Spec, attend};
use crate::kernels::host::gemm::{Into, Rows, product};
use crate::kernels::host::norm;
use crate::kernels::host::operand::Turned;
use crate::kernels::host::pack::Packed;
use crate::kernels::host::pool::Team;
use crate::kernels::host::{Act, Element};
use crate::network::{Disentangled, Linear, LoadError};
use std::sync::Arc;

/// See `network::Disentangled`. In f32 whatever the network is in: scores decide much.
pub(super) struct ContentOp {
    about: Arc<Disentangled>,
    /// What the rows of distances are to queries, as keys: `[R, D]` for each head.
    keys: Option<Vec<Packed>>,
    /// What they are to keys, as queries.
    queries: Option<Vec<Packed>>,
}

/// Room for what one head's queries and keys make of distances: `[T, R]` each.
#[derive(Default)]
pub(super) struct Made {
    queries: Vec<f32>,
    keys: Vec<f32>,
}

impl ContentOp {
    pub(super) fn new(about: &Arc<Disentangled>, dim: usize, form: Form) -> Result<Self, LoadError> {
        let mut table = numbers(&about.table)?;
        if let Some(by) = &about.norm {
            norm::norm(form.cpu, &mut table, &parts::norm(by)?);
        }
        let heads = |linear: &Linear| heads(&table, linear, dim, form.exact());
        let [keys, queries] = [&about.key, &about.query].map(|linear| linear.as_ref().map(heads).transpose());
        Ok(Self { about: about.clone(), keys: keys?, queries: queries? })
    }

    /// As `kernels::host::attention::attend`, with the bias of the distances.
    pub(super) fn attend(&self, qkv: Projected, spec: Spec, out: &mut [f32], made: &mut Made, run: &Run) {
        let tokens = out.len() / (spec.heads * spec.dim).max(1);
        let far = run.texts.iter().map(ExactSizeIterator::len).max().unwrap_or(0).max(1) as i64 - 1;
        // By `key - query`; the table counts `query - key`.
        let rows: Vec<u32> = (-far..=far).map(|distance| self.about.row(-distance) as u32).collect();
        for head in 0..spec.heads {
            let first = head * spec.dim;
            let queries = of_head(&self.keys, head, qkv, first, tokens, &mut made.queries, run.team);
            let keys = of_head(&self.queries, head, qkv, spec.heads * spec.dim + first, tokens, &mut made.keys, run.team);
            let bias = Bias::Content(Content { head, rows: &rows, width: 2 * self.about.span(), queries, keys });
            attend(run.cpu, run.team, qkv, run.texts, &Spec { bias, ..spec }, out, run.scratches);
        }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        [&self.keys, &self.queries].into_iter().flatten().flatten().map(Packed::bytes).sum()
    }
}

/// What a map makes of each row of the table, by head.
fn heads(table: &[f32], linear: &Linear, dim: usize, form: Form) -> Result<Vec<Packed>, LoadError> {
    let (map, team, mut turned) = (parts::linear(linear, form)?, Team::alone(), Turned::default());
    let (rows, width) = (table.len() / map.inner().max(1), map.columns());
    let mut made = vec![0.; rows * width];
    let operand = turned.operand(&team, Rows::dense(table, rows, map.inner()), &map);
    product(&team, operand, &map, &mut made, width, Into::Place(Act::Identity));
    let head = |first: usize| {
        let own: Vec<f32> = made.chunks_exact(width).flat_map(|row| &row[first..first + dim]).copied().collect();
        Packed::new(form.cpu, Element::F32, &own, dim, &[])
    };
    Ok((0..width).step_by(dim.max(1)).map(head).collect())
}

/// What a head's queries, or keys, make of each row of distances: `[T, R]`.
fn of_head<'a>(
    all: &Option<Vec<Packed>>,
    head: usize,
    qkv: Projected,
    first: usize,
    tokens: usize,
    to: &'a mut Vec<f32>,
    team: &Team,
) -> Option<&'a [f32]> {
    let weights = all.as_ref()?.get(head)?;
    let to = fit(to, tokens * weights.columns());
    let (mut turned, rows) = (Turned::default(), Rows::new(&qkv.data[first..], tokens, weights.inner(), qkv.stride));
    product(team, turned.operand(team, rows, weights), weights, to, weights.columns(), Into::Place(Act::Identity));
    Some(to)
}
