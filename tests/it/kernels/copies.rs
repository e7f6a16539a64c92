//! Lists on their way to the device and vectors on their way back, more of them at once than there are buffers.

use super::device::{device, random, there};
use candle_core::{DType, Result, Tensor};
use vecmill::kernels::device::{download::Download, upload::Upload};

#[test]
fn lists_arrive_as_they_were_however_many_are_on_the_way() -> Result<()> {
    // The last are larger than the buffers that the first have left.
    let sizes = [3, 0, 70_000, 1, 500, 200_000, 65_536, 7, 300_000];
    let list = |size: u32| (0..size).map(move |at| at.wrapping_mul(2_654_435_761) ^ size);
    let sent = sizes.map(|size| {
        let mut upload = Upload::default();
        let slots = [upload.add(list(size)), upload.add(list(size / 2)), upload.add(list(5))];
        upload.send(&device()).map(|uploaded| (uploaded, slots))
    });
    for (size, sent) in sizes.into_iter().zip(sent) {
        let (uploaded, [whole, half, five]) = sent?;
        for (slot, size) in [(whole, size), (half, size / 2), (five, 5)] {
            assert!(uploaded.get(slot)?.to_vec1::<u32>()?.into_iter().eq(list(size)), "a list of {size}");
        }
    }
    Ok(())
}

#[test]
fn numbers_come_back_as_they_were_in_whatever_order_they_are_awaited() -> Result<()> {
    let sizes = [5, 100_000, 0, 65_537, 12];
    let tensors: Vec<Tensor> = sizes.iter().map(|size| random(*size as u64, &[*size], DType::BF16)).collect::<Result<_>>()?;
    for _ in 0..2 {
        let started: Vec<Download> = tensors.iter().map(|tensor| Download::start(&there(tensor)?)).collect::<Result<_>>()?;
        for (download, tensor) in started.into_iter().zip(&tensors).rev() {
            assert_eq!(download.finish()?, tensor.to_dtype(DType::F32)?.to_vec1::<f32>()?, "{} numbers", tensor.elem_count());
        }
    }
    Ok(())
}
