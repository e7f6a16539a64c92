//! Handles on the tensors of a checkpoint's files: name, shape, how they are stored and a view of the bytes, which stay where they are.

use super::LoadError;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The bytes of a whole file: a memory map, or a buffer in tests.
pub type Bytes = dyn AsRef<[u8]> + Send + Sync;

/// A header longer than this is refused unread. Real ones take about 100 bytes a tensor: 32 MiB is far beyond any encoder, and small enough
/// that its parsed form cannot exhaust a machine.
const MAX_HEADER_BYTES: u64 = 32 << 20;

/// Number formats that a network is computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    F32,
    Bf16,
    F16,
}

impl DType {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// Number formats that weights are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stored {
    F64,
    F32,
    Bf16,
    F16,
    I64,
    I32,
    I8,
    U8,
}

impl Stored {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::I8 | Self::U8 => 1,
        }
    }

    /// True for the formats that weights of a network usually have.
    fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::Bf16 | Self::F16)
    }

    fn of(stored: Dtype) -> Option<Self> {
        match stored {
            Dtype::F64 => Some(Self::F64),
            Dtype::F32 => Some(Self::F32),
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::F16 => Some(Self::F16),
            Dtype::I64 => Some(Self::I64),
            Dtype::I32 => Some(Self::I32),
            Dtype::I8 => Some(Self::I8),
            Dtype::U8 => Some(Self::U8),
            _ => None,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

/// One tensor of a checkpoint. Cheap to clone; holds its file open.
#[derive(Clone)]
pub struct Weight {
    name: Arc<str>,
    file: Arc<str>,
    shape: Vec<usize>,
    stored: Stored,
    data: Arc<Bytes>,
    range: Range<usize>,
}

impl Weight {
    /// A weight made of numbers in memory, row-major; for tests that draw their networks.
    ///
    /// # Errors
    /// If `values` does not fill `shape`.
    pub fn from_f32(name: &str, shape: &[usize], values: &[f32]) -> Result<Self, LoadError> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        if shape.iter().product::<usize>() != values.len() {
            return Err(LoadError::tensor("memory", name, format!("{} numbers do not fill the shape {shape:?}", values.len())));
        }
        let range = 0..bytes.len();
        Ok(Self { name: name.into(), file: "memory".into(), shape: shape.to_vec(), stored: Stored::F32, data: Arc::new(bytes), range })
    }

    /// The rows `rows` of the first dimension: several maps are often stored as one (`Wqkv`).
    ///
    /// # Errors
    /// If there are not so many.
    pub fn rows(&self, rows: Range<usize>) -> Result<Self, LoadError> {
        let have = self.shape.first().copied().unwrap_or(0);
        if rows.start > rows.end || rows.end > have {
            return Err(self.refuse(format!("has {have} rows; {rows:?} were asked for")));
        }
        let row_bytes = (self.range.end - self.range.start).checked_div(have).unwrap_or(0);
        let range = self.range.start + rows.start * row_bytes..self.range.start + rows.end * row_bytes;
        let mut shape = self.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = rows.len();
        }
        Ok(Self { shape, range, ..self.clone() })
    }

    /// The `index`-th part along the first dimension, without that dimension: one task's matrix out of `[tasks, out, in]`.
    ///
    /// # Errors
    /// If there are not so many.
    pub fn part(&self, index: usize) -> Result<Self, LoadError> {
        let part = self.rows(index..index + 1)?;
        let shape = part.shape.get(1..).unwrap_or_default().to_vec();
        Ok(Self { shape, ..part })
    }

    /// The same numbers in the same order under another shape.
    ///
    /// # Errors
    /// If the shape holds another number of them.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self, LoadError> {
        if shape.iter().product::<usize>() != self.elements() {
            return Err(self.refuse(format!("has shape {:?}, which cannot be read as {shape:?}", self.shape)));
        }
        Ok(Self { shape: shape.to_vec(), ..self.clone() })
    }

    /// Its name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Row-major dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The format it is stored in.
    pub fn stored(&self) -> Stored {
        self.stored
    }

    /// How many numbers it has.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The stored numbers, little-endian.
    pub fn bytes(&self) -> &[u8] {
        (*self.data).as_ref().get(self.range.clone()).unwrap_or_default()
    }

    /// The sentence that refuses this weight.
    pub fn refuse(&self, reason: impl Into<String>) -> LoadError {
        LoadError::tensor(&*self.file, &*self.name, reason)
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:?}", self.name, self.shape, self.stored)
    }
}

struct Entry {
    file: Arc<str>,
    shape: Vec<usize>,
    stored: Dtype,
    data: Arc<Bytes>,
    range: Range<usize>,
}

/// The tensors of one checkpoint by name, over one or several files.
#[derive(Default)]
pub struct WeightTable {
    label: String,
    entries: BTreeMap<String, Entry>,
}

