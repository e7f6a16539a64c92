//! How single words of a description are changed; each edit says whether there was anything to change.

use std::ops::Range;
use std::sync::Arc;
use vecmill::network::{
    Attention, Disentangled, Frequencies, Layer, Linear, LowRank, Mlp, Network, Norm, NormKind, PositionBias, Rope, Stored, Weight,
};

pub type Place<Of, What> = (&'static str, fn(&mut Of) -> Option<&mut What>);

pub const OUTER_NORMS: [Place<Network, Norm>; 3] = [
    ("embedding norm", |network| network.embeddings.norm.as_mut()),
    ("final norm", |network| network.norm.as_mut()),
    ("projection norm", |network| network.embeddings.projection.as_mut().and_then(|projection| projection.norm.as_mut())),
];

pub const LAYER_NORMS: [Place<Layer, Norm>; 11] = [
    ("before attention", |layer| layer.attention_norms.before.as_mut()),
    ("inside attention", |layer| layer.attention_norms.inside.as_mut()),
    ("nested in attention", |layer| layer.attention_norms.nested.as_mut()),
    ("after attention", |layer| layer.attention_norms.after.as_mut()),
    ("before MLP", |layer| layer.mlp_norms.before.as_mut()),
    ("inside MLP", |layer| layer.mlp_norms.inside.as_mut()),
    ("nested in MLP", |layer| layer.mlp_norms.nested.as_mut()),
    ("after MLP", |layer| layer.mlp_norms.after.as_mut()),
    ("of queries", |layer| layer.attention.qk_norm.as_mut().map(|norms| &mut norms.query)),
    ("of keys", |layer| layer.attention.qk_norm.as_mut().map(|norms| &mut norms.key)),
    ("of convolution", |layer| layer.convolution.as_mut().map(|convolution| &mut convolution.norm)),
];

/// Maps of a layer, by the kind of change that leaves out their bias.
pub const LINEARS: [Place<Layer, Linear>; 7] = [
    ("query bias left out", |layer| Some(&mut layer.attention.query)),
    ("key bias left out", |layer| Some(&mut layer.attention.key)),
    ("value bias left out", |layer| Some(&mut layer.attention.value)),
    ("output bias left out", |layer| Some(&mut layer.attention.output)),
    ("up bias left out", |layer| match &mut layer.mlp {
        Mlp::Plain { up, .. } | Mlp::Gated { up, .. } => Some(up),
        Mlp::Experts(_) => None,
    }),
    ("gate bias left out", |layer| match &mut layer.mlp {
        Mlp::Gated { gate, .. } => Some(gate),
        _ => None,
    }),
    ("down bias left out", |layer| match &mut layer.mlp {
        Mlp::Plain { down, .. } | Mlp::Gated { down, .. } => Some(down),
        Mlp::Experts(_) => None,
    }),
];

/// Large enough to show beside the variances of the checkpoints, which are of the order of 1.
const EPS_STEP: f64 = 0.05;

fn other_eps(norm: &mut Norm) -> bool {
    norm.eps += EPS_STEP;
    true
}

/// An RMSNorm has no bias, so it goes with the kind.
fn other_kind(norm: &mut Norm) -> bool {
    norm.kind = match norm.kind {
        NormKind::Layer | NormKind::RmsPlusOne => NormKind::Rms,
        NormKind::Rms => NormKind::RmsPlusOne,
    };
    norm.bias = None;
    true
}

fn no_bias(norm: &mut Norm) -> bool {
    norm.bias.take().is_some()
}

pub type NormChange = (&'static str, fn(&mut Norm) -> bool);

pub const NORM_CHANGES: [NormChange; 3] = [("norm epsilon", other_eps), ("norm kind", other_kind), ("norm bias left out", no_bias)];

/// Puts a norm behind the residual connection, where there is none yet.
pub fn put_after(norm: &mut Option<Norm>, after: &mut Option<Norm>) -> bool {
    let fits = norm.is_some() && after.is_none();
    if fits {
        *after = norm.take();
    }
    fits
}

pub fn other_scale(adapters: &mut [LowRank]) -> bool {
    adapters.iter_mut().for_each(|delta| delta.scale *= 2.);
    !adapters.is_empty()
}

/// Positions counted from another row; texts that no longer reach it are left out.
pub fn shift_positions(network: &mut Network, by: isize) -> bool {
    let Some(positions) = network.embeddings.positions.as_mut() else { return false };
    let Some(offset) = positions.offset.checked_add_signed(by) else { return false };
    positions.offset = offset;
    network.max_tokens = network.max_tokens.min(positions.max_tokens());
    true
}

/// `q . (k + b)` is `q . k` and something that is the same for all keys, which the softmax takes away. Not so where keys are turned, or met by vectors
/// per distance.
pub fn key_shift_cancels(attention: &Attention) -> bool {
    let met_by_distances = matches!(&attention.bias, PositionBias::Disentangled(about) if about.query.is_some());
    attention.rope.is_none() && !met_by_distances
}

/// Half as many heads, twice as wide, where nothing else counts them.
pub fn halve_heads(attention: &mut Attention) -> bool {
    let counted = attention.rope.is_some() || attention.qk_norm.is_some() || !matches!(attention.bias, PositionBias::None);
    if counted || !attention.heads.is_multiple_of(2) || !attention.kv_heads.is_multiple_of(2) {
        return false;
    }
    (attention.heads, attention.kv_heads, attention.head_dim) = (attention.heads / 2, attention.kv_heads / 2, attention.head_dim * 2);
    true
}

/// Key and value heads meet the wrong queries.
pub fn turn_key_heads(attention: &mut Attention) -> bool {
    let (heads, dim) = (attention.kv_heads, attention.head_dim);
    let reversed: Vec<Range<usize>> = (0..heads).rev().map(|head| head * dim..(head + 1) * dim).collect();
    for linear in [&mut attention.key, &mut attention.value] {
        linear.weight = joined(&linear.weight, &reversed);
        linear.bias = linear.bias.as_ref().map(|bias| joined(bias, &reversed));
    }
    heads > 1
}

/// These rows of a weight, in this order.
pub fn joined(weight: &Weight, rows: &[Range<usize>]) -> Weight {
    let numbers = numbers(weight);
    let width = numbers.len() / weight.shape()[0];
    let numbers: Vec<f32> = rows.iter().flat_map(|rows| &numbers[rows.start * width..rows.end * width]).copied().collect();
    let mut shape = weight.shape().to_vec();
    shape[0] = numbers.len() / width;
    Weight::from_f32(weight.name(), &shape, &numbers).expect("fills its shape")
}

fn numbers(weight: &Weight) -> Vec<f32> {
    let bytes = weight.bytes();
    match weight.stored() {
        Stored::F32 => bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)).collect(),
        Stored::F16 => bytes.as_chunks().0.iter().map(|number| half::f16::from_le_bytes(*number).to_f32()).collect(),
        Stored::Bf16 => bytes.as_chunks().0.iter().map(|number| half::bf16::from_le_bytes(*number).to_f32()).collect(),
        other => panic!("{weight:?}: {other:?} is not a weight's format"),
    }
}

