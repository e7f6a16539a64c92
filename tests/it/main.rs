//! The one integration binary: each module is about one promise.

mod abuse;
mod checkpoint;
mod contract;
mod corpus;
mod fake;
#[cfg(feature = "hub")]
mod fakehub;
mod fakemodel;
mod house;
mod hub;
#[cfg(feature = "hub")]
mod hub_remote;
mod jobs;
mod law;
mod models;
mod offline;
mod parity;
mod raw;
mod readme;
mod serve;
mod server;
