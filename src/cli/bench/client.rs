//! One request of the load generator: send it, read the whole answer, and judge it.

use super::Flags;
use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The lowest cosine at which two vectors count as the same text's.
const SAME_COSINE: f64 = 0.99999;

/// How a request ended.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// A complete and plausible answer.
    Ok { texts: u64, tokens: u64 },
    /// 429: the server is full and says when to come back.
    Busy,
    /// Another status, a lost connection, or no answer in time: what to file it under.
    Failed(String),
    /// An answer that must not be: what is wrong with it.
    Wrong(String),
}

/// The server under load, and all that was learnt from its answers.
pub struct Target {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    model: String,
    /// Optional fields of the request.
    extra: serde_json::Map<String, serde_json::Value>,
    texts: Vec<String>,
    /// The vector size of the first answer; all others must have it.
    dimensions: OnceLock<usize>,
    /// `--check`: the first vector seen for each text.
    first: Option<Vec<OnceLock<Vec<f32>>>>,
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    data: Vec<Item>,
    usage: Usage,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Vector,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u64,
}

/// A vector written as a list of numbers or as base64 of little-endian f32.
struct Vector(Vec<f32>);

impl Target {
    /// The server named by the flags; `texts` is what requests take in turn.
    ///
    /// # Errors
    /// An address that is not plain HTTP, or a key that no header can carry.
    pub fn new(flags: &Flags, texts: Vec<String>) -> anyhow::Result<Arc<Self>> {
        let base: Uri = flags.url.parse().with_context(|| format!("--url {}: not an address", flags.url))?;
        ensure!(base.scheme_str() == Some("http") && base.host().is_some(), "--url {}: must be http://HOST:PORT", flags.url);
        let uri = format!("{}/v1/inference/embed", flags.url.trim_end_matches('/')).parse().context("--url")?;
        let authorization = match &flags.key {
            Some(key) => Some(HeaderValue::from_str(&format!("Bearer {key}")).context("--key holds a character that no header can carry")?),
            None => None,
        };
        let mut extra = serde_json::Map::new();
        let strings = [("truncate", &flags.truncate), ("encoding_format", &flags.encoding_format)];
        extra.extend(strings.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.as_deref()?.into()))));
        extra.extend(flags.dimensions.map(|n| ("dimensions".to_owned(), n.into())));
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Ok(Arc::new(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            uri,
            authorization,
            timeout: flags.timeout,
            model: flags.model.clone(),
            extra,
            dimensions: OnceLock::new(),
            first: flags.check.then(|| texts.iter().map(|_| OnceLock::new()).collect()),
            texts,
        }))
    }

    /// How many texts there are.
    pub fn pool(&self) -> usize {
        self.texts.len()
    }

    /// Sends the texts of these numbers in one request and judges the answer.
    pub async fn ask(&self, numbers: &[usize]) -> Outcome {
        match tokio::time::timeout(self.timeout, self.exchange(numbers)).await {
            Err(_) => Outcome::Failed(format!("no answer within {:?}", self.timeout)),
            Ok(Err(failed)) => Outcome::Failed(failed),
            Ok(Ok((StatusCode::OK, _, body))) => self.judge(numbers, &body),
            Ok(Ok((StatusCode::TOO_MANY_REQUESTS, true, _))) => Outcome::Busy,
            Ok(Ok((StatusCode::TOO_MANY_REQUESTS, false, _))) => Outcome::Wrong("429 without Retry-After".to_owned()),
            Ok(Ok((status, _, body))) => Outcome::Failed(format!("{} {}", status.as_u16(), code(&body))),
        }
    }

    /// Status, whether `Retry-After` was there, and the body; or why there is none.
    async fn exchange(&self, numbers: &[usize]) -> Result<(StatusCode, bool, Bytes), String> {
        let input: Vec<&str> = numbers.iter().map(|&n| self.texts[n].as_str()).collect();
        let mut body = self.extra.clone();
        body.insert("model".to_owned(), self.model.as_str().into());
        body.insert("input".to_owned(), input.into());
        let body = serde_json::to_vec(&body).map_err(|e| e.to_string())?;
        let mut request = Request::post(self.uri.clone()).header(CONTENT_TYPE, "application/json");
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|e| e.to_string())?;
        let response =
            self.client.request(request).await.map_err(|e| if e.is_connect() { "connect" } else { "connection lost before the answer" })?;
        let (status, retry_after) = (response.status(), response.headers().contains_key(RETRY_AFTER));
        let body = response.into_body().collect().await.map_err(|_| "connection lost in the answer")?;
        Ok((status, retry_after, body.to_bytes()))
    }

    /// Whether a 200 is what it should be: one vector per text, in order, all of one size, all finite, and each its own text's.
    fn judge(&self, numbers: &[usize], body: &[u8]) -> Outcome {
        let data = match serde_json::from_slice::<Answer>(body) {
            Ok(answer) => answer.data,
            Err(e) => return Outcome::Wrong(format!("unreadable answer: {e}")),
        };
        if data.data.len() != numbers.len() {
            return Outcome::Wrong("another number of vectors than of texts".to_owned());
        }
        for (place, (item, &number)) in data.data.iter().zip(numbers).enumerate() {
            let vector = &item.embedding.0;
            if item.index != place {
                return Outcome::Wrong("vectors out of order".to_owned());
            }
            if vector.is_empty() || vector.len() != *self.dimensions.get_or_init(|| vector.len()) {
                return Outcome::Wrong("vectors of different sizes".to_owned());
            }
            if !vector.iter().all(|x| x.is_finite()) {
                return Outcome::Wrong("a number that is not finite".to_owned());
            }
            if let Some(first) = &self.first
                && cosine(first[number].get_or_init(|| vector.clone()), vector) < SAME_COSINE
            {
                return Outcome::Wrong("another vector than before for the same text".to_owned());
            }
        }
        Outcome::Ok { texts: numbers.len() as u64, tokens: data.usage.prompt_tokens }
    }
}

