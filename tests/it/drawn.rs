//! Random networks: everything that the description can say, drawn from a seed, and counted so that a test can assert that all of it was met.

use proptest::prelude::*;
use std::collections::HashSet;
use std::sync::Arc;
use vecmill::network::{
    Activation, Attention, Convolution, Disentangled, Embeddings, Expert, Experts, Frequencies, Layer, Linear, LoadError, LowRank, Mask, Mlp,
    Network, Norm, NormKind, Norms, Pairing, PositionBias, Positions, Projection, QkNorm, Rope, RowDelta, TokenTable, Weight,
};

pub const VOCABULARY: usize = 50;
pub const MAX_TOKENS: usize = 48;
pub const ADAPTERS: usize = 2;

/// Every word of the description that a drawing can meet, beside activations.
pub const WORDS: &[&str] = &[
    "norm layer",
    "norm rms",
    "norm rms+1",
    "norm without bias",
    "norms before",
    "norms inside",
    "norms nested",
    "norms after",
    "final norm",
    "positions",
    "positions uncounted",
    "token types",
    "embedding norm",
    "embedding projection",
    "embedding projection norm",
    "embedding scale",
    "token map",
    "token weights",
    "mask open",
    "mask causal",
    "mask reach",
    "rope halves",
    "rope neighbours",
    "rope partial",
    "rope dynamic",
    "rope by length",
    "rope magnitude",
    "alibi",
    "buckets",
    "grouped convolution",
    "disentangled c2p",
    "disentangled p2c",
    "disentangled log",
    "grouped heads",
    "qk norm per head",
    "qk norm of all heads",
    "mlp plain",
    "mlp gated",
    "mlp experts",
    "biases",
    "no biases",
    "shared layer",
    "convolution",
    "adapters",
    "adapted token type",
    "no layers",
];

/// A network and what was met on the way to it.
pub struct Drawn {
    pub network: Network,
    pub words: HashSet<&'static str>,
    pub activations: HashSet<Activation>,
}

/// Seeds of networks.
pub fn seeds() -> impl Strategy<Value = u64> {
    any::<u64>()
}

/// The network of a seed.
pub fn draw(seed: u64) -> Result<Drawn, LoadError> {
    let mut draw = Draw { state: seed, words: HashSet::new(), activations: HashSet::new(), biases: false, adapted: false };
    let network = draw.network()?;
    Ok(Drawn { network, words: draw.words, activations: draw.activations })
}

/// SplitMix64: reproducible wherever proptest shrinks to.
struct Draw {
    state: u64,
    words: HashSet<&'static str>,
    activations: HashSet<Activation>,
    biases: bool,
    adapted: bool,
}

impl Draw {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// True one time in `n`; then the word is met.
    fn met(&mut self, word: &'static str, one_in: usize) -> bool {
        let met = self.below(one_in) == 0;
        if met {
            self.word(word);
        }
        met
    }

    fn word(&mut self, word: &'static str) {
        assert!(WORDS.contains(&word), "{word} is not among WORDS");
        self.words.insert(word);
    }

    /// Uniform in -0.9..0.9, standard deviation about 0.5.
    fn number(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32 * 1.8 - 0.9
    }

