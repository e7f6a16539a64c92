//! Attention on the device: projections, norms and rotation of queries and keys, and how distance counts.

use super::batch::Batch;
use super::linear::LinearOp;
use super::norm::NormOp;
use super::{bytes, device};
use crate::exec::Place;
use crate::kernels::device::attention::{AttnSpec, Bias, Disentangling, attend};
use crate::kernels::device::rope::rotate;
use crate::network::{Attention, Disentangled, LoadError, Pairing, PositionBias, Rope};
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// See `network::Attention`.
pub(super) struct AttentionOp {
    qkv: Qkv,
    output: LinearOp,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    qk_norm: Option<(NormOp, NormOp)>,
    /// Index of the rope among the network's, and how it pairs.
    rope: Option<(usize, Pairing)>,
    bias: BiasOp,
    spec: AttnSpec,
}

/// Query, key and value: one product where nothing stands against it.
enum Qkv {
    /// `[(H + 2 G) D, C]`.
    One(LinearOp),
    Three([LinearOp; 3]),
}

impl AttentionOp {
    /// A rope that is new is added to `ropes`.
    pub(super) fn new(attention: &Attention, ropes: &mut Vec<Arc<Rope>>, place: &Place) -> std::result::Result<Self, LoadError> {
        let [query, key, value] = [&attention.query, &attention.key, &attention.value].map(|part| LinearOp::new(part, place));
        let parts = [query?, key?, value?];
        let qkv = match LinearOp::stack(&parts.each_ref()).map_err(device)? {
            Some(one) => Qkv::One(one),
            None => Qkv::Three(parts),
        };
        let qk_norm =
            attention.qk_norm.as_ref().map(|norms| Ok::<_, LoadError>((NormOp::new(&norms.query, place)?, NormOp::new(&norms.key, place)?)));
        let rope = attention.rope.as_ref().map(|rope| {
            let known = ropes.iter().position(|other| other == rope).unwrap_or_else(|| {
                ropes.push(rope.clone());
                ropes.len() - 1
            });
            (known, rope.pairing)
        });
        Ok(Self {
            qkv,
            output: LinearOp::new(&attention.output, place)?,
            heads: attention.heads,
            kv_heads: attention.kv_heads,
            head_dim: attention.head_dim,
            qk_norm: qk_norm.transpose()?,
            rope,
            bias: BiasOp::new(attention, place)?,
            spec: AttnSpec { scale: attention.scale, causal: attention.mask.causal, reach: attention.mask.reach },
        })
    }

    /// `[T, C]` -> `[T, C]`.
    pub(super) fn forward(&self, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        let [q, k, v] = self.project(x, batch)?;
        let norm = |x: Tensor, norm: &NormOp| -> Result<Tensor> {
            let shape = x.dims().to_vec();
            // A norm as wide as all heads together takes them as one row.
            if norm.width() == self.head_dim { norm.forward(&x) } else { norm.forward(&x.flatten_from(1)?)?.reshape(shape) }
        };
        let (q, k) = match &self.qk_norm {
            Some((query, key)) => (norm(q, query)?, norm(k, key)?),
            None => (q, k),
        };
        let (q, k) = match self.rope {
            Some((index, pairing)) => {
                let (cos, sin) = &batch.angles[index];
                let interleaved = pairing == Pairing::Neighbours;
                (rotate(&q, cos, sin, interleaved)?, rotate(&k, cos, sin, interleaved)?)
            }
            None => (q, k),
        };
        let mixed = attend(&q, &k, &v, &batch.segments, &self.spec, &self.bias.at(batch.longest())?)?;
        self.output.forward_each(&mixed.flatten_from(1)?, batch)
    }

