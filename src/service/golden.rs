//! Proof on this machine: a model's golden texts computed here, against the vectors that its reference gave for them.
//!
//! Compared is what the model's own modules make, before anything is forced to unit length.

use super::tokenizer::{TextEncoder, TokenizeError};
use super::vector::{self, Shape};
use crate::engine::load::{DType, ModelInfo};
use crate::engine::{Compute, ComputeError};
use crate::hub::Goldens;
use crate::ragged::{Packed, Tokens};
use crate::wire::Truncate;
use serde::{Deserialize, Serialize};

/// Texts that a start computes at most, and the tokens that they may have together: proof must not be what a start waits for.
const START_TEXTS: usize = 16;
const START_TOKENS: usize = 1024;
/// Tokens computed at once.
const BATCH_TOKENS: usize = 2048;

/// The least cosine to the reference at which a model is what it says it is, where the operator names no other.
pub fn least_cosine(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 0.999_99,
        DType::Bf16 | DType::F16 => 0.999_9,
        // What a quantised model is allowed for its speed; asked for by name, never by `auto`.
        DType::Int8 => 0.997,
    }
}

/// Why goldens cannot be compared with.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// The files are not goldens.
    #[error("{from} cannot be compared with: {reason}")]
    Unreadable {
        /// The file.
        from: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A golden text has no ids here.
    #[error("golden text {index} has no tokens")]
    Tokenize {
        /// Its number.
        index: usize,
        #[source]
        source: TokenizeError,
    },
    /// The device failed.
    #[error("the golden texts could not be computed")]
    Compute(#[from] ComputeError),
    /// The model computes something else than its reference.
    #[error("{0}")]
    Missed(String),
}

/// Golden texts with the reference's vectors.
#[derive(Debug)]
pub struct GoldenSet {
    from: String,
    record: Record,
    /// `[N, dim]`, row-major.
    vectors: Vec<f32>,
    dim: usize,
}

/// `golden.json`; what else stands in it is for people.
#[derive(Debug, Deserialize)]
struct Record {
    /// Where the reference cuts texts; 0 = nowhere.
    max_tokens: usize,
    /// The reference cut its vectors to this size and scaled them to unit length.
    #[serde(default)]
    truncate_dim: Option<usize>,
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    text: String,
    /// The text put before it.
    #[serde(default)]
    prompt: String,
    /// Tokens the reference computed, special tokens and prompt included.
    tokens: usize,
}

/// The model that is compared.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub info: &'a ModelInfo,
    /// The least cosine to its reference at which it is served; `None` = by its dtype.
    pub least_cosine: Option<f64>,
    pub encoder: &'a TextEncoder,
    pub compute: &'a dyn Compute,
}

/// One golden text, computed here.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Its number in the goldens.
    pub index: usize,
    /// Its beginning.
    pub text: String,
    /// Tokens computed here.
    pub tokens: usize,
    /// Tokens the reference computed.
    pub reference_tokens: usize,
    /// To the reference's vector; 0 if one of the two is not finite or all zero and the other is not.
    pub cosine: f64,
    /// Largest difference of a component.
    pub max_abs: f32,
}

/// How near a model comes to its reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fidelity {
    /// Where the goldens come from.
    pub goldens: String,
    /// What was computed in.
    pub dtype: String,
    /// The least cosine that it must keep.
    pub threshold: f64,
    pub texts: usize,
    pub max_abs: f32,
    pub min_cosine: f64,
    pub mean_cosine: f64,
    /// Texts whose token count is not the reference's.
    pub token_mismatches: usize,
    /// True if every cosine and every token count is as it must be.
    pub holds: bool,
    /// One line per text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<Line>,
}

impl GoldenSet {
    /// Reads goldens.
    ///
    /// # Errors
    /// [`GoldenError::Unreadable`].
    pub fn parse(files: &Goldens) -> Result<Self, GoldenError> {
        let refuse = |reason: String| GoldenError::Unreadable { from: files.from.clone(), reason };
        let record: Record = serde_json::from_slice(&files.record).map_err(|error| refuse(error.to_string()))?;
        let tensors = safetensors::SafeTensors::deserialize(&files.vectors).map_err(|error| refuse(format!("its safetensors: {error}")))?;
        let tensor = tensors.tensor("embeddings").map_err(|error| refuse(format!("its safetensors: {error}")))?;
        let texts = record.items.len();
        match *tensor.shape() {
            [rows, dim] if rows == texts && dim > 0 && rows > 0 && tensor.dtype() == safetensors::Dtype::F32 => {
                let vectors = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                Ok(Self { from: files.from.clone(), record, vectors, dim })
            }
            ref shape => {
                let found = format!("{:?} {shape:?}", tensor.dtype());
                Err(refuse(format!("`embeddings` is {found}, but for {texts} texts it must be F32 [{texts}, dim], at least one of each")))
            }
        }
    }

