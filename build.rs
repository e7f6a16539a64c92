//! Compiles the device kernels: to PTX for the `cuda` feature, and for the processor for `device-emulation`, with which tests run them.

#[cfg(feature = "cuda")]
use std::{
    path::{Path, PathBuf},
    process::Command,
};

const KERNELS: &str = "src/kernels/device";

/// What is compiled; the Rust files beside them are none of this script's business.
const SOURCES: [&str; 11] = [
    "activation.cu",
    "attention_f32.cu",
    "attention_half.cu",
    "device.cuh",
    "host/emulate.cpp",
    "host/grid.h",
    "mma.cuh",
    "norm.cu",
    "pool.cu",
    "rope.cu",
    "scores.cuh",
];

/// The head sizes of attention in half precision, compiled one by one.
#[cfg(feature = "cuda")]
const HEADS: [usize; 5] = [32, 64, 96, 128, 256];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for source in SOURCES {
        println!("cargo:rerun-if-changed={KERNELS}/{source}");
    }
    #[cfg(feature = "cuda")]
    compile_ptx();
    #[cfg(feature = "device-emulation")]
    cc::Build::new().cpp(true).std("c++17").opt_level(2).warnings(false).file(format!("{KERNELS}/host/emulate.cpp")).compile("vecmill_device");
}

/// One PTX file per module, for every card from `CUDA_COMPUTE_CAP` (80) up.
#[cfg(feature = "cuda")]
fn compile_ptx() {
    for name in ["NVCC", "CUDA_HOME", "CUDA_COMPUTE_CAP"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo names a folder for what is built"));
    let capability = std::env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "80".to_owned());
    let plain = ["activation", "attention_f32", "norm", "pool", "rope"].map(|name| (name.to_owned(), name, None));
    let heads = HEADS.map(|head| (format!("attention_half_{head}"), "attention_half", Some(head)));
    std::thread::scope(|scope| {
        for (module, source, head) in plain.into_iter().chain(heads) {
            let (out, capability) = (&out, &capability);
            scope.spawn(move || nvcc(&format!("{KERNELS}/{source}.cu"), &out.join(module).with_extension("ptx"), capability, head));
        }
    });
}

#[cfg(feature = "cuda")]
fn nvcc(source: &str, ptx: &Path, capability: &str, head: Option<usize>) {
    let home = std::env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
    let nvcc = std::env::var_os("NVCC").map(PathBuf::from).or(home).unwrap_or_else(|| PathBuf::from("nvcc"));
    let mut command = Command::new(&nvcc);
    command.args(["--ptx", "-O3", "-std=c++17"]).arg(format!("-arch=compute_{capability}")).arg("-o").arg(ptx);
    command.args(head.map(|head| format!("-DHEAD={head}"))).arg(source);
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{} {source}: {status}", nvcc.display()),
        Err(error) => panic!("{}: {error}; name the CUDA compiler in NVCC or CUDA_HOME", nvcc.display()),
    }
}
