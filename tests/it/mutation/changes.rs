//! All the ways in which a description can be wrong, one at a time: each word that it has is left out, or replaced by another.

use super::edits::{
    LAYER_NORMS, LINEARS, NORM_CHANGES, OUTER_NORMS, fewer_dimensions, halve_heads, joined, key_shift_cancels, moves_rows, other_scale, put_after,
    scale_all, shift_positions, turn_key_heads, with_distances, with_rope,
};
use std::sync::Arc;
use vecmill::network::{Activation, Frequencies, Layer, Mask, Mlp, Network, Norms, Pairing, PositionBias};

/// A description that is wrong in one thing.
pub struct Change {
    pub kind: &'static str,
    pub place: String,
    pub network: Network,
}

/// Every kind of change.
pub const KINDS: &[&str] = &[
    "norm epsilon",
    "norm kind",
    "norm bias left out",
    "embedding norm left out",
    "final norm left out",
    "norm before left out",
    "norm inside left out",
    "norm nested left out",
    "norm after left out",
    "norm before put after",
    "norm inside put after",
    "q and k norm left out",
    "layer left out",
    "layers in another order",
    "convolution left out",
    "convolution bias left out",
    "convolution activation",
    "embedding scale left out",
    "positions left out",
    "position offset",
    "padding counted",
    "token type left out",
    "another token type",
    "projection bias left out",
    "token map",
    "token weights left out",
    "projection norm left out",
    "adapter scale",
    "adapted token type left out",
    "query bias left out",
    "key bias left out",
    "value bias left out",
    "output bias left out",
    "up bias left out",
    "gate bias left out",
    "down bias left out",
    "expert bias left out",
    "attention scale",
    "heads",
    "key heads in another order",
    "causal",
    "reach left out",
    "reach one longer",
    "reach added",
    "rope left out",
    "rope theta",
    "rope pairing",
    "rope dimensions",
    "rope magnitude",
    "rope growth",
    "rope by length",
    "alibi left out",
    "alibi slopes",
    "buckets left out",
    "buckets turned round",
    "buckets max distance",
    "disentangled c2p left out",
    "disentangled p2c left out",
    "disentangled buckets",
    "disentangled max distance",
    "disentangled norm left out",
    "activation",
    "gate and up changed over",
    "experts chosen",
    "experts in another order",
];

/// All changes that apply to a description whose texts have up to `longest` tokens.
pub fn of(network: &Network, longest: usize) -> Vec<Change> {
    let mut all = All { network, longest, changes: Vec::new() };
    all.whole();
    all.embeddings();
    all.norms();
    all.biases();
    all.attention();
    all.rope();
    all.position_bias();
    all.mlp();
    all.convolution();
    all.changes
}

/// The epsilons of all norms.
pub fn epsilons(network: &Network) -> Vec<f64> {
    let mut network = network.clone();
    let layers: Vec<Layer> = network.layers.iter().map(|layer| (**layer).clone()).collect();
    let outer = OUTER_NORMS.iter().filter_map(|(_, norm)| norm(&mut network).map(|norm| norm.eps)).collect::<Vec<_>>();
    let inner = layers.into_iter().flat_map(|mut layer| {
        let disentangled = match &layer.attention.bias {
            PositionBias::Disentangled(about) => about.norm.as_ref().map(|norm| norm.eps),
            _ => None,
        };
        LAYER_NORMS.iter().filter_map(|(_, norm)| norm(&mut layer).map(|norm| norm.eps)).chain(disentangled).collect::<Vec<_>>()
    });
    outer.into_iter().chain(inner).collect()
}

struct All<'a> {
    network: &'a Network,
    longest: usize,
    changes: Vec<Change>,
}

