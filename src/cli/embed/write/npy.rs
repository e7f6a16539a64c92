//! Vectors as one NumPy array (`.npy`, format 1.0): f32 little-endian, `[rows, dim]`.
//!
//! The shape stands at the file's beginning and is known at its end, so its place is kept free. A refused row keeps its place as zeros.

use super::{Format, append_raw};
use crate::cli::embed::window::Done;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;

/// Magic, version, header length and header together; a multiple of 64, with room for any shape.
const PREAMBLE_BYTES: usize = 128;

/// An array with rows of this size.
pub struct Npy {
    pub dim: usize,
}

impl Format for Npy {
    fn head(&self) -> Vec<u8> {
        preamble(0, self.dim).to_vec()
    }

    fn append(&self, done: &Done, out: &mut Vec<u8>) -> anyhow::Result<()> {
        append_raw(done, self.dim, out)
    }

    fn finish(&self, part: &mut File, rows: u64, _: &Path) -> anyhow::Result<bool> {
        part.rewind()?;
        part.write_all(&preamble(rows, self.dim))?;
        Ok(false)
    }
}

/// The file's first bytes (numpy.lib.format: magic, version 1.0, u16 header length, a Python dict padded with spaces, a line end).
fn preamble(rows: u64, dim: usize) -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [b' '; PREAMBLE_BYTES];
    bytes[..8].copy_from_slice(b"\x93NUMPY\x01\x00");
    bytes[8..10].copy_from_slice(&(PREAMBLE_BYTES as u16 - 10).to_le_bytes());
    let dict = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    // 60 characters and two numbers of at most 20 digits fit into 117.
    bytes[10..10 + dict.len()].copy_from_slice(dict.as_bytes());
    bytes[PREAMBLE_BYTES - 1] = b'\n';
    bytes
}
