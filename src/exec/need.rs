//! What a network will take of the machine's memory: known from shapes alone, before anything of it is read.

use super::{Place, fused, host};
use crate::kernels::host::pack::Packed;
use crate::kernels::host::{Cpu, Element};
use crate::kernels::threads;
use crate::network::{Attention, Embeddings, Experts, Layer, Linear, Mlp, Network, Norm, Norms, PositionBias, TokenTable, Weight};
use std::sync::Arc;

/// Longer texts are counted as of this many tokens: whoever admits them (`--max-request-tokens`) gives them room.
const LONGEST: usize = 32_768;

/// Bytes of the machine's own memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Need {
    /// The weights as they are computed with; 0 where they lie on another device.
    pub weights: usize,
    /// On top of them at most, while they are brought into that form.
    pub loading: usize,
    /// Activations of one text of the greatest length, and beside it a group of texts on every other thread.
    pub working: usize,
}

impl Need {
    /// Of a network whose longest text has `longest` tokens.
    pub fn of(network: &Network, place: &Place, longest: usize) -> Self {
        let mut parts = Parts::default();
        parts.network(network);
        let bytes = place.dtype.bytes().max(place.candle_dtype().size_in_bytes());
        let largest = parts.all().map(Weight::elements).max().unwrap_or(0);
        let (loading, exact) = (largest * (size_of::<f32>() + bytes), size_of::<f32>());
        match fused(network, place) {
            Ok((cpu, element)) => {
                // Layers are packed side by side.
                let at_once = threads::count().clamp(1, network.layers.len().max(1));
                parts.packed(cpu, element, at_once, working(network, longest, exact))
            }
            // A tensor is decoded in f32 and then turned into its dtype.
            Err(_) if place.device.is_cpu() => {
                let distances = parts.distances.iter().map(|[rows, heads, dim]| rows * heads * dim).sum::<usize>();
                let numbers = parts.all().map(Weight::elements).sum::<usize>() + distances + parts.numbers;
                Self { weights: numbers * bytes, loading, working: working(network, longest, bytes) }
            }
            Err(_) => Self { weights: 0, loading, working: 0 },
        }
    }
}

/// The weights of a network by what becomes of them on a processor. Each that is shared stands here once.
#[derive(Default)]
struct Parts<'a> {
    /// Multiplied: packed, in the dtype computed in. The flag: stored `[in, out]`.
    maps: Vec<(&'a Weight, bool)>,
    /// Multiplied, in f32 whatever the dtype.
    exact: Vec<&'a Weight>,
    /// Looked up.
    tables: Vec<&'a Weight>,
    /// Added, or multiplied number by number.
    rows: Vec<&'a Weight>,
    /// What is held as it is by the executor on tensors only.
    other: Vec<&'a Weight>,
    /// What maps make of a table of distances: its rows, heads and their size, for each of them.
    distances: Vec<[usize; 3]>,
    /// Of convolutions: groups, their channels, and what one of these is multiplied with.
    convolutions: Vec<[usize; 3]>,
    /// How many numbers there are besides, in f32.
    numbers: usize,
}

