//! The position-wise part of a layer on the device: plain, gated, or experts.

use super::batch::Batch;
use super::linear::LinearOp;
use super::{bytes, device};
use crate::exec::Place;
use crate::kernels::device::activation::{Code, gated};
use crate::kernels::device::{Ops, linear};
use crate::network::{Activation, Experts, LoadError, Mlp};
use candle_core::{D, DType, Result, Tensor};

/// See `network::Mlp`.
pub(super) enum MlpOp {
    Plain {
        up: LinearOp,
        activation: Activation,
        down: LinearOp,
    },
    Gated {
        gate: LinearOp,
        up: LinearOp,
        activation: Activation,
        down: LinearOp,
    },
    /// Gate and up as one map.
    Fused {
        both: LinearOp,
        activation: Activation,
        down: LinearOp,
    },
    Experts(ExpertsOp),
}

impl MlpOp {
    pub(super) fn new(mlp: &Mlp, place: &Place) -> std::result::Result<Self, LoadError> {
        let linear = |linear| LinearOp::new(linear, place);
        Ok(match mlp {
            Mlp::Plain { up, activation, down } => Self::Plain { up: linear(up)?, activation: *activation, down: linear(down)? },
            Mlp::Gated { gate, up, activation, down } => {
                let (gate, up, activation, down) = (linear(gate)?, linear(up)?, *activation, linear(down)?);
                let both = if place.ops == Ops::Fused { LinearOp::stack(&[&gate, &up]).map_err(device)? } else { None };
                match both {
                    Some(both) => Self::Fused { both, activation, down },
                    None => Self::Gated { gate, up, activation, down },
                }
            }
            Mlp::Experts(experts) => Self::Experts(ExpertsOp::new(experts, place)?),
        })
    }

    /// `[T, C]` -> `[T, C]`.
    pub(super) fn forward(&self, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        match self {
            Self::Plain { up, activation, down } => down.forward_each(&up.forward_activated(x, *activation, batch)?, batch),
            Self::Gated { gate, up, activation, down } => {
                let open = gate.forward_activated(x, *activation, batch)?;
                down.forward_each(&(open * up.forward_each(x, batch)?)?, batch)
            }
            Self::Fused { both, activation, down } => {
                let (product, bias) = both.product(x)?;
                down.forward_each(&gated(&product, bias, code(*activation))?, batch)
            }
            Self::Experts(experts) => experts.forward(x),
        }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        match self {
            Self::Plain { up, down, .. } => up.weight_bytes() + down.weight_bytes(),
            Self::Gated { gate, up, down, .. } => gate.weight_bytes() + up.weight_bytes() + down.weight_bytes(),
            Self::Fused { both, down, .. } => both.weight_bytes() + down.weight_bytes(),
            Self::Experts(experts) => experts.weight_bytes(),
        }
    }
}

/// Each token through the experts that its router chose.
pub(super) struct ExpertsOp {
    router: LinearOp,
    top_k: usize,
    activation: Activation,
    /// `up` and `down`, `[F, C]` each.
    experts: Vec<(Tensor, Tensor)>,
    bias: Option<Tensor>,
}

impl ExpertsOp {
    fn new(experts: &Experts, place: &Place) -> std::result::Result<Self, LoadError> {
        let pairs = experts.experts.iter().map(|expert| Ok((place.tensor(&expert.up)?, place.tensor(&expert.down)?)));
        Ok(Self {
            router: LinearOp::new(&experts.router, place)?,
            top_k: experts.top_k,
            activation: experts.activation,
            experts: pairs.collect::<std::result::Result<_, LoadError>>()?,
            bias: experts.bias.as_ref().map(|bias| place.tensor(bias)).transpose()?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = x.zeros_like()?;
        for ((up, down), (rows, shares)) in self.experts.iter().zip(self.route(x)?) {
            if rows.is_empty() {
                continue;
            }
            let count = rows.len();
            let rows = Tensor::new(rows, x.device())?;
            let shares = Tensor::from_vec(shares, (count, 1), x.device())?.to_dtype(x.dtype())?;
            let inner = activate(&linear::product(&x.index_select(&rows, 0)?, up)?, self.activation)?;
            y = y.index_add(&rows, &linear::product(&inner, &down.t()?)?.broadcast_mul(&shares)?, 0)?;
        }
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// For each expert its rows and how much each counts.
    fn route(&self, x: &Tensor) -> Result<Vec<(Vec<u32>, Vec<f32>)>> {
        let logits = self.router.forward(x)?.to_dtype(DType::F32)?;
        let shares = candle_nn::ops::softmax(&logits, D::Minus1)?.to_vec2::<f32>()?;
        let mut routes = vec![(Vec::new(), Vec::new()); self.experts.len()];
        for (row, shares) in shares.iter().enumerate() {
            let mut order: Vec<usize> = (0..shares.len()).collect();
            order.sort_by(|a, b| shares[*b].total_cmp(&shares[*a]));
            for expert in order.into_iter().take(self.top_k) {
                routes[expert].0.push(row as u32);
                routes[expert].1.push(shares[expert]);
            }
        }
        Ok(routes)
    }

    fn weight_bytes(&self) -> usize {
        let experts: usize = self.experts.iter().map(|(up, down)| bytes(up) + bytes(down)).sum();
        experts + self.router.weight_bytes() + self.bias.as_ref().map_or(0, bytes)
    }
}

/// An activation as the kernels know it.
pub(super) fn code(activation: Activation) -> Code {
    match activation {
        Activation::Identity => 0,
        Activation::Gelu => 1,
        Activation::GeluTanh => 2,
        Activation::Relu => 3,
        Activation::Sigmoid => 4,
        Activation::Silu => 5,
        Activation::Tanh => 6,
    }
}

/// Applies an activation element-wise.
pub(crate) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Identity => Ok(x.clone()),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::Relu => x.relu(),
        Activation::Sigmoid => candle_nn::ops::sigmoid(x),
        Activation::Silu => x.silu(),
        Activation::Tanh => x.tanh(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn each_activation_is_its_definition() -> Result<()> {
        // x = 1 and x = -2, to more digits than f32 has.
        for (activation, want) in [
            (Activation::Identity, [1., -2.]),
            (Activation::Gelu, [0.841_344_746, -0.045_500_264]),
            (Activation::GeluTanh, [0.841_191_991, -0.045_402_306]),
            (Activation::Relu, [1., 0.]),
            (Activation::Sigmoid, [0.731_058_579, 0.119_202_922]),
            (Activation::Silu, [0.731_058_579, -0.238_405_844]),
            (Activation::Tanh, [0.761_594_156, -0.964_027_58]),
        ] {
            let got = activate(&Tensor::new(&[1f32, -2.], &Device::Cpu)?, activation)?.to_vec1::<f32>()?;
            for (got, want) in got.iter().zip(want) {
                assert!((f64::from(*got) - want).abs() < 1e-7, "{activation:?}: {got} instead of {want}");
            }
        }
        Ok(())
    }
}
