//! A checkpoint's JSON files, read so that every complaint names the file and the field.

use crate::network::LoadError;
use serde_json::{Map, Value};
use std::io::Read;
use std::path::Path;

/// Larger files than this are refused unread. The largest honest ones are tokenizers of 250,000 entries, about 35 MB.
pub const MAX_JSON_BYTES: u64 = 256 << 20;

/// One JSON object and the name it goes by in messages. A field that is `null` counts as absent, as it does in Python's configurations.
#[derive(Debug, Clone)]
pub struct Json {
    file: String,
    map: Map<String, Value>,
}

impl Json {
    /// Reads the object in `path`; `None` if there is no such file.
    ///
    /// # Errors
    /// Unreadable, too large, not JSON, not an object.
    pub fn read(path: &Path) -> Result<Option<Self>, LoadError> {
        let file = path.display().to_string();
        match read_bytes(path)? {
            Some(bytes) => Self::parse(file, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Reads the object in `path`, which must be there.
    ///
    /// # Errors
    /// As `read`, and if there is no such file.
    pub fn require(path: &Path) -> Result<Self, LoadError> {
        Self::read(path)?.ok_or_else(|| LoadError::file(path.display().to_string(), "is missing"))
    }

    /// The object in `bytes`.
    ///
    /// # Errors
    /// Not JSON, not an object.
    pub fn parse(file: String, bytes: &[u8]) -> Result<Self, LoadError> {
        let map = serde_json::from_slice(bytes).map_err(|error| LoadError::file(&file, format!("is not a JSON object: {error}")))?;
        Ok(Self { file, map })
    }

    /// An object that was found inside another file.
    pub fn of(file: String, map: Map<String, Value>) -> Self {
        Self { file, map }
    }

    /// An object without fields, for a file that may be absent.
    pub fn empty(path: &Path) -> Self {
        Self { file: path.display().to_string(), map: Map::new() }
    }

    /// The file's name in messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The sentence that refuses a field.
    pub fn refuse(&self, field: &str, reason: impl Into<String>) -> LoadError {
        LoadError::field(&self.file, field, reason)
    }

    /// A field's value; `None` for absent or `null`.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// True if the field is there, be it as `null`: some configurations mean by that something else than by leaving it out.
    pub fn says(&self, field: &str) -> bool {
        self.map.contains_key(field)
    }

    /// All fields that are neither absent nor `null`.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.map.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.as_str(), value))
    }

    /// Refuses fields that are not in `known`: what is not understood may change the vectors.
    ///
    /// # Errors
    /// The first unknown field.
    pub fn only(&self, known: &[&str]) -> Result<(), LoadError> {
        match self.fields().find(|(name, _)| !known.contains(name)) {
            Some((name, value)) => Err(self.refuse(name, format!("is not understood (value {}); known here: {}", short(value), known.join(", ")))),
            None => Ok(()),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// Anything else but absence.
    pub fn usize(&self, field: &str) -> Result<Option<usize>, LoadError> {
        self.typed(field, "a whole number that is not negative", |value| value.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    /// A number.
    ///
    /// # Errors
    /// Anything else but absence.
    pub fn f64(&self, field: &str) -> Result<Option<f64>, LoadError> {
        self.typed(field, "a number", Value::as_f64)
    }

    /// True or false.
    ///
    /// # Errors
    /// Anything else but absence.
    pub fn bool(&self, field: &str) -> Result<Option<bool>, LoadError> {
        self.typed(field, "true or false", Value::as_bool)
    }

    /// A text.
    ///
    /// # Errors
    /// Anything else but absence.
    pub fn str(&self, field: &str) -> Result<Option<&str>, LoadError> {
        self.typed(field, "a string", Value::as_str)
    }

    /// An object.
    ///
    /// # Errors
    /// Anything else but absence.
    pub fn object(&self, field: &str) -> Result<Option<&Map<String, Value>>, LoadError> {
        self.typed(field, "an object", Value::as_object)
    }

    /// A list.
    ///
    /// # Errors
    /// Anything else but absence.
    pub fn list(&self, field: &str) -> Result<Option<&[Value]>, LoadError> {
        self.typed(field, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    fn typed<'a, T>(&'a self, field: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, LoadError> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.refuse(field, format!("must be {kind}, but is {}", short(value)))),
        }
    }
}

/// The bytes of a file; `None` if it is not there.
///
/// # Errors
/// Unreadable, or larger than `MAX_JSON_BYTES`.
pub fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, LoadError> {
    let io = |source| LoadError::Io { file: path.display().to_string(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_JSON_BYTES {
        return Err(LoadError::file(path.display().to_string(), format!("is larger than {MAX_JSON_BYTES} bytes")));
    }
    Ok(Some(bytes))
}

/// A value as it appears in a message: cut, because a file may hold anything.
pub fn short(value: &Value) -> String {
    const MAX_CHARS: usize = 80;
    let text = value.to_string();
    if text.chars().count() <= MAX_CHARS { text } else { text.chars().take(MAX_CHARS).chain("...".chars()).collect() }
}
