//! The one integration binary: each module is about one promise.

mod abuse;
mod bulk;
mod bundle;
mod checkpoint;
mod contract;
mod corpus;
mod damage;
mod decoders;
mod doctor;
mod drawn;
mod fake;
#[cfg(feature = "hub")]
mod fakehub;
mod fakemodel;
mod families;
mod forms;
mod gguf;
mod golden;
mod house;
mod hub;
#[cfg(feature = "hub")]
mod hub_remote;
mod jobs;
#[cfg(any(feature = "cuda", feature = "device-emulation"))]
mod kernels;
mod law;
mod models;
mod mutation;
mod offline;
mod openapi;
mod parity;
mod raw;
mod readme;
mod regressions;
mod replicas;
mod rotary;
mod serve;
mod server;
mod space;
mod tls;
