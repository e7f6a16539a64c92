//! The embed answer, written straight from the vectors' buffer: shortest exact decimals or base64, no tree in between.

use super::Encoding;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;

/// The vectors of one answer.
#[derive(Debug, Clone, Copy)]
pub struct Vectors<'a> {
    /// `[B, dim]`, row-major.
    pub values: &'a [f32],
    /// At least 1.
    pub dim: usize,
    /// `[B]`: how many tokens the whole text has where it was cut, else `None`.
    pub original_tokens: &'a [Option<usize>],
    /// Tokens computed for all texts.
    pub prompt_tokens: usize,
}

/// Vectors that must not leave the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// NaN or infinity, which JSON cannot say and no client should store.
    #[error("vector {index} holds a number that is not finite")]
    NotFinite { index: usize },
    /// The buffer is not `[B, dim]`.
    #[error("{values} numbers are not {texts} vectors of {dim}")]
    WrongShape { values: usize, texts: usize, dim: usize },
}

/// The body of a successful native embed answer; `model` is echoed as the client sent it.
///
/// # Errors
/// If a value is not finite or the shape does not hold. Nothing may be sent then.
pub fn native_embed(vectors: &Vectors, encoding: Encoding, model: &str, request_id: &str) -> Result<Vec<u8>, Unwritable> {
    let mut out = begin(vectors, encoding, model.len())?;
    out.push_str(r#"{"status":"ok","data":{"model":"#);
    push_json_string(&mut out, model);
    out.push_str(r#","data":["#);
    push_items(&mut out, vectors, encoding, "");
    out.push_str("],");
    push_usage(&mut out, vectors.prompt_tokens);
    out.push_str(r#"},"meta":{"request_id":"#);
    push_json_string(&mut out, request_id);
    out.push_str("}}");
    Ok(out.into_bytes())
}

/// The body of a successful answer of the OpenAI layer.
///
/// # Errors
/// As [`native_embed`].
pub fn openai_embeddings(vectors: &Vectors, encoding: Encoding, model: &str) -> Result<Vec<u8>, Unwritable> {
    let mut out = begin(vectors, encoding, model.len())?;
    out.push_str(r#"{"object":"list","data":["#);
    push_items(&mut out, vectors, encoding, r#""object":"embedding","#);
    out.push_str(r#"],"model":"#);
    push_json_string(&mut out, model);
    out.push(',');
    push_usage(&mut out, vectors.prompt_tokens);
    out.push('}');
    Ok(out.into_bytes())
}

/// Room for the whole answer, if it may be written at all.
fn begin(vectors: &Vectors, encoding: Encoding, model_bytes: usize) -> Result<String, Unwritable> {
    check(vectors)?;
    Ok(String::with_capacity(expected_bytes(vectors, encoding) + model_bytes + 256))
}

/// The elements of `data`; `first` opens each of them.
fn push_items(out: &mut String, vectors: &Vectors, encoding: Encoding, first: &str) {
    let mut writer = RowWriter { encoding, decimal: zmij::Buffer::new(), bytes: Vec::new() };
    for (index, (row, original_tokens)) in vectors.values.chunks_exact(vectors.dim).zip(vectors.original_tokens).enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a String cannot fail, here and below.
        let _ = write!(out, r#"{comma}{{{first}"index":{index},"embedding":"#);
        writer.push(out, row);
        if let Some(original) = original_tokens {
            let _ = write!(out, r#","truncated":true,"original_tokens":{original}"#);
        }
        out.push('}');
    }
}

fn push_usage(out: &mut String, tokens: usize) {
    let _ = write!(out, r#""usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}"#);
}

fn check(vectors: &Vectors) -> Result<(), Unwritable> {
    let (values, texts, dim) = (vectors.values.len(), vectors.original_tokens.len(), vectors.dim);
    if dim == 0 || texts.checked_mul(dim) != Some(values) {
        return Err(Unwritable::WrongShape { values, texts, dim });
    }
    match vectors.values.iter().position(|value| !value.is_finite()) {
        Some(place) => Err(Unwritable::NotFinite { index: place / dim }),
        None => Ok(()),
    }
}

/// Unit vectors need about 12 characters a number: sign, "0.0", up to 9 digits, comma.
fn expected_bytes(vectors: &Vectors, encoding: Encoding) -> usize {
    let per_text = match encoding {
        Encoding::Float => vectors.dim * 13,
        Encoding::Base64 => vectors.dim * 4 * 4 / 3 + 8,
    };
    vectors.original_tokens.len() * (per_text + 72)
}

struct RowWriter {
    encoding: Encoding,
    decimal: zmij::Buffer,
    /// One row's little-endian bytes.
    bytes: Vec<u8>,
}

impl RowWriter {
    fn push(&mut self, out: &mut String, row: &[f32]) {
        match self.encoding {
            Encoding::Float => {
                out.push('[');
                for (column, value) in row.iter().enumerate() {
                    if column > 0 {
                        out.push(',');
                    }
                    out.push_str(self.decimal.format_finite(*value));
                }
                out.push(']');
            }
            Encoding::Base64 => {
                self.bytes.clear();
                self.bytes.extend(row.iter().flat_map(|value| value.to_le_bytes()));
                out.push('"');
                STANDARD.encode_string(&self.bytes, out);
                out.push('"');
            }
        }
    }
}

fn push_json_string(out: &mut String, text: &str) {
    // A str always serialises.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn one(values: &[f32], encoding: Encoding) -> Value {
        let vectors = Vectors { values, dim: values.len(), original_tokens: &[None], prompt_tokens: 3 };
        serde_json::from_slice(&native_embed(&vectors, encoding, "m", "req_1").unwrap()).unwrap()
    }

    #[test]
    fn the_envelope_has_exactly_the_contracts_keys() {
        let vectors = Vectors { values: &[0.6, 0.8, 0.0, 1.0], dim: 2, original_tokens: &[None, Some(900)], prompt_tokens: 11 };
        let body = native_embed(&vectors, Encoding::Float, "open\"ai/\u{e9}", "req_1").unwrap();
        let expected = json!({
            "status": "ok",
            "data": {
                "model": "open\"ai/\u{e9}",
                "data": [
                    {"index": 0, "embedding": [0.6, 0.8]},
                    {"index": 1, "embedding": [0.0, 1.0], "truncated": true, "original_tokens": 900},
                ],
                "usage": {"prompt_tokens": 11, "total_tokens": 11},
            },
            "meta": {"request_id": "req_1"},
        });
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
    }

    #[test]
    fn the_openai_form_has_exactly_the_specifications_keys() {
        let vectors = Vectors { values: &[0.6, 0.8, 0.0, 1.0], dim: 2, original_tokens: &[None, Some(900)], prompt_tokens: 11 };
        let body = openai_embeddings(&vectors, Encoding::Float, "m\"").unwrap();
        let expected = json!({
            "object": "list",
            "data": [
                {"object": "embedding", "index": 0, "embedding": [0.6, 0.8]},
                {"object": "embedding", "index": 1, "embedding": [0.0, 1.0], "truncated": true, "original_tokens": 900},
            ],
            "model": "m\"",
            "usage": {"prompt_tokens": 11, "total_tokens": 11},
        });
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
        let bad = Vectors { values: &[f32::NAN], dim: 1, original_tokens: &[None], prompt_tokens: 1 };
        assert_eq!(openai_embeddings(&bad, Encoding::Base64, "m"), Err(Unwritable::NotFinite { index: 0 }));
    }

    #[test]
    fn what_is_not_finite_or_not_square_is_never_written() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for encoding in [Encoding::Float, Encoding::Base64] {
                let vectors = Vectors { values: &[1.0, 2.0, 3.0, bad], dim: 2, original_tokens: &[None, None], prompt_tokens: 1 };
                assert_eq!(native_embed(&vectors, encoding, "m", "r"), Err(Unwritable::NotFinite { index: 1 }));
            }
        }
        for (values, dim, texts) in [(3, 2, 1), (4, 2, 1), (0, 0, 1), (2, 0, 0), (2, 2, 2)] {
            let vectors = Vectors { values: &vec![0.0; values], dim, original_tokens: &vec![None; texts], prompt_tokens: 1 };
            assert_eq!(native_embed(&vectors, Encoding::Float, "m", "r"), Err(Unwritable::WrongShape { values, texts, dim }));
        }
    }

    #[test]
    fn numbers_are_as_short_as_they_can_be() {
        let vectors = Vectors { values: &[0.1, -0.25, 3.0, 1e-7, 1e30, -0.0], dim: 6, original_tokens: &[None], prompt_tokens: 1 };
        let body = String::from_utf8(native_embed(&vectors, Encoding::Float, "m", "r").unwrap()).unwrap();
        let list = &body[body.find('[').unwrap() + 1..];
        let list = &list[list.find('[').unwrap() + 1..list.find(']').unwrap()];
        assert_eq!(list, "0.1,-0.25,3.0,1e-7,1e+30,-0.0");
    }

    #[test]
    fn the_buffer_is_large_enough_for_unit_vectors() {
        let values: Vec<f32> = (0..384).map(|n| (n as f32 * 0.7).sin() * 0.0513).collect();
        let vectors = Vectors { values: &values, dim: 384, original_tokens: &[None], prompt_tokens: 1 };
        for encoding in [Encoding::Float, Encoding::Base64] {
            let body = native_embed(&vectors, encoding, "m", "r").unwrap();
            assert!(body.len() <= expected_bytes(&vectors, encoding) + 256, "{encoding:?}: {}", body.len());
        }
    }

    proptest! {
        #[test]
        fn every_finite_number_comes_back_bit_for_bit(bits in prop::collection::vec(any::<u32>(), 1..64)) {
            let values: Vec<f32> = bits.into_iter().map(f32::from_bits).filter(|value| value.is_finite()).collect();
            prop_assume!(!values.is_empty());
            let expected: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
            let body = one(&values, Encoding::Float);
            // Read as f32 from the text itself: a detour over f64 would round twice.
            let text = body["data"]["data"][0]["embedding"].to_string();
            let floats: Vec<u32> = text.trim_matches(['[', ']']).split(',').map(|n| n.parse::<f32>().unwrap().to_bits()).collect();
            prop_assert_eq!(&floats, &expected);
            let body = one(&values, Encoding::Base64);
            let bytes = STANDARD.decode(body["data"]["data"][0]["embedding"].as_str().unwrap()).unwrap();
            let floats: Vec<u32> = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            prop_assert_eq!(&floats, &expected);
        }
    }
}
