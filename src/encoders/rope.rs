//! Rotary positions out of config.json: `rope_theta` and `rope_scaling` as releases of transformers before 5 wrote them, `rope_parameters` as since.
//!
//! The kinds and their formulas are those of transformers' `modeling_rope_utils.py`; the sources are named at each.

use super::json::Json;
use crate::network::{Frequencies, LoadError, Pairing, Rope};
use serde_json::Value;
use std::f64::consts::PI;

/// What a page knows of its rotation before the scaling is read.
pub struct Turn {
    /// Dimensions of a head that are turned.
    pub dim: usize,
    /// Theta where config.json names none.
    pub theta: f64,
    /// The longest text, `max_position_embeddings`.
    pub max_tokens: usize,
}

/// The rotation of all layers, as config.json has it.
///
/// # Errors
/// A kind of scaling that is not known, or a parameter of it that is missing or not understood.
pub fn read(config: &Json, turn: &Turn) -> Result<Rope, LoadError> {
    let (field, parameters) = match config.object("rope_parameters")? {
        Some(parameters) => ("rope_parameters", Some(parameters)),
        None => ("rope_scaling", config.object("rope_scaling")?),
    };
    let parameters = Json::of(format!("{}: {field}", config.file()), parameters.cloned().unwrap_or_default());
    let theta = config.f64("rope_theta")?.unwrap_or(turn.theta);
    scaled(&parameters, config, &Turn { theta, ..*turn })
}

/// The rotation of the layers of one kind (`full_attention`, `sliding_attention`), where `rope_parameters` tells them apart; `None` where it does not.
///
/// # Errors
/// As `read`.
pub fn of_kind(config: &Json, kind: &str, turn: &Turn) -> Result<Option<Rope>, LoadError> {
    let Some(Value::Object(parameters)) = config.object("rope_parameters")?.and_then(|kinds| kinds.get(kind)) else { return Ok(None) };
    scaled(&Json::of(format!("{}: rope_parameters.{kind}", config.file()), parameters.clone()), config, turn).map(Some)
}

/// A rotation without scaling.
pub fn plain(dim: usize, theta: f64) -> Rope {
    fixed(dim, Rope::plain(dim, theta), 1.)
}

fn fixed(dim: usize, frequencies: Vec<f32>, magnitude: f64) -> Rope {
    Rope { dim, pairing: Pairing::Halves, frequencies: Frequencies::Fixed(frequencies), magnitude }
}

/// Reads one set of parameters; its own `rope_theta` and `partial_rotary_factor` go before those of the page.
fn scaled(parameters: &Json, config: &Json, turn: &Turn) -> Result<Rope, LoadError> {
    let theta = parameters.f64("rope_theta")?.unwrap_or(turn.theta);
    if !(theta.is_finite() && theta > 0.) {
        return Err(parameters.refuse("rope_theta", format!("must be above 0, but is {theta}")));
    }
    let dim = turn.dim;
    let common = ["rope_theta", "rope_type", "type", "partial_rotary_factor"];
    let only = |known: &[&str]| parameters.only(&[&common, known].concat());
    let kind = parameters.str("rope_type")?.or(parameters.str("type")?).unwrap_or("default");
    match kind {
        "default" => {
            only(&["factor"])?;
            Ok(plain(dim, theta))
        }
        "linear" => {
            only(&["factor"])?;
            let factor = factor(parameters)?;
            Ok(fixed(dim, Rope::plain(dim, theta).into_iter().map(|frequency| (f64::from(frequency) / factor) as f32).collect(), 1.))
        }
        "dynamic" => {
            only(&["factor", "original_max_position_embeddings"])?;
            let trained = trained(parameters, config, turn)?;
            Ok(Rope { frequencies: Frequencies::Dynamic { theta, factor: factor(parameters)?, trained }, ..plain(dim, theta) })
        }
        "yarn" => {
            only(&[
                "factor",
                "original_max_position_embeddings",
                "attention_factor",
                "beta_fast",
                "beta_slow",
                "mscale",
                "mscale_all_dim",
                "truncate",
            ])?;
            yarn(parameters, config, theta, turn)
        }
        "longrope" | "su" => {
            only(&["factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"])?;
            longrope(parameters, config, theta, turn)
        }
        "llama3" => {
            only(&["factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"])?;
            llama3(parameters, config, theta, turn)
        }
        _ => Err(parameters.refuse("rope_type", format!("`{kind}` is not computed; known: default, linear, dynamic, yarn, longrope, llama3"))),
    }
}

fn factor(parameters: &Json) -> Result<f64, LoadError> {
    let factor = parameters.f64("factor")?.ok_or_else(|| parameters.refuse("factor", "is missing"))?;
    if factor.is_finite() && factor >= 1. { Ok(factor) } else { Err(parameters.refuse("factor", format!("must be at least 1, but is {factor}"))) }
}

