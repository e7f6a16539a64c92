//! Attention on the device: projections, norms and rotation of queries and keys, and how distance counts.

use super::batch::{Batch, Turns};
use super::linear::LinearOp;
use super::norm::NormOp;
use super::{bytes, device};
use crate::exec::Place;
use crate::kernels::device::attention::{AttnSpec, Bias, Disentangling, attend};
use crate::kernels::device::flash::{self, Tiles};
use crate::kernels::device::rope::{Angles, HeadNorms, norm_rotate, rotate};
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
        let mixed = match &batch.turns {
            Turns::Plain(angles) => self.attend_plain(self.project(x, batch)?, angles, batch)?,
            Turns::Fused { angles, tiles } => self.attend_fused(self.project(x, batch)?, angles, tiles, batch)?,
        };
        self.output.forward_each(&mixed.flatten_from(1)?, batch)
    }

    /// Queries, keys and values to what they mix, `[T, H, D]`, by one operation after the other.
    fn attend_plain(&self, projected: Projected, angles: &[(Tensor, Tensor)], batch: &Batch) -> Result<Tensor> {
        let [q, k, v] = projected.split(self.heads, self.kv_heads)?;
        let (q, k) = self.norm_apart(q, k)?;
        let (q, k) = match self.rope {
            Some((index, pairing)) => {
                let (cos, sin) = &angles[index];
                let interleaved = pairing == Pairing::Neighbours;
                (rotate(&q, cos, sin, interleaved)?, rotate(&k, cos, sin, interleaved)?)
            }
            None => (q, k),
        };
        attend(&q, &k, &v, &batch.segments, &self.spec, &self.bias.at(batch.longest())?)
    }

    /// The same by the kernels: norm and rotation in place, then all texts and heads at once.
    fn attend_fused(&self, projected: Projected, angles: &[Angles], tiles: &Tiles, batch: &Batch) -> Result<Tensor> {
        let (heads, kv_heads) = (self.heads, self.kv_heads);
        let angles = self.rope.map(|(index, _)| &angles[index]);
        let norms = self.qk_norm.as_ref().map(|(query, key)| HeadNorms { query: query.weights(), key: key.weights() });
        let by_head = self.qk_norm.as_ref().is_some_and(|(query, key)| [query, key].iter().all(|norm| norm.width() == self.head_dim));
        let (norms, projected) = match norms {
            Some(norms) if by_head && norms.query.rms == norms.key.rms => (Some(norms), projected),
            Some(_) => {
                let [q, k, v] = projected.split(heads, kv_heads)?;
                let (q, k) = self.norm_apart(q, k)?;
                (None, Projected::Three([q, k, v]))
            }
            None => (None, projected),
        };
        if norms.is_some() || angles.is_some() {
            match &projected {
                Projected::One(qkv) => norm_rotate(qkv, heads + kv_heads, heads, norms.as_ref(), angles)?,
                Projected::Three([q, k, _]) => {
                    norm_rotate(q, heads, heads, norms.as_ref(), angles)?;
                    norm_rotate(k, kv_heads, 0, norms.as_ref(), angles)?;
                }
            }
        }
        let ([q, k, v], bias) = (projected.split(heads, kv_heads)?, self.bias.at(batch.longest())?);
        if flash::supports(self.head_dim, &bias) {
            return flash::attend(&q, &k, &v, tiles, &self.spec, &bias);
        }
        attend(&q, &k, &v, &batch.segments, &self.spec, &bias)
    }

    /// Norms queries and keys that are tensors of their own.
    fn norm_apart(&self, q: Tensor, k: Tensor) -> Result<(Tensor, Tensor)> {
        let norm = |x: Tensor, norm: &NormOp| -> Result<Tensor> {
            let shape = x.dims().to_vec();
            // A norm as wide as all heads together takes them as one row.
            if norm.width() == self.head_dim { norm.forward(&x) } else { norm.forward(&x.flatten_from(1)?)?.reshape(shape) }
        };
        match &self.qk_norm {
            Some((query, key)) => Ok((norm(q, query)?, norm(k, key)?)),
            None => Ok((q, k)),
        }
    }

    fn project(&self, x: &Tensor, batch: &Batch) -> Result<Projected> {
        let split = |y: Tensor, heads: usize| y.reshape(((), heads, self.head_dim));
        match &self.qkv {
            Qkv::One(linear) => Ok(Projected::One(split(linear.forward(x)?, self.heads + 2 * self.kv_heads)?)),
            Qkv::Three([query, key, value]) => {
                let (q, k, v) = (query.forward_each(x, batch)?, key.forward_each(x, batch)?, value.forward_each(x, batch)?);
                Ok(Projected::Three([split(q, self.heads)?, split(k, self.kv_heads)?, split(v, self.kv_heads)?]))
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

/// Queries, keys and values of a batch: fresh tensors that nobody else holds.
enum Projected {
    /// `[T, H + 2 G, D]`.
    One(Tensor),
    /// `[T, H, D]`, `[T, G, D]`, `[T, G, D]`.
    Three([Tensor; 3]),
}

impl Projected {
    /// `[T, H, D]`, `[T, G, D]`, `[T, G, D]`, as parts of the same memory.
    fn split(self, heads: usize, kv_heads: usize) -> Result<[Tensor; 3]> {
        match self {
            Self::One(qkv) => Ok([qkv.narrow(1, 0, heads)?, qkv.narrow(1, heads, kv_heads)?, qkv.narrow(1, heads + kv_heads, kv_heads)?]),
            Self::Three(parts) => Ok(parts),
        }
    }
}

/// See `network::PositionBias`.
enum BiasOp {
    None,
    /// Slopes, `[H]`.
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
            PositionBias::Alibi(slopes) => Self::Alibi(Tensor::new(slopes.to_vec(), &place.device).map_err(device)?),
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
            Self::Alibi(slopes) => Ok(Bias::Slopes(slopes.clone())),
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
