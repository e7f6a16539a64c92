//! The one integration binary; a module per part.

mod checkpoint;
mod law;
mod models;
mod parity;
