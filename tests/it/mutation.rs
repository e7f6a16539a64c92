//! The small checkpoints cannot hide mistakes: whatever word of their descriptions is changed, their reference texts show it.

mod changes;
mod edits;

use crate::drawn::{MAX_TOKENS, VOCABULARY, draw};
use crate::models::{Model, tiny};
use crate::parity::{TINY_MAX_ABS, cases};
use changes::{Change, KINDS};
use std::collections::BTreeSet;
use std::path::Path;
use vecmill::engine::load::{DType, Options, load_dir};
use vecmill::engine::pipeline::Pipeline;
use vecmill::exec::{Place, tensor::TensorExecutor};
use vecmill::network::Network;
use vecmill::ragged::{Packed, Tokens};

/// What the reference texts of a checkpoint come to, as its description stands.
struct Sight {
    model: Model,
    texts: Vec<(Tokens, Output)>,
}

/// Of one text.
struct Output {
    hidden: Vec<f32>,
    vector: Vec<f32>,
}

/// Where a change is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Nowhere,
    /// Only before pooling.
    Hidden,
    Vector,
}

impl Sight {
    fn new(dir: &Path, network: &Network) -> Self {
        let model = Model::load(dir);
        let mut texts: Vec<Tokens> = cases(dir).iter().map(|case| model.tokens(&case.text, &case.prompt)).collect();
        // Those that show most come first.
        texts.sort_by_key(|text| std::cmp::Reverse(text.ids.iter().collect::<BTreeSet<_>>().len()));
        let choices = |text: Tokens| (0..=network.adapters).map(move |chosen| Tokens { adapter: chosen.checked_sub(1), ..text.clone() });
        let executor = executor(network);
        let texts = texts.into_iter().flat_map(choices).map(|text| {
            let output = output(&executor, &model.loaded.pipeline, &text);
            (text, output)
        });
        Self { texts: texts.collect(), model }
    }

    fn longest(&self) -> usize {
        self.texts.iter().map(|(text, _)| text.len()).max().expect("texts")
    }

    fn sees(&self, changed: &Network) -> Seen {
        let executor = executor(changed);
        let mut seen = Seen::Nowhere;
        for (text, before) in self.texts.iter().filter(|(text, _)| text.len() <= changed.max_tokens) {
            let after = output(&executor, &self.model.loaded.pipeline, text);
            if differ(&before.vector, &after.vector) {
                return Seen::Vector;
            }
            if differ(&before.hidden, &after.hidden) {
                seen = Seen::Hidden;
            }
        }
        seen
    }
}

/// Runs a description in f32 on the processor.
pub fn executor(network: &Network) -> TensorExecutor {
    TensorExecutor::new(network, &Place::reference()).unwrap_or_else(|error| panic!("{error}"))
}

fn output(executor: &TensorExecutor, pipeline: &Pipeline, text: &Tokens) -> Output {
    let batch = Packed::new(std::slice::from_ref(text));
    let hidden = executor.run(&batch).and_then(|hidden| hidden.flatten_all()?.to_vec1::<f32>()).expect("computes");
    Output { vector: pipeline.finish(&hidden, &batch).expect("computes"), hidden }
}

/// By more than the parity test allows; a number that is none differs from all.
fn differ(before: &[f32], after: &[f32]) -> bool {
    before.iter().zip(after).map(|(before, after)| (before - after).abs()).any(|diff| diff > TINY_MAX_ABS || diff.is_nan())
}

/// The description of a checkpoint, which is kept where it may be computed once more in f32.
pub fn description(dir: &Path) -> Network {
    let options = Options { dtype: Some(DType::Bf16), ..crate::models::exact() };
    let loaded = load_dir(dir, &options).unwrap_or_else(|error| panic!("{error}"));
    loaded.pipeline.description().expect("kept").clone()
}

#[test]
fn no_small_checkpoint_hides_a_mistake_in_its_description() {
    let (mut met, mut hidden, mut tried) = (BTreeSet::new(), Vec::new(), 0);
    for dir in vecmill::encoders::architectures().flat_map(tiny) {
        let network = description(&dir);
        let sight = Sight::new(&dir, &network);
        for Change { kind, place, network } in changes::of(&network, sight.longest()) {
            tried += 1;
            match sight.sees(&network) {
                Seen::Nowhere => hidden.push(format!("{}: {kind} ({place})", dir.display())),
                Seen::Hidden => {}
                Seen::Vector => drop(met.insert(kind)),
            }
        }
    }
    assert!(hidden.is_empty(), "changes that no reference text shows:\n{}", hidden.join("\n"));
    let missing: Vec<_> = KINDS.iter().copied().filter(|kind| !met.contains(kind)).collect();
    assert!(missing.is_empty(), "kinds of change that no checkpoint's vectors show: {missing:?}");
    println!("{tried} changes of {} kinds, all seen", met.len());
}

/// The changes themselves can be seen in any network.
#[test]
fn every_kind_of_change_moves_some_random_network() {
    let ids = |len: u32| (0..len).map(|place| (place * place + 3 * place + 1) % VOCABULARY as u32).collect::<Vec<_>>();
    let mut met = BTreeSet::new();
    for seed in 0..150 {
        let network = draw(seed).unwrap_or_else(|error| panic!("{error}")).network;
        let adapter = (network.adapters > 0).then_some(0);
        let text = Tokens { adapter, ..Tokens::whole(ids(MAX_TOKENS as u32 - 8)) };
        let batch = Packed::new(std::slice::from_ref(&text));
        let hidden = |network: &Network| executor(network).run(&batch).and_then(|hidden| hidden.flatten_all()?.to_vec1::<f32>()).expect("computes");
        let before = hidden(&network);
        for Change { kind, network, .. } in changes::of(&network, text.len()) {
            if !met.contains(kind) && differ(&before, &hidden(&network)) {
                met.insert(kind);
            }
        }
    }
    let missing: Vec<_> = KINDS.iter().filter(|kind| !met.contains(*kind)).collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
}

/// Steps as small as between the customary epsilons (1e-12, 1e-6, 1e-5) are below the rounding of the checkpoints, so this field is held by itself.
#[test]
fn every_epsilon_is_the_one_of_config_json() {
    const FIELDS: [&str; 5] = ["layer_norm_eps", "rms_norm_eps", "layer_norm_epsilon", "norm_eps", "layernorm_epsilon"];
    for dir in vecmill::encoders::architectures().flat_map(tiny) {
        let config = Model::load(&dir).loaded.info.tokenizer_dir.join("config.json");
        if !config.exists() && description(&dir).is_table() {
            continue;
        }
        let config: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).expect("config.json")).expect("JSON");
        let said: Vec<f64> = FIELDS.iter().filter_map(|field| config[field].as_f64()).collect();
        let [said] = said.as_slice() else { continue };
        let epsilons = changes::epsilons(&description(&dir));
        assert!(epsilons.iter().all(|eps| eps == said), "{}: {epsilons:?} instead of {said}", dir.display());
    }
}
