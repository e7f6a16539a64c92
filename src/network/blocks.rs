//! The block formats of GGUF files: some numbers share a scale, so a tensor is a row of blocks and not of numbers. Decoded by candle.

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Result};
use std::borrow::Cow;

/// A block format, by llama.cpp's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the names that GGUF files and their users know")]
pub enum Blocks {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
}

impl Blocks {
    /// The format that candle calls `dtype`; `None` for those that hold single numbers, and for one that is only used for activations.
    pub fn of(dtype: GgmlDType) -> Option<Self> {
        match dtype {
            GgmlDType::Q4_0 => Some(Self::Q4_0),
            GgmlDType::Q4_1 => Some(Self::Q4_1),
            GgmlDType::Q5_0 => Some(Self::Q5_0),
            GgmlDType::Q5_1 => Some(Self::Q5_1),
            GgmlDType::Q8_0 => Some(Self::Q8_0),
            GgmlDType::Q2K => Some(Self::Q2_K),
            GgmlDType::Q3K => Some(Self::Q3_K),
            GgmlDType::Q4K => Some(Self::Q4_K),
            GgmlDType::Q5K => Some(Self::Q5_K),
            GgmlDType::Q6K => Some(Self::Q6_K),
            GgmlDType::Q8K => Some(Self::Q8_K),
            GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 | GgmlDType::Q8_1 => None,
        }
    }

    fn candle(self) -> GgmlDType {
        match self {
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q5_1 => GgmlDType::Q5_1,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q2_K => GgmlDType::Q2K,
            Self::Q3_K => GgmlDType::Q3K,
            Self::Q4_K => GgmlDType::Q4K,
            Self::Q5_K => GgmlDType::Q5K,
            Self::Q6_K => GgmlDType::Q6K,
            Self::Q8_K => GgmlDType::Q8K,
        }
    }

    /// Numbers in a block.
    pub fn numbers(self) -> usize {
        self.candle().block_size()
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        self.candle().type_size()
    }

    /// The numbers of whole blocks.
    ///
    /// # Errors
    /// If `bytes` are not whole blocks.
    pub fn decode(self, bytes: &[u8]) -> Result<Vec<f32>> {
        let numbers = bytes.len() / self.bytes() * self.numbers();
        // candle reads blocks where they lie and asserts their alignment, which a map need not have: a fresh buffer has it.
        let storage = QStorage::from_data(Cow::Owned(bytes.to_vec()), &Device::Cpu, self.candle())?;
        QTensor::new(storage, numbers)?.dequantize(&Device::Cpu)?.to_vec1()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_q8_0_is_a_scale_and_its_multiples() -> Result<()> {
        let mut bytes = half::f16::from_f32(0.5).to_le_bytes().to_vec();
        bytes.extend((0..32).map(|n| (n as i8 - 16) as u8));
        // At an odd address.
        let shifted = [&[0], bytes.as_slice()].concat();
        let numbers = Blocks::Q8_0.decode(&shifted[1..])?;
        assert_eq!((numbers.len(), numbers[0], numbers[31]), (32, -8., 7.5));
        Ok(())
    }

    #[test]
    fn every_format_has_its_name_back() {
        use Blocks::*;
        for blocks in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K] {
            assert_eq!(Blocks::of(blocks.candle()), Some(blocks));
            assert!(blocks.bytes() < 4 * blocks.numbers() + 40);
        }
    }
}