    /// `[T, H, D]`, `[T, G, D]`, `[T, G, D]`.
    fn project(&self, x: &Tensor, batch: &Batch) -> Result<[Tensor; 3]> {
        let (heads, kv_heads) = (self.heads, self.kv_heads);
        let split = |y: Tensor, heads: usize| y.reshape(((), heads, self.head_dim));
        match &self.qkv {
            Qkv::One(linear) => {
                let qkv = split(linear.forward(x)?, heads + 2 * kv_heads)?;
                Ok([qkv.narrow(1, 0, heads)?, qkv.narrow(1, heads, kv_heads)?, qkv.narrow(1, heads + kv_heads, kv_heads)?])
            }
            Qkv::Three([query, key, value]) => {
                let (q, k, v) = (query.forward_each(x, batch)?, key.forward_each(x, batch)?, value.forward_each(x, batch)?);
                Ok([split(q, heads)?, split(k, kv_heads)?, split(v, kv_heads)?])
            }
        }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        let qkv: usize = match &self.qkv {
            Qkv::One(linear) => linear.weight_bytes(),
            Qkv::Three(parts) => parts.iter().map(LinearOp::weight_bytes).sum(),
        };
        let norms = self.qk_norm.as_ref().map_or(0, |(query, key)| query.weight_bytes() + key.weight_bytes());
        qkv + self.output.weight_bytes() + norms + self.bias.weight_bytes()
    }
}

/// See `network::PositionBias`.
enum BiasOp {
    None,
    /// Slopes, `[H, 1]`.
    Alibi(Tensor),
    /// `[buckets, H]`.
    Buckets {
        table: Tensor,
        max_distance: usize,
    },
    /// What the distances' vectors are to keys and queries, `[H, D, 2 span]` each.
    Disentangled {
        key: Option<Tensor>,
        query: Option<Tensor>,
        about: Arc<Disentangled>,
    },
}

impl BiasOp {
    fn new(attention: &Attention, place: &Place) -> std::result::Result<Self, LoadError> {
        Ok(match &attention.bias {
            PositionBias::None => Self::None,
            PositionBias::Alibi(slopes) => {
                Self::Alibi(Tensor::new(slopes.to_vec(), &place.device).and_then(|slopes| slopes.unsqueeze(1)).map_err(device)?)
            }
            PositionBias::Buckets { table, max_distance } => Self::Buckets { table: place.tensor(table)?, max_distance: *max_distance },
            PositionBias::Disentangled(about) => {
                let mut table = place.tensor(&about.table)?;
                if let Some(norm) = &about.norm {
                    table = NormOp::new(norm, place)?.forward(&table).map_err(device)?;
                }
                let project = |linear: &_| -> std::result::Result<Tensor, LoadError> {
                    let rows = LinearOp::new(linear, place)?.forward(&table).map_err(device)?;
                    let heads = rows.reshape(((), attention.heads, attention.head_dim)).and_then(|rows| rows.permute((1, 2, 0))?.contiguous());
                    heads.map_err(device)
                };
                let [key, query] = [&about.key, &about.query].map(|linear| linear.as_ref().map(project).transpose());
                Self::Disentangled { key: key?, query: query?, about: about.clone() }
            }
        })
    }

    /// What texts of up to `longest` tokens need.
    fn at(&self, longest: usize) -> Result<Bias> {
        let far = longest.max(1) as i64 - 1;
        match self {
            Self::None => Ok(Bias::None),
            Self::Alibi(slopes) => {
                let distances: Vec<f32> = (-far..=far).map(|distance| -(distance.abs() as f32)).collect();
                Ok(Bias::Distance(slopes.broadcast_mul(&Tensor::new(distances, slopes.device())?.unsqueeze(0)?)?))
            }
            Self::Buckets { table, max_distance } => {
                let buckets: Vec<u32> = (-far..=far).map(|distance| PositionBias::bucket(distance, table.dims()[0], *max_distance) as u32).collect();
                Ok(Bias::Distance(
                    table.index_select(&Tensor::new(buckets, table.device())?, 0)?.t()?.to_dtype(candle_core::DType::F32)?.contiguous()?,
                ))
            }
            Self::Disentangled { key, query, about } => {
                // By `key - query`, as the kernel counts; the table counts `query - key`.
                let rows = (-far..=far).map(|distance| about.row(-distance) as u32).collect();
                Ok(Bias::Disentangled(Disentangling { key: key.clone(), query: query.clone(), rows }))
            }
        }
    }

    fn weight_bytes(&self) -> usize {
        match self {
            // Slopes are no weights: they are computed, and always in f32.
            Self::None | Self::Alibi(_) => 0,
            Self::Buckets { table, .. } => bytes(table),
            Self::Disentangled { key, query, .. } => [key, query].into_iter().flatten().map(bytes).sum(),
        }
    }
}
