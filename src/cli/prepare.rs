//! From files to a model that is loaded and proven: what `serve`, `embed`, `verify` and `doctor` do alike.

use crate::engine::load::{self, Loaded, Options};
use crate::hub::ModelFiles;
use crate::service::golden::{Fidelity, GoldenSet, Subject};
use crate::service::tokenizer::TextEncoder;

/// A model with its tokenizer, and how near it comes to its reference.
pub struct Prepared {
    pub loaded: Loaded,
    pub encoder: TextEncoder,
    /// `None` if there are no goldens for it.
    pub fidelity: Option<Fidelity>,
    min_cosine: Option<f64>,
}

impl Prepared {
    /// Loads a model in one number type, as it is.
    ///
    /// # Errors
    /// What the loaders of weights and tokenizer refuse.
    pub fn load(files: &ModelFiles, options: &Options) -> anyhow::Result<Self> {
        let loaded = load::load(files, options)?;
        let encoder = TextEncoder::load(&loaded.info)?;
        Ok(Self { loaded, encoder, fidelity: None, min_cosine: options.min_cosine })
    }

    /// What goldens are compared with.
    pub fn subject(&self) -> Subject<'_> {
        Subject { info: &self.loaded.info, least_cosine: self.min_cosine, encoder: &self.encoder, compute: &self.loaded }
    }
}

/// Loads a model and shows by its goldens that it computes what its reference does. `auto` takes the fastest number type that holds.
///
/// # Errors
/// What the loaders refuse, goldens that cannot be read, and a model that misses them.
pub fn prepare(files: &ModelFiles, options: &Options) -> anyhow::Result<Prepared> {
    let goldens = files.goldens()?.map(|goldens| GoldenSet::parse(&goldens)).transpose()?;
    for dtype in load::faster_dtypes(options) {
        // Without goldens nothing shows that a faster type holds.
        let Some(goldens) = &goldens else { break };
        let prepared = check(Prepared::load(files, &Options { dtype: Some(*dtype), ..options.clone() })?, goldens)?;
        match prepared.fidelity.as_ref().map(Fidelity::require) {
            Some(Err(error)) => tracing::warn!(%dtype, %error, "auto does not take this number type"),
            _ => return Ok(prepared),
        }
    }
    let prepared = Prepared::load(files, options)?;
    let Some(goldens) = &goldens else { return Ok(prepared) };
    let prepared = check(prepared, goldens)?;
    prepared.fidelity.as_ref().map_or(Ok(()), Fidelity::require)?;
    Ok(prepared)
}

/// Computes a sample of the goldens.
fn check(prepared: Prepared, goldens: &GoldenSet) -> anyhow::Result<Prepared> {
    let mut fidelity = goldens.check(&goldens.sample(), prepared.subject())?;
    if fidelity.holds {
        fidelity.lines.clear();
    }
    Ok(Prepared { fidelity: Some(fidelity), ..prepared })
}
