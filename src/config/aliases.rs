//! `[aliases]`: other names for models, checked against what is served.

use super::said::{AliasSaid, AliasTable};
use super::{ConfigError, ServeModel, impossible};
use crate::service::alias::Alias;
use std::collections::BTreeMap;

/// Every alias with the slug of its model.
pub(super) fn resolve(said: &BTreeMap<String, AliasSaid>, models: &[ServeModel]) -> Result<Vec<Alias>, ConfigError> {
    said.iter().map(|(name, said)| one(name, said, models)).collect()
}

fn one(name: &str, said: &AliasSaid, models: &[ServeModel]) -> Result<Alias, ConfigError> {
    let refuse = |why: String| impossible(format!("[aliases] {name:?}: {why}"));
    let AliasTable { model, mut prompt, dimensions } = match said {
        AliasSaid::Model(model) => AliasTable { model: model.clone(), prompt: None, dimensions: None },
        AliasSaid::Table(table) => table.clone(),
    };
    if name.is_empty() {
        return refuse("a name must not be empty".to_owned());
    }
    if slug(models, name).is_some() {
        return refuse("a model is served under this name already".to_owned());
    }
    if dimensions == Some(0) {
        return refuse("dimensions must be at least 1".to_owned());
    }
    let found = slug(models, &model).or_else(|| {
        let (model, suffix) = model.rsplit_once(':').filter(|_| prompt.is_none())?;
        let slug = slug(models, model)?;
        prompt = Some(suffix.to_owned());
        Some(slug)
    });
    match found {
        Some(slug) => Ok(Alias { name: name.to_owned(), slug: slug.to_owned(), prompt, dimensions }),
        None => {
            let slugs: Vec<&str> = models.iter().map(|model| model.slug.as_str()).collect();
            refuse(format!("no model {model:?} is served; the slugs are {}", slugs.join(", ")))
        }
    }
}

/// The slug of the model called `name`: by its slug, or by its card's short name.
fn slug<'a>(models: &'a [ServeModel], name: &str) -> Option<&'a str> {
    let by_slug = models.iter().find(|model| model.slug == name);
    let by_card = || models.iter().find(|model| model.what.card().is_some_and(|card| card.name == name));
    by_slug.or_else(by_card).map(|model| model.slug.as_str())
}