impl<'a> Parts<'a> {
    fn all(&self) -> impl Iterator<Item = &'a Weight> {
        let maps = self.maps.iter().map(|(weight, _)| *weight);
        maps.chain([&self.exact, &self.tables, &self.rows, &self.other].into_iter().flatten().copied())
    }

    /// As the fused executor holds them, so many packed at once.
    fn packed(&self, cpu: Cpu, element: Element, at_once: usize, working: usize) -> Need {
        let size = |weight: &Weight, turned: bool, element| {
            let [a, b] = [0, 1].map(|at| weight.shape().get(at).copied().unwrap_or(1));
            Packed::bytes_of(cpu, element, if turned { b } else { a }, if turned { a } else { b })
        };
        let maps: usize = self.maps.iter().map(|(weight, turned)| size(weight, *turned, element)).sum();
        let exact: usize = self.exact.iter().map(|weight| size(weight, false, Element::F32)).sum();
        let tables: usize = self.tables.iter().map(|weight| host::table::bytes_of(weight)).sum();
        let rows: usize = self.rows.iter().map(|weight| weight.elements() * size_of::<f32>()).sum();
        let distances: usize = self.distances.iter().map(|[rows, heads, dim]| heads * Packed::bytes_of(cpu, Element::F32, *rows, *dim)).sum();
        let convolutions: usize =
            self.convolutions.iter().map(|[groups, channels, inner]| groups * Packed::bytes_of(cpu, Element::F32, *channels, *inner)).sum();
        // Only what is stored the other way round is decoded as a whole; of all else, some rows at a time.
        let whole = self.maps.iter().filter(|(_, turned)| *turned).map(|(weight, _)| weight.elements()).max().unwrap_or(0);
        let row = self.all().filter_map(|weight| weight.shape().last().copied()).max().unwrap_or(0);
        Need {
            weights: maps + exact + tables + rows + distances + convolutions + self.numbers * size_of::<f32>(),
            loading: whole.max(row).max(super::weights::CHUNK) * 2 * size_of::<f32>() * at_once,
            working,
        }
    }

    fn network(&mut self, network: &'a Network) {
        let Network { width: _, max_tokens: _, embeddings, layers, norm, adapters: _ } = network;
        let Embeddings { tokens, scale: _, positions, token_types, norm: embeddings_norm, projection } = embeddings;
        let TokenTable { rows, map: _, weights, adapters } = tokens;
        self.tables.push(rows);
        self.tables.extend(positions.as_ref().map(|positions| &positions.table));
        self.rows.extend(weights);
        self.rows.extend(token_types);
        for delta in adapters {
            self.rows.extend([&delta.down, &delta.up]);
            self.rows.extend(delta.token_type.iter().flat_map(|(down, up)| [down, up]));
        }
        [embeddings_norm, norm].into_iter().flatten().for_each(|norm| self.norm(norm));
        if let Some(projection) = projection {
            self.exact.push(&projection.linear.weight);
            self.beside(&projection.linear);
            projection.norm.iter().for_each(|norm| self.norm(norm));
        }
        for (at, layer) in layers.iter().enumerate() {
            if !layers[..at].iter().any(|other| Arc::ptr_eq(other, layer)) {
                self.layer(layer);
            }
        }
    }

    fn layer(&mut self, layer: &'a Layer) {
        let Layer { attention, attention_norms, mlp, mlp_norms, convolution } = layer;
        self.attention(attention);
        for Norms { before, inside, nested, after } in [attention_norms, mlp_norms] {
            [before, inside, nested, after].into_iter().flatten().for_each(|norm| self.norm(norm));
        }
        match mlp {
            Mlp::Plain { up, activation: _, down } => self.linears(&[up, down]),
            Mlp::Gated { gate, up, activation: _, down } => self.linears(&[gate, up, down]),
            Mlp::Experts(Experts { router, top_k: _, activation: _, experts, bias }) => {
                self.exact.push(&router.weight);
                self.beside(router);
                self.maps.extend(experts.iter().flat_map(|expert| [(&expert.up, false), (&expert.down, true)]));
                self.rows.extend(bias);
            }
        }
        if let Some(convolution) = convolution {
            let channels = convolution.weight.shape()[0] / convolution.groups;
            self.convolutions.push([convolution.groups, channels, convolution.weight.shape()[1..].iter().product()]);
            self.other.push(&convolution.weight);
            self.other.extend(&convolution.bias);
            self.norm(&convolution.norm);
        }
    }

    fn attention(&mut self, attention: &'a Attention) {
        let Attention { query, key, value, output, qk_norm, bias, heads, kv_heads: _, head_dim, scale: _, mask: _, rope: _ } = attention;
        self.linears(&[query, key, value, output]);
        qk_norm.iter().flat_map(|norms| [&norms.query, &norms.key]).for_each(|norm| self.norm(norm));
        match bias {
            PositionBias::None => {}
            PositionBias::Alibi(slopes) => self.numbers += slopes.len(),
            PositionBias::Buckets { table, max_distance: _ } => self.rows.push(table),
            PositionBias::Disentangled(about) => {
                self.other.push(&about.table);
                about.norm.iter().for_each(|norm| self.norm(norm));
                for linear in [&about.key, &about.query].into_iter().flatten() {
                    // Held is what the map makes of the table.
                    self.distances.push([about.table.shape()[0], *heads, *head_dim]);
                    self.other.push(&linear.weight);
                    self.beside(linear);
                }
            }
        }
    }

    fn linears(&mut self, linears: &[&'a Linear]) {
        for linear in linears {
            self.maps.push((&linear.weight, false));
            self.beside(linear);
        }
    }

    /// What a map holds beside its matrix. A packed one has a bias in any case; counting it twice is nothing.
    fn beside(&mut self, linear: &'a Linear) {
        self.rows.extend(&linear.bias);
        self.exact.extend(linear.adapters.iter().flat_map(|delta| [&delta.down, &delta.up]));
    }

    fn norm(&mut self, norm: &'a Norm) {
        // One without a bias holds zeros.
        self.rows.extend([&norm.weight, norm.bias.as_ref().unwrap_or(&norm.weight)]);
    }
}