/// The length before the scaling: `original_max_position_embeddings`, in the parameters or beside them, else the model's whole length.
fn trained(parameters: &Json, config: &Json, turn: &Turn) -> Result<usize, LoadError> {
    const FIELD: &str = "original_max_position_embeddings";
    match parameters.usize(FIELD)?.or(config.usize(FIELD)?).unwrap_or(turn.max_tokens) {
        0 => Err(parameters.refuse(FIELD, "must be at least 1, but is 0")),
        trained => Ok(trained),
    }
}

/// YaRN (Peng et al. 2023): low frequencies are stretched by the factor, high ones are left, those between are mixed.
fn yarn(parameters: &Json, config: &Json, theta: f64, turn: &Turn) -> Result<Rope, LoadError> {
    let (factor, trained, dim) = (factor(parameters)?, trained(parameters, config, turn)? as f64, turn.dim as f64);
    let scale = |mscale: f64| if factor <= 1. { 1. } else { 0.1 * mscale * factor.ln() + 1. };
    let magnitude = match (parameters.f64("attention_factor")?, parameters.f64("mscale")?, parameters.f64("mscale_all_dim")?) {
        (Some(magnitude), _, _) => magnitude,
        (None, Some(mscale), Some(all)) if mscale != 0. && all != 0. => scale(mscale) / scale(all),
        _ => scale(1.),
    };
    let border = |turns: f64| dim * (trained / (turns * 2. * PI)).ln() / (2. * theta.ln());
    let (mut low, mut high) = (border(parameters.f64("beta_fast")?.unwrap_or(32.)), border(parameters.f64("beta_slow")?.unwrap_or(1.)));
    if parameters.bool("truncate")?.unwrap_or(true) {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, mut high) = (low.max(0.), high.min(dim - 1.));
    if low == high {
        high += 0.001;
    }
    let mix = |(pair, frequency): (usize, f32)| {
        let left = 1. - ((pair as f64 - low) / (high - low)).clamp(0., 1.);
        let frequency = f64::from(frequency);
        (frequency / factor * (1. - left) + frequency * left) as f32
    };
    Ok(fixed(turn.dim, Rope::plain(turn.dim, theta).into_iter().enumerate().map(mix).collect(), magnitude))
}

/// LongRoPE (Ding et al. 2024): a factor per pair, one set up to the trained length and one beyond.
fn longrope(parameters: &Json, config: &Json, theta: f64, turn: &Turn) -> Result<Rope, LoadError> {
    let trained = trained(parameters, config, turn)?;
    let growth = match parameters.f64("factor")? {
        Some(_) => factor(parameters)?,
        None => turn.max_tokens as f64 / trained as f64,
    };
    let magnitude = parameters.f64("attention_factor")?.unwrap_or(if growth <= 1. { 1. } else { (1. + growth.ln() / (trained as f64).ln()).sqrt() });
    let set = |field: &str| -> Result<Vec<f32>, LoadError> {
        let list = parameters.list(field)?.ok_or_else(|| parameters.refuse(field, "is missing"))?;
        let factors: Option<Vec<f64>> = list.iter().map(|factor| factor.as_f64().filter(|factor| *factor > 0.)).collect();
        let factors = factors.filter(|factors| factors.len() == turn.dim / 2);
        let factors = factors.ok_or_else(|| parameters.refuse(field, format!("must be {} numbers above 0", turn.dim / 2)))?;
        Ok(Rope::plain(turn.dim, theta).into_iter().zip(factors).map(|(frequency, factor)| (f64::from(frequency) / factor) as f32).collect())
    };
    let frequencies = Frequencies::ByLength { trained, short: set("short_factor")?, long: set("long_factor")? };
    Ok(Rope { frequencies, magnitude, ..plain(turn.dim, theta) })
}

/// Llama 3.1: wavelengths beyond the trained length are stretched, short ones left, those between mixed.
fn llama3(parameters: &Json, config: &Json, theta: f64, turn: &Turn) -> Result<Rope, LoadError> {
    let (factor, trained) = (factor(parameters)?, trained(parameters, config, turn)? as f64);
    let number = |field| parameters.f64(field)?.filter(|number| *number > 0.).ok_or_else(|| parameters.refuse(field, "must be there and above 0"));
    let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
    if high <= low {
        return Err(parameters.refuse("high_freq_factor", format!("must be above low_freq_factor ({low}), but is {high}")));
    }
    let stretch = |frequency: f32| {
        let frequency = f64::from(frequency);
        let wavelength = 2. * PI / frequency;
        if wavelength < trained / high {
            return frequency as f32;
        }
        if wavelength > trained / low {
            return (frequency / factor) as f32;
        }
        let smooth = (trained / wavelength - low) / (high - low);
        ((1. - smooth) * frequency / factor + smooth * frequency) as f32
    };
    Ok(fixed(turn.dim, Rope::plain(turn.dim, theta).into_iter().map(stretch).collect(), 1.))
}
