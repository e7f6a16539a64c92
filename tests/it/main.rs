//! The one integration binary: each module is about one promise.

#[cfg(feature = "hub")]
mod fakehub;
mod fakemodel;
mod house;
mod hub;
#[cfg(feature = "hub")]
mod hub_remote;
mod models;
mod offline;
mod parity;
mod readme;
mod serve;
mod server;
