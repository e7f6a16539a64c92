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
    let theta = theta(config, "rope_theta", turn.theta)?;
    read_beside(config, &Turn { theta, ..*turn })
}

/// As `read`, for a configuration that names its theta elsewhere than in `rope_theta`.
///
/// # Errors
/// As `read`.
pub fn read_beside(config: &Json, turn: &Turn) -> Result<Rope, LoadError> {
    let (field, parameters) = match config.object("rope_parameters")? {
        Some(parameters) => ("rope_parameters", Some(parameters)),
        None => ("rope_scaling", config.object("rope_scaling")?),
    };
    scaled(&Json::of(format!("{}: {field}", config.file()), parameters.cloned().unwrap_or_default()), config, turn)
}

/// The rotation of the layers of one kind (`full_attention`, `sliding_attention`), where `rope_parameters` tells them apart; `None` where it does not.
///
/// # Errors
/// As `read`.
pub fn of_kind(config: &Json, kind: &str, turn: &Turn) -> Result<Option<Rope>, LoadError> {
    let Some(kinds) = config.object("rope_parameters")? else { return Ok(None) };
    match kinds.get(kind) {
        Some(Value::Object(parameters)) => {
            scaled(&Json::of(format!("{}: rope_parameters.{kind}", config.file()), parameters.clone()), config, turn).map(Some)
        }
        // Other kinds are named, so the defaults hold for this one.
        _ if kinds.values().any(Value::is_object) => Ok(Some(plain(turn.dim, turn.theta))),
        _ => Ok(None),
    }
}

/// A rotation without scaling.
pub fn plain(dim: usize, theta: f64) -> Rope {
    fixed(dim, Rope::plain(dim, theta), 1.)
}

fn fixed(dim: usize, frequencies: Vec<f32>, magnitude: f64) -> Rope {
    Rope { dim, pairing: Pairing::Halves, frequencies: Frequencies::Fixed(frequencies), magnitude }
}

/// Reads one set of parameters; its own `rope_theta` goes before that of the page.
fn scaled(parameters: &Json, config: &Json, turn: &Turn) -> Result<Rope, LoadError> {
    let theta = theta(parameters, "rope_theta", turn.theta)?;
    let dim = turn.dim;
    if dim == 0 || !dim.is_multiple_of(2) {
        let field = if config.get("head_dim").is_some() { "head_dim" } else { "num_attention_heads" };
        return Err(config.refuse(field, format!("heads of {dim} dimensions cannot be turned in pairs")));
    }
    for json in [parameters, config] {
        if let Some(part) = json.f64("partial_rotary_factor")?.filter(|part| *part != 1.) {
            return Err(json.refuse("partial_rotary_factor", format!("must be 1 for this architecture, but is {part}")));
        }
    }
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
            dynamic(parameters, config, theta, turn)
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

/// Theta, under whichever name.
///
/// # Errors
/// It is not above 0.
pub fn theta(config: &Json, field: &str, default: f64) -> Result<f64, LoadError> {
    let theta = config.f64(field)?.unwrap_or(default);
    if theta.is_finite() && theta > 0. { Ok(theta) } else { Err(config.refuse(field, format!("must be above 0, but is {theta}"))) }
}

/// The factor of a scaling.
///
/// # Errors
/// It is missing, or below 1.
pub fn factor(parameters: &Json) -> Result<f64, LoadError> {
    let factor = parameters.f64("factor")?.ok_or_else(|| parameters.refuse("factor", "is missing"))?;
    if factor.is_finite() && factor >= 1. { Ok(factor) } else { Err(parameters.refuse("factor", format!("must be at least 1, but is {factor}"))) }
}

/// The length before the scaling: `original_max_position_embeddings`, in the parameters or beside them, else the model's whole length.
fn trained(parameters: &Json, config: &Json, turn: &Turn) -> Result<usize, LoadError> {
    const FIELD: &str = "original_max_position_embeddings";
    let (own, beside) = (parameters.usize(FIELD)?, config.usize(FIELD)?);
    if let (Some(own), Some(beside)) = (own, beside)
        && own != beside
    {
        return Err(
            parameters.refuse(FIELD, format!("is {own} here, but {beside} beside; which of them holds depends on the release of transformers"))
        );
    }
    match own.or(beside).unwrap_or(turn.max_tokens) {
        0 => Err(parameters.refuse(FIELD, "must be at least 1, but is 0")),
        trained => Ok(trained),
    }
}

/// "Dynamic NTK" (Peng et al. 2023, appendix B): theta grows with the text, from the model's whole length on.
fn dynamic(parameters: &Json, config: &Json, theta: f64, turn: &Turn) -> Result<Rope, LoadError> {
    const FIELD: &str = "original_max_position_embeddings";
    let trained = trained(parameters, config, turn)?;
    if trained != turn.max_tokens {
        let reason = format!(
            "is {trained}, but some releases of transformers scale from max_position_embeddings ({}) on: they must be equal",
            turn.max_tokens
        );
        return Err(parameters.refuse(FIELD, reason));
    }
    dynamic_from(parameters, trained, factor(parameters)?, &Turn { theta, ..*turn })
}

/// Frequencies whose theta grows for texts of more than `trained` tokens.
///
/// # Errors
/// Heads too small for the formula; `parameters` is who is blamed.
pub fn dynamic_from(parameters: &Json, trained: usize, factor: f64, turn: &Turn) -> Result<Rope, LoadError> {
    if turn.dim <= 2 {
        return Err(parameters.refuse("factor", format!("dynamic scaling needs more than 2 turned dimensions in a head; there are {}", turn.dim)));
    }
    Ok(Rope { frequencies: Frequencies::Dynamic { theta: turn.theta, factor, trained }, ..plain(turn.dim, turn.theta) })
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
    // A zero counts as absent, as in the reference.
    let beta = |field, default| Ok::<_, LoadError>(parameters.f64(field)?.filter(|beta| *beta != 0.).unwrap_or(default));
    let (mut low, mut high) = (border(beta("beta_fast", 32.)?), border(beta("beta_slow", 1.)?));
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

#[cfg(test)]
#[path = "rope_tests.rs"]
mod tests;
