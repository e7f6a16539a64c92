//! Launches kernels on an NVIDIA GPU, and opens it.

use super::launch::{Arg, Call, Module};
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use candle_core::cuda_backend::cudarc::driver::{CudaStream, DevicePtr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::{CudaStorage, Device, Layout, Result, Storage};
use std::sync::{Mutex, PoisonError};

/// A block may have this much shared memory without asking for more.
const PLAIN_SHARED_BYTES: usize = 48 << 10;

/// The devices opened so far: models of one device share its context and its stream, on which they take turns.
static OPEN: Mutex<Vec<(usize, Device)>> = Mutex::new(Vec::new());

/// Opens the n-th GPU, once.
///
/// # Errors
/// There is no driver or no such GPU.
pub(super) fn open(index: usize) -> Result<Device> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, device)) = open.iter().find(|(known, _)| *known == index) {
        return Ok(device.clone());
    }
    let device = Device::new_cuda_with_stream(index)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: without events nothing orders two streams; there is only this one, and its work is ordered.
    unsafe { cuda.disable_event_tracking() };
    keep_freed_memory(cuda)?;
    open.push((index, device.clone()));
    Ok(device)
}

/// The n-th GPU's name, with its memory in MiB.
pub(super) fn product(index: usize) -> Option<String> {
    let device = open(index).ok()?;
    let stream = device.as_cuda_device().ok()?.cuda_stream();
    let context = stream.context();
    Some(format!("{} with {} MiB", context.name().ok()?, context.total_mem().ok()? >> 20))
}

/// Freed memory stays with the process: else every wait for a result gives all of it back to the driver, and the next batch asks for it anew.
fn keep_freed_memory(device: &candle_core::CudaDevice) -> Result<()> {
    use candle_core::cuda_backend::cudarc::driver::{result, sys};
    let stream = device.cuda_stream();
    let context = stream.context();
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut threshold = u64::MAX;
    // SAFETY: the pool is the device's own, and the attribute is a 64-bit number that is read before the call returns.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device()).w()?;
        let attribute = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, std::ptr::from_mut(&mut threshold).cast()).result().w()
    }
}

/// As `Call::write`.
pub(super) fn run(call: &Call, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
    let device = storage.device.clone();
    let stream = device.cuda_stream();
    let (out, size) = address(storage, layout, &stream)?;
    let mut values = Vec::with_capacity(call.args.len());
    for arg in &call.args {
        values.push(match arg {
            Arg::Out(skip) => Value::Address(out + (skip * size) as u64),
            Arg::In(tensor) => {
                let (storage, layout) = tensor.storage_and_layout();
                let Storage::Cuda(numbers) = &*storage else { candle_core::bail!("{}: an argument is not on the GPU", call.function) };
                Value::Address(address(numbers, layout, &stream)?.0)
            }
            Arg::Absent => Value::Address(0),
            Arg::Int(number) => Value::Int(*number),
            Arg::Float(number) => Value::Float(*number),
        });
    }
    let (name, ptx) = call.module.compiled()?;
    let function = device.get_or_load_custom_func(&call.function, &name, ptx)?;
    if call.shared_bytes > PLAIN_SHARED_BYTES {
        function.set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, call.shared_bytes as i32).w()?;
    }
    let mut launch = function.builder();
    for value in &values {
        match value {
            Value::Address(address) => launch.arg(address),
            Value::Int(number) => launch.arg(number),
            Value::Float(number) => launch.arg(number),
        };
    }
    let [x, y, z] = call.blocks.map(|blocks| blocks as u32);
    let config = LaunchConfig { grid_dim: (x, y, z), block_dim: (call.threads as u32, 1, 1), shared_mem_bytes: call.shared_bytes as u32 };
    // SAFETY: the same call, on the processor, is what the tests of each operation run; the tensors outlive it, as memory is freed in the order of
    // the stream, and the one that is written is borrowed for writing alone.
    unsafe { launch.launch(config) }.w()?;
    Ok(())
}

enum Value {
    Address(u64),
    Int(i32),
    Float(f32),
}

/// Where a tensor's first number lies, and the bytes of one number.
fn address(storage: &CudaStorage, layout: &Layout, stream: &CudaStream) -> Result<(u64, usize)> {
    let (first, size) = match &storage.slice {
        CudaStorageSlice::U32(numbers) => (numbers.device_ptr(stream).0, 4),
        CudaStorageSlice::BF16(numbers) => (numbers.device_ptr(stream).0, 2),
        CudaStorageSlice::F16(numbers) => (numbers.device_ptr(stream).0, 2),
        CudaStorageSlice::F32(numbers) => (numbers.device_ptr(stream).0, 4),
        _ => candle_core::bail!("no kernel takes this number format"),
    };
    Ok((first + (layout.start_offset() * size) as u64, size))
}

macro_rules! ptx {
    ($name:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/", $name, ".ptx"))
    };
}

impl Module {
    /// Its name and code, as `build.rs` made it.
    fn compiled(self) -> Result<(String, &'static str)> {
        Ok(match self {
            Self::Activation => ("activation".to_owned(), ptx!("activation")),
            Self::AttentionF32 => ("attention_f32".to_owned(), ptx!("attention_f32")),
            Self::AttentionHalf(head) => {
                let code = match head {
                    32 => ptx!("attention_half_32"),
                    64 => ptx!("attention_half_64"),
                    96 => ptx!("attention_half_96"),
                    128 => ptx!("attention_half_128"),
                    256 => ptx!("attention_half_256"),
                    _ => candle_core::bail!("no attention for heads of {head}"),
                };
                (format!("attention_half_{head}"), code)
            }
            Self::Norm => ("norm".to_owned(), ptx!("norm")),
            Self::Pool => ("pool".to_owned(), ptx!("pool")),
            Self::Rope => ("rope".to_owned(), ptx!("rope")),
        })
    }
}
