//! From a model's files to a pipeline that is ready to run: the device, the dtype, the weights, and what clients may know of the model.

mod decisions;
mod info;
mod map;
pub mod one_file;
mod shards;
mod table;
mod transformer;

pub use crate::encoders::{gguf, json};
pub use crate::kernels::device::Device;
pub use crate::kernels::device::choose::{Choice, choose};
pub use crate::kernels::host::{Cpu, Level};
pub use crate::network::{DType, LoadError};
pub use decisions::Decision;
pub use info::{ModelInfo, TextRules};
pub use shards::weights;

use super::memory::Room;
use super::pipeline::modules::{self, Modules};
use super::pipeline::{Pipeline, Stages};
use crate::encoders::json::Json;
use crate::exec::{Need, Place};
use crate::hub::ModelFiles;
use crate::kernels::device::choose::why;
use crate::network::{Network, WeightTable};
use std::path::Path;
use transformer::{Limits, Transformer};

/// What is asked of a model when it is loaded.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--pooling`: the mode for a model that does not say its own.
    pub pooling: Option<String>,
    /// `max_tokens` of `[models."SLUG"]`: raises or lowers the model's own limit, up to its position table.
    pub max_tokens: Option<usize>,
    /// Where it computes; who loads has chosen it.
    pub device: Device,
    /// Who chose the device, and why: `--device`, or what `auto` found.
    pub device_from: String,
    /// `--dtype`; `None` = f32, which every device computes as the reference does (who loads decides what `auto` tries first).
    pub dtype: Option<DType>,
    /// `--cpu-level`; `None` = the best of this processor.
    pub cpu: Option<Cpu>,
    /// What it may take of the machine's memory. Loading itself refuses nothing by default.
    pub room: Room,
    /// `--min-cosine`: the least cosine to its goldens at which the model is served; `None` = by its dtype. Loading itself asks for nothing.
    pub min_cosine: Option<f64>,
}

/// Reads `--device`: `auto` is the empty list.
///
/// # Errors
/// Anything that is not a device, and lists of others than different CUDA devices.
pub fn parse_devices(text: &str) -> Result<Vec<Device>, String> {
    if text == "auto" {
        return Ok(Vec::new());
    }
    let devices: Vec<Device> = text.split(',').map(|device| device.trim().parse()).collect::<Result<_, _>>()?;
    let twice = devices.iter().enumerate().find(|(at, device)| devices[..*at].contains(device));
    match (devices.len(), twice) {
        (1, _) => Ok(devices),
        (_, Some((_, device))) => Err(format!("`{device}` is there twice")),
        _ if devices.iter().all(|device| matches!(device, Device::Cuda(_))) => Ok(devices),
        _ => Err("a list may hold CUDA devices only: the models would run at the pace of the slowest".to_owned()),
    }
}

/// Reads `--dtype`: `auto` is `None`.
///
/// # Errors
/// Anything that is not a dtype.
pub fn parse_dtype(text: &str) -> Result<Option<DType>, String> {
    match text {
        "auto" => Ok(None),
        "f32" => Ok(Some(DType::F32)),
        "bf16" => Ok(Some(DType::Bf16)),
        "f16" => Ok(Some(DType::F16)),
        "int8" => Ok(Some(DType::Int8)),
        _ => Err(format!("`{text}` is not a dtype: say auto, f32, bf16, f16 or int8")),
    }
}

/// Reads `--cpu-level`: `auto` is `None`.
///
/// # Errors
/// Anything that is not a level, and one that this machine lacks.
pub fn parse_cpu_level(text: &str) -> Result<Option<Cpu>, String> {
    if text == "auto" {
        return Ok(None);
    }
    let level: Level = text.parse()?;
    Cpu::new(level).map(Some).ok_or_else(|| {
        let here: Vec<_> = Level::ALL.into_iter().filter(|level| level.is_here()).map(Level::name).collect();
        format!("this processor lacks {}: say auto, {}", level.lacks().join(", "), here.join(", "))
    })
}

/// What `auto` tries before f32, where goldens can show that it holds: bf16 on a GPU and on a processor that multiplies it itself.
pub fn faster_dtypes(options: &Options) -> &'static [DType] {
    match (options.dtype, options.device) {
        (None, Device::Cuda(_) | Device::Metal) => &[DType::Bf16],
        (None, Device::Cpu) if options.cpu.or_else(Cpu::best).is_some_and(|cpu| cpu.level().has_bf16()) => &[DType::Bf16],
        _ => &[],
    }
}

/// A model that is ready to run.
pub struct Loaded {
    pub pipeline: Pipeline,
    pub info: ModelInfo,
}

/// Loads a model: a directory, or one GGUF file.
///
/// # Errors
/// Whatever in the files or options is missing, broken, or means something this server does not compute.
pub fn load(files: &ModelFiles, options: &Options) -> Result<Loaded, LoadError> {
    let root = &files.root;
    let mut loaded = if one_file::is_gguf(root) { one_file::load(root, options)? } else { load_dir(root, options)? };
    let own = loaded.info.license.take().map(|license| (license, "general.license of the file"));
    let license = files.license().or(own);
    let nowhere = if root.is_file() { "neither card nor general.license" } else { "neither card nor README.md" };
    let (value, from) = license.as_ref().map_or(("not stated", nowhere), |(license, from)| (license.as_str(), from));
    loaded.info.decisions.push(Decision::new("license", value, from));
    loaded.info.license = license.map(|(license, _)| license);
    Ok(loaded)
}