/// The error code of an error answer, or nothing where it has none.
fn code(body: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    value["error"]["code"].as_str().unwrap_or("(not the error envelope)").to_owned()
}

/// Cosine of two vectors; two all-zero ones count as equal.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { f64::from(dot(a, a) == dot(b, b)) }
}

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> serde::de::Visitor<'de> for Reader {
            type Value = Vector;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a list of numbers or base64")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut numbers: A) -> Result<Vector, A::Error> {
                let mut vector = Vec::with_capacity(1024);
                while let Some(number) = numbers.next_element()? {
                    vector.push(number);
                }
                Ok(Vector(vector))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vector, E> {
                let bytes = STANDARD.decode(text).map_err(E::custom)?;
                let (numbers, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(E::custom("base64 of a broken number"));
                }
                Ok(Vector(numbers.iter().map(|four| f32::from_le_bytes(*four)).collect()))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn target(args: &[&str]) -> Arc<Target> {
        let line = Line::try_parse_from([&["bench", "--model", "m", "--concurrency", "1"], args].concat()).unwrap();
        Target::new(&line.flags, vec!["a".into(), "b".into()]).unwrap()
    }

    fn answer(items: &[(usize, &str)]) -> Vec<u8> {
        let items: Vec<String> = items.iter().map(|(index, vector)| format!(r#"{{"index":{index},"embedding":{vector}}}"#)).collect();
        let items = items.join(",");
        format!(r#"{{"status":"ok","data":{{"model":"m","data":[{items}],"usage":{{"prompt_tokens":5,"total_tokens":5}}}}}}"#).into_bytes()
    }

    fn wrong(outcome: Outcome) -> String {
        match outcome {
            Outcome::Wrong(why) => why,
            other => panic!("{other:?} should be wrong"),
        }
    }

    #[test]
    fn a_whole_answer_is_counted_in_both_notations() {
        let both = answer(&[(0, "[0.6,0.8]"), (1, "\"AACAPwAAAAA=\"")]);
        assert_eq!(target(&["--check"]).judge(&[0, 1], &both), Outcome::Ok { texts: 2, tokens: 5 });
    }

    #[test]
    fn answers_that_must_not_be_are_told_apart() {
        let target = target(&["--check"]);
        assert_eq!(target.judge(&[0], &answer(&[(0, "[0.6,0.8]")])), Outcome::Ok { texts: 1, tokens: 5 });
        assert!(wrong(target.judge(&[0, 1], &answer(&[(0, "[0.6,0.8]")]))).contains("number of vectors"));
        assert!(wrong(target.judge(&[0, 1], &answer(&[(1, "[0.6,0.8]"), (0, "[1,0]")]))).contains("order"));
        assert!(wrong(target.judge(&[1], &answer(&[(0, "[1]")]))).contains("sizes"));
        assert!(wrong(target.judge(&[1], &answer(&[(0, "[1,1e99]")]))).contains("finite"));
        assert!(wrong(target.judge(&[1], &answer(&[(0, "[1,null]")]))).contains("unreadable"));
        assert!(wrong(target.judge(&[0], &answer(&[(0, "[0.8,0.6]")]))).contains("same text"));
    }

    #[test]
    fn without_check_vectors_are_not_compared() {
        let target = target(&[]);
        target.judge(&[0], &answer(&[(0, "[0.6,0.8]")]));
        assert_eq!(target.judge(&[0], &answer(&[(0, "[0.8,0.6]")])), Outcome::Ok { texts: 1, tokens: 5 });
    }

    #[test]
    fn only_plain_http_is_taken() {
        for url in ["https://x", "x", "http://", "/v1"] {
            let line = Line::try_parse_from(["bench", "--model", "m", "--concurrency", "1", "--url", url]).unwrap();
            assert!(Target::new(&line.flags, vec![]).is_err(), "{url}");
        }
    }

    #[test]
    fn an_error_answer_is_filed_under_its_code() {
        assert_eq!(code(br#"{"status":"error","error":{"code":"MODEL_UNAVAILABLE"}}"#), "MODEL_UNAVAILABLE");
        assert_eq!(code(b"<html>"), "(not the error envelope)");
    }
}
