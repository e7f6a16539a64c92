//! Copies between a GPU and memory that it reads and writes by itself: the thread that asks for them does not wait, and neither does the GPU.

use candle_core::cuda_backend::cudarc::driver::{CudaStream, HostSlice, PinnedHostSlice, SyncOnDrop};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::{CpuStorage, CudaDevice, CudaStorage, DType, Device, InplaceOp1, Layout, Result, Storage, Tensor};
use std::sync::{Mutex, PoisonError};

/// Buffers per device that take turns: one is filled while the copies from the others may still be under way.
const BUFFERS: usize = 3;
/// Buffers are at least this long, so that few batches make them grow.
const LEAST_NUMBERS: usize = 1 << 16;

/// Buffers for downloads that nobody uses now; they are of one context, whatever the device.
static DOWNLOADS: Mutex<Vec<PinnedHostSlice<f32>>> = Mutex::new(Vec::new());

/// The buffers of each device for uploads, the one used longest ago first.
static UPLOADS: Mutex<Vec<(usize, Vec<PinnedHostSlice<u32>>)>> = Mutex::new(Vec::new());

/// The numbers on the device, `[their number]`; the copy is queued behind what the device does now.
///
/// # Errors
/// A device that fails or is full.
pub(super) fn upload(numbers: &[u32], device: &CudaDevice) -> Result<Tensor> {
    // SAFETY: numbers are valid whatever their bits, and the copy below is queued before any kernel that reads them.
    let to = unsafe { Tensor::empty(numbers.len(), DType::U32, &Device::Cuda(device.clone()))? };
    if !numbers.is_empty() {
        to.inplace_op1(&Filled(numbers))?;
    }
    Ok(to)
}

/// Numbers on their way back.
pub(super) struct Download {
    /// Given back to `DOWNLOADS` in the end.
    buffer: Option<PinnedHostSlice<f32>>,
    len: usize,
}

impl Download {
    /// Queues the copy of a contiguous tensor of f32 behind what the device does now.
    ///
    /// # Errors
    /// A device that fails.
    pub(super) fn start(tensor: &Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let (Storage::Cuda(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
            candle_core::bail!("a download is of a contiguous tensor on a GPU")
        };
        let (stream, len) = (storage.device.cuda_stream(), end - start);
        let free = {
            let mut free = DOWNLOADS.lock().unwrap_or_else(PoisonError::into_inner);
            let fits = free.iter().position(|buffer| buffer.len() >= len && buffer.context() == stream.context());
            fits.map(|at| free.swap_remove(at))
        };
        let mut buffer = match free {
            Some(buffer) => buffer,
            // Without a flag: the processor will read it. SAFETY: nothing of it is read before the copy has been awaited.
            None => unsafe { stream.context().alloc_pinned_with_flags::<f32>(len.next_power_of_two().max(LEAST_NUMBERS), 0) }.w()?,
        };
        stream.memcpy_dtoh(&storage.as_cuda_slice::<f32>()?.slice(start..end), &mut Part { buffer: &mut buffer, len }).w()?;
        Ok(Self { buffer: Some(buffer), len })
    }

    /// Waits for the copy, and for nothing that was queued after it.
    ///
    /// # Errors
    /// A device that fails, at this or at something queued before it.
    pub(super) fn finish(self) -> Result<Vec<f32>> {
        match &self.buffer {
            Some(buffer) => Ok(buffer.as_slice().w()?[..self.len].to_vec()),
            None => Ok(Vec::new()),
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        DOWNLOADS.lock().unwrap_or_else(PoisonError::into_inner).extend(self.buffer.take());
    }
}

/// The leading numbers of a buffer.
struct Part<'a, T> {
    buffer: &'a mut PinnedHostSlice<T>,
    len: usize,
}

impl<T> HostSlice<T> for Part<'_, T> {
    fn len(&self) -> usize {
        self.len
    }

    unsafe fn stream_synced_slice<'a>(&'a self, stream: &'a CudaStream) -> (&'a [T], SyncOnDrop<'a>) {
        // SAFETY: the caller's promise.
        let (whole, sync) = unsafe { self.buffer.stream_synced_slice(stream) };
        (&whole[..self.len], sync)
    }

    unsafe fn stream_synced_mut_slice<'a>(&'a mut self, stream: &'a CudaStream) -> (&'a mut [T], SyncOnDrop<'a>) {
        // SAFETY: the caller's promise.
        let (whole, sync) = unsafe { self.buffer.stream_synced_mut_slice(stream) };
        (&mut whole[..self.len], sync)
    }
}

/// Fills a tensor of u32 with numbers.
struct Filled<'a>(&'a [u32]);

impl InplaceOp1 for Filled<'_> {
    fn name(&self) -> &'static str {
        "upload"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        candle_core::bail!("an upload is to a GPU")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, _: &Layout) -> Result<()> {
        let stream = storage.device.cuda_stream();
        let CudaStorageSlice::U32(to) = &mut storage.slice else { candle_core::bail!("an upload is of u32") };
        let ordinal = stream.context().ordinal();
        let mut uploads = UPLOADS.lock().unwrap_or_else(PoisonError::into_inner);
        let at = uploads.iter().position(|(known, _)| *known == ordinal).unwrap_or_else(|| {
            uploads.push((ordinal, Vec::new()));
            uploads.len() - 1
        });
        let buffers = &mut uploads[at].1;
        let oldest = if buffers.len() < BUFFERS { None } else { Some(buffers.remove(0)) };
        let mut buffer = match oldest.filter(|buffer| buffer.len() >= self.0.len()) {
            Some(buffer) => buffer,
            // SAFETY: what is read of it has been written before.
            None => unsafe { stream.context().alloc_pinned::<u32>(self.0.len().next_power_of_two().max(LEAST_NUMBERS)) }.w()?,
        };
        // Waits for the copy that read it last, three batches ago.
        buffer.as_mut_slice().w()?[..self.0.len()].copy_from_slice(self.0);
        stream.memcpy_htod(&Part { buffer: &mut buffer, len: self.0.len() }, to).w()?;
        buffers.push(buffer);
        Ok(())
    }
}
