//! The one integration binary: each module is about one promise.

mod abuse;
mod contract;
mod corpus;
mod fake;
mod raw;