/// Bytes of activations; `bytes` each.
fn working(network: &Network, longest: usize, bytes: usize) -> usize {
    let widths = network.layers.iter().map(|layer| {
        let Attention { heads, kv_heads, head_dim, .. } = &layer.attention;
        let inner = match &layer.mlp {
            Mlp::Plain { up, .. } | Mlp::Gated { up, .. } => 2 * up.weight.shape()[0],
            Mlp::Experts(experts) => experts.experts.first().map_or(0, |expert| 2 * expert.up.shape()[0]),
        };
        let distances = if let PositionBias::Disentangled(about) = &layer.attention.bias { 2 * about.table.shape()[0] } else { 0 };
        let (neighbours, beside) =
            layer.convolution.as_ref().map_or((0, 0), |convolution| (convolution.weight.shape()[1..].iter().product(), network.width));
        // Queries, keys, values, their mix; the keys and values of a head in panels; what a head makes of distances.
        (2 * heads + 2 * kv_heads) * head_dim + 2 * head_dim + distances + inner.max(neighbours) + beside
    });
    // The stream, what a norm gives, what goes back onto it, and the result.
    let token = (4 * network.width + widths.max().unwrap_or(0)) * bytes;
    let beside = if network.layers.is_empty() { 0 } else { (threads::count().max(1) - 1) * host::GROUP_TOKENS };
    (longest.clamp(host::GROUP_TOKENS, LONGEST) + beside) * token
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Executor;
    use crate::network::{Activation, DType, LoadError, Mask, NormKind};
    use candle_core::Device;

    fn weight(shape: &[usize]) -> Result<Weight, LoadError> {
        Weight::from_f32("w", shape, &vec![0.5; shape.iter().product()])
    }

    /// The shape of BERT, with panels that are nearly full.
    fn bert(c: usize, f: usize) -> Result<Network, LoadError> {
        let norm = || Ok::<_, LoadError>(Norm { kind: NormKind::Layer, weight: weight(&[c])?, bias: Some(weight(&[c])?), eps: 1e-5 });
        let linear = |out: usize, inner: usize| Ok::<_, LoadError>(Linear::new(weight(&[out, inner])?, Some(weight(&[out])?)));
        let attention = Attention {
            heads: 4,
            kv_heads: 4,
            head_dim: c / 4,
            query: linear(c, c)?,
            key: linear(c, c)?,
            value: linear(c, c)?,
            output: linear(c, c)?,
            qk_norm: None,
            scale: 1.,
            mask: Mask::ALL,
            rope: None,
            bias: PositionBias::None,
        };
        let layer = Arc::new(Layer {
            attention,
            attention_norms: Norms::after(norm()?),
            mlp: Mlp::Plain { up: linear(f, c)?, activation: Activation::Gelu, down: linear(c, f)? },
            mlp_norms: Norms::after(norm()?),
            convolution: None,
        });
        let tokens = TokenTable::new(weight(&[1000, c])?);
        let embeddings = Embeddings { tokens, scale: 1., positions: None, token_types: None, norm: Some(norm()?), projection: None };
        Ok(Network { max_tokens: 100, ..Network::of_layers(c, embeddings, vec![layer.clone(), layer]) })
    }

    #[test]
    fn what_is_counted_is_what_is_held() {
        let network = bert(192, 768).expect("fills its shapes");
        let cpus = [None, Cpu::best()];
        for (cpu, dtype) in cpus.into_iter().flat_map(|cpu| [DType::F32, DType::Bf16, DType::F16, DType::Int8].map(|dtype| (cpu, dtype))) {
            let place = Place { cpu, ..Place::new(Device::Cpu, dtype) };
            let Ok(executor) = Executor::new(&network, &place) else { continue };
            let (held, counted) = (executor.weight_bytes(), Need::of(&network, &place, 100).weights);
            assert!((held..=held + held / 50).contains(&counted), "{} in {dtype}: {held} held, {counted} counted", executor.name());
        }
    }

    #[test]
    fn longer_texts_need_more_up_to_an_end_and_the_weights_stay() {
        let network = bert(192, 768).expect("fills its shapes");
        let need = |longest| Need::of(&network, &Place::reference(), longest);
        assert_eq!(need(8192).weights, need(512).weights);
        // Stream and its like, attention, and the MLP twice.
        assert_eq!(need(8192).working - need(512).working, (8192 - 512) * (4 * 192 + 4 * 192 + 2 * 48 + 2 * 768) * 4);
        assert_eq!(need(usize::MAX), need(LONGEST));
    }
}
