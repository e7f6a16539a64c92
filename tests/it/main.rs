//! The one integration binary: each module is about one promise.

mod house;
mod serve;
mod server;
