//! One file over a connection that may break: resumed where it stopped, verified before it comes to rest under its name.

use super::cache::{Staging, create_parent};
use super::error::{HubError, IoContext};
use super::progress::Progress;
use super::stamp::{hash_into, hex};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

/// After this many attempts in a row that brought no byte, the source is given up.
const FRUITLESS_ATTEMPTS: u32 = 3;
/// Pause before the next attempt, times the fruitless ones so far.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// A file whose length nobody says may not be longer than this.
const UNKNOWN_SIZE_LIMIT_BYTES: u64 = 64 << 30;

/// The file wanted, and what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) path: String,
    pub(super) size_bytes: Option<u64>,
    pub(super) sha256: Option<String>,
}

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) size_bytes: u64,
    pub(super) sha256: String,
}

/// A server's answer to "from byte `start` on".
pub(super) enum Answer {
    /// Bytes from `start_bytes` on (0 if it does not do ranges), up to `total_bytes`.
    Body { start_bytes: u64, total_bytes: Option<u64>, body: Box<dyn Read> },
    /// 416: there is nothing from there on.
    RangeRefused,
}

/// Why an attempt ended.
pub(super) enum Failure {
    /// Trying again cannot help.
    Final(HubError),
    /// Trying again may.
    Passing(HubError),
    /// The bytes are wrong; `resumed` if some were left from an earlier attempt and may be to blame.
    Corrupt { error: HubError, resumed: bool },
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

/// A download in progress.
pub(super) struct Download<'a> {
    pub(super) wanted: &'a Wanted,
    /// The server, for messages.
    pub(super) origin: &'a str,
    pub(super) staging: &'a Staging,
    pub(super) stall: Duration,
    pub(super) progress: &'a dyn Progress,
}

