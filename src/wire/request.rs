//! The embed request from its bytes: one pass, no tree in between, every field at fault named at once.

use super::scalar::{Scalar, drain_object};
use super::{Detail, Fault, Truncate};
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use std::fmt;

mod input;
mod line;
mod tokens;
use input::{Input, InputSeed, Rules};
pub use tokens::TokenArrays;

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Encoding {
    /// A list of JSON numbers.
    #[default]
    Float,
    /// One string: the vector's little-endian f32 bytes in standard base64.
    Base64,
}

/// A request whose fields have been checked one by one, but not against a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedRequest {
    /// The model as the client named it; not empty.
    pub model: String,
    /// At least one, at most `Limits::max_texts`; empty texts only where the model takes them.
    pub texts: Vec<String>,
    /// At least 1; saturated at `usize::MAX`. `None` = native.
    pub dimensions: Option<usize>,
    pub encoding: Encoding,
    /// `None` = the model's own policy.
    pub truncate: Option<Truncate>,
    /// `None` = the model's default.
    pub input_type: Option<String>,
    /// The embedding space that the client's other vectors lie in; `None` = it does not say.
    pub expect_space: Option<String>,
}

/// What a request may hold at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Texts in `input`.
    pub max_texts: usize,
}

/// How many fields at fault are listed; the rest is only counted, so that an answer cannot outgrow its request.
const MAX_DETAILS: usize = 32;

/// Where a request's body is.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// These bytes, as they came.
    Whole(&'a [u8]),
    /// The field `body` of a batch job's line.
    OfLine(&'a [u8]),
}

impl<'a> From<&'a [u8]> for Body<'a> {
    fn from(body: &'a [u8]) -> Self {
        Self::Whole(body)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Body<'a> {
    fn from(body: &'a [u8; N]) -> Self {
        Self::Whole(body)
    }
}

/// Reads a request body, whatever its Content-Type says.
///
/// `accepts_empty` is asked once, with the model's name as sent, whether that model embeds empty texts.
///
/// # Errors
/// `Fault::Validation`: on field `body` if this is not a JSON object in UTF-8, else with every field at fault.
pub fn parse<'a>(body: impl Into<Body<'a>>, limits: Limits, accepts_empty: impl FnOnce(&str) -> bool) -> Result<EmbedRequest, Fault> {
    parse_by(body.into(), Rules { limits, arrays: None }, accepts_empty)
}

/// Reads a request body of the OpenAI layer, where `input` may also be one array of token ids or a list of them. They come out as texts.
///
/// # Errors
/// As [`parse`]; and for ids that stand for nothing, or that are too many.
pub fn parse_openai<'a>(
    body: impl Into<Body<'a>>,
    limits: Limits,
    arrays: TokenArrays,
    accepts_empty: impl FnOnce(&str) -> bool,
) -> Result<EmbedRequest, Fault> {
    parse_by(body.into(), Rules { limits, arrays: Some(arrays) }, accepts_empty)
}

fn parse_by(body: Body, rules: Rules, accepts_empty: impl FnOnce(&str) -> bool) -> Result<EmbedRequest, Fault> {
    let fields = read(body, rules).map_err(|message| Fault::field("body", message))?;
    let mut faults = Vec::new();
    let model = note(&mut faults, model(fields.model));
    let empty_ok = model.as_deref().is_some_and(accepts_empty);
    let texts = match input::check(fields.input, rules, empty_ok) {
        Ok(texts) => Some(texts),
        Err(found) => {
            faults.extend(found);
            None
        }
    };
    let dimensions = note(&mut faults, dimensions(fields.dimensions)).flatten();
    let encoding = note(&mut faults, encoding(fields.encoding_format)).unwrap_or_default();
    let truncate = note(&mut faults, truncate(fields.truncate)).flatten();
    let input_type = note(&mut faults, text("input_type", fields.input_type)).flatten();
    let expect_space = note(&mut faults, text("expect_space", fields.expect_space)).flatten();
    match (model, texts) {
        (Some(model), Some(texts)) if faults.is_empty() => {
            Ok(EmbedRequest { model, texts, dimensions, encoding, truncate, input_type, expect_space })
        }
        _ => Err(Fault::Validation(faults)),
    }
}

fn note<T>(faults: &mut Vec<Detail>, checked: Result<T, Detail>) -> Option<T> {
    checked.map_err(|fault| faults.push(fault)).ok()
}

fn read<'de>(body: Body<'de>, rules: Rules) -> Result<Fields<'de>, String> {
    let (body, of_line) = match body {
        Body::Whole(body) => (body, false),
        Body::OfLine(line) => (line, true),
    };
    let text = std::str::from_utf8(body).map_err(|error| format!("is not UTF-8 (byte {})", error.valid_up_to()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_ascii().is_empty() {
        return Err("is empty; send a JSON object".to_owned());
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let fields = if of_line { json.deserialize_any(line::LineVisitor { rules }) } else { json.deserialize_any(FieldsVisitor { rules }) };
    let fields = fields.and_then(|fields| json.end().map(|()| fields));
    fields.map_err(|error| match error.classify() {
        // The only error of this kind is a value other than an object; its own message would repeat that value.
        serde_json::error::Category::Data => "must be a JSON object".to_owned(),
        _ => format!("is not valid JSON: {error}"),
    })
}

/// The fields as they came. Of a field given twice the last one counts, as everywhere in JSON.
#[derive(Default)]
struct Fields<'de> {
    model: Option<Scalar<'de>>,
    input: Option<Input>,
    dimensions: Option<Scalar<'de>>,
    encoding_format: Option<Scalar<'de>>,
    truncate: Option<Scalar<'de>>,
    input_type: Option<Scalar<'de>>,
    expect_space: Option<Scalar<'de>>,
}

struct FieldsVisitor<'a> {
    rules: Rules<'a>,
}

