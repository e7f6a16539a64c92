//! Goldens: a model that computes something else than its reference is not served, and `vecmill verify` says by how much.

use crate::models::tiny;
use crate::server::vecmill;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use vecmill::cli::prepare::prepare;
use vecmill::engine::load::{DType, Options};
use vecmill::hub::{ModelFiles, goldens_at};
use vecmill::kernels::host::Cpu;
use vecmill::service::golden::{Fidelity, GoldenSet};

/// A small checkpoint of its own, its reference vectors put beside it as goldens.
pub struct Certified {
    pub dir: tempfile::TempDir,
}

impl Certified {
    pub fn new(name: &str) -> Self {
        Self::of("bert", name)
    }

    pub fn of(architecture: &str, name: &str) -> Self {
        let from = tiny(architecture).into_iter().find(|dir| dir.ends_with(name)).expect("the checkpoint");
        let dir = tempfile::tempdir().unwrap();
        let own = Self { dir };
        own.copy(&from, &own.root());
        let golden = own.golden();
        std::fs::create_dir(golden.parent().unwrap()).unwrap();
        std::fs::rename(own.root().join("reference.safetensors"), golden.with_extension("safetensors")).unwrap();
        let reference: Value = serde_json::from_slice(&std::fs::read(own.root().join("reference.json")).unwrap()).unwrap();
        std::fs::remove_file(own.root().join("reference.json")).unwrap();
        let item = |case: &Value| json!({"text": case["text"], "prompt": case["prompt"], "tokens": case["ids"].as_array().unwrap().len()});
        let items: Vec<Value> = reference["cases"].as_array().unwrap().iter().map(item).collect();
        std::fs::write(&golden, json!({"max_tokens": reference["max_tokens"], "items": items}).to_string()).unwrap();
        own
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("model")
    }

    pub fn golden(&self) -> PathBuf {
        self.root().join("golden/golden.json")
    }

    pub fn files(&self) -> ModelFiles {
        ModelFiles { root: self.root(), card: None, slug: "model".to_owned() }
    }

    /// Rewrites golden.json.
    pub fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut record = serde_json::from_slice(&std::fs::read(self.golden()).unwrap()).unwrap();
        change(&mut record);
        std::fs::write(self.golden(), record.to_string()).unwrap();
    }

    fn copy(&self, from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let to = to.join(path.file_name().unwrap());
            if path.is_dir() { self.copy(&path, &to) } else { std::fs::copy(&path, &to).map(|_| ()).unwrap() }
        }
    }

    /// Changes the first number of the first golden vector, which every sample holds.
    pub fn spoil(&self) {
        let file = self.golden().with_extension("safetensors");
        let mut bytes = std::fs::read(&file).unwrap();
        let at = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let value = f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        bytes[at..at + 4].copy_from_slice(&(value + 0.5).to_le_bytes());
        std::fs::write(&file, bytes).unwrap();
    }
}

fn fidelity(model: &Certified, options: &Options) -> Result<Fidelity, String> {
    prepare(&model.files(), options).map(|prepared| prepared.fidelity.expect("there are goldens")).map_err(|error| format!("{error:#}"))
}

fn exact() -> Options {
    crate::models::exact()
}

#[test]
fn models_with_and_without_normalisation_are_compared_as_their_modules_leave_them() {
    // The second gives vectors that are far from unit length: scaling them first would let a lost norm pass.
    for name in ["old-mean", "old-concat"] {
        let found = fidelity(&Certified::new(name), &exact()).unwrap();
        assert!(found.holds && found.min_cosine > 0.999_999 && found.max_abs < 2e-5, "{name}: {found:?}");
        assert!(found.texts >= 8, "{name}: {} texts", found.texts);
    }
}

#[test]
fn a_table_without_a_length_is_compared_with_whole_texts() {
    for (name, longest) in [("st-subfolder", 65), ("model2vec-normalised", 40)] {
        let model = Certified::of("static_embedding", name);
        let set = GoldenSet::parse(&goldens_at(&model.golden()).unwrap()).unwrap();
        let prepared = vecmill::cli::prepare::Prepared::load(&model.files(), &exact()).unwrap();
        let found = set.check(&set.all(), prepared.subject()).unwrap();
        assert!(found.holds && found.max_abs < 2e-5, "{name}: {found:?}");
        assert_eq!(found.lines.iter().map(|line| line.tokens).max(), Some(longest), "{name}");
    }
}

#[test]
fn a_vector_or_a_token_count_that_is_not_the_references_refuses_the_model() {
    let spoilt = Certified::new("old-mean");
    spoilt.spoil();
    let error = fidelity(&spoilt, &exact()).unwrap_err();
    assert!(error.contains("does not compute what its reference does") && error.contains("below 0.99999"), "{error}");
    assert!(fidelity(&spoilt, &Options { min_cosine: Some(0.5), ..exact() }).unwrap().holds, "the operator may say otherwise");

    let counted = Certified::new("old-mean");
    counted.edit(|record| record["items"][0]["tokens"] = json!(4));
    let error = fidelity(&counted, &exact()).unwrap_err();
    assert!(error.contains("other tokens") && error.contains("not 4"), "{error}");
}

