//! cuBLASLt: a product with its bias, and ReLU or tanh-GELU, in one kernel. Its GELU is the approximation, so the exact one never comes here.

use super::activation::{Code, GELU_TANH, IDENTITY, RELU};
use super::launch::blank;
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::cublaslt::{Activation, CudaBlasLT, Matmul, MatmulConfig};
use candle_core::cuda_backend::cudarc::driver::{CudaView, DeviceRepr};
use candle_core::{CpuStorage, CudaDevice, CudaStorage, DType, Device, InplaceOp1, Layout, Result, Storage, Tensor};
use half::{bf16, f16};
use std::sync::{Arc, Mutex, PoisonError};

/// One per device, for its workspace.
static HANDLES: Mutex<Vec<(usize, Arc<CudaBlasLT>)>> = Mutex::new(Vec::new());

/// `activation(x w^T + bias)` if the library computes it: on a GPU, in half precision, rows of whole 16 bytes.
///
/// # Errors
/// A device that fails.
pub(super) fn map(x: &Tensor, weight: &Tensor, bias: &Tensor, activation: Code) -> Result<Option<Tensor>> {
    let activation = match activation {
        IDENTITY => None,
        RELU => Some(Activation::Relu),
        GELU_TANH => Some(Activation::Gelu),
        _ => return Ok(None),
    };
    let Device::Cuda(device) = x.device() else { return Ok(None) };
    let ((rows, width), out) = (x.dims2()?, weight.dim(0)?);
    if !matches!(x.dtype(), DType::BF16 | DType::F16) || !width.is_multiple_of(8) || !out.is_multiple_of(8) || rows == 0 {
        return Ok(None);
    }
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    let y = blank((rows, out), &x, x.dtype())?;
    y.inplace_op1(&Fused { x, weight, bias, activation, handle: handle(device)? })?;
    Ok(Some(y))
}

fn handle(device: &CudaDevice) -> Result<Arc<CudaBlasLT>> {
    let stream = device.cuda_stream();
    let ordinal = stream.context().ordinal();
    let mut handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, handle)) = handles.iter().find(|(known, _)| *known == ordinal) {
        return Ok(handle.clone());
    }
    let handle = Arc::new(CudaBlasLT::new(stream).map_err(candle_core::Error::wrap)?);
    handles.push((ordinal, handle.clone()));
    Ok(handle)
}

struct Fused {
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    activation: Option<Activation>,
    handle: Arc<CudaBlasLT>,
}

impl Fused {
    fn run<T: CudaDType + DeviceRepr>(&self, y: &mut CudaStorage) -> Result<()>
    where
        CudaBlasLT: Matmul<T>,
    {
        let ((rows, width), out) = (self.x.dims2()?, self.weight.dim(0)?);
        let [x, weight, bias] = [&self.x, &self.weight, &self.bias].map(Tensor::storage_and_layout);
        let (x, weight, bias): (CudaView<T>, _, _) = (view(&x.0, x.1)?, view(&weight.0, weight.1)?, view(&bias.0, bias.1)?);
        // Columns first, as the library counts: y^T = w x^T, and the bias is a column.
        let config = MatmulConfig {
            transa: true,
            transb: false,
            transc: false,
            m: out as u64,
            n: rows as u64,
            k: width as u64,
            alpha: 1.,
            lda: width as i64,
            ldb: width as i64,
            beta: 0.,
            ldc: out as i64,
            stride_a: None,
            stride_b: None,
            stride_c: None,
            stride_bias: None,
            batch_size: None,
        };
        let y = y.as_cuda_slice_mut::<T>()?;
        // SAFETY: the sizes are those of the tensors, which are contiguous and held until the call is queued; memory is freed in the stream's order.
        let done = unsafe { self.handle.matmul(config, &weight, &x, y, Some(&bias), self.activation.as_ref()) };
        done.map_err(candle_core::Error::wrap)
    }
}

fn view<'a, T: CudaDType>(storage: &'a Storage, layout: &Layout) -> Result<CudaView<'a, T>> {
    match storage {
        Storage::Cuda(storage) => Ok(storage.as_cuda_slice::<T>()?.slice(layout.start_offset()..)),
        _ => candle_core::bail!("cublaslt: an argument is not on the GPU"),
    }
}

impl InplaceOp1 for Fused {
    fn name(&self) -> &'static str {
        "cublaslt"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        candle_core::bail!("cublaslt runs on a GPU only")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, _: &Layout) -> Result<()> {
        match self.x.dtype() {
            DType::BF16 => self.run::<bf16>(storage),
            _ => self.run::<f16>(storage),
        }
    }
}
