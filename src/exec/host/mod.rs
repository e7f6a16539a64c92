//! The fused executor: a `Network` on the processor, on packed weights, whole layers at a time. In f32, or with the operands of its large products
//! in bf16 or int8: sums, norms, softmax and what flows from layer to layer are f32 in all three.
//!
//! A batch is cut into groups of texts. One thread takes a group through all layers, so that its activations stay in that thread's cache and nobody
//! waits; a batch too small for that (a lone query), or what would leave threads idle at a batch's end, is one group on which all threads work together,
//! operation by operation.
//!
//! In int8 each row is quantised before a product by its own least and largest number, so that a text's vector does not depend on its batch; between
//! products everything is f32: the residual stream, norms, attention, activations. A router of experts, the projection of embeddings, a convolution and
//! what is made of distances stay f32.

mod attention;
mod content;
mod convolution;
mod embeddings;
mod layer;
mod linear;
mod mlp;
mod parts;
mod plan;
mod rope;
mod space;
pub(super) mod table;

use super::{Limits, between};
use crate::kernels::host::attention::Scratches;
use crate::kernels::host::norm::{self, Norm};
use crate::kernels::host::pool::Team;
use crate::kernels::host::{Cpu, Element, team};
use crate::network::{Layer, LoadError, Network};
use crate::ragged::Packed;
use candle_core::Result;
use embeddings::EmbeddingsOp;
use layer::LayerOp;
use parts::Form;
pub(super) use plan::GROUP_TOKENS;
use plan::Plan;
use rope::Ropes;
use space::Spaces;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// A network whose weights are packed for this processor.
pub struct HostExecutor {
    cpu: Cpu,
    embeddings: EmbeddingsOp,
    /// Each layer once, and the order in which they are applied.
    layers: Vec<LayerOp>,
    order: Vec<usize>,
    norm: Option<Norm>,
    width: usize,
    limits: Limits,
    spaces: Spaces,
    scratches: Scratches,
}

/// What one group's operations share.
struct Run<'a> {
    cpu: Cpu,
    team: &'a Team,
    /// The rows of each text.
    texts: &'a [Range<usize>],
    /// The adapters that texts here choose, with the rows of neighbours that choose the same.
    adapters: &'a [(usize, Range<usize>)],
    scratches: &'a Scratches,
}

impl HostExecutor {
    /// Packs a network's weights, to be multiplied as these elements.
    ///
    /// # Errors
    /// Weights that are not finite.
    pub fn new(network: &Network, cpu: Cpu, element: Element) -> std::result::Result<Self, LoadError> {
        let form = Form { cpu, element };
        let (mut once, mut order): (Vec<Arc<Layer>>, _) = (Vec::new(), Vec::new());
        for layer in &network.layers {
            let known = once.iter().position(|other| Arc::ptr_eq(other, layer));
            order.push(known.unwrap_or(once.len()));
            if known.is_none() {
                once.push(layer.clone());
            }
        }
        let ropes = Ropes::of(&once, network.max_tokens);
        Ok(Self {
            cpu,
            embeddings: EmbeddingsOp::new(&network.embeddings, form)?,
            layers: parts::each(once.len(), |index| LayerOp::new(&once[index], &ropes, form))?,
            order,
            norm: network.norm.as_ref().map(parts::norm).transpose()?,
            width: network.width,
            limits: Limits::of(network),
            spaces: Spaces::default(),
            scratches: Scratches::default(),
        })
    }

    /// What the weights occupy in memory.
    pub fn weight_bytes(&self) -> usize {
        let layers: usize = self.layers.iter().map(LayerOp::weight_bytes).sum();
        self.embeddings.weight_bytes() + layers + self.norm.as_ref().map_or(0, parts::norm_bytes)
    }

    /// The hidden state after the last layer, `[T, C]`, in the order of the batch.
    ///
    /// # Errors
    /// Ids outside the vocabulary, texts that are empty or too long.
    pub fn run(&self, batch: &Packed) -> Result<Vec<f32>> {
        self.run_with(batch, team())
    }

    /// The same with a team of the caller's.
    ///
    /// # Errors
    /// As `run`.
    pub fn run_with(&self, batch: &Packed, team: &Team) -> Result<Vec<f32>> {
        self.limits.check(batch)?;
        let texts: Vec<Range<usize>> = batch.segments.ranges().collect();
        let lens: Vec<usize> = texts.iter().map(ExactSizeIterator::len).collect();
        let Plan { together, groups } = Plan::of(&lens, team.threads());
        if together.len() == lens.len() {
            return Ok(self.group(batch, &together, team));
        }
        let out = Mutex::new(vec![0f32; batch.tokens() * self.width]);
        let compute = |group: &[usize], team: &Team| {
            let hidden = self.group(batch, group, team);
            let mut rows = hidden.as_slice();
            // Held while finished rows are copied, never while something is computed.
            let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
            for text in group {
                let (own, rest) = rows.split_at(lens[*text] * self.width);
                out[texts[*text].start * self.width..][..own.len()].copy_from_slice(own);
                rows = rest;
            }
        };
        if !together.is_empty() {
            compute(&together, team);
        }
        team.each_while(groups.len(), &|index| compute(&groups[index], &Team::alone()), &between::here);
        Ok(out.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Some texts of a batch, one after the other: `[tokens, C]`.
    fn group(&self, batch: &Packed, texts: &[usize], team: &Team) -> Vec<f32> {
        let all: Vec<Range<usize>> = batch.segments.ranges().collect();
        let (mut ids, mut ranges, mut adapters) = (Vec::new(), Vec::new(), Vec::new());
        for text in texts {
            let start = ids.len();
            ids.extend_from_slice(&batch.ids[all[*text].clone()]);
            ranges.push(start..ids.len());
            choose(&mut adapters, batch.adapters[*text], start..ids.len());
        }
        let run = Run { cpu: self.cpu, team, texts: &ranges, adapters: &adapters, scratches: &self.scratches };
        let mut space = self.spaces.borrow();
        let mut x = self.embeddings.forward(&ids, &run);
        for index in &self.order {
            self.layers[*index].forward(&mut x, &mut space, &run);
        }
        if let Some(norm) = &self.norm {
            norm::norm(self.cpu, &mut x, norm);
        }
        self.spaces.give_back(space);
        x
    }
}

/// Adds the rows of a text to those of the adapter that it chose.
fn choose(adapters: &mut Vec<(usize, Range<usize>)>, chosen: Option<usize>, rows: Range<usize>) {
    let Some(chosen) = chosen else { return };
    match adapters.last_mut() {
        Some((last, before)) if *last == chosen && before.end == rows.start => before.end = rows.end,
        _ => adapters.push((chosen, rows)),
    }
}