    fn weight(&mut self, shape: &[usize]) -> Result<Weight, LoadError> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.number()).collect();
        Weight::from_f32("drawn", shape, &values)
    }

    fn linear(&mut self, out: usize, into: usize) -> Result<Linear, LoadError> {
        let bias = if self.biases { Some(self.weight(&[out])?) } else { None };
        let mut linear = Linear::new(self.weight(&[out, into])?, bias);
        if self.adapted {
            linear.adapters = self.low_rank(out, into)?;
        }
        Ok(linear)
    }

    fn low_rank(&mut self, out: usize, into: usize) -> Result<Vec<LowRank>, LoadError> {
        let rank = 1 + self.below(3);
        (0..ADAPTERS).map(|_| Ok(LowRank { down: self.weight(&[rank, into])?, up: self.weight(&[out, rank])?, scale: 0.7 })).collect()
    }

    fn row_delta(&mut self, width: usize) -> Result<RowDelta, LoadError> {
        let token_type = if self.met("adapted token type", 2) { Some((self.weight(&[2, 2])?, self.weight(&[2, width])?)) } else { None };
        Ok(RowDelta { down: self.weight(&[VOCABULARY, 3])?, up: self.weight(&[3, width])?, scale: 0.7, token_type })
    }

    fn norm(&mut self, width: usize) -> Result<Norm, LoadError> {
        let kind = self.of(&NormKind::ALL);
        self.word(match kind {
            NormKind::Layer => "norm layer",
            NormKind::Rms => "norm rms",
            NormKind::RmsPlusOne => "norm rms+1",
        });
        let bias = if kind == NormKind::Layer && !self.met("norm without bias", 3) { Some(self.weight(&[width])?) } else { None };
        Ok(Norm { kind, weight: self.weight(&[width])?, bias, eps: self.of(&[1e-12, 1e-5]) })
    }

    fn maybe_norm(&mut self, word: &'static str, width: usize) -> Result<Option<Norm>, LoadError> {
        if self.met(word, 2) { self.norm(width).map(Some) } else { Ok(None) }
    }

    fn norms(&mut self, width: usize) -> Result<Norms, LoadError> {
        let mut norms = Norms {
            before: self.maybe_norm("norms before", width)?,
            inside: self.maybe_norm("norms inside", width)?,
            nested: if self.met("norms nested", 5) { Some(self.norm(width)?) } else { None },
            after: self.maybe_norm("norms after", width)?,
        };
        // Without any, numbers would grow from layer to layer until rounding decided the softmax.
        if norms.before.is_none() && norms.inside.is_none() && norms.nested.is_none() && norms.after.is_none() {
            self.word("norms after");
            norms.after = Some(self.norm(width)?);
        }
        Ok(norms)
    }

    fn activation(&mut self) -> Activation {
        let activation = self.of(&Activation::ALL);
        self.activations.insert(activation);
        activation
    }

    fn network(&mut self) -> Result<Network, LoadError> {
        self.biases = self.below(2) == 0;
        self.word(if self.biases { "biases" } else { "no biases" });
        self.adapted = self.met("adapters", 4);
        let heads = self.of(&[1, 2, 3, 4]);
        let head_dim = self.of(&[4, 6, 8]);
        let width = heads * self.of(&[4, 6, 8]);
        let embeddings = self.embeddings(width)?;
        let mut layers: Vec<Arc<Layer>> = Vec::new();
        let rope = self.rope(head_dim);
        for _ in 0..self.below(4) {
            match layers.last().cloned() {
                Some(last) if self.met("shared layer", 4) => layers.push(last),
                _ => layers.push(Arc::new(self.layer(width, heads, head_dim, &rope)?)),
            }
        }
        if layers.is_empty() {
            self.word("no layers");
        }
        let norm = self.maybe_norm("final norm", width)?;
        Ok(Network { width, max_tokens: MAX_TOKENS, embeddings, layers, norm, adapters: if self.adapted { ADAPTERS } else { 0 } })
    }

    fn embeddings(&mut self, width: usize) -> Result<Embeddings, LoadError> {
        let inner = if self.met("embedding projection", 3) { 4 + 2 * self.below(4) } else { width };
        let projection = if inner == width {
            None
        } else {
            Some(Projection { linear: self.linear(width, inner)?, norm: self.maybe_norm("embedding projection norm", width)? })
        };
        let mut tokens = TokenTable::new(self.weight(&[VOCABULARY, inner])?);
        if self.met("token map", 4) {
            tokens.rows = self.weight(&[7, inner])?;
            tokens.map = Some((0..VOCABULARY).map(|_| self.below(7) as u32).collect());
        } else if self.adapted {
            tokens.adapters = (0..ADAPTERS).map(|_| self.row_delta(inner)).collect::<Result<_, _>>()?;
        }
        if self.met("token weights", 4) {
            tokens.weights = Some(self.weight(&[VOCABULARY])?);
        }
        let positions = if self.met("positions", 2) {
            let uncounted = if self.met("positions uncounted", 2) { Some(1) } else { None };
            let offset = if uncounted.is_some() { 2 } else { 0 };
            Some(Positions { table: self.weight(&[MAX_TOKENS + offset, inner])?, offset, uncounted })
        } else {
            None
        };
        let token_types = if self.met("token types", 2) { Some(self.weight(&[2, inner])?) } else { None };
        let scale = if self.met("embedding scale", 3) { 1.7 } else { 1. };
        Ok(Embeddings { tokens, scale, positions, token_types, norm: self.maybe_norm("embedding norm", inner)?, projection })
    }

    fn rope(&mut self, head_dim: usize) -> Option<Arc<Rope>> {
        if self.below(2) == 0 {
            return None;
        }
        let dim = if self.met("rope partial", 3) { head_dim - 2 } else { head_dim };
        let pairing = self.of(&[Pairing::Halves, Pairing::Neighbours]);
        self.word(if pairing == Pairing::Halves { "rope halves" } else { "rope neighbours" });
        let plain = |theta| Rope::plain(dim, theta);
        let frequencies = match self.below(3) {
            // Dynamic growth divides by `dim - 2`.
            0 if dim > 2 => {
                self.word("rope dynamic");
                Frequencies::Dynamic { theta: 100., factor: 2., trained: 10 }
            }
            1 => {
                self.word("rope by length");
                Frequencies::ByLength { trained: 9, short: plain(100.), long: plain(1000.) }
            }
            _ => Frequencies::Fixed(plain(100.)),
        };
        let magnitude = if self.met("rope magnitude", 3) { 1.2 } else { 1. };
        Some(Arc::new(Rope { dim, pairing, frequencies, magnitude }))
    }

    fn layer(&mut self, width: usize, heads: usize, head_dim: usize, rope: &Option<Arc<Rope>>) -> Result<Layer, LoadError> {
        let convolution = if self.met("convolution", 5) {
            let groups = if width.is_multiple_of(2) && self.met("grouped convolution", 2) { 2 } else { 1 };
            let (weight, bias) = (self.weight(&[width, width / groups, 3])?, Some(self.weight(&[width])?));
            Some(Convolution { weight, bias, groups, activation: self.activation(), norm: self.norm(width)? })
        } else {
            None
        };
        let (attention, attention_norms) = (self.attention(width, heads, head_dim, rope)?, self.norms(width)?);
        let (mlp, mut mlp_norms) = (self.mlp(width)?, self.norms(width)?);
        // The next attention must find a norm before it, for the same reason.
        if attention_norms.before.is_none() && mlp_norms.after.is_none() {
            mlp_norms.after = Some(self.norm(width)?);
        }
        Ok(Layer { attention, attention_norms, mlp, mlp_norms, convolution })
    }

    fn attention(&mut self, width: usize, heads: usize, head_dim: usize, rope: &Option<Arc<Rope>>) -> Result<Attention, LoadError> {
        let bias = self.bias(width, heads, head_dim)?;
        let disentangled = matches!(bias, PositionBias::Disentangled(_));
        let kv_heads = if heads > 1 && !disentangled && self.met("grouped heads", 2) { 1 } else { heads };
        let mask = Mask { causal: self.met("mask causal", 3), reach: if self.met("mask reach", 3) { Some(self.below(6)) } else { None } };
        if mask == Mask::ALL {
            self.word("mask open");
        }
        let (inner, kv) = (heads * head_dim, kv_heads * head_dim);
        let qk_norm = if self.met("qk norm per head", 4) {
            Some(QkNorm { query: self.norm(head_dim)?, key: self.norm(head_dim)? })
        } else if self.met("qk norm of all heads", 4) {
            Some(QkNorm { query: self.norm(inner)?, key: self.norm(kv)? })
        } else {
            None
        };
        let (query, key, value) = (self.linear(inner, width)?, self.linear(kv, width)?, self.linear(kv, width)?);
        let scale = (head_dim as f64).sqrt().recip();
        let rope = if disentangled { None } else { rope.clone() };
        Ok(Attention { heads, kv_heads, head_dim, query, key, value, output: self.linear(width, inner)?, qk_norm, scale, mask, rope, bias })
    }

    fn bias(&mut self, width: usize, heads: usize, head_dim: usize) -> Result<PositionBias, LoadError> {
        Ok(match self.below(5) {
            0 => {
                self.word("alibi");
                PositionBias::Alibi((0..heads).map(|head| 0.5f32.powi(head as i32 + 1)).collect())
            }
            1 => {
                self.word("buckets");
                PositionBias::Buckets { table: self.weight(&[8, heads])?, max_distance: 20 }
            }
            2 => {
                let (c2p, p2c) = self.of(&[(true, true), (true, false), (false, true)]);
                let key = if c2p { Some(self.linear(heads * head_dim, width)?) } else { None };
                let query = if p2c { Some(self.linear(heads * head_dim, width)?) } else { None };
                [(c2p, "disentangled c2p"), (p2c, "disentangled p2c")].into_iter().filter(|(met, _)| *met).for_each(|(_, word)| self.word(word));
                let buckets = if self.met("disentangled log", 2) { Some(8) } else { None };
                let (table, norm) = (self.weight(&[16, width])?, if self.below(2) == 0 { Some(self.norm(width)?) } else { None });
                PositionBias::Disentangled(Arc::new(Disentangled { table, norm, key, query, buckets, max_distance: 20 }))
            }
            _ => PositionBias::None,
        })
    }

    fn mlp(&mut self, width: usize) -> Result<Mlp, LoadError> {
        let (inner, activation) = (1 + self.below(20), self.activation());
        Ok(match self.below(3) {
            0 => {
                self.word("mlp plain");
                Mlp::Plain { up: self.linear(inner, width)?, activation, down: self.linear(width, inner)? }
            }
            1 => {
                self.word("mlp gated");
                Mlp::Gated { gate: self.linear(inner, width)?, up: self.linear(inner, width)?, activation, down: self.linear(width, inner)? }
            }
            _ => {
                self.word("mlp experts");
                let expert = |draw: &mut Self| Ok(Expert { up: draw.weight(&[inner, width])?, down: draw.weight(&[inner, width])? });
                let experts = (0..3).map(|_| expert(self)).collect::<Result<_, LoadError>>()?;
                let bias = if self.biases { Some(self.weight(&[width])?) } else { None };
                let router = Linear::new(self.weight(&[3, width])?, None);
                Mlp::Experts(Experts { router, top_k: 2, activation, experts, bias })
            }
        })
    }
}