#[test]
fn goldens_that_cannot_be_read_are_no_goldens_that_hold() {
    let lost = Certified::new("old-mean");
    std::fs::remove_file(lost.golden().with_extension("safetensors")).unwrap();
    let error = fidelity(&lost, &exact()).unwrap_err();
    assert!(error.contains("has no golden.safetensors"), "{error}");
    let other = Certified::new("old-mean");
    let from = Certified::new("new-cls-dense");
    std::fs::copy(from.golden().with_extension("safetensors"), other.golden().with_extension("safetensors")).unwrap();
    other.edit(|record| {
        let items = record["items"].as_array_mut().unwrap();
        items.truncate(10);
    });
    let error = fidelity(&other, &exact()).unwrap_err();
    assert!(error.contains("12 values") && error.contains("16"), "{error}");
}

#[test]
fn every_dtype_has_its_own_threshold() {
    let model = Certified::new("old-mean");
    let goldens = GoldenSet::parse(&goldens_at(&model.golden()).unwrap()).unwrap();
    let int8 = Cpu::best().map(|_| (DType::Int8, 0.997));
    for (dtype, threshold) in [(DType::F32, 0.999_99), (DType::Bf16, 0.999_9), (DType::F16, 0.999_9)].into_iter().chain(int8) {
        let options = Options { dtype: Some(dtype), min_cosine: Some(0.0), ..exact() };
        let served = fidelity(&model, &options).unwrap();
        assert_eq!((served.dtype.as_str(), served.threshold), (dtype.to_string().as_str(), 0.0));
        let prepared = vecmill::cli::prepare::Prepared::load(&model.files(), &Options { min_cosine: None, ..options }).unwrap();
        assert_eq!(goldens.check(&goldens.all(), prepared.subject()).unwrap().threshold, threshold);
    }
}

#[test]
fn int8_is_refused_where_the_fused_executor_does_not_run() {
    let model = Certified::of("static_embedding", "model2vec-normalised");
    let error = fidelity(&model, &Options { dtype: Some(DType::Int8), ..exact() }).unwrap_err();
    assert!(error.contains("--dtype: int8 is computed by the fused executor only"), "{error}");
    assert!(error.contains("a table of vectors has no products") || Cpu::best().is_none(), "{error}");
}

#[test]
fn a_cut_vector_is_the_prefix_scaled_to_unit_length() {
    let model = Certified::new("old-concat");
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tiny-cut/golden.json");
    let set = GoldenSet::parse(&goldens_at(&here).unwrap()).unwrap();
    let prepared = vecmill::cli::prepare::Prepared::load(&model.files(), &exact()).unwrap();
    let found = set.check(&set.all(), prepared.subject()).unwrap();
    assert!(found.holds && found.max_abs < 1e-6 && found.texts >= 8, "{found:?}");
}

#[test]
fn verify_prints_the_table_and_its_exit_code_says_whether_the_goldens_hold() {
    let model = Certified::new("old-mean");
    let root = model.root();
    let verify = |more: &[&str]| {
        let words = ["verify", "--dtype", "f32", "--offline", "--model", root.to_str().unwrap()];
        let output = vecmill(&[&words, more].concat()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text, error) = verify(&[]);
    assert_eq!(code, Some(0), "{text}{error}");
    for part in ["max abs error", "min cosine", "mean cosine", "in 20 of 20 texts", "holds"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    model.spoil();
    let (code, text, _) = verify(&["--json"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["holds"], &report["texts"]), (Some(1), &json!(false), &json!(20)));
    assert!(report["min_cosine"].as_f64().unwrap() < 0.999 && report["lines"].as_array().unwrap().len() == 20);
    assert_eq!(report["tokens"], report["reference_tokens"]);

    let other = Certified::new("old-mean");
    assert_eq!(verify(&["--against", other.golden().to_str().unwrap()]).0, Some(0), "goldens from elsewhere");
    std::fs::remove_dir_all(root.join("golden")).unwrap();
    let (code, _, error) = verify(&[]);
    assert!(code == Some(1) && error.contains("has no goldens") && error.contains("scripts/golden.py"), "{error}");
}

#[test]
fn a_model_that_misses_its_goldens_ends_the_server_with_the_reason() {
    let model = Certified::new("old-mean");
    model.spoil();
    let output = vecmill(&["serve", "--dtype", "f32", "--offline", "--port", "0", "--model", model.root().to_str().unwrap()]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{error}");
    assert!(error.contains("model model: the model does not compute what its reference does"), "{error}");
}
