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
        tokenizer_dir: ".".into(),
        text: TextRules::default(),
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