impl Download<'_> {
    /// Brings the file into the staging directory. `open` asks the server for the bytes from an offset on.
    pub(super) fn run(&self, mut open: impl FnMut(u64) -> Result<Answer, Failure>) -> Result<Arrived, HubError> {
        let part = self.part();
        create_parent(&part)?;
        let mut fruitless = 0;
        let mut restarted = false;
        loop {
            let before = self.part_bytes();
            match self.attempt(&mut open) {
                Ok(arrived) => return Ok(arrived),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Corrupt { error, resumed }) => {
                    remove(&part)?;
                    if !resumed || restarted {
                        return Err(error);
                    }
                    restarted = true;
                    self.progress.note(&format!("{error}; starting the file again"));
                }
                Err(Failure::Passing(error)) => {
                    fruitless = if self.part_bytes() > before { 0 } else { fruitless + 1 };
                    // Waiting out the stall limit once without a byte is enough.
                    if fruitless >= FRUITLESS_ATTEMPTS || fruitless > 0 && matches!(error, HubError::Stalled { .. }) {
                        return Err(error);
                    }
                    self.progress.note(&format!("{error}; trying again"));
                    std::thread::sleep(RETRY_PAUSE * fruitless);
                }
            }
        }
    }

    fn attempt(&self, open: &mut impl FnMut(u64) -> Result<Answer, Failure>) -> Result<Arrived, Failure> {
        let part = self.part();
        let mut start = self.part_bytes();
        // Without a hash there is no way to tell that the halves belong together; an overlong part never belongs.
        if self.wanted.sha256.is_none() || self.wanted.size_bytes.is_some_and(|size| start > size) {
            remove(&part)?;
            start = 0;
        }
        let resumed = start > 0;
        if resumed && self.wanted.size_bytes == Some(start) {
            return self.finish(self.hash_part()?, start, resumed);
        }
        let (start_bytes, total_bytes, body) = match open(start)? {
            Answer::Body { start_bytes, total_bytes, body } => (start_bytes, total_bytes, body),
            Answer::RangeRefused => {
                remove(&part)?;
                return Err(Failure::Passing(self.broken("the server has nothing from where the download stopped")));
            }
        };
        if start_bytes != 0 && start_bytes != start {
            return Err(Failure::Final(self.broken("the server answered with another range than asked for")));
        }
        if let (Some(expected_bytes), Some(got_bytes)) = (self.wanted.size_bytes, total_bytes)
            && expected_bytes != got_bytes
        {
            let (file, origin) = (self.wanted.path.clone(), self.origin.to_owned());
            return Err(Failure::Corrupt { error: HubError::WrongSize { file, origin, expected_bytes, got_bytes }, resumed: false });
        }
        let mut hash = if start_bytes > 0 { self.hash_part()? } else { Sha256::new() };
        let got_bytes = self.copy(body, start_bytes, total_bytes, &mut hash)?;
        if total_bytes.is_some_and(|total| got_bytes < total) {
            return Err(Failure::Passing(self.broken("the connection was closed before the end of the file")));
        }
        self.finish(hash, got_bytes, start_bytes > 0)
    }

    /// Appends `body` to the part file (begun anew if `start_bytes` is 0), feeding `hash`. Returns the part's length.
    fn copy(&self, mut body: Box<dyn Read>, start_bytes: u64, total_bytes: Option<u64>, hash: &mut Sha256) -> Result<u64, Failure> {
        let part = self.part();
        let total = self.wanted.size_bytes.or(total_bytes);
        let limit = total.unwrap_or(UNKNOWN_SIZE_LIMIT_BYTES);
        let mut file = if start_bytes > 0 { File::options().append(true).open(&part) } else { File::create(&part) }.io("write", &part)?;
        let mut buffer = vec![0; 256 << 10];
        let mut done = start_bytes;
        loop {
            self.progress.bytes(&self.wanted.path, done, total);
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Passing(self.read_error(&error))),
            };
            done += n as u64;
            if done > limit {
                let error =
                    HubError::WrongSize { file: self.wanted.path.clone(), origin: self.origin.to_owned(), expected_bytes: limit, got_bytes: done };
                return Err(Failure::Corrupt { error, resumed: start_bytes > 0 });
            }
            hash.update(&buffer[..n]);
            file.write_all(&buffer[..n]).io("write", &part)?;
        }
        file.sync_all().io("write", &part)?;
        Ok(done)
    }

    fn finish(&self, hash: Sha256, got_bytes: u64, resumed: bool) -> Result<Arrived, Failure> {
        let (file, origin) = (self.wanted.path.clone(), self.origin.to_owned());
        if let Some(expected_bytes) = self.wanted.size_bytes.filter(|&size| size != got_bytes) {
            return Err(Failure::Corrupt { error: HubError::WrongSize { file, origin, expected_bytes, got_bytes }, resumed });
        }
        let got = hex(hash);
        if let Some(expected) = self.wanted.sha256.clone().filter(|expected| *expected != got) {
            return Err(Failure::Corrupt { error: HubError::WrongHash { file, origin, expected, got }, resumed });
        }
        let ready = self.staging.ready.join(&self.wanted.path);
        create_parent(&ready)?;
        std::fs::rename(self.part(), &ready).io("move", &ready)?;
        Ok(Arrived { size_bytes: got_bytes, sha256: got })
    }

    fn hash_part(&self) -> Result<Sha256, HubError> {
        let mut hash = Sha256::new();
        hash_into(&mut hash, &self.part(), |_| ())?;
        Ok(hash)
    }

    fn part(&self) -> PathBuf {
        self.staging.parts.join(&self.wanted.path)
    }

    fn part_bytes(&self) -> u64 {
        std::fs::metadata(self.part()).map_or(0, |metadata| metadata.len())
    }

    fn read_error(&self, error: &std::io::Error) -> HubError {
        if error.kind() == std::io::ErrorKind::TimedOut {
            return HubError::Stalled { origin: self.origin.to_owned(), file: self.wanted.path.clone(), seconds: self.stall.as_secs() };
        }
        self.broken(&error.to_string())
    }

    fn broken(&self, reason: &str) -> HubError {
        HubError::Hub { endpoint: self.origin.to_owned(), reason: format!("{}: {reason}", self.wanted.path) }
    }
}

fn remove(path: &std::path::Path) -> Result<(), HubError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).io("remove", path),
        _ => Ok(()),
    }
}