    /// The texts that a start computes: spread over all of them, short enough together.
    pub fn sample(&self) -> Vec<usize> {
        let items = &self.record.items;
        let mut room = START_TOKENS;
        let stretches = items.len().min(START_TEXTS);
        let start = |stretch: usize| stretch * items.len() / stretches;
        let mut chosen = Vec::new();
        for stretch in 0..stretches {
            // Of each stretch the first text that still fits.
            if let Some(index) = (start(stretch)..start(stretch + 1)).find(|&index| items[index].tokens <= room) {
                room -= items[index].tokens;
                chosen.push(index);
            }
        }
        // Goldens of long texts only: one of them is better than none.
        if chosen.is_empty() { vec![0] } else { chosen }
    }

    /// Every text.
    pub fn all(&self) -> Vec<usize> {
        (0..self.record.items.len()).collect()
    }

    /// Computes the chosen texts and compares them.
    ///
    /// # Errors
    /// The goldens are of another model, or the device fails. A model that misses the threshold is no error here: see [`Fidelity::require`].
    pub fn check(&self, chosen: &[usize], subject: Subject) -> Result<Fidelity, GoldenError> {
        let native = subject.compute.dim();
        let shape = Shape { native, wanted: self.record.truncate_dim.unwrap_or(native), unit: self.record.truncate_dim.is_some(), layer_norm: false };
        if shape.wanted != self.dim || self.dim > native {
            let reason = format!("its vectors have {} values, but the model's have {native}", self.dim);
            return Err(GoldenError::Unreadable { from: self.from.clone(), reason });
        }
        // The reference's own length, whatever the operator made of it: longer texts than that are cut in both.
        let reference = Some(self.record.max_tokens).filter(|tokens| *tokens > 0).unwrap_or(usize::MAX);
        let limit = reference.min(subject.info.position_limit);
        let mut texts = Vec::new();
        for &index in chosen {
            let item = &self.record.items[index];
            let tokens = subject.encoder.encode(&item.text, &item.prompt, Truncate::End, limit);
            texts.push((index, tokens.map_err(|source| GoldenError::Tokenize { index, source })?));
        }
        let mut lines = Vec::new();
        for batch in batches(&texts) {
            let (rows, _) = vector::finish(encode(subject.compute, batch)?, shape);
            for ((index, tokens), row) in batch.iter().zip(rows.chunks_exact(self.dim)) {
                lines.push(self.line(*index, tokens.len(), row));
            }
        }
        let dtype = subject.info.dtype;
        Ok(Fidelity::of(&self.from, dtype, subject.least_cosine.unwrap_or(least_cosine(dtype)), lines))
    }

    fn line(&self, index: usize, tokens: usize, row: &[f32]) -> Line {
        const SHOWN_CHARS: usize = 40;
        let (item, want) = (&self.record.items[index], &self.vectors[index * self.dim..][..self.dim]);
        let difference = row.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, |most: f32, d| if d > most || d.is_nan() { d } else { most });
        Line {
            index,
            text: item.text.chars().take(SHOWN_CHARS).collect(),
            tokens,
            reference_tokens: item.tokens,
            cosine: cosine(row, want),
            max_abs: if difference.is_finite() { difference } else { f32::MAX },
        }
    }
}

impl Fidelity {
    /// Sums up.
    pub fn of(goldens: &str, dtype: DType, threshold: f64, lines: Vec<Line>) -> Self {
        let min_cosine = lines.iter().map(|line| line.cosine).fold(1.0, f64::min);
        let token_mismatches = lines.iter().filter(|line| line.tokens != line.reference_tokens).count();
        Self {
            goldens: goldens.to_owned(),
            dtype: dtype.to_string(),
            threshold,
            texts: lines.len(),
            max_abs: lines.iter().map(|line| line.max_abs).fold(0.0, f32::max),
            min_cosine,
            mean_cosine: lines.iter().map(|line| line.cosine).sum::<f64>() / lines.len().max(1) as f64,
            token_mismatches,
            holds: min_cosine >= threshold && token_mismatches == 0 && !lines.is_empty(),
            lines,
        }
    }

    /// Refuses a model that is not what its goldens say.
    ///
    /// # Errors
    /// [`GoldenError::Missed`], with the figures.
    pub fn require(&self) -> Result<(), GoldenError> {
        if self.holds {
            return Ok(());
        }
        let worst = self.lines.iter().min_by(|a, b| a.cosine.total_cmp(&b.cosine)).map_or(0, |line| line.index);
        let mut text = format!(
            "the model does not compute what its reference does: over {} texts of {} the least cosine in {} is {:.6} (text {worst}), below {}, and the \
             largest error is {:.3e}",
            self.texts, self.goldens, self.dtype, self.min_cosine, self.threshold, self.max_abs
        );
        if let Some(line) = self.lines.iter().find(|line| line.tokens != line.reference_tokens) {
            let Line { index, tokens, reference_tokens, .. } = line;
            text = format!(
                "{} of {} texts of {} have other tokens than in the reference (text {index}: {tokens}, not {reference_tokens}); the least cosine is {:.6}",
                self.token_mismatches, self.texts, self.goldens, self.min_cosine
            );
        }
        Err(GoldenError::Missed(format!(
            "{text}. `vecmill verify` prints every text; --dtype f32 is the most exact, and --min-cosine sets another threshold"
        )))
    }
}

