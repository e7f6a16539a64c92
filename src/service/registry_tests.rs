//! Names, prompts and sizes: what a client may ask of a model.

use super::*;
use crate::engine::load::{DType, Device, TextRules};

fn model(settings: Settings) -> Model {
    Model::new("owner/name".to_owned(), None, settings)
}

fn described(prompts: &[(&str, &str)]) -> ModelInfo {
    ModelInfo {
        architecture: "bert",
        hidden_size: 8,
        dimensions: 8,
        max_tokens: 16,
        position_limit: 16,
        vocabulary: 10,
        prompts: prompts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
        adapters: Default::default(),
        default_prompt_name: None,
        normalized: true,
        matryoshka: None,
        device: Device::Cpu,
        dtype: DType::F32,
        weight_bytes: 0,
        need: Default::default(),
        tokenizer_dir: ".".into(),
        text: TextRules::default(),
        license: None,
        stages: "mean > Normalize".to_owned(),
        decisions: Vec::new(),
    }
}

#[test]
fn slugs_are_unique_and_prompts_may_stand_behind_them() {
    let registry = Registry::new(vec![model(Settings::default()), Model::new("b".to_owned(), None, Settings::default())]).unwrap();
    assert_eq!(registry.find("b").unwrap().input_type, None);
    let found = registry.find("owner/name:query").unwrap();
    assert_eq!((found.model.slug.as_str(), found.input_type.as_deref()), ("owner/name", Some("query")));
    assert!(registry.find("name").is_none() && registry.find("").is_none() && registry.find(":query").is_none());
    let twice = Registry::new(vec![model(Settings::default()), model(Settings::default())]).err();
    assert_eq!(twice, Some(DuplicateSlug("owner/name".to_owned())));
}

#[test]
fn aliases_are_names_with_presets_and_hide_nothing() {
    let alias = |name: &str, prompt: Option<&str>, dimensions| Alias {
        name: name.to_owned(),
        slug: "owner/name".to_owned(),
        prompt: prompt.map(str::to_owned),
        dimensions,
    };
    let aliases = vec![alias("openai/x", None, None), alias("q", Some("query"), Some(4))];
    let registry = Registry::new(vec![model(Settings::default())]).unwrap().with_aliases(aliases);
    let found = |name: &str| registry.find(name).map(|found| (found.model.slug.clone(), found.input_type, found.preset));
    let slug = || "owner/name".to_owned();
    assert_eq!(found("openai/x"), Some((slug(), None, Preset::default())));
    assert_eq!(found("q"), Some((slug(), None, Preset { prompt: Some("query".to_owned()), dimensions: Some(4) })));
    assert_eq!(found("q:document"), Some((slug(), Some("document".to_owned()), Preset { prompt: None, dimensions: Some(4) })));
    assert_eq!(found("owner/name:query"), Some((slug(), Some("query".to_owned()), Preset::default())));
    assert!(found("openai/y").is_none() && found("x").is_none());
}

#[test]
fn prompts_are_found_by_name_and_roles_always_exist() {
    let (plain, info) = (model(Settings::default()), described(&[("query", "q: "), ("passage", "p: "), ("clustering", "c: ")]));
    let text = |model: &Model, info: &ModelInfo, name: Option<&str>| model.role(info, name).map(|role| role.prompt.to_owned());
    let ok = |text: &str| Ok(text.to_owned());
    assert_eq!(text(&plain, &info, None), ok(""));
    assert_eq!(text(&plain, &info, Some("query")), ok("q: "));
    assert_eq!(text(&plain, &info, Some("document")), ok("p: "));
    assert_eq!(text(&plain, &info, Some("clustering")), ok("c: "));
    let names = ["query", "document", "clustering", "passage"].map(str::to_owned).to_vec();
    assert_eq!(text(&plain, &info, Some("other")), Err(NoSuchPrompt(names)));
    assert_eq!(text(&plain, &described(&[]), Some("query")), ok(""));
}

#[test]
fn a_task_chooses_its_prompt_and_its_adapter_together() {
    let mut info = described(&[("retrieval.query", "q: "), ("retrieval.passage", "p: "), ("separation", "")]);
    info.adapters = [("retrieval.query", 0), ("retrieval.passage", 1), ("separation", 2)].map(|(name, index)| (name.to_owned(), index)).into();
    let plain = model(Settings::default());
    let role = |name| plain.role(&info, name).map(|role| (role.prompt, role.adapter));
    assert_eq!(role(None), Ok(("", None)), "without a task the model is the one that all adapters start from");
    assert_eq!((role(Some("query")), role(Some("retrieval.query"))), (Ok(("q: ", Some(0))), Ok(("q: ", Some(0)))));
    assert_eq!((role(Some("document")), role(Some("retrieval.passage"))), (Ok(("p: ", Some(1))), Ok(("p: ", Some(1)))));
    assert_eq!(role(Some("separation")), Ok(("", Some(2))));
    assert!(role(Some("classification")).is_err());
}