impl All<'_> {
    /// A change outside the layers; `change` says whether there was anything to change.
    fn outer(&mut self, kind: &'static str, place: &str, change: impl Fn(&mut Network) -> bool) {
        assert!(KINDS.contains(&kind), "{kind:?} is not listed");
        let mut network = self.network.clone();
        if change(&mut network) {
            self.changes.push(Change { kind, place: place.to_owned(), network });
        }
    }

    /// A change in all layers at once, and in each alone. A layer that is applied several times stays one.
    fn layers(&mut self, kind: &'static str, place: &str, change: impl Fn(&mut Layer) -> bool) {
        let mut own: Vec<Arc<Layer>> = Vec::new();
        for layer in &self.network.layers {
            if !own.iter().any(|other| Arc::ptr_eq(other, layer)) {
                own.push(layer.clone());
            }
        }
        let changed: Vec<Option<Arc<Layer>>> = own
            .iter()
            .map(|layer| {
                let mut layer = (**layer).clone();
                change(&mut layer).then(|| Arc::new(layer))
            })
            .collect();
        let with = |network: &mut Network, only: Option<usize>| {
            for layer in &mut network.layers {
                let index = own.iter().position(|other| Arc::ptr_eq(other, layer)).expect("one of them");
                if let Some(changed) = changed[index].as_ref().filter(|_| only.is_none_or(|only| only == index)) {
                    *layer = changed.clone();
                }
            }
            changed.iter().enumerate().any(|(index, changed)| changed.is_some() && only.is_none_or(|only| only == index))
        };
        self.outer(kind, &format!("{place}, all layers"), |network| with(network, None));
        for index in (0..own.len()).filter(|_| own.len() > 1) {
            self.outer(kind, &format!("{place}, layer {index}"), |network| with(network, Some(index)));
        }
    }

    fn whole(&mut self) {
        self.outer("layer left out", "the last", |network| network.layers.pop().is_some());
        self.outer("layers in another order", "reversed", |network| {
            let same = network.layers.iter().zip(network.layers.iter().rev()).all(|(a, b)| Arc::ptr_eq(a, b));
            network.layers.reverse();
            !same
        });
    }

    fn embeddings(&mut self) {
        self.outer("embedding scale left out", "", |network| std::mem::replace(&mut network.embeddings.scale, 1.) != 1.);
        self.outer("positions left out", "", |network| network.embeddings.positions.take().is_some());
        self.outer("position offset", "one more", |network| shift_positions(network, 1));
        self.outer("position offset", "one less", |network| shift_positions(network, -1));
        self.outer("padding counted", "", |network| {
            network.embeddings.positions.as_mut().is_some_and(|positions| positions.uncounted.take().is_some())
        });
        self.outer("token type left out", "", |network| network.embeddings.token_types.take().is_some());
        self.outer("another token type", "", |network| {
            let second = network.embeddings.token_types.as_ref().and_then(|types| types.rows(1..2).ok());
            second.map(|second| network.embeddings.token_types = Some(second)).is_some()
        });
        self.outer("projection bias left out", "", |network| {
            network.embeddings.projection.as_mut().is_some_and(|projection| projection.linear.bias.take().is_some())
        });
        self.outer("token map", "turned round", |network| {
            let map = network.embeddings.tokens.map.as_mut();
            map.map(|map| *map = map.iter().rev().copied().collect()).is_some()
        });
        self.outer("token weights left out", "", |network| network.embeddings.tokens.weights.take().is_some());
        self.outer("adapter scale", "token table", |network| {
            let deltas = &mut network.embeddings.tokens.adapters;
            deltas.iter_mut().for_each(|delta| delta.scale *= 2.);
            !deltas.is_empty()
        });
        self.outer("adapted token type left out", "", |network| {
            network.embeddings.tokens.adapters.iter_mut().filter_map(|delta| delta.token_type.take()).count() > 0
        });
        self.outer("projection norm left out", "", |network| {
            network.embeddings.projection.as_mut().is_some_and(|projection| projection.norm.take().is_some())
        });
        self.outer("adapter scale", "projection", |network| {
            network.embeddings.projection.as_mut().is_some_and(|projection| other_scale(&mut projection.linear.adapters))
        });
    }

    fn norms(&mut self) {
        for (kind, change) in NORM_CHANGES {
            for (place, norm) in OUTER_NORMS {
                self.outer(kind, place, |network| norm(network).is_some_and(change));
            }
            for (place, norm) in LAYER_NORMS {
                self.layers(kind, place, |layer| {
                    let cancels = (kind, place) == ("norm bias left out", "of keys") && key_shift_cancels(&layer.attention);
                    !cancels && norm(layer).is_some_and(change)
                });
            }
            self.layers(kind, "of distances", |layer| with_distances(layer, |about| about.norm.as_mut().is_some_and(change)));
        }
        self.outer("embedding norm left out", "", |network| network.embeddings.norm.take().is_some());
        self.outer("final norm left out", "", |network| network.norm.take().is_some());
        self.layers("q and k norm left out", "", |layer| layer.attention.qk_norm.take().is_some());
        for (place, norms) in
            [("attention", (|layer| &mut layer.attention_norms) as fn(&mut Layer) -> &mut Norms), ("MLP", |layer| &mut layer.mlp_norms)]
        {
            self.layers("norm before left out", place, |layer| norms(layer).before.take().is_some());
            self.layers("norm inside left out", place, |layer| norms(layer).inside.take().is_some());
            self.layers("norm nested left out", place, |layer| norms(layer).nested.take().is_some());
            self.layers("norm after left out", place, |layer| norms(layer).after.take().is_some());
            self.layers("norm before put after", place, |layer| {
                let norms = norms(layer);
                put_after(&mut norms.before, &mut norms.after)
            });
            self.layers("norm inside put after", place, |layer| {
                let norms = norms(layer);
                put_after(&mut norms.inside, &mut norms.after)
            });
        }
    }

    fn biases(&mut self) {
        for (kind, linear) in LINEARS {
            self.layers(kind, "", |layer| {
                let cancels = kind == "key bias left out" && layer.attention.qk_norm.is_none() && key_shift_cancels(&layer.attention);
                !cancels && linear(layer).is_some_and(|linear| linear.bias.take().is_some())
            });
            self.layers("adapter scale", kind, |layer| linear(layer).is_some_and(|linear| other_scale(&mut linear.adapters)));
        }
        self.layers("expert bias left out", "", |layer| match &mut layer.mlp {
            Mlp::Experts(experts) => experts.bias.take().is_some(),
            _ => false,
        });
    }

    fn attention(&mut self) {
        self.layers("attention scale", "", |layer| {
            layer.attention.scale *= 1.1;
            true
        });
        self.layers("heads", "half as many", |layer| halve_heads(&mut layer.attention));
        self.layers("key heads in another order", "", |layer| turn_key_heads(&mut layer.attention));
        let longest = self.longest;
        self.layers("causal", "changed", |layer| {
            layer.attention.mask.causal ^= true;
            longest > 1
        });
        self.layers("reach left out", "", |layer| layer.attention.mask.reach.take().is_some());
        self.layers("reach one longer", "", |layer| layer.attention.mask.reach.as_mut().map(|reach| *reach += 1).is_some());
        self.layers("reach added", "", |layer| {
            let open = layer.attention.mask.reach.is_none();
            layer.attention.mask = Mask { reach: Some(2), ..layer.attention.mask };
            open
        });
    }

    fn rope(&mut self) {
        self.layers("rope left out", "", |layer| layer.attention.rope.take().is_some());
        self.layers("rope theta", "", |layer| {
            with_rope(layer, |rope| match &mut rope.frequencies {
                // The first pair turns by one radian a token whatever theta is.
                Frequencies::Fixed(fixed) => fixed.len() > 1 && scale_all(&mut fixed[1..]),
                Frequencies::Dynamic { theta, .. } => {
                    *theta *= 1.5;
                    true
                }
                Frequencies::ByLength { short, long, .. } => scale_all(short) | scale_all(long),
            })
        });
        self.layers("rope pairing", "", |layer| {
            with_rope(layer, |rope| {
                rope.pairing = if rope.pairing == Pairing::Halves { Pairing::Neighbours } else { Pairing::Halves };
                // A single pair is the same two numbers either way.
                rope.dim > 2
            })
        });
        self.layers("rope dimensions", "two less", |layer| with_rope(layer, fewer_dimensions));
        self.layers("rope magnitude", "", |layer| {
            with_rope(layer, |rope| {
                rope.magnitude *= 1.05;
                true
            })
        });
        // Nothing grows in texts that are no longer than those of the training.
        let longest = self.longest;
        self.layers("rope growth", "", |layer| {
            with_rope(layer, |rope| match &mut rope.frequencies {
                Frequencies::Dynamic { factor, trained, .. } => {
                    *factor *= 1.5;
                    longest > *trained
                }
                _ => false,
            })
        });
        self.layers("rope by length", "", |layer| {
            with_rope(layer, |rope| match &mut rope.frequencies {
                Frequencies::ByLength { short, long, .. } => {
                    std::mem::swap(short, long);
                    short != long
                }
                _ => false,
            })
        });
    }

    fn position_bias(&mut self) {
        self.layers("alibi left out", "", |layer| matches!(std::mem::replace(&mut layer.attention.bias, PositionBias::None), PositionBias::Alibi(_)));
        self.layers("alibi slopes", "turned round", |layer| match &mut layer.attention.bias {
            PositionBias::Alibi(slopes) => {
                *slopes = slopes.iter().rev().copied().collect();
                slopes.len() > 1
            }
            _ => false,
        });
        self.layers("buckets left out", "", |layer| {
            matches!(std::mem::replace(&mut layer.attention.bias, PositionBias::None), PositionBias::Buckets { .. })
        });
        self.layers("buckets turned round", "", |layer| match &mut layer.attention.bias {
            PositionBias::Buckets { table, .. } => {
                let half = table.shape()[0] / 2;
                *table = joined(table, &[half..2 * half, 0..half]);
                true
            }
            _ => false,
        });
        let far = self.longest as i64 - 1;
        self.layers("buckets max distance", "half", |layer| match &mut layer.attention.bias {
            PositionBias::Buckets { table, max_distance } => {
                let (buckets, before) = (table.shape()[0], *max_distance);
                *max_distance /= 2;
                // Where no text is long enough to have a distance in another bucket, nothing changes.
                (-far..=far).any(|distance| PositionBias::bucket(distance, buckets, before) != PositionBias::bucket(distance, buckets, *max_distance))
            }
            _ => false,
        });
        self.layers("disentangled c2p left out", "", |layer| with_distances(layer, |about| about.key.take().is_some()));
        self.layers("disentangled p2c left out", "", |layer| with_distances(layer, |about| about.query.take().is_some()));
        self.layers("disentangled norm left out", "", |layer| with_distances(layer, |about| about.norm.take().is_some()));
        self.layers("disentangled buckets", "", |layer| {
            with_distances(layer, |about| moves_rows(about, far, |about| about.buckets = if about.buckets.is_some() { None } else { Some(4) }))
        });
        self.layers("disentangled max distance", "", |layer| with_distances(layer, |about| moves_rows(about, far, |about| about.max_distance *= 2)));
    }

    fn mlp(&mut self) {
        for activation in Activation::ALL {
            self.layers("activation", &format!("{activation:?}"), |layer| {
                let own = match &mut layer.mlp {
                    Mlp::Plain { activation, .. } | Mlp::Gated { activation, .. } => activation,
                    Mlp::Experts(experts) => &mut experts.activation,
                };
                std::mem::replace(own, activation) != activation
            });
        }
        self.layers("gate and up changed over", "", |layer| match &mut layer.mlp {
            Mlp::Gated { gate, up, activation, .. } => {
                std::mem::swap(gate, up);
                *activation != Activation::Identity
            }
            _ => false,
        });
        self.layers("experts chosen", "", |layer| match &mut layer.mlp {
            Mlp::Experts(experts) => {
                experts.top_k = if experts.top_k < experts.experts.len() { experts.top_k + 1 } else { experts.top_k - 1 };
                true
            }
            _ => false,
        });
        self.layers("experts in another order", "", |layer| match &mut layer.mlp {
            Mlp::Experts(experts) => {
                experts.experts.reverse();
                experts.experts.len() > 1
            }
            _ => false,
        });
    }

    fn convolution(&mut self) {
        self.layers("convolution left out", "", |layer| layer.convolution.take().is_some());
        self.layers("convolution bias left out", "", |layer| layer.convolution.as_mut().is_some_and(|convolution| convolution.bias.take().is_some()));
        for activation in Activation::ALL {
            self.layers("convolution activation", &format!("{activation:?}"), |layer| {
                layer.convolution.as_mut().is_some_and(|convolution| std::mem::replace(&mut convolution.activation, activation) != activation)
            });
        }
    }
}
