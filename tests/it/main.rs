//! The one integration binary; a module per part.

mod law;
mod models;
mod parity;