pub fn with_rope(layer: &mut Layer, change: impl FnOnce(&mut Rope) -> bool) -> bool {
    let Some(shared) = layer.attention.rope.as_mut() else { return false };
    let mut rope = (**shared).clone();
    let changed = change(&mut rope);
    *shared = Arc::new(rope);
    changed
}

pub fn scale_all(frequencies: &mut [f32]) -> bool {
    frequencies.iter_mut().for_each(|frequency| *frequency *= 0.8);
    !frequencies.is_empty()
}

/// The last pair of dimensions is not turned any more.
pub fn fewer_dimensions(rope: &mut Rope) -> bool {
    rope.dim -= 2;
    match &mut rope.frequencies {
        Frequencies::Fixed(fixed) => drop(fixed.pop()),
        // Its growth divides by two less than the dimensions.
        Frequencies::Dynamic { .. } => return rope.dim > 2,
        Frequencies::ByLength { short, long, .. } => drop((short.pop(), long.pop())),
    }
    rope.dim > 0
}

pub fn with_distances(layer: &mut Layer, change: impl FnOnce(&mut Disentangled) -> bool) -> bool {
    let PositionBias::Disentangled(shared) = &mut layer.attention.bias else { return false };
    let mut about = (**shared).clone();
    let changed = change(&mut about);
    *shared = Arc::new(about);
    changed
}

/// Whether a change gives a distance of up to `far` another row.
pub fn moves_rows(about: &mut Disentangled, far: i64, change: impl FnOnce(&mut Disentangled)) -> bool {
    let rows = |about: &Disentangled| (-far..=far).map(|distance| about.row(distance)).collect::<Vec<_>>();
    let before = rows(about);
    change(about);
    rows(about) != before
}
