//! Vecmill turns text into vectors. (The map is written at the end of this file's growth; see house rules.)
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod api;
pub mod card;
pub mod engine;
pub mod hub;
pub mod ragged;
pub mod service;
pub mod telemetry;
pub mod wire;