impl WeightTable {
    /// An empty table; `label` is the file that stands for the checkpoint where a tensor is missing altogether.
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), entries: BTreeMap::new() }
    }

    /// Adds the tensors of one safetensors file. Reads the header only, and checks it against the file's length.
    ///
    /// # Errors
    /// A header that is not one, offsets that do not tile the file exactly, a size that does not fit shape and dtype, a name that is there
    /// twice.
    pub fn add(&mut self, file: &str, data: Arc<Bytes>) -> Result<(), LoadError> {
        let bytes: &[u8] = (*data).as_ref();
        let header_bytes = bytes.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
        if header_bytes.is_some_and(|length| length > MAX_HEADER_BYTES) {
            return Err(LoadError::file(file, format!("not a safetensors file: its header claims more than {MAX_HEADER_BYTES} bytes")));
        }
        let (header, metadata) = SafeTensors::read_metadata(bytes)
            .map_err(|error| LoadError::file(file, format!("not a whole, valid safetensors file ({error}; {} bytes long)", bytes.len())))?;
        let (start, label): (usize, Arc<str>) = (8 + header, file.into());
        for (name, info) in metadata.tensors() {
            let range = start + info.data_offsets.0..start + info.data_offsets.1;
            let entry = Entry { file: label.clone(), shape: info.shape.clone(), stored: info.dtype, data: data.clone(), range };
            if let Some(other) = self.entries.insert(name.clone(), entry) {
                return Err(LoadError::tensor(file, name, format!("is also in {}", other.file)));
            }
        }
        Ok(())
    }

    /// True if there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// All names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The file that stands for the checkpoint in messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The shape of the tensor of that name, where there is one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The tensor of that name, which must have that shape and be stored as f32, bf16 or f16.
    ///
    /// # Errors
    /// It is missing, has another shape or format, or is empty.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Weight, LoadError> {
        let weight = self.get_any(name, shape)?;
        if weight.stored.is_float() {
            Ok(weight)
        } else {
            Err(weight.refuse(format!("is stored as {:?}; F32, BF16 and F16 are read", weight.stored)))
        }
    }

    /// The tensor of that name in any format that can be read, integers included.
    ///
    /// # Errors
    /// As `get`.
    pub fn get_any(&self, name: &str, shape: &[usize]) -> Result<Weight, LoadError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(LoadError::tensor(&self.label, name, format!("is missing (expected with shape {shape:?})")));
        };
        let refuse = |reason: String| LoadError::tensor(&*entry.file, name, reason);
        if entry.shape != shape {
            return Err(refuse(format!("has shape {:?}, but the configuration asks for {shape:?}", entry.shape)));
        }
        if shape.contains(&0) {
            return Err(refuse(format!("is empty: shape {shape:?}")));
        }
        let Some(stored) = Stored::of(entry.stored) else {
            return Err(refuse(format!("is stored as {:?}, which is not read", entry.stored)));
        };
        Ok(Weight {
            name: name.into(),
            file: entry.file.clone(),
            shape: shape.to_vec(),
            stored,
            data: entry.data.clone(),
            range: entry.range.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data_bytes: usize) -> Arc<Bytes> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data_bytes, 0);
        Arc::new(bytes)
    }

    fn refusal(header: &str, data_bytes: usize) -> String {
        WeightTable::new("m").add("m.safetensors", file(header, data_bytes)).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_good_header_gives_views() {
        let mut table = WeightTable::new("m");
        table.add("m", file(r#"{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]}}"#, 12)).expect("valid");
        let weight = table.get("a", &[2, 3]).expect("there");
        assert_eq!((weight.stored(), weight.elements(), weight.bytes().len()), (Stored::F16, 6, 12));
    }

    #[test]
    fn rows_and_parts_are_views_of_the_same_bytes() {
        let weight = Weight::from_f32("w", &[4, 2], &[0., 1., 2., 3., 4., 5., 6., 7.]).expect("fills its shape");
        let rows = weight.rows(1..3).expect("there");
        assert_eq!((rows.shape(), rows.bytes()), ([2, 2].as_slice(), &weight.bytes()[8..24]));
        let part = weight.reshape(&[2, 2, 2]).and_then(|weight| weight.part(1)).expect("there");
        assert_eq!((part.shape(), part.bytes()), ([2, 2].as_slice(), &weight.bytes()[16..]));
        assert!(weight.rows(3..5).is_err() && weight.part(4).is_err() && weight.reshape(&[3, 3]).is_err());
    }

    #[test]
    fn broken_headers_name_the_file() {
        let good = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        for (header, bytes) in [
            (good, 7),
            (good, 9),
            ("{", 0),
            ("[]", 0),
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8),
            (r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8),
            (r#"{"a":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,8]}}"#, 8),
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, 12),
        ] {
            assert!(refusal(header, bytes).starts_with("m.safetensors: "), "{header}");
        }
    }

    #[test]
    fn a_header_length_beyond_reason_is_refused_before_it_is_read() {
        let mut bytes = u64::MAX.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        let error = WeightTable::new("m").add("m.safetensors", Arc::new(bytes)).expect_err("must be refused");
        assert!(error.to_string().contains("header claims"), "{error}");
    }

    #[test]
    fn a_wrong_shape_or_dtype_names_the_tensor() {
        let mut table = WeightTable::new("m");
        table.add("m", file(r#"{"a":{"dtype":"I32","shape":[2],"data_offsets":[0,8]}}"#, 8)).expect("valid");
        assert!(table.get("a", &[3]).expect_err("shape").to_string().contains("`a`: has shape [2]"));
        assert!(table.get("a", &[2]).expect_err("dtype").to_string().contains("stored as I32"));
        assert!(table.get("b", &[2]).expect_err("missing").to_string().contains("`b`: is missing"));
    }
}
