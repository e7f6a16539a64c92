//! The one integration binary.

#[cfg(feature = "hub")]
mod fakehub;
mod fakemodel;
mod hub;
#[cfg(feature = "hub")]
mod hub_remote;
mod offline;
