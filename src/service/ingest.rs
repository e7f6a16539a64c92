//! The first step of admission: how many bytes of text are being tokenised at once. Bounds memory before a token is known.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A budget of bytes; a request over it is refused, never kept waiting.
#[derive(Debug)]
pub struct Ingest {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
}

/// Bytes in use; given back on drop.
#[derive(Debug)]
pub struct Admitted<'a> {
    ingest: &'a Ingest,
    bytes: usize,
}

impl Ingest {
    /// A budget of `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, used_bytes: AtomicUsize::new(0) }
    }

    /// Takes `bytes`, or says after how many seconds to try again. An idle budget takes a request of any size.
    pub fn admit(&self, bytes: usize) -> Result<Admitted<'_>, u32> {
        let before = self.used_bytes.fetch_add(bytes, Ordering::AcqRel);
        let admitted = Admitted { ingest: self, bytes };
        // Dropping `admitted` on the way out gives the bytes back.
        if before > 0 && before.saturating_add(bytes) > self.limit_bytes { Err(1) } else { Ok(admitted) }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.ingest.used_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_taken_and_given_back() {
        let ingest = Ingest::new(100);
        let first = ingest.admit(80).unwrap();
        assert_eq!(ingest.admit(21).err(), Some(1));
        let second = ingest.admit(20).unwrap();
        drop(first);
        assert!(ingest.admit(81).is_err());
        drop(second);
        assert!(ingest.admit(1000).is_ok(), "alone, a request may be of any size");
        assert_eq!(ingest.used_bytes.load(Ordering::Relaxed), 0);
    }
}
