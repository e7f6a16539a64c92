//! Small JSON objects, field by field: every field at fault is named, unknown ones are ignored, null is as absent.

use super::{Detail, Fault};
use jiff::Timestamp;
use serde_json::{Map, Value};

/// The longest name or other short text.
pub const MAX_NAME_CHARS: usize = 200;
/// Values of an object, those of its lists and objects included.
const MAX_VALUES: usize = 10_000;
/// Entries of a list of words.
const MAX_WORDS: usize = 1000;

/// An object being read.
#[derive(Debug)]
pub struct Object {
    fields: Map<String, Value>,
    faults: Vec<Detail>,
}

impl Object {
    /// Reads a body, whatever its Content-Type says.
    ///
    /// # Errors
    /// `Validation` on field `body` if it is not a JSON object.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
        // A value in memory is many times as large as in JSON. Commas inside of texts count too; such texts are short.
        if body.iter().filter(|byte| **byte == b',').count() > MAX_VALUES {
            return Err(Fault::field("body", format!("has more than {MAX_VALUES} values")));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self { fields, faults: Vec::new() }),
            Ok(_) => Err(Fault::field("body", "must be a JSON object")),
            Err(error) => Err(Fault::field("body", format!("is not valid JSON: {error}"))),
        }
    }

    /// Takes a field out; null counts as absent.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    /// Notes that a field cannot be accepted.
    pub fn fault(&mut self, name: &'static str, message: impl Into<String>) {
        self.faults.push(Detail::new(name, message));
    }

    /// A text of 1 to `MAX_NAME_CHARS` characters: one that can stand in a log, a table and in any store.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) if !text.is_empty() && text.chars().count() <= MAX_NAME_CHARS && !text.chars().any(char::is_control) => Some(text),
            _ => {
                self.fault(name, format!("must be a string of 1 to {MAX_NAME_CHARS} characters, none of them a control character"));
                None
            }
        }
    }

    /// The same, and it must be there.
    pub fn required_text(&mut self, name: &'static str) -> String {
        let before = self.faults.len();
        let text = self.text(name);
        if text.is_none() && self.faults.len() == before {
            self.fault(name, "is required");
        }
        text.unwrap_or_default()
    }

    /// A list of texts.
    pub fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let value = self.take(name)?;
        let list = value.as_array().filter(|list| list.len() <= MAX_WORDS);
        let texts: Option<Vec<String>> = list.and_then(|list| list.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        if texts.is_none() {
            self.fault(name, format!("must be a list of at most {MAX_WORDS} strings"));
        }
        texts
    }

    /// A whole number of at least 1.
    pub fn positive(&mut self, name: &'static str) -> Option<u32> {
        let number = self.take(name)?.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0);
        if number.is_none() {
            self.fault(name, format!("must be a whole number from 1 to {}", u32::MAX));
        }
        number
    }

    /// A time that is still to come at `now`.
    pub fn future(&mut self, name: &'static str, now: Timestamp) -> Option<Timestamp> {
        let value = self.take(name)?;
        let time = value.as_str().and_then(|text| text.parse().ok()).filter(|time| *time > now);
        if time.is_none() {
            self.fault(name, "must be a time to come, such as \"2030-01-01T00:00:00Z\"");
        }
        time
    }

    /// What was read, if nothing was at fault.
    ///
    /// # Errors
    /// `Validation` with every fault noted.
    pub fn finish<T>(self, read: T) -> Result<T, Fault> {
        if self.faults.is_empty() { Ok(read) } else { Err(Fault::Validation(self.faults)) }
    }
}
