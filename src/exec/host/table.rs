//! A table of rows that are looked up and never multiplied: held once, in the format it is stored in.

use crate::exec::weights;
use crate::network::{Blocks, LoadError, Stored, Weight};
use half::{bf16, f16};

/// `[V, E]`.
pub(super) struct Table {
    numbers: Numbers,
    width: usize,
}

/// The formats that take less memory than f32, and f32 for all others.
enum Numbers {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    I8(Vec<i8>),
    Blocks(Blocks, Vec<u8>),
}

/// Bytes that such a table will hold.
pub(in crate::exec) fn bytes_of(weight: &Weight) -> usize {
    let width = weight.shape().last().copied().unwrap_or(0);
    match weight.stored() {
        Stored::F16 | Stored::Bf16 | Stored::I8 => weight.bytes().len(),
        Stored::Blocks(blocks) if width.is_multiple_of(blocks.numbers()) => weight.bytes().len(),
        _ => weight.elements() * size_of::<f32>(),
    }
}

impl Table {
    /// Copies a table out of its file, so that nothing that is served waits for a disk.
    ///
    /// # Errors
    /// A number that is not finite.
    pub(super) fn new(weight: &Weight) -> Result<Self, LoadError> {
        let width = weight.shape().last().copied().unwrap_or(0);
        let mut numbers = match weight.stored() {
            Stored::F16 => Numbers::F16(Vec::with_capacity(weight.elements())),
            Stored::Bf16 => Numbers::Bf16(Vec::with_capacity(weight.elements())),
            Stored::I8 => Numbers::I8(Vec::with_capacity(weight.elements())),
            Stored::Blocks(blocks) if width.is_multiple_of(blocks.numbers()) => Numbers::Blocks(blocks, weight.bytes().to_vec()),
            _ => Numbers::F32(Vec::with_capacity(weight.elements())),
        };
        // Through f32, which holds them all exactly, so that each is looked at.
        weights::rows(weight, |_, row| match &mut numbers {
            Numbers::F32(to) => to.extend_from_slice(row),
            Numbers::F16(to) => to.extend(row.iter().map(|number| f16::from_f32(*number))),
            Numbers::Bf16(to) => to.extend(row.iter().map(|number| bf16::from_f32(*number))),
            Numbers::I8(to) => to.extend(row.iter().map(|number| *number as i8)),
            Numbers::Blocks(..) => {}
        })?;
        Ok(Self { numbers, width })
    }

    /// `E`.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Calls `put` with each place of `to` and the number of that column in a row.
    pub(super) fn row(&self, row: usize, to: &mut [f32], put: impl Fn(&mut f32, f32)) {
        let at = row * self.width..(row + 1) * self.width;
        match &self.numbers {
            Numbers::F32(numbers) => to.iter_mut().zip(&numbers[at]).for_each(|(to, number)| put(to, *number)),
            Numbers::F16(numbers) => to.iter_mut().zip(&numbers[at]).for_each(|(to, number)| put(to, number.to_f32())),
            Numbers::Bf16(numbers) => to.iter_mut().zip(&numbers[at]).for_each(|(to, number)| put(to, number.to_f32())),
            Numbers::I8(numbers) => to.iter_mut().zip(&numbers[at]).for_each(|(to, number)| put(to, f32::from(*number))),
            Numbers::Blocks(blocks, bytes) => {
                let bytes_of = self.width / blocks.numbers() * blocks.bytes();
                // Each block was decoded at load. If one of them could not be now, the row would be seen to be no vector.
                let decoded = blocks.decode(&bytes[row * bytes_of..][..bytes_of]).unwrap_or_else(|_| vec![f32::NAN; self.width]);
                to.iter_mut().zip(decoded).for_each(|(to, number)| put(to, number));
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.numbers {
            Numbers::F32(numbers) => size_of_val(numbers.as_slice()),
            Numbers::F16(numbers) => size_of_val(numbers.as_slice()),
            Numbers::Bf16(numbers) => size_of_val(numbers.as_slice()),
            Numbers::I8(numbers) => size_of_val(numbers.as_slice()),
            Numbers::Blocks(_, bytes) => bytes.len(),
        }
    }
}
