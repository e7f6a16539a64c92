//! Runs kernels thread by thread on the processor, for tests: the source that a GPU runs, compiled by a C++ compiler (`host/grid.h`).

use super::launch::{Arg, Call};
use candle_core::{CpuStorage, Layout, Result, Storage};
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::{Mutex, PoisonError};

unsafe extern "C" {
    fn vecmill_run_grid(
        name: *const c_char,
        blocks: *const u32,
        threads: u32,
        shared_bytes: usize,
        backwards: bool,
        arguments: *mut *mut c_void,
    ) -> *const c_char;
}

/// The grid has one set of threads.
static GRID: Mutex<u64> = Mutex::new(0);

/// As `Call::write`. Every second call lets the warps of a block take turns in the opposite order.
pub(super) fn run(call: &Call, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
    let (out, size) = (first_byte(storage, layout)?, storage_bytes(storage));
    let mut held = Vec::new();
    let mut values: Vec<u64> = Vec::new();
    for arg in &call.args {
        values.push(match arg {
            Arg::Out(skip) => out as u64 + (skip * size) as u64,
            Arg::In(tensor) => {
                let (storage, layout) = tensor.storage_and_layout();
                let Storage::Cpu(numbers) = &*storage else { candle_core::bail!("{}: an argument is elsewhere", call.function) };
                let first = first_byte(numbers, layout)? as u64;
                held.push(storage);
                first
            }
            Arg::Absent => 0,
            // The low bytes come first on every machine that tests run on.
            Arg::Int(number) => u64::from(*number as u32),
            Arg::Float(number) => u64::from(number.to_bits()),
        });
    }
    let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
    let name = CString::new(call.function.as_str()).map_err(candle_core::Error::wrap)?;
    let blocks = call.blocks.map(|blocks| blocks as u32);
    let mut calls = GRID.lock().unwrap_or_else(PoisonError::into_inner);
    *calls += 1;
    // SAFETY: the arguments are as many and of such sizes as the kernel's parameters (that is what the tests of each operation show), the
    // tensors are held, and the one that is written is borrowed for writing alone.
    let failure = unsafe {
        let backwards = calls.is_multiple_of(2);
        vecmill_run_grid(name.as_ptr(), blocks.as_ptr(), call.threads as u32, call.shared_bytes, backwards, pointers.as_mut_ptr())
    };
    if failure.is_null() {
        return Ok(());
    }
    // SAFETY: a string that lives until the next call, which the lock keeps off.
    let why = unsafe { CStr::from_ptr(failure) }.to_string_lossy().into_owned();
    candle_core::bail!("{}: {why}", call.function)
}

fn storage_bytes(storage: &CpuStorage) -> usize {
    match storage {
        CpuStorage::BF16(_) | CpuStorage::F16(_) => 2,
        _ => 4,
    }
}

fn first_byte(storage: &CpuStorage, layout: &Layout) -> Result<*const u8> {
    let skip = layout.start_offset() * storage_bytes(storage);
    let first: *const u8 = match storage {
        CpuStorage::U32(numbers) => numbers.as_ptr().cast(),
        CpuStorage::BF16(numbers) => numbers.as_ptr().cast(),
        CpuStorage::F16(numbers) => numbers.as_ptr().cast(),
        CpuStorage::F32(numbers) => numbers.as_ptr().cast(),
        _ => candle_core::bail!("no kernel takes this number format"),
    };
    Ok(first.wrapping_add(skip))
}
