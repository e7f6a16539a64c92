//! GGUF files: metadata, tokenizer and tensors in one, as llama.cpp reads them. The metadata becomes the fields of config.json, the tensors get the
//! names of the checkpoint that they were converted from, and the architecture's own page describes the network.

mod architectures;
mod translate;
mod vocabulary;

pub use vocabulary::{Kind, Vocabulary};

use super::json::{Json, short};
use crate::network::{Blocks, Bytes, LoadError, Network, Stored, Weight, WeightTable};
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};
use serde_json::Map;
use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

/// A header longer than this is refused. Real ones are vocabularies, a few MiB; a parsed value takes up to thirty times its bytes.
const MAX_HEADER_BYTES: usize = 32 << 20;

/// The largest alignment of tensors that is believed.
const MAX_ALIGNMENT: u64 = 1 << 20;

/// The metadata and tensors of one file.
pub struct Gguf {
    /// Values that are not lists, by key.
    pub meta: Json,
    lists: HashMap<String, Vec<Value>>,
    /// By their names in the file.
    tensors: WeightTable,
}

/// A network out of a GGUF file, and what follows it.
pub struct Described {
    pub architecture: &'static str,
    pub network: Network,
    /// Maps after pooling, `[out, in]`, in order (EmbeddingGemma has two).
    pub dense: Vec<Weight>,
    /// The longest text that the file says the model is for.
    pub context: usize,
    /// `None` if the file names no pooling.
    pub pooling: Option<Pooling>,
}

/// How tokens' vectors become one, by llama.cpp's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    Mean,
    Cls,
    Last,
}

impl Gguf {
    /// Reads a file's header. No tensor is read, but each must lie in the file.
    ///
    /// # Errors
    /// Not a GGUF file, a header that is broken or too long, tensors beyond the end of the file or in a format that is not read.
    pub fn open(file: &str, data: &Arc<dyn Bytes>) -> Result<Self, LoadError> {
        let refuse = |reason: String| LoadError::file(file, format!("is not a GGUF file that can be read: {reason}"));
        let bytes: &[u8] = (**data).as_ref();
        let header = &bytes[..bytes.len().min(MAX_HEADER_BYTES)];
        // What is known to make the crate panic is an alignment of 0, but a broken file must stay an error whatever it finds.
        let content = std::panic::catch_unwind(|| Content::read(&mut Cursor::new(header)));
        let content = match content {
            Ok(content) => content.map_err(|error| refuse(first_line(&error)))?,
            Err(_) => return Err(refuse("reading its header failed".to_owned())),
        };
        let (mut scalars, mut lists) = (Map::new(), HashMap::new());
        for (key, value) in content.metadata {
            match value {
                Value::Array(list) => drop(lists.insert(key, list)),
                other => {
                    let value = scalar(&other).ok_or_else(|| LoadError::field(file, &key, format!("is {other:?}, which is not finite")))?;
                    scalars.insert(key, value);
                }
            }
        }
        let meta = Json::of(file.to_owned(), scalars);
        if meta.usize("general.alignment")?.is_some_and(|alignment| !(1..=MAX_ALIGNMENT).contains(&(alignment as u64))) {
            return Err(meta.refuse("general.alignment", format!("must be 1 to {MAX_ALIGNMENT}")));
        }
        let mut tensors = WeightTable::new(file);
        for (name, info) in content.tensor_infos {
            let stored = stored(info.ggml_dtype).ok_or_else(|| LoadError::tensor(file, &name, format!("is stored as {:?}", info.ggml_dtype)))?;
            // Saturating: what ends beyond the file is refused.
            tensors.add_tensor(&name, info.shape.dims(), stored, (file, data), content.tensor_data_offset.saturating_add(info.offset))?;
        }
        Ok(Self { meta, lists, tensors })
    }

    /// Describes the network.
    ///
    /// # Errors
    /// An architecture that is not known, metadata or tensors that are missing or not understood.
    pub fn describe(&self) -> Result<Described, LoadError> {
        architectures::describe(self)
    }

    /// The tokenizer's vocabulary and settings.
    ///
    /// # Errors
    /// Lists that are missing, of another kind, or of different lengths.
    pub fn vocabulary(&self) -> Result<Vocabulary, LoadError> {
        vocabulary::read(self)
    }

    /// A list of the metadata, each element read by `read`; `None` if it is not there.
    fn list<'a, T>(&'a self, key: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<Vec<T>>, LoadError> {
        let Some(list) = self.lists.get(key) else { return Ok(None) };
        let read = |value: &'a Value| read(value).ok_or_else(|| self.meta.refuse(key, format!("must be a list of {kind}, but holds {value:.40?}")));
        list.iter().map(read).collect::<Result<_, _>>().map(Some)
    }
}

fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// A value as JSON has it; `None` for numbers that are not finite, and for lists.
fn scalar(value: &Value) -> Option<serde_json::Value> {
    Some(match value {
        Value::U8(number) => (*number).into(),
        Value::I8(number) => (*number).into(),
        Value::U16(number) => (*number).into(),
        Value::I16(number) => (*number).into(),
        Value::U32(number) => (*number).into(),
        Value::I32(number) => (*number).into(),
        Value::U64(number) => (*number).into(),
        Value::I64(number) => (*number).into(),
        Value::F32(number) => serde_json::Number::from_f64(f64::from(*number))?.into(),
        Value::F64(number) => serde_json::Number::from_f64(*number)?.into(),
        Value::Bool(truth) => (*truth).into(),
        Value::String(text) => text.as_str().into(),
        Value::Array(_) => return None,
    })
}

fn stored(dtype: GgmlDType) -> Option<Stored> {
    match dtype {
        GgmlDType::F32 => Some(Stored::F32),
        GgmlDType::F16 => Some(Stored::F16),
        GgmlDType::BF16 => Some(Stored::Bf16),
        blocks => Blocks::of(blocks).map(Stored::Blocks),
    }
}

/// `ARCH.pooling_type`.
fn pooling(meta: &Json, key: &str) -> Result<Option<Pooling>, LoadError> {
    match meta.usize(key)? {
        None | Some(0) => Ok(None),
        Some(1) => Ok(Some(Pooling::Mean)),
        Some(2) => Ok(Some(Pooling::Cls)),
        Some(3) => Ok(Some(Pooling::Last)),
        Some(4) => Err(meta.refuse(key, "is 4: a reranker gives no vectors")),
        Some(other) => Err(meta.refuse(key, format!("{} is not a pooling; known: 0 to 3", short(&other.into())))),
    }
}
