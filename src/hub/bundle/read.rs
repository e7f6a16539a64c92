//! Reads a bundle from its first byte to its last, and compares each with what must stand there.

use super::super::error::{HubError, IoContext};
use super::super::stamp::hex;
use super::sign::{from_hex, to_hex};
use super::{BLOCK, DIGEST, END, MANIFEST, Manifest, PublicKey, SIGNATURE, damaged, header, padding};
use crate::hub::CONFIG_LIMIT_BYTES;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// `PUBLIC KEY newline SIGNATURE newline`, in hex.
pub(super) const SIGNATURE_BYTES: u64 = 64 + 1 + 128 + 1;
const PIECE: usize = 1 << 20;

/// A bundle whose manifest has been read and checked.
pub(in crate::hub) struct Head {
    pub(in crate::hub) manifest: Manifest,
    /// SHA-256 of the manifest's bytes.
    pub(in crate::hub) digest: String,
    /// Whose valid signature it bears.
    pub(in crate::hub) signer: Option<PublicKey>,
}

/// A bundle being read; after [`Reader::open`] it stands before the first file.
pub(super) struct Reader {
    file: BufReader<File>,
    bundle: PathBuf,
}

/// What a bundle says of itself, without its files being looked at.
///
/// # Errors
/// It is no bundle, or its manifest or signature is damaged.
pub(in crate::hub) fn peek(bundle: &Path) -> Result<Head, HubError> {
    Reader::open(bundle).map(|(_, head)| head)
}

impl Reader {
    /// Opens a bundle and reads as far as its first file.
    pub(super) fn open(bundle: &Path) -> Result<(Self, Head), HubError> {
        let file = BufReader::with_capacity(PIECE, File::open(bundle).io("open", bundle)?);
        let mut reader = Self { file, bundle: bundle.to_owned() };
        let bytes = reader.manifest()?;
        let mut hash = Sha256::new();
        hash.update(&bytes);
        let digest = hex(hash);
        let stated = reader.small(DIGEST, 65)?;
        if stated != format!("{digest}\n").as_bytes() {
            return Err(damaged(bundle, MANIFEST, format!("its sha256 is {digest}, which is not what {DIGEST} says")));
        }
        let manifest = Manifest::parse(&bytes).map_err(|reason| damaged(bundle, MANIFEST, reason))?;
        let signer = reader.signer(&bytes)?;
        Ok((reader, Head { manifest, digest, signer }))
    }

    fn manifest(&mut self) -> Result<Vec<u8>, HubError> {
        let mut block = [0; BLOCK];
        let no_bundle = |bundle: &Path| {
            damaged(
                bundle,
                "its first block",
                "this is a file that does not begin as a bundle does; name a bundle, a GGUF file (its name ends in .gguf), or the directory that holds the model",
            )
        };
        self.file.read_exact(&mut block).map_err(|_| no_bundle(&self.bundle))?;
        let size = tar::Header::from_byte_slice(&block).entry_size().unwrap_or(u64::MAX);
        if size > CONFIG_LIMIT_BYTES || block != header(&self.bundle, MANIFEST, size)? {
            return Err(no_bundle(&self.bundle));
        }
        self.content(MANIFEST, size)
    }

    /// The signature, where there is one; it must be valid.
    fn signer(&mut self, manifest: &[u8]) -> Result<Option<PublicKey>, HubError> {
        let mut block = [0; BLOCK];
        self.exact(&mut block, "the header after the manifest")?;
        if block != header(&self.bundle, SIGNATURE, SIGNATURE_BYTES)? {
            self.file.seek(SeekFrom::Current(-(BLOCK as i64))).io("read", &self.bundle)?;
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&self.content(SIGNATURE, SIGNATURE_BYTES)?).into_owned();
        let parts = text.strip_suffix('\n').and_then(|text| text.split_once('\n'));
        let read = parts.and_then(|(key, signature)| Some((key.parse::<PublicKey>().ok()?, from_hex::<64>(signature)?)));
        match read {
            Some((key, signature)) if key.has_signed(manifest, &signature) => Ok(Some(key)),
            _ => Err(damaged(&self.bundle, SIGNATURE, "the signature does not belong to this manifest")),
        }
    }

    /// An entry of known name and length.
    fn small(&mut self, name: &str, size: u64) -> Result<Vec<u8>, HubError> {
        self.header(name, size)?;
        self.content(name, size)
    }

    fn content(&mut self, name: &str, size: u64) -> Result<Vec<u8>, HubError> {
        let mut bytes = Vec::new();
        self.body(name, size, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// The header of the next entry, which must be that of `name`.
    pub(super) fn header(&mut self, name: &str, size: u64) -> Result<(), HubError> {
        let mut block = [0; BLOCK];
        let part = format!("the header of {name}");
        self.exact(&mut block, &part)?;
        if block == header(&self.bundle, name, size)? { Ok(()) } else { Err(damaged(&self.bundle, &part, "it is not what the manifest asks for")) }
    }

    /// The content of an entry, piece by piece, and the zeros behind it. Returns its SHA-256.
    pub(super) fn body(&mut self, name: &str, size: u64, sink: &mut dyn FnMut(&[u8]) -> Result<(), HubError>) -> Result<String, HubError> {
        let (mut hash, mut left) = (Sha256::new(), size);
        let mut buffer = vec![0; PIECE.min(usize::try_from(size).unwrap_or(PIECE))];
        while left > 0 {
            let piece = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
            self.exact(&mut buffer[..piece], name)?;
            hash.update(&buffer[..piece]);
            sink(&buffer[..piece])?;
            left -= piece as u64;
        }
        self.zeros(padding(size), &format!("the padding after {name}"))?;
        Ok(hex(hash))
    }

    /// What must follow the last file: zeros, and then nothing.
    pub(super) fn end(&mut self) -> Result<(), HubError> {
        self.zeros(END, "the end")?;
        match self.file.read(&mut [0]).io("read", &self.bundle)? {
            0 => Ok(()),
            _ => Err(damaged(&self.bundle, "the end", "something follows it")),
        }
    }

    fn zeros(&mut self, count: usize, part: &str) -> Result<(), HubError> {
        let mut bytes = [0; END];
        self.exact(&mut bytes[..count], part)?;
        if bytes[..count].iter().all(|byte| *byte == 0) { Ok(()) } else { Err(damaged(&self.bundle, part, "it must be zeros")) }
    }

    fn exact(&mut self, buffer: &mut [u8], part: &str) -> Result<(), HubError> {
        self.file.read_exact(buffer).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged(&self.bundle, part, "the file ends before it does"),
            _ => HubError::Io { action: "read", path: self.bundle.clone(), source: error },
        })
    }
}

/// What stands in the signature's entry.
pub(super) fn signature_text(key: &PublicKey, signature: &[u8; 64]) -> String {
    format!("{key}\n{}\n", to_hex(signature))
}