#[test]
fn the_default_prompt_is_the_operators_then_the_checkpoints() {
    let mut info = described(&[("query", "q: "), ("clustering", "c: ")]);
    info.default_prompt_name = Some("clustering".to_owned());
    let text = |model: Model, name: Option<&str>| model.role(&info, name).map(|role| role.prompt.to_owned());
    assert_eq!(text(model(Settings::default()), None), Ok("c: ".to_owned()));
    let settings = Settings { default_prompt: Some("query".to_owned()), ..Settings::default() };
    assert_eq!(text(model(settings.clone()), None), Ok("q: ".to_owned()));
    assert_eq!(text(model(settings), Some("document")), Ok(String::new()));
}

#[test]
fn dimensions_follow_the_declaration() {
    let with = |matryoshka, matryoshka_strict| model(Settings { matryoshka, matryoshka_strict, ..Settings::default() });
    let mut info = described(&[]);
    let undeclared = with(None, false);
    assert_eq!(undeclared.dimensions(&info, 8, None), Ok(8));
    assert_eq!(undeclared.dimensions(&info, 8, Some(8)), Ok(8));
    for wanted in [0, 4, 9] {
        assert!(undeclared.dimensions(&info, 8, Some(wanted)).is_err(), "{wanted}");
    }
    let strict = with(Some(Matryoshka::Sizes(vec![2, 4])), true);
    assert_eq!(strict.dimensions(&info, 8, Some(4)), Ok(4));
    assert!(strict.dimensions(&info, 8, Some(3)).unwrap_err().contains("[2, 4]"));
    assert_eq!(with(Some(Matryoshka::Sizes(vec![2, 4])), false).dimensions(&info, 8, Some(3)), Ok(3));
    info.matryoshka = Some(vec![4]);
    assert_eq!(undeclared.dimensions(&info, 8, Some(3)), Ok(3));
    assert!(with(Some(Matryoshka::Denied), false).dimensions(&info, 8, Some(4)).is_err());
}

#[test]
fn a_strict_declaration_needs_sizes_that_the_model_has() {
    let with = |matryoshka, matryoshka_strict| model(Settings { matryoshka: Some(matryoshka), matryoshka_strict, ..Settings::default() });
    let mut info = described(&[]);
    assert!(with(Matryoshka::Any, true).check(&info).unwrap_err().contains("matryoshka_strict"));
    assert!(with(Matryoshka::Sizes(vec![4, 9]), false).check(&info).unwrap_err().contains("lists 9"));
    assert!(with(Matryoshka::Sizes(vec![0]), false).check(&info).is_err());
    assert!(with(Matryoshka::Any, false).check(&info).is_ok() && with(Matryoshka::Denied, true).check(&info).is_ok());
    // What the checkpoint lists is what `true` stands for.
    info.matryoshka = Some(vec![2, 4]);
    let strict = with(Matryoshka::Any, true);
    assert!(strict.check(&info).is_ok());
    assert_eq!(strict.dimensions(&info, 8, Some(4)), Ok(4));
    assert!(strict.dimensions(&info, 8, Some(3)).unwrap_err().contains("[2, 4]"));
    assert_eq!(with(Matryoshka::Any, false).dimensions(&info, 8, Some(3)), Ok(3));
    let prompt = model(Settings { default_prompt: Some("poem".to_owned()), ..Settings::default() });
    assert!(prompt.check(&info).unwrap_err().contains("poem"));
}

#[test]
fn the_deltas_of_a_task_are_part_of_the_space() {
    let model = model(Settings::default());
    let with = |adapters: &[(&str, usize)]| {
        let mut info = described(&[("query", "q: "), ("other", "")]);
        info.adapters = adapters.iter().map(|(name, index)| ((*name).to_owned(), *index)).collect();
        Space::new("weights", &model, &info).fingerprint(8)
    };
    assert_eq!(with(&[]), with(&[]));
    assert_ne!(with(&[("query", 0)]), with(&[]));
    assert_ne!(with(&[("query", 0), ("other", 1)]), with(&[("query", 1), ("other", 0)]));
}
