//! Rotary positions (Su et al. 2021): which dimensions of a head are turned, by which angles.

/// Pairs of dimensions of queries and keys, turned by `position * frequency`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// The leading dimensions of a head that are turned; even, at most `D`.
    pub dim: usize,
    pub pairing: Pairing,
    pub frequencies: Frequencies,
    /// A factor on cosine and sine (YaRN's and LongRoPE's "attention factor"); 1 for most.
    pub magnitude: f64,
}

/// Which two dimensions make a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pairing {
    /// `i` and `i + dim / 2` (GPT-NeoX, and everything in transformers).
    Halves,
    /// `2i` and `2i + 1` (GPT-J, and Llama in GGUF files).
    Neighbours,
}

/// One frequency per pair, `[dim / 2]`, in radians per token.
#[derive(Debug, Clone, PartialEq)]
pub enum Frequencies {
    /// The same for every text.
    Fixed(Vec<f32>),
    /// `theta^(-2i / dim)` up to `trained` tokens; for a longer text of `L` tokens theta grows by
    /// `(factor * L / trained - (factor - 1))^(dim / (dim - 2))` ("dynamic NTK"). `L` is the text's own length, so its batch does not matter.
    Dynamic { theta: f64, factor: f64, trained: usize },
    /// `short` for texts of at most `trained` tokens, `long` for longer ones (LongRoPE).
    ByLength { trained: usize, short: Vec<f32>, long: Vec<f32> },
}

impl Rope {
    /// Plain frequencies `theta^(-2i / dim)`.
    pub fn plain(dim: usize, theta: f64) -> Vec<f32> {
        (0..dim / 2).map(|pair| theta.powf(-(2. * pair as f64) / dim as f64) as f32).collect()
    }

    /// The frequencies for a text of that many tokens.
    pub fn frequencies(&self, tokens: usize) -> Vec<f32> {
        match &self.frequencies {
            Frequencies::Fixed(fixed) => fixed.clone(),
            Frequencies::Dynamic { theta, trained, .. } if tokens <= *trained => Self::plain(self.dim, *theta),
            Frequencies::Dynamic { theta, factor, trained } => {
                let growth = (factor * tokens as f64 / *trained as f64 - (factor - 1.)).powf(self.dim as f64 / (self.dim as f64 - 2.));
                Self::plain(self.dim, theta * growth)
            }
            Frequencies::ByLength { trained, short, long } => if tokens <= *trained { short } else { long }.clone(),
        }
    }

    /// Texts of at most this many tokens are all turned by the same angles; `None` = all texts are.
    pub fn same_up_to(&self) -> Option<usize> {
        match &self.frequencies {
            Frequencies::Fixed(_) => None,
            Frequencies::Dynamic { trained, .. } | Frequencies::ByLength { trained, .. } => Some(*trained),
        }
    }

    /// Cosines and sines for a text of that many tokens, `[tokens, dim / 2]` each, row-major. The angle is the f32 product that the reference
    /// computes, not a more exact one.
    pub fn table(&self, tokens: usize) -> (Vec<f32>, Vec<f32>) {
        let frequencies = self.frequencies(tokens);
        let angles = (0..tokens).flat_map(|position| frequencies.iter().map(move |frequency| position as f32 * frequency));
        let magnitude = self.magnitude as f32;
        angles.map(|angle| (angle.cos() * magnitude, angle.sin() * magnitude)).unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_frequencies_follow_the_text_and_not_its_batch() {
        let rope = |frequencies| Rope { dim: 8, pairing: Pairing::Halves, frequencies, magnitude: 1. };
        let dynamic = rope(Frequencies::Dynamic { theta: 1000., factor: 2., trained: 10 });
        assert_eq!(dynamic.frequencies(10), Rope::plain(8, 1000.));
        let grown = 1000. * f64::powf(2. * 20. / 10. - 1., 8. / 6.);
        assert_eq!(dynamic.frequencies(20), Rope::plain(8, grown));
        let split = rope(Frequencies::ByLength { trained: 3, short: vec![1.; 4], long: vec![0.5; 4] });
        assert_eq!((split.frequencies(3)[0], split.frequencies(4)[0]), (1., 0.5));
    }

    #[test]
    fn a_table_begins_unturned() {
        let rope = Rope { dim: 4, pairing: Pairing::Halves, frequencies: Frequencies::Fixed(vec![1., 0.1]), magnitude: 2. };
        let (cos, sin) = rope.table(2);
        assert_eq!((cos.len(), &cos[..2], &sin[..2]), (4, [2., 2.].as_slice(), [0., 0.].as_slice()));
        assert!((sin[2] - 2. * 1f32.sin()).abs() < 1e-6);
    }
}
