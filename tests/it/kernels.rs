//! The kernels of a GPU against plain operations in f32 on the processor: each by itself, then whole networks through the executor that uses them.
//!
//! Where they run is `device`'s to say. `scripts/device-kernels-check` runs these tests without a GPU, in a build with `device-emulation`;
//! `scripts/gpu-check ops` runs the same ones on a GPU, in a build with `cuda`.

mod activation;
mod attention;
mod copies;
mod device;
mod linear;
mod near;
mod networks;
mod norm;
mod pool;
mod rope;
