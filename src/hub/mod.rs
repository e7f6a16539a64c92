//! From a model's name, repo id or directory to verified files on disk.

use crate::card::Card;
use std::path::PathBuf;

/// Where models come from and where they are kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Open no socket to obtain anything.
    pub offline: bool,
    /// Our own cache: `<cache_dir>/models/...`.
    pub cache_dir: PathBuf,
    /// `$HF_HOME` or its default, whose cache is read too.
    pub hf_home: PathBuf,
    /// `$HF_ENDPOINT`.
    pub hf_endpoint: String,
    /// `$HF_TOKEN`.
    pub hf_token: Option<String>,
    /// True if a proxy variable is set: then a direct connection says nothing about reachability.
    pub proxied: bool,
    /// The Python interpreter whose pip fetches packages (`python3`).
    pub python: String,
}

/// What `--model` names.
#[derive(Debug, Clone)]
pub enum What {
    /// A model with a card.
    Card(&'static Card),
    /// A directory (or, later, a file) on this machine.
    Path(PathBuf),
    /// `owner/name` on the hub, without a card.
    Repo(String),
}

/// A model's files on disk, verified where a card has their hashes.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// The directory that holds them.
    pub root: PathBuf,
    /// The card they were verified against.
    pub card: Option<&'static Card>,
    /// The slug if the operator gives none: repo id, or the directory's base name.
    pub slug: String,
}
