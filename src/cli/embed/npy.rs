//! Vectors as one NumPy array (`.npy`, format 1.0): f32 little-endian, `[lines, dim]`, row i for line i.
//!
//! The shape stands at the file's beginning and is known at its end, so the array grows under another name and gets its own when it is whole.
//! A refused line keeps its place as a row of zeros, so that rows and lines still match; the refusal itself goes to stderr as a JSON line.

use super::ask::Row;
use super::read::Line;
use super::write::{RowWriter, write_line};
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

/// Magic, version, header length and header together; a multiple of 64, with room for any shape.
const PREAMBLE_BYTES: usize = 128;

/// An array being written.
pub struct Npy {
    path: PathBuf,
    part: PathBuf,
    out: BufWriter<File>,
    refusals: Box<dyn Write + Send>,
    rows: u64,
    /// Unknown until the first vector.
    dim: Option<usize>,
    /// Refused lines before the first vector, whose rows await their size.
    owed: u64,
    whole: bool,
}

impl Npy {
    /// Opens `PATH.part`; refused lines are told to `refusals`.
    ///
    /// # Errors
    /// A file that cannot be created.
    pub fn create(path: &Path, refusals: Box<dyn Write + Send>) -> io::Result<Self> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let mut out = BufWriter::new(File::create(&part)?);
        out.write_all(&[0; PREAMBLE_BYTES])?;
        Ok(Self { path: path.to_owned(), part, out, refusals, rows: 0, dim: None, owed: 0, whole: false })
    }

    fn zeros(&mut self, rows: u64, dim: usize) -> io::Result<()> {
        let row = vec![0; dim * size_of::<f32>()];
        (0..rows).try_for_each(|_| self.out.write_all(&row))
    }
}

impl RowWriter for Npy {
    fn row(&mut self, line: &Line, row: Result<Row, String>) -> io::Result<()> {
        self.rows += 1;
        let row = match row {
            Ok(row) => row,
            Err(reason) => {
                write_line(&mut self.refusals, line, Err(&reason))?;
                return match self.dim {
                    Some(dim) => self.zeros(1, dim),
                    None => {
                        self.owed += 1;
                        Ok(())
                    }
                };
            }
        };
        let dim = *self.dim.get_or_insert(row.vector.len());
        if dim != row.vector.len() {
            return Err(io::Error::other(format!("a vector of {} numbers after vectors of {dim}", row.vector.len())));
        }
        let owed = std::mem::take(&mut self.owed);
        self.zeros(owed, dim)?;
        row.vector.iter().try_for_each(|x| self.out.write_all(&x.to_le_bytes()))
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.rewind()?;
        self.out.write_all(&preamble(self.rows, self.dim.unwrap_or(0)))?;
        self.out.flush()?;
        fs::rename(&self.part, &self.path)?;
        self.whole = true;
        Ok(())
    }
}

impl Drop for Npy {
    fn drop(&mut self) {
        if !self.whole {
            // Nothing can be done about a left-over that cannot be removed.
            let _ = fs::remove_file(&self.part);
        }
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
