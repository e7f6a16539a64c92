//! From the hidden states of a text's tokens to one vector: the modes of sentence-transformers' Pooling and their concatenation.

use super::Rows;
use crate::encoders::json::{Json, short};
use crate::network::LoadError;
use crate::ragged::Packed;
use std::path::Path;

/// One way to make a vector of `[L, C]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The first token.
    Cls,
    /// The largest value of each component.
    Max,
    /// The average.
    Mean,
    /// The sum over the square root of the number of tokens.
    MeanSqrtLen,
    /// The average with weights 1, 2, 3, ... by position in the text.
    WeightedMean,
    /// The last token.
    LastToken,
}

impl Mode {
    /// In the order in which the booleans of files before 5.4 are concatenated.
    pub const ALL: [Self; 6] = [Self::Cls, Self::Max, Self::Mean, Self::MeanSqrtLen, Self::WeightedMean, Self::LastToken];

    /// Its name in files since 5.4.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cls => "cls",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::MeanSqrtLen => "mean_sqrt_len_tokens",
            Self::WeightedMean => "weightedmean",
            Self::LastToken => "lasttoken",
        }
    }

    /// Its boolean in files before 5.4.
    fn flag(self) -> &'static str {
        match self {
            Self::Cls => "pooling_mode_cls_token",
            Self::Max => "pooling_mode_max_tokens",
            Self::Mean => "pooling_mode_mean_tokens",
            Self::MeanSqrtLen => "pooling_mode_mean_sqrt_len_tokens",
            Self::WeightedMean => "pooling_mode_weightedmean_tokens",
            Self::LastToken => "pooling_mode_lasttoken",
        }
    }

    /// The mode of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The mode that the operator names.
    ///
    /// # Errors
    /// There is no such mode.
    pub fn asked(name: &str) -> Result<Self, LoadError> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::named(name).ok_or_else(|| LoadError::option("--pooling", format!("`{name}` is not a pooling: say one of {}", known())))
    }
}

/// A Pooling module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooling {
    modes: Vec<Mode>,
    include_prompt: bool,
}

impl std::fmt::Display for Pooling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let modes: Vec<&str> = self.modes.iter().map(|mode| mode.name()).collect();
        f.write_str(&modes.join(" + "))?;
        if self.include_prompt { Ok(()) } else { f.write_str(" (without the prompt)") }
    }
}

impl Pooling {
    /// The modes, concatenated in this order; `include_prompt` = the tokens of the prompt count.
    pub fn of(modes: Vec<Mode>, include_prompt: bool) -> Self {
        Self { modes, include_prompt }
    }

    /// Reads the module's config.json, of either generation.
    ///
    /// # Errors
    /// A mode or field that is not understood, a width that is not the encoder's.
    pub fn read(dir: &Path, width: usize) -> Result<Self, LoadError> {
        let json = Json::require(&dir.join("config.json"))?;
        let mut known = vec!["embedding_dimension", "word_embedding_dimension", "pooling_mode", "include_prompt"];
        known.extend(Mode::ALL.map(Mode::flag));
        json.only(&known)?;
        for field in ["embedding_dimension", "word_embedding_dimension"] {
            if let Some(size) = json.usize(field)?.filter(|size| *size != width) {
                return Err(json.refuse(field, format!("is {size}, but the encoder's width is {width}")));
            }
        }
        Ok(Self { modes: modes(&json)?, include_prompt: json.bool("include_prompt")?.unwrap_or(true) })
    }

    /// The modes as a device's kernel knows them, which are `Mode::ALL` in order.
    pub(super) fn codes(&self) -> Vec<i32> {
        self.modes.iter().map(|mode| *mode as i32).collect()
    }

    /// Whether the tokens of a prompt count.
    pub(super) fn include_prompt(&self) -> bool {
        self.include_prompt
    }

    /// Size of the pooled vector.
    pub fn dim(&self, width: usize) -> usize {
        self.modes.len() * width
    }

    /// Pools `hidden`, `[T, width]` row-major, to one row per text.
    ///
    /// A text of which nothing is left after its prompt (it cannot occur where the prompt is shorter than the text's tokens) pools to its
    /// first token by `cls` and to zeros otherwise; a text without any token, which only a table of static embeddings takes, to zeros.
    pub(crate) fn pool(&self, hidden: &[f32], width: usize, batch: &Packed) -> Rows {
        let mut data = Vec::with_capacity(batch.texts() * self.dim(width));
        for (rows, prompt_len) in batch.segments.ranges().zip(&batch.prompt_lens) {
            let text = &hidden[rows.start * width..rows.end * width];
            let skip = if self.include_prompt { 0 } else { (*prompt_len).min(rows.len()) };
            for mode in &self.modes {
                pool(*mode, text, width, skip, &mut data);
            }
        }
        Rows { data, dim: self.dim(width) }
    }
}

fn modes(json: &Json) -> Result<Vec<Mode>, LoadError> {
    let Some(value) = json.get("pooling_mode") else { return flags(json) };
    let names = match value.as_array() {
        Some(names) => names.as_slice(),
        None => std::slice::from_ref(value),
    };
    let known = || Mode::ALL.map(Mode::name).join(", ");
    let mode = |name: &serde_json::Value| {
        let mode = name.as_str().and_then(Mode::named);
        mode.ok_or_else(|| json.refuse("pooling_mode", format!("{} is not a pooling; known: {}", short(name), known())))
    };
    match names.iter().map(mode).collect::<Result<Vec<_>, _>>()? {
        modes if modes.is_empty() => Err(json.refuse("pooling_mode", "is an empty list")),
        modes => Ok(modes),
    }
}

