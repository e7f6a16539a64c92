//! Reads modules.json of both generations of sentence-transformers into stages. What is not understood is refused, never skipped.

use super::dense::Dense;
use super::norm::{LayerNorm, read_normalize};
use super::pooling::{Mode, Pooling};
use super::{Stage, Stages};
use crate::encoders::json::{Json, read_bytes};
use crate::engine::load::weights;
use crate::network::LoadError;
use serde_json::{Map, Value};
use std::path::{Component, Path, PathBuf};

/// A model's modules.json, its classes recognised.
pub struct Modules {
    /// The directory of the first module, a Transformer or a StaticEmbedding: encoder and tokenizer.
    pub encoder: PathBuf,
    /// The first module is a StaticEmbedding: a table without anything else, which averages by itself.
    pub table: bool,
    /// The first module is code of the checkpoint that takes a task: Jina's, which chooses a set of deltas by it.
    pub takes_task: bool,
    /// The file's name in messages.
    pub file: String,
    rest: Vec<Module>,
}

struct Module {
    kind: Kind,
    takes_task: bool,
    dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Transformer,
    StaticEmbedding,
    Pooling,
    Dense,
    LayerNorm,
    Normalize,
    Dropout,
}

impl Kind {
    /// A class path: `sentence_transformers.models.Pooling` before 5.4, `sentence_transformers.sentence_transformer.modules.pooling.Pooling`
    /// or `sentence_transformers.base.modules.dense.Dense` since.
    fn of(class: &str) -> Option<Self> {
        const PACKAGES: [&str; 3] = ["models", "base.modules", "sentence_transformer.modules"];
        let (package, name) = class.strip_prefix("sentence_transformers.")?.rsplit_once('.')?;
        let known = PACKAGES.iter().any(|known| {
            // A class may be named by its package or by the module file below it, which has one more part.
            package.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.') && !rest[1..].contains('.'))
        });
        match name {
            _ if !known => None,
            "Transformer" => Some(Self::Transformer),
            "StaticEmbedding" => Some(Self::StaticEmbedding),
            "Pooling" => Some(Self::Pooling),
            "Dense" => Some(Self::Dense),
            "LayerNorm" => Some(Self::LayerNorm),
            "Normalize" => Some(Self::Normalize),
            "Dropout" => Some(Self::Dropout),
            _ => None,
        }
    }
}

/// Reads modules.json; `None` if the directory has none.
///
/// # Errors
/// A module that is not understood, a path that leaves the folder, a list that does not begin with one Transformer.
pub fn read(root: &Path) -> Result<Option<Modules>, LoadError> {
    let path = root.join("modules.json");
    let Some(bytes) = read_bytes(&path)? else { return Ok(None) };
    let file = path.display().to_string();
    let list: Vec<Map<String, Value>> =
        serde_json::from_slice(&bytes).map_err(|error| LoadError::file(&file, format!("is not a list of JSON objects: {error}")))?;
    let mut modules = Vec::new();
    for (index, entry) in list.into_iter().enumerate() {
        let json = Json::of(format!("{file}: module {index}"), entry);
        let module = module(root, &json)?;
        if matches!(module.kind, Kind::Transformer | Kind::StaticEmbedding) != (index == 0) {
            return Err(json.refuse("type", "a pipeline must begin with its only Transformer or StaticEmbedding module"));
        }
        modules.push(module);
    }
    if modules.is_empty() {
        return Err(LoadError::file(file, "lists no module"));
    }
    let first = modules.remove(0);
    Ok(Some(Modules { encoder: first.dir, table: first.kind == Kind::StaticEmbedding, takes_task: first.takes_task, file, rest: modules }))
}

fn module(root: &Path, json: &Json) -> Result<Module, LoadError> {
    json.only(&["idx", "name", "path", "type", "kwargs"])?;
    let class = json.str("type")?.ok_or_else(|| json.refuse("type", "is missing"))?;
    let kwargs = json.list("kwargs")?.unwrap_or_default();
    let takes_task = class == "custom_st.Transformer" && kwargs == ["task"];
    let kind = if takes_task { Some(Kind::Transformer) } else { Kind::of(class) };
    let kind = kind.ok_or_else(|| json.refuse("type", format!("`{class}` is not a module that is run")))?;
    if !(kwargs.is_empty() || takes_task) {
        return Err(json.refuse("kwargs", "arguments at run time are not understood"));
    }
    let path = json.str("path")?.unwrap_or_default();
    if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(json.refuse("path", format!("`{path}` leaves the model's folder")));
    }
    Ok(Module { kind, takes_task, dir: root.join(path) })
}

