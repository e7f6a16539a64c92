//! Handles on the tensors of a checkpoint's files: name, shape, how they are stored and a view of the bytes, which stay where they are.

use super::{Blocks, LoadError};
use safetensors::Dtype;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The bytes of a whole file: a memory map, or a buffer in tests.
pub trait Bytes: AsRef<[u8]> + Send + Sync {
    /// These are not needed for now: the memory they take may go to others. Asked for again, they are the same.
    fn let_go(&self, _range: Range<usize>) {}
}

impl Bytes for Vec<u8> {}

/// Number formats that a network is computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    F32,
    Bf16,
    F16,
    /// Products of whole numbers where the weights allow it, everything else in f32; on a processor only.
    Int8,
}

impl DType {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::Int8 => 1,
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
    /// Numbers in blocks, in GGUF files. A row of the last dimension is whole blocks.
    Blocks(Blocks),
}

impl Stored {
    /// Bytes of the smallest part that can be read alone, and how many numbers it is: a number, or a block.
    pub fn unit(self) -> (usize, usize) {
        match self {
            Self::F64 | Self::I64 => (8, 1),
            Self::F32 | Self::I32 => (4, 1),
            Self::Bf16 | Self::F16 => (2, 1),
            Self::I8 | Self::U8 => (1, 1),
            Self::Blocks(blocks) => (blocks.bytes(), blocks.numbers()),
        }
    }

    /// True for the formats that weights of a network usually have.
    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::Bf16 | Self::F16 | Self::Blocks(_))
    }

    pub(super) fn of(stored: Dtype) -> Option<Self> {
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
            Self::Int8 => "int8",
        })
    }
}

/// One tensor of a checkpoint. Cheap to clone; holds its file open.
#[derive(Clone)]
pub struct Weight {
    pub(super) name: Arc<str>,
    pub(super) file: Arc<str>,
    pub(super) shape: Vec<usize>,
    pub(super) stored: Stored,
    pub(super) data: Arc<dyn Bytes>,
    pub(super) range: Range<usize>,
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
        if !(self.elements() / have.max(1)).is_multiple_of(self.stored.unit().1) {
            return Err(self.refuse(format!("is stored as {:?}, and rows {rows:?} begin or end inside a block", self.stored)));
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

    /// Whoever took these of its bytes into a form of their own says so: the file's memory is then held for nothing.
    pub fn let_go(&self, bytes: Range<usize>) {
        self.data.let_go(self.range.start + bytes.start..self.range.start + bytes.end);
    }

    /// The numbers of a tensor of whole ones; `None` for any other.
    pub fn integers(&self) -> Option<Vec<i64>> {
        let bytes = self.bytes();
        match self.stored {
            Stored::I64 => Some(bytes.as_chunks().0.iter().map(|number| i64::from_le_bytes(*number)).collect()),
            Stored::I32 => Some(bytes.as_chunks().0.iter().map(|number| i64::from(i32::from_le_bytes(*number))).collect()),
            _ => None,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_parts_are_views_of_the_same_bytes() {
        let weight = Weight::from_f32("w", &[4, 2], &[0., 1., 2., 3., 4., 5., 6., 7.]).expect("fills its shape");
        let rows = weight.rows(1..3).expect("there");
        assert_eq!((rows.shape(), rows.bytes()), ([2, 2].as_slice(), &weight.bytes()[8..24]));
        let part = weight.reshape(&[2, 2, 2]).and_then(|weight| weight.part(1)).expect("there");
        assert_eq!((part.shape(), part.bytes()), ([2, 2].as_slice(), &weight.bytes()[16..]));
        assert!(weight.rows(3..5).is_err() && weight.part(4).is_err() && weight.reshape(&[3, 3]).is_err());
    }
}
