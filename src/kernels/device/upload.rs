//! Whole numbers that a batch needs on its device, in one copy; on a GPU through memory that the device reads by itself, so that nobody waits.

use candle_core::{Device, Result, Tensor};

/// Every list begins at a multiple of this.
const ALIGNED: usize = 4;

/// Lists on their way to a device.
#[derive(Default)]
pub struct Upload {
    numbers: Vec<u32>,
    lists: Vec<(usize, usize)>,
}

/// Lists that arrived.
pub struct Uploaded {
    numbers: Tensor,
    lists: Vec<(usize, usize)>,
}

/// One list's place among the others.
#[derive(Debug, Clone, Copy)]
pub struct Slot(usize);

impl Upload {
    /// Adds a list.
    pub fn add(&mut self, numbers: impl IntoIterator<Item = u32>) -> Slot {
        let start = self.numbers.len().next_multiple_of(ALIGNED);
        self.numbers.resize(start, 0);
        self.numbers.extend(numbers);
        self.lists.push((start, self.numbers.len() - start));
        Slot(self.lists.len() - 1)
    }

    /// Copies all of them.
    ///
    /// # Errors
    /// A device that fails.
    pub fn send(self, device: &Device) -> Result<Uploaded> {
        let numbers = match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(cuda) => super::pinned::upload(&self.numbers, cuda)?,
            _ => Tensor::new(self.numbers, device)?,
        };
        Ok(Uploaded { numbers, lists: self.lists })
    }
}

impl Uploaded {
    /// A list, `[its numbers]` in u32.
    ///
    /// # Errors
    /// A slot of another upload.
    pub fn get(&self, Slot(slot): Slot) -> Result<Tensor> {
        match self.lists.get(slot) {
            Some((start, len)) => self.numbers.narrow(0, *start, *len),
            None => candle_core::bail!("list {slot} of {} was not uploaded", self.lists.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_arrive_apart() -> Result<()> {
        let mut upload = Upload::default();
        let slots = [vec![1, 2, 3, 4, 5], vec![], vec![6], vec![7, 8]].map(|list| (upload.add(list.clone()), list));
        let there = upload.send(&Device::Cpu)?;
        for (slot, list) in slots {
            assert_eq!(there.get(slot)?.to_vec1::<u32>()?, list);
        }
        assert!(there.get(Slot(9)).is_err());
        Ok(())
    }
}
