//! All tensors of a checkpoint by name, over its files: headers are checked before anything is believed.

use super::{Bytes, LoadError, Stored, Weight};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A header longer than this is refused unread. Real ones take about 100 bytes a tensor: 32 MiB is far beyond any encoder, and small enough
/// that its parsed form cannot exhaust a machine.
const MAX_HEADER_BYTES: u64 = 32 << 20;

#[derive(Clone)]
struct Entry {
    file: Arc<str>,
    /// Its name in the file, for messages.
    name: Arc<str>,
    shape: Vec<usize>,
    /// Or the name of a format that is not read.
    stored: Result<Stored, Dtype>,
    data: Arc<dyn Bytes>,
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
    pub fn add(&mut self, file: &str, data: Arc<dyn Bytes>) -> Result<(), LoadError> {
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
            let stored = Stored::of(info.dtype).ok_or(info.dtype);
            self.insert(
                &name,
                Entry { file: label.clone(), name: name.as_str().into(), shape: info.shape.clone(), stored, data: data.clone(), range },
            )?;
        }
        Ok(())
    }

    /// Adds one tensor that begins at byte `start` of a file.
    ///
    /// # Errors
    /// A size that cannot be counted or does not fit into the file, rows that are not whole blocks, a name that is there twice.
    pub fn add_tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        stored: Stored,
        (file, data): (&str, &Arc<dyn Bytes>),
        start: u64,
    ) -> Result<(), LoadError> {
        let refuse = |reason: String| LoadError::tensor(file, name, reason);
        let (unit_bytes, unit_numbers) = stored.unit();
        if !shape.last().is_some_and(|last| last.is_multiple_of(unit_numbers)) {
            return Err(refuse(format!("has shape {shape:?}, whose rows are not whole blocks of {unit_numbers} ({stored:?})")));
        }
        let numbers = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        let end = numbers
            .and_then(|numbers| (numbers / unit_numbers).checked_mul(unit_bytes))
            .and_then(|bytes| bytes.checked_add(usize::try_from(start).ok()?));
        let (length, all) = ((**data).as_ref().len(), end.unwrap_or(usize::MAX));
        if all > length {
            return Err(refuse(format!("has shape {shape:?} ({stored:?}) from byte {start} on, beyond the end of the file at {length}")));
        }
        self.insert(
            name,
            Entry { file: file.into(), name: name.into(), shape: shape.to_vec(), stored: Ok(stored), data: data.clone(), range: start as usize..all },
        )
    }

    /// Adds the tensor that another table has, under another name.
    ///
    /// # Errors
    /// The name is there already, or there is no such tensor.
    pub fn add_as(&mut self, name: &str, other: &Self, tensor: &str) -> Result<(), LoadError> {
        match other.entries.get(tensor) {
            Some(entry) => self.insert(name, entry.clone()),
            None => Err(LoadError::tensor(&other.label, tensor, "is missing")),
        }
    }

    fn insert(&mut self, name: &str, entry: Entry) -> Result<(), LoadError> {
        let file = entry.file.clone();
        match self.entries.insert(name.to_owned(), entry) {
            Some(other) => Err(LoadError::tensor(&*file, name, format!("is also in {}", other.file))),
            None => Ok(()),
        }
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
        let refuse = |reason: String| LoadError::tensor(&*entry.file, &*entry.name, reason);
        if entry.shape != shape {
            return Err(refuse(format!("has shape {:?}, but the configuration asks for {shape:?}", entry.shape)));
        }
        if shape.contains(&0) {
            return Err(refuse(format!("is empty: shape {shape:?}")));
        }
        let stored = entry.stored.map_err(|stored| refuse(format!("is stored as {stored:?}, which is not read")))?;
        Ok(Weight {
            name: entry.name.clone(),
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

    fn file(header: &str, data_bytes: usize) -> Arc<dyn Bytes> {
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