/// Texts in order, about `BATCH_TOKENS` at a time.
fn batches(texts: &[(usize, Tokens)]) -> Vec<&[(usize, Tokens)]> {
    let (mut batches, mut start, mut tokens) = (Vec::new(), 0, 0);
    for (place, (_, text)) in texts.iter().enumerate() {
        if place > start && tokens + text.len() > BATCH_TOKENS {
            batches.push(&texts[start..place]);
            (start, tokens) = (place, 0);
        }
        tokens += text.len();
    }
    batches.push(&texts[start..]);
    batches
}

/// As a server computes: rows that are not finite once more in f32.
fn encode(model: &dyn Compute, batch: &[(usize, Tokens)]) -> Result<Vec<f32>, ComputeError> {
    let mut rows = model.encode(&Packed::new(batch.iter().map(|(_, tokens)| tokens)))?;
    for ((_, tokens), row) in batch.iter().zip(rows.chunks_exact_mut(model.dim().max(1))) {
        if row.iter().any(|value| !value.is_finite()) {
            row.copy_from_slice(&model.encode_f32(&Packed::new([tokens]))?);
        }
    }
    Ok(rows)
}

/// In f64. Two all-zero vectors are the same.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let (aa, bb) = (dot(a, a), dot(b, b));
    if aa == 0.0 && bb == 0.0 {
        return 1.0;
    }
    let cosine = dot(a, b) / (aa * bb).sqrt();
    if cosine.is_finite() { cosine } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(cosine: f64, tokens: usize) -> Line {
        Line { index: 3, text: String::new(), tokens, reference_tokens: 5, cosine, max_abs: 0.25 }
    }

    #[test]
    fn one_text_below_the_threshold_or_with_other_tokens_is_enough_to_miss() {
        let fidelity = |lines| Fidelity::of("golden.json", DType::F32, least_cosine(DType::F32), lines);
        assert!(fidelity(vec![line(1.0, 5), line(0.999_995, 5)]).require().is_ok());
        let low = fidelity(vec![line(1.0, 5), line(0.999_9, 5)]).require().unwrap_err().to_string();
        assert!(low.contains("0.999900") && low.contains("0.99999,") && low.contains("text 3") && low.contains("2.500e-1"), "{low}");
        let cut = fidelity(vec![line(1.0, 4), line(1.0, 5)]).require().unwrap_err().to_string();
        assert!(cut.contains("1 of 2 texts") && cut.contains("4, not 5"), "{cut}");
        assert!(Fidelity::of("x", DType::Bf16, least_cosine(DType::Bf16), vec![line(0.999_9, 5)]).holds);
        assert!(!fidelity(Vec::new()).holds, "nothing compared proves nothing");
    }

    #[test]
    fn vectors_that_are_not_numbers_have_no_cosine() {
        assert_eq!(cosine(&[f32::NAN, 1.0], &[1.0, 1.0]), 0.0);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), 0.0);
        assert_eq!(cosine(&[0.0, 0.0], &[0.0, 0.0]), 1.0);
        assert!((cosine(&[3.0, 4.0], &[6.0, 8.0]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_sample_is_spread_and_short() {
        let card = crate::card::golden(crate::card::find("all-MiniLM-L6-v2").unwrap()).unwrap();
        let files = Goldens { record: card.record.to_vec(), vectors: card.vectors.to_vec(), from: "card".to_owned() };
        let set = GoldenSet::parse(&files).unwrap();
        let sample = set.sample();
        let tokens: usize = sample.iter().map(|&index| set.record.items[index].tokens).sum();
        assert!(sample.len() >= 12 && sample.len() <= START_TEXTS && tokens <= START_TOKENS, "{sample:?}: {tokens} tokens");
        assert!(sample.windows(2).all(|pair| pair[0] < pair[1]) && *sample.last().unwrap() > set.all().len() / 2);
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused() {
        let card = crate::card::golden(crate::card::find("all-MiniLM-L6-v2").unwrap()).unwrap();
        let parse = |record: &[u8], vectors: &[u8]| {
            let files = Goldens { record: record.to_vec(), vectors: vectors.to_vec(), from: "here".to_owned() };
            GoldenSet::parse(&files).unwrap_err().to_string()
        };
        assert!(parse(b"{}", card.vectors).contains("here"));
        assert!(parse(card.record, b"x").contains("safetensors"));
        assert!(parse(br#"{"max_tokens": 9, "items": [{"text": "a", "tokens": 3}]}"#, card.vectors).contains("[1, dim]"));
    }
}
