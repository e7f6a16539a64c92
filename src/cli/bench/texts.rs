//! Texts to send: made up from common words with lengths drawn from a seed, or the lines of a file.

use anyhow::{Context, ensure};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use std::path::Path;

/// How the lengths of made-up texts are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lengths {
    /// All alike.
    Equal,
    /// Lognormal, as in real collections: many short texts, few very long ones; 8 to 511 tokens.
    Skewed,
}

/// The bounds of skewed lengths, in tokens.
const SKEWED_TOKENS: std::ops::RangeInclusive<f64> = 8.0..=511.0;

/// Spread of skewed lengths: the standard deviation of their logarithm.
const SKEWED_SIGMA: f64 = 1.0;

/// `count` texts of about `tokens` tokens each, the same for the same seed.
///
/// Each word is one token in the vocabularies of the usual English models; two tokens are left for the model's own.
pub fn made_up(count: usize, tokens: usize, lengths: Lengths, seed: u64) -> Vec<String> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    (0..count)
        .map(|_| {
            let tokens = match lengths {
                Lengths::Equal => tokens,
                Lengths::Skewed => lognormal(&mut rng, tokens as f64).clamp(*SKEWED_TOKENS.start(), *SKEWED_TOKENS.end()) as usize,
            };
            let picked: Vec<&str> = (0..tokens.saturating_sub(2).max(1)).map(|_| words[rng.random_range(0..words.len())]).collect();
            picked.join(" ")
        })
        .collect()
}

/// The file's lines that are not empty.
///
/// # Errors
/// A file that cannot be read, is not UTF-8, or holds no text.
pub fn from_file(path: &Path) -> anyhow::Result<Vec<String>> {
    let whole = std::fs::read_to_string(path).with_context(|| format!("cannot read texts from {}", path.display()))?;
    let texts: Vec<String> = whole.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    ensure!(!texts.is_empty(), "{} holds no text", path.display());
    Ok(texts)
}

/// A lognormal number with the given mean (Box-Muller for the normal one inside).
fn lognormal(rng: &mut Xoshiro256PlusPlus, mean: f64) -> f64 {
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    (mean.ln() - SKEWED_SIGMA * SKEWED_SIGMA / 2.0 + SKEWED_SIGMA * normal).exp()
}

const WORDS: &str = "
    the of and to in is was for on that with as by at from his her this have are not were which one all their has been who will more no if out
    so said what up its about into than them can only other new some could time these two may then do first any my now such like our over man
    me even most made after also did many before must through years where much your way well down should because each just those people how too
    little state good very make world still own see men work long get here between both life being under never day same another know while last
    might us great old year off come since against go came right used take three house water school night city war hand light story field river
    music paper street king mother wind stone winter summer market engine garden letter window island forest village bridge";

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> usize {
        text.split(' ').count()
    }

    #[test]
    fn equal_texts_have_the_length_asked_for_and_repeat_with_their_seed() {
        let texts = made_up(50, 124, Lengths::Equal, 7);
        assert!(texts.iter().all(|t| words(t) == 122));
        assert_eq!(texts, made_up(50, 124, Lengths::Equal, 7));
        assert_ne!(texts, made_up(50, 124, Lengths::Equal, 8));
    }

    #[test]
    fn skewed_texts_keep_their_mean_and_bounds() {
        let lens: Vec<usize> = made_up(4000, 111, Lengths::Skewed, 1).iter().map(|t| words(t) + 2).collect();
        assert!(lens.iter().all(|l| (8..=511).contains(l)));
        let mean = lens.iter().sum::<usize>() as f64 / lens.len() as f64;
        // The upper bound cuts the longest ones, so the mean falls a little short.
        assert!((90.0..=115.0).contains(&mean), "mean {mean}");
        let mut sorted = lens.clone();
        sorted.sort_unstable();
        assert!((sorted[2000] as f64) < 0.8 * mean, "median {} is not left of the mean {mean}", sorted[2000]);
    }

    #[test]
    fn the_shortest_text_still_has_a_word() {
        assert!(made_up(3, 3, Lengths::Equal, 1).iter().all(|t| words(t) == 1));
    }
}
