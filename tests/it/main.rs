//! The one integration binary: each module is about one promise.

mod house;
mod readme;
mod serve;
mod server;