impl Modules {
    /// Builds the stages after an encoder of that width.
    ///
    /// # Errors
    /// Sizes that do not fit each other, a stage before pooling, a configuration that is not understood.
    pub fn stages(&self, width: usize) -> Result<Stages, LoadError> {
        let mut modules = self.rest.iter().filter(|module| module.kind != Kind::Dropout);
        let pooling = if self.table {
            Pooling::of(vec![Mode::Mean], true)
        } else {
            match modules.next() {
                Some(Module { kind: Kind::Pooling, dir, .. }) => Pooling::read(dir, width)?,
                _ => return Err(LoadError::file(&self.file, "the Transformer must be followed by Pooling: token vectors are not served")),
            }
        };
        let (mut rest, mut dim) = (Vec::new(), pooling.dim(width));
        for module in modules {
            let dir = &module.dir;
            match module.kind {
                Kind::Dense => {
                    let dense = Dense::read(dir, dim, &weights(dir)?)?;
                    dim = dense.out_features();
                    rest.push(Stage::Dense(dense));
                }
                Kind::LayerNorm => rest.push(Stage::LayerNorm(LayerNorm::read(dir, dim, &weights(dir)?)?)),
                Kind::Normalize => {
                    read_normalize(dir)?;
                    rest.push(Stage::Normalize);
                }
                Kind::Pooling => return Err(LoadError::file(&self.file, "has a second Pooling module, or one after a StaticEmbedding")),
                Kind::Transformer | Kind::StaticEmbedding | Kind::Dropout => return Err(LoadError::file(&self.file, "has a second encoder")),
            }
        }
        Ok(Stages { pooling, rest, dim })
    }
}

/// The stages of a model without modules.json: the pooling that the operator names, and nothing after it.
///
/// # Errors
/// No pooling named, or one that does not exist.
pub fn without(root: &Path, width: usize, pooling: Option<&str>) -> Result<Stages, LoadError> {
    let modes = Mode::ALL.map(Mode::name).join(", ");
    let Some(name) = pooling else {
        let reason = format!("is missing, so nothing says how token vectors become one: pass `--pooling` with one of {modes}");
        return Err(LoadError::file(root.join("modules.json").display().to_string(), reason));
    };
    let pooling = Pooling::of(vec![Mode::asked(name)?], true);
    Ok(Stages { dim: pooling.dim(width), pooling, rest: Vec::new() })
}

/// The stages of a table of static embeddings without modules.json, as model2vec runs it: their average, scaled to unit length if it says so.
pub fn of_table(width: usize, normalize: bool) -> Stages {
    let rest = if normalize { vec![Stage::Normalize] } else { Vec::new() };
    Stages { pooling: Pooling::of(vec![Mode::Mean], true), rest, dim: width }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn classes_of_both_generations() {
        for (class, kind) in [
            ("sentence_transformers.models.Transformer", Some(Kind::Transformer)),
            ("sentence_transformers.base.modules.transformer.Transformer", Some(Kind::Transformer)),
            ("sentence_transformers.models.Pooling", Some(Kind::Pooling)),
            ("sentence_transformers.models.StaticEmbedding", Some(Kind::StaticEmbedding)),
            ("sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding", Some(Kind::StaticEmbedding)),
            ("sentence_transformers.sentence_transformer.modules.pooling.Pooling", Some(Kind::Pooling)),
            ("sentence_transformers.sentence_transformer.modules.normalize.Normalize", Some(Kind::Normalize)),
            ("sentence_transformers.base.modules.normalize.Normalize", Some(Kind::Normalize)),
            ("sentence_transformers.base.modules.dense.Dense", Some(Kind::Dense)),
            ("sentence_transformers.models.LSTM", None),
            ("sentence_transformers.modelsx.Dense", None),
            ("sentence_transformers.sparse_encoder.modules.Dense", None),
            ("custom.Pooling", None),
            ("Pooling", None),
        ] {
            assert_eq!(Kind::of(class), kind, "{class}");
        }
    }
}
