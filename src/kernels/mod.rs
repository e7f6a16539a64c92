//! Operations whose body depends on the device. Nothing above this room knows whether there is a GPU.

pub mod cgroup;
pub mod device;
pub mod host;
pub mod threads;
mod topology;