/// The booleans of files before 5.4; none of them set means mean, as the reference has it.
fn flags(json: &Json) -> Result<Vec<Mode>, LoadError> {
    let mut modes = Vec::new();
    for mode in Mode::ALL {
        if json.bool(mode.flag())?.unwrap_or(false) {
            modes.push(mode);
        }
    }
    Ok(if modes.is_empty() { vec![Mode::Mean] } else { modes })
}

/// Appends one mode's vector of one text, `[L, C]`, its first `skip` tokens left out. Sums are kept in f64: a text may have thousands of tokens.
fn pool(mode: Mode, text: &[f32], width: usize, skip: usize, out: &mut Vec<f32>) {
    let counted = &text[skip * width..];
    let tokens = counted.len() / width;
    if tokens == 0 {
        match mode {
            Mode::Cls if !text.is_empty() => out.extend_from_slice(&text[..width]),
            _ => out.resize(out.len() + width, 0.),
        }
        return;
    }
    let sum_over = |weight: &dyn Fn(usize) -> f64, divisor: f64| {
        let mut sum = vec![0f64; width];
        for (index, row) in counted.chunks_exact(width).enumerate() {
            let weight = weight(index);
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * f64::from(*x));
        }
        sum.into_iter().map(move |sum| (sum / divisor) as f32)
    };
    match mode {
        Mode::Cls => out.extend_from_slice(&counted[..width]),
        Mode::LastToken => out.extend_from_slice(&counted[counted.len() - width..]),
        Mode::Max => {
            let start = out.len();
            out.extend_from_slice(&counted[..width]);
            for row in counted.chunks_exact(width).skip(1) {
                // Not f32::max, which would swallow a NaN that must be seen.
                out[start..].iter_mut().zip(row).for_each(|(max, x)| *max = if *x > *max || x.is_nan() { *x } else { *max });
            }
        }
        Mode::Mean => out.extend(sum_over(&|_| 1., tokens as f64)),
        Mode::MeanSqrtLen => out.extend(sum_over(&|_| 1., (tokens as f64).sqrt())),
        Mode::WeightedMean => {
            let weight = |index: usize| (skip + index + 1) as f64;
            out.extend(sum_over(&weight, (0..tokens).map(weight).sum()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ragged::Tokens;
    use proptest::prelude::*;

    /// The modes by their definition on a mask, as the reference has it, one component at a time.
    fn naive(mode: Mode, rows: &[Vec<f32>], skip: usize, component: usize) -> f32 {
        let mask: Vec<f64> = (0..rows.len()).map(|index| if index < skip { 0. } else { 1. }).collect();
        let x: Vec<f64> = rows.iter().map(|row| f64::from(row[component])).collect();
        let dot = |weights: &[f64]| weights.iter().zip(&x).map(|(w, x)| w * x).sum::<f64>();
        let weighted: Vec<f64> = mask.iter().zip(1..).map(|(mask, position)| mask * f64::from(position)).collect();
        let value = match mode {
            Mode::Cls => x[mask.iter().position(|mask| *mask > 0.).unwrap_or(0)],
            Mode::Max => x[skip.min(x.len())..].iter().copied().reduce(f64::max).unwrap_or(0.),
            Mode::Mean => dot(&mask) / mask.iter().sum::<f64>().max(1e-9),
            Mode::MeanSqrtLen => dot(&mask) / mask.iter().sum::<f64>().max(1e-9).sqrt(),
            Mode::WeightedMean => dot(&weighted) / weighted.iter().sum::<f64>().max(1e-9),
            Mode::LastToken => x[x.len() - 1] * mask[x.len() - 1],
        };
        value as f32
    }

    proptest! {
        #[test]
        fn every_mode_and_concatenation_is_its_definition(
            lens in proptest::collection::vec((1..9usize, 0..12usize), 1..6),
            modes in proptest::sample::subsequence(Mode::ALL.to_vec(), 1..=6).prop_shuffle(),
            include_prompt: bool,
            numbers in proptest::collection::vec(-3f32..3., 6 * 8 * 3),
        ) {
            const WIDTH: usize = 3;
            let texts: Vec<_> = lens.iter().map(|(len, prompt_len)| Tokens { prompt_len: *prompt_len, ..Tokens::whole(vec![0; *len]) }).collect();
            let batch = Packed::new(&texts);
            let pooled = Pooling::of(modes.clone(), include_prompt).pool(&numbers[..batch.tokens() * WIDTH], WIDTH, &batch);
            prop_assert_eq!(pooled.dim, modes.len() * WIDTH);
            let mut got = pooled.data.into_iter();
            for (rows, (len, prompt_len)) in batch.segments.ranges().zip(&lens) {
                let rows: Vec<_> = rows.map(|row| numbers[row * WIDTH..][..WIDTH].to_vec()).collect();
                let skip = if include_prompt { 0 } else { *prompt_len.min(len) };
                for (mode, component) in modes.iter().flat_map(|mode| (0..WIDTH).map(move |component| (*mode, component))) {
                    let (got, want) = (got.next().unwrap_or(f32::NAN), naive(mode, &rows, skip, component));
                    prop_assert!((got - want).abs() < 1e-6, "{:?}: {} instead of {}", mode, got, want);
                }
            }
            prop_assert!(got.next().is_none());
        }
    }

    #[test]
    fn a_nan_is_not_swallowed_by_max() {
        let batch = Packed::new(&[Tokens::whole(vec![0; 3])]);
        assert!(Pooling::of(vec![Mode::Max], true).pool(&[1., f32::NAN, 2.], 1, &batch).data[0].is_nan());
    }
}
