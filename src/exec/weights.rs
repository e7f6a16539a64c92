//! From a weight's handle to a candle tensor on the device, in the dtype computed in, with every number checked.

use crate::kernels::device::Ops;
use crate::kernels::host::Cpu;
use crate::network::{self, LoadError, Stored, Weight};
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

/// Where tensors lie and what they are made of.
#[derive(Debug, Clone)]
pub struct Place {
    pub device: Device,
    pub dtype: network::DType,
    /// Whose operations compute there.
    pub ops: Ops,
    /// The level that the fused executor takes on a processor; `None` leaves everything to candle's operations.
    pub cpu: Option<Cpu>,
}

impl Place {
    /// A device with the best operations that there are for it.
    pub fn new(device: Device, dtype: network::DType) -> Self {
        Self { ops: Ops::of(&device), cpu: Cpu::best(), device, dtype }
    }

    /// The processor in f32: the reference for everything else.
    pub fn reference() -> Self {
        Self { cpu: None, ..Self::new(Device::Cpu, network::DType::F32) }
    }

    /// The dtype as candle names it; tensors beside an int8 network are f32.
    pub fn candle_dtype(&self) -> DType {
        match self.dtype {
            network::DType::F32 | network::DType::Int8 => DType::F32,
            network::DType::Bf16 => DType::BF16,
            network::DType::F16 => DType::F16,
        }
    }

    /// Reads a weight into a tensor of its shape.
    ///
    /// # Errors
    /// A number that is not finite, as stored or in the dtype computed in; a device that fails.
    pub fn tensor(&self, weight: &Weight) -> Result<Tensor, LoadError> {
        self.tensor_with(weight, |number| number)
    }

    /// The same, with `change` applied to every number in f32.
    ///
    /// # Errors
    /// As `tensor`.
    pub fn tensor_with(&self, weight: &Weight, change: impl Fn(f32) -> f32) -> Result<Tensor, LoadError> {
        let mut numbers = numbers(weight)?;
        numbers.iter_mut().for_each(|number| *number = change(*number));
        let limit = match self.dtype {
            network::DType::F32 | network::DType::Int8 => f32::MAX,
            network::DType::Bf16 => bf16::MAX.to_f32(),
            network::DType::F16 => f16::MAX.to_f32(),
        };
        if let Some(number) = numbers.iter().find(|number| number.abs() > limit) {
            return Err(weight.refuse(format!("holds {number}, which {} cannot hold: choose another dtype", self.dtype)));
        }
        let build = || Tensor::from_vec(numbers, weight.shape(), &Device::Cpu)?.to_dtype(self.candle_dtype())?.to_device(&self.device);
        build().map_err(|error| LoadError::Device(error.into()))
    }
}

/// Numbers decoded at a time, where a weight is read row by row.
pub(super) const CHUNK: usize = 1 << 16;

/// The numbers of a weight in f32, every one of them finite. The file's memory is let go.
///
/// # Errors
/// A number that is not, or blocks that cannot be read.
pub(super) fn numbers(weight: &Weight) -> Result<Vec<f32>, LoadError> {
    let mut numbers = Vec::with_capacity(weight.elements());
    rows(weight, |_, row| numbers.extend_from_slice(row))?;
    Ok(numbers)
}

/// Calls `take` with the index and the numbers of each row along the last dimension, in f32, every one of them finite: a weight that goes into
/// another form need not be there in f32 as a whole. The file's memory is let go.
///
/// # Errors
/// A number that is not finite, or blocks that cannot be read; some rows may have been taken then.
pub(super) fn rows(weight: &Weight, mut take: impl FnMut(usize, &[f32])) -> Result<(), LoadError> {
    let (unit_bytes, unit_numbers) = weight.stored().unit();
    let row = weight.shape().last().copied().unwrap_or(1).max(1);
    // Whole rows that are whole blocks; a weight of which that is not so is decoded at once.
    let chunk = if row.is_multiple_of(unit_numbers) { (CHUNK / row).max(1) * row } else { weight.elements().max(1) };
    let mut numbers = Vec::new();
    let chunk_bytes = (chunk / unit_numbers * unit_bytes).max(1);
    for (index, bytes) in weight.bytes().chunks(chunk_bytes).enumerate() {
        numbers.clear();
        decode(weight, bytes, &mut numbers)?;
        if let Some(at) = not_finite(&numbers) {
            return Err(weight.refuse(format!("holds {} at index {}", numbers[at], index * chunk + at)));
        }
        numbers.chunks(row).enumerate().for_each(|(within, row_of)| take(index * (chunk / row) + within, row_of));
        weight.let_go(index * chunk_bytes..index * chunk_bytes + bytes.len());
    }
    Ok(())
}

/// Where the first number stands that is not finite.
fn not_finite(numbers: &[f32]) -> Option<usize> {
    // Without a way out of the loop it is one over vectors; that there is such a number is rare.
    let most = numbers.iter().fold(0, |most: u32, number| most.max(number.to_bits() & (u32::MAX >> 1)));
    if most < f32::INFINITY.to_bits() { None } else { numbers.iter().position(|number| !number.is_finite()) }
}

/// Appends a weight's stored numbers in f32, which holds the three usual formats exactly. The bytes may lie at any address.
///
/// # Errors
/// Blocks that cannot be read.
fn decode(weight: &Weight, bytes: &[u8], to: &mut Vec<f32>) -> Result<(), LoadError> {
    match weight.stored() {
        Stored::F64 => to.extend(bytes.as_chunks().0.iter().map(|number| f64::from_le_bytes(*number) as f32)),
        Stored::F32 => to.extend(bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number))),
        Stored::Bf16 => to.extend(bytes.as_chunks().0.iter().map(|number| bf16::from_le_bytes(*number).to_f32())),
        Stored::F16 => to.extend(bytes.as_chunks().0.iter().map(|number| f16::from_le_bytes(*number).to_f32())),
        Stored::I64 => to.extend(bytes.as_chunks().0.iter().map(|number| i64::from_le_bytes(*number) as f32)),
        Stored::I32 => to.extend(bytes.as_chunks().0.iter().map(|number| i32::from_le_bytes(*number) as f32)),
        Stored::I8 => to.extend(bytes.iter().map(|number| f32::from(*number as i8))),
        Stored::U8 => to.extend(bytes.iter().map(|number| f32::from(*number))),
        Stored::Blocks(blocks) => {
            to.extend(blocks.decode(bytes).map_err(|error| weight.refuse(format!("cannot be read as {blocks:?}: {error}")))?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_read_row_by_row_and_a_wrong_number_is_named_by_its_place() {
        // More than one chunk, the last of them not full.
        let (count, width) = (5, CHUNK / 2 - 1);
        let mut values: Vec<f32> = (0..count * width).map(|at| at as f32).collect();
        let weight = |values: &[f32]| Weight::from_f32("w", &[count, width], values).expect("fills its shape");
        let mut seen = Vec::new();
        rows(&weight(&values), |index, row| seen.push((index, row.to_vec()))).expect("finite");
        assert_eq!(seen.len(), count);
        assert!(seen.iter().enumerate().all(|(at, (index, row))| at == *index && row == &values[at * width..][..width]));
        assert_eq!(numbers(&weight(&values)).expect("finite"), values);
        for wrong in [f32::NAN, f32::NEG_INFINITY] {
            values[3 * width + 1] = wrong;
            let error = numbers(&weight(&values)).expect_err("must be refused").to_string();
            assert!(error.contains(&format!("holds {wrong} at index {}", 3 * width + 1)), "{error}");
        }
    }
}