impl<'de> Visitor<'de> for FieldsVisitor<'_> {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Model => fields.model = Some(map.next_value()?),
                Key::Input => {
                    // The texts of an earlier `input` go before those of the next are read: one body's worth in memory at a time.
                    fields.input = None;
                    fields.input = Some(map.next_value_seed(InputSeed(self.rules))?);
                }
                Key::Dimensions => fields.dimensions = Some(map.next_value()?),
                Key::EncodingFormat => fields.encoding_format = Some(map.next_value()?),
                Key::Truncate => fields.truncate = Some(map.next_value()?),
                Key::InputType => fields.input_type = Some(map.next_value()?),
                Key::ExpectSpace => fields.expect_space = Some(map.next_value()?),
                Key::Unknown => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(fields)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        // Read on, so that broken JSON is called broken JSON.
        super::scalar::drain_list(&mut list)?;
        Err(A::Error::custom("not an object"))
    }
}

enum Key {
    Model,
    Input,
    Dimensions,
    EncodingFormat,
    Truncate,
    InputType,
    ExpectSpace,
    Unknown,
}

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a field's name")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
                Ok(match name {
                    "model" => Key::Model,
                    "input" => Key::Input,
                    "dimensions" => Key::Dimensions,
                    "encoding_format" => Key::EncodingFormat,
                    "truncate" => Key::Truncate,
                    "input_type" => Key::InputType,
                    "expect_space" => Key::ExpectSpace,
                    _ => Key::Unknown,
                })
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

fn model(value: Option<Scalar>) -> Result<String, Detail> {
    match value {
        Some(Scalar::Str(name)) if name.is_empty() => Err(Detail::new("model", "must not be empty")),
        Some(Scalar::Str(name)) => Ok(name.into_owned()),
        Some(other) => Err(Detail::new("model", format!("must be a string, not {}", other.kind()))),
        None => Err(Detail::new("model", "is required")),
    }
}

fn dimensions(value: Option<Scalar>) -> Result<Option<usize>, Detail> {
    let fault = |message: String| Err(Detail::new("dimensions", message));
    let number = match value {
        None | Some(Scalar::Null) => return Ok(None),
        Some(Scalar::Integer(number)) => number,
        Some(Scalar::Float(number)) if number.fract() == 0.0 => number as i128,
        Some(Scalar::Float(number)) => return fault(format!("must be a whole number; got {number}")),
        Some(Scalar::Str(text)) => match whole_number(&text) {
            Some(number) => number,
            None => return fault("must be a whole number, not this string".to_owned()),
        },
        Some(other) => return fault(format!("must be a whole number, not {}", other.kind())),
    };
    if number < 1 { fault(format!("must be at least 1; got {number}")) } else { Ok(Some(usize::try_from(number).unwrap_or(usize::MAX))) }
}

/// `"512"`, and `"512.0"` as Pydantic's lax mode takes it.
fn whole_number(text: &str) -> Option<i128> {
    let text = text.trim();
    let digits = match text.split_once('.') {
        Some((digits, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => digits,
        Some(_) => return None,
        None => text,
    };
    digits.parse().ok()
}

fn encoding(value: Option<Scalar>) -> Result<Encoding, Detail> {
    match value {
        None | Some(Scalar::Null) => Ok(Encoding::Float),
        Some(Scalar::Str(name)) if name == "float" => Ok(Encoding::Float),
        Some(Scalar::Str(name)) if name == "base64" => Ok(Encoding::Base64),
        Some(_) => Err(Detail::new("encoding_format", "must be `float` or `base64`")),
    }
}

fn truncate(value: Option<Scalar>) -> Result<Option<Truncate>, Detail> {
    match value {
        None | Some(Scalar::Null) => Ok(None),
        Some(Scalar::Str(name)) if name == "none" => Ok(Some(Truncate::None)),
        Some(Scalar::Str(name)) if name == "end" => Ok(Some(Truncate::End)),
        Some(Scalar::Str(name)) if name == "start" => Ok(Some(Truncate::Start)),
        Some(_) => Err(Detail::new("truncate", "must be `none`, `end` or `start`")),
    }
}

fn text(field: &'static str, value: Option<Scalar>) -> Result<Option<String>, Detail> {
    match value {
        None | Some(Scalar::Null) => Ok(None),
        Some(Scalar::Str(text)) => Ok(Some(text.into_owned())),
        Some(other) => Err(Detail::new(field, format!("must be a string, not {}", other.kind()))),
    }
}

#[cfg(test)]
mod tests;
