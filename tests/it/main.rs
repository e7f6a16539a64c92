//! The one integration binary; a module per part.

mod models;
mod parity;
