//! Vecmill turns text into vectors: a server for open embedding models on hardware its users own.
//!
//! # The life of a request
//!
//! 1. [`api`] reads the body within limits of size and time, knows the key, and lets [`wire`] parse it; every fault of a field is found in one pass.
//! 2. [`service`] admits it by bytes, turns its texts into tokens on a few threads of its own, and submits them to the engine, whole or not at all.
//! 3. [`engine`] keeps them in one queue (two lanes, fair between clients, equal texts once). Whenever a device is free, its thread takes a batch of
//!    one model, lays the texts end to end ([`ragged`]) and runs the pipeline of `modules.json`: encoder, pooling, and what follows.
//! 4. The encoder is a [`network`], plain data written by a page of [`encoders`]; an executor of [`exec`] runs it with the operations of [`kernels`]:
//!    on a CPU the fused one, on packed weights, where it knows every word of the description; else the one on candle tensors, which on an
//!    NVIDIA GPU uses kernels of our own. There the next batch is queued while this one is computed, and only the vectors are copied back.
//! 5. The rows come back to the service, which cuts and scales them; `wire` writes the answer straight from the buffer.
//!
//! # Rooms, in reading order
//!
//! | room | what it does | what it never sees |
//! |---|---|---|
//! | [`config`] | flags, environment and file become one `Options` per room; the only reader of argv and the environment | a request |
//! | [`telemetry`] | logs; every metric, declared once as a table | input text, keys |
//! | [`cli`] | one file per command | - |
//! | [`api`] | HTTP: routes, layers, one verb per file | a tensor |
//! | [`wire`] | leaf: requests, responses, the table of faults | the web framework |
//! | [`service`] | texts in, vectors out: admit, tokenize, submit, gather; models, keys | HTTP, tensors |
//! | [`store`] | what must survive a restart; SQLite or PostgreSQL, the only room that knows SQL | HTTP, texts of live requests |
//! | [`engine`] | queue, a thread per device, pipeline, loading | what text is |
//! | [`encoders`] | one page per architecture: config.json and weight names become a `Network` | a batch, a device, a pooling mode |
//! | [`network`] | the description those pages fill in | how it is run |
//! | [`exec`] | runs a `Network` on a packed batch: `host` fused on the CPU, `tensor` on candle, which is also the reference | what text is |
//! | [`kernels`] | operations whose body depends on the device; the only place for `unsafe` and `cfg(feature)`. The CPU's own are the crate in `crates/host-kernels`, so that tests run them optimised | - |
//! | [`hub`], [`card`] | from a name to verified files on disk | - |
//! | [`ragged`] | leaf: tokens of one text, offsets, a packed batch | - |
//!
//! # Invariants
//!
//! Arrows point one way: `main -> cli -> api -> service -> engine -> {encoders -> network, exec}`, `exec -> {network, kernels} -> ragged`,
//! `service -> store`, `engine -> hub -> card`. Nothing above the kernels knows whether a GPU exists. The queue reads no clock. The engine never
//! waits on a client, and no lock is held across a forward pass. Nothing without a limit: every queue is bounded, every wait has a deadline, and full means 429. A batch
//! equals its texts alone. Anything in a checkpoint that is not understood stops the start. `tests/it/house.rs` holds what of this a test can hold.

pub mod api;
pub mod card;
pub mod cli;
pub mod config;
pub mod encoders;
pub mod engine;
pub mod exec;
pub mod hub;
pub mod kernels;
pub mod network;
pub mod ragged;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod wire;