/// Loads the model in a directory.
///
/// # Errors
/// As `load`.
pub fn load_dir(root: &Path, options: &Options) -> Result<Loaded, LoadError> {
    if root.join("adapter_config.json").exists() {
        return Err(LoadError::file(root.join("adapter_config.json").display().to_string(), "a PEFT adapter is not a model: merge it first"));
    }
    let modules = modules::read(root)?;
    let encoder_dir = modules.as_ref().map_or(root, |modules| &modules.encoder);
    let table = weights(encoder_dir)?;
    let encoder = match &modules {
        Some(modules) if modules.table => Encoder::table(modules, &table, options)?,
        _ => Encoder::network(root, modules.as_ref(), &table, options)?,
    };
    let Encoder { architecture, config, network, stages, limits, positions_from, text } = encoder;
    let device = options.device;
    let place = place(device, options)?;
    let about = info::About {
        architecture,
        hidden_size: network.width,
        vocabulary: network.vocabulary(),
        adapters: network.adapters,
        limits,
        text,
        device,
        dtype: place.dtype,
    };
    let need = need(&network, &place, about.limits.max_tokens, options)?;
    let max_tokens_from = about.limits.from.clone();
    let table = modules.as_ref().map_or(network.is_table(), |modules| modules.table);
    let pipeline = Pipeline::new(network, stages, &place)?;
    let mut info = info::read(root, encoder_dir, &config, &pipeline, about)?;
    let seen = decisions::Seen {
        root,
        encoder: encoder_dir,
        modules: modules.as_ref(),
        table,
        options,
        max_tokens_from: &max_tokens_from,
        positions_from: &positions_from,
    };
    info.need = need;
    info.decisions = decisions::decide(&info, &pipeline, &seen);
    Ok(Loaded { pipeline, info })
}

/// What a checkpoint says of its encoder and of what comes before and after it.
struct Encoder {
    architecture: &'static str,
    config: Json,
    network: Network,
    stages: Stages,
    limits: Limits,
    /// The file or rule that the end of the positions is from.
    positions_from: String,
    text: TextRules,
}

impl Encoder {
    /// A Transformer module, or a checkpoint without modules.json.
    fn network(root: &Path, modules: Option<&Modules>, weights: &WeightTable, options: &Options) -> Result<Self, LoadError> {
        let dir = modules.map_or(root, |modules| &modules.encoder);
        let own = Transformer::read(dir)?;
        let config = Json::require(&dir.join("config.json"))?;
        let (architecture, mut network) = crate::encoders::describe(&config, weights)?;
        if modules.is_none() && network.is_table() {
            let (limits, text, stages) = table::alone(&config, &network, options.max_tokens)?;
            return Ok(Self { architecture, config, network, stages, limits, positions_from: table::POSITIONS_FROM.to_owned(), text });
        }
        if let Some(modules) = modules.filter(|modules| modules.takes_task && network.adapters == 0) {
            return Err(LoadError::file(&modules.file, "begins with the model's own code (`custom_st.Transformer`), which is not run"));
        }
        let stages = match modules {
            Some(modules) => modules.stages(network.width)?,
            None => modules::without(root, network.width, options.pooling.as_deref())?,
        };
        let own_positions = own.positions(&network);
        let positions_from = if own_positions > network.max_tokens { own.file() } else { config.file() }.to_owned();
        network.max_tokens = own_positions;
        let limits = own.limits(dir, network.max_tokens, options.max_tokens)?;
        let text = TextRules { do_lower_case: own.do_lower_case, ..TextRules::default() };
        Ok(Self { architecture, config, network, stages, limits, positions_from, text })
    }

    /// A StaticEmbedding module. Its config.json, where there is one, says nothing that sentence-transformers obeys.
    fn table(modules: &Modules, weights: &WeightTable, options: &Options) -> Result<Self, LoadError> {
        let (architecture, network) = crate::encoders::describe_table(weights)?;
        let config = Json::read(&modules.encoder.join("config.json"))?.unwrap_or_else(|| Json::empty(&modules.encoder.join("config.json")));
        let limits = table::limits(&modules.encoder, &network, options.max_tokens)?;
        let text = TextRules { special_tokens: false, ..TextRules::default() };
        let (stages, positions_from) = (modules.stages(network.width)?, table::POSITIONS_FROM.to_owned());
        Ok(Self { architecture, config, stages, network, limits, positions_from, text })
    }
}

/// What the model will take of the machine's memory.
///
/// # Errors
/// More than there is room for.
fn need(network: &Network, place: &Place, max_tokens: usize, options: &Options) -> Result<Need, LoadError> {
    let need = Need::of(network, place, max_tokens);
    options.room.check(need, place.dtype)?;
    Ok(need)
}

/// Where a model computes.
fn place(device: Device, options: &Options) -> Result<Place, LoadError> {
    Ok(Place { cpu: options.cpu.or_else(Cpu::best), ..Place::new(open(device)?, options.dtype.unwrap_or(DType::F32)) })
}

fn open(device: Device) -> Result<candle_core::Device, LoadError> {
    device.open().map_err(|error| LoadError::option("--device", format!("{device} cannot be used: {}", why(&error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_one_or_a_list_of_different_gpus() {
        assert_eq!(parse_devices("auto"), Ok(vec![]));
        assert_eq!(parse_devices("cpu"), Ok(vec![Device::Cpu]));
        assert_eq!(parse_devices("cuda:0, cuda:3"), Ok(vec![Device::Cuda(0), Device::Cuda(3)]));
        let refused = |said| parse_devices(said).unwrap_err();
        assert!(refused("cuda,cuda:0").contains("`cuda:0` is there twice"));
        assert!(refused("cuda:0,cpu").contains("CUDA devices only"));
        assert!(refused("cuda:0,").contains("is not a device"));
        assert!(refused("auto,cpu").contains("is not a device"));
    }
}
