//! The embedding space: a short name for everything that decides where a text's vector lies, so that vectors of two spaces never meet in one index.

use super::registry::{Model, Role};
use crate::engine::load::{DType, ModelInfo};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// Hex digits of a fingerprint: 64 bits, against accidents and not against enemies.
const DIGITS: usize = 16;

/// The space of one model as it is served, all but the size of its vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space(String);

impl Space {
    /// Of these weights (their digest), with this pooling, these prompts, this length and this class of number types.
    ///
    /// Prompts count as a whole: a query and a document have different ones and lie in one space.
    pub fn new(weights_digest: &str, model: &Model, info: &ModelInfo) -> Self {
        let unit = info.normalized || !model.settings.as_the_model;
        // A last Normalize and the service's own scaling are the same vectors.
        let stages = if unit { info.stages.trim_end_matches(" > Normalize") } else { &info.stages };
        let mut text = format!("vecmill space 1\nweights {weights_digest}\nstages {stages}\nunit {unit}\ndtype {}\n", class(info.dtype));
        if model.settings.mrl_layer_norm {
            text.push_str("cut after a layer norm\n");
        }
        let role = |name: Option<&str>| model.role(info, name).unwrap_or_default();
        let roles = [("by default", role(None)), ("query", role(Some("query"))), ("document", role(Some("document")))];
        let own = info.prompts.keys().map(|name| (name.as_str(), role(Some(name))));
        for (name, Role { prompt, adapter }) in roles.into_iter().chain(own) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "prompt {name:?} {prompt:?}");
            if let Some(adapter) = adapter {
                let _ = writeln!(text, "adapter {name:?} {adapter}");
            }
        }
        Self(text)
    }

    /// The fingerprint of its vectors of this size.
    pub fn fingerprint(&self, dimensions: usize) -> String {
        let digest = Sha256::digest(format!("{}dimensions {dimensions}\n", self.0));
        digest.iter().take(DIGITS / 2).fold(String::with_capacity(DIGITS), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// Number types whose vectors are held to each other by the goldens share a space; int8 is held to much less and has its own.
fn class(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 | DType::Bf16 | DType::F16 => "float",
        DType::Int8 => "int8",
    }
}
