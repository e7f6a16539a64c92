//! Token arrays in `input`, on the layer that takes them: read within a limit and turned into text at once.

use super::Scalar;
use crate::wire::Detail;
use crate::wire::scalar::{drain_list, drain_object};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// How token arrays are read.
#[derive(Clone, Copy)]
pub struct TokenArrays<'a> {
    /// The ids of all arrays of a request. Bounds their text too: an id stands for at most 128 bytes.
    pub max_ids: usize,
    /// The text that some ids stand for, or the sentence that refuses one of them.
    pub decode: &'a dyn Fn(&[u32]) -> Result<String, String>,
}

impl TokenArrays<'_> {
    /// The fault of a request with `ids` in all.
    pub(super) fn too_many(&self, ids: usize) -> Detail {
        Detail::token_sum(format!("holds {ids} tokens in all; at most {} are taken in one request", self.max_ids))
    }
}

/// One element of a list.
pub(super) enum Element<'de> {
    Scalar(Scalar<'de>),
    /// An array of `ids` token ids, and its text; no text where the request's limit is passed already.
    Tokens {
        ids: usize,
        text: Option<Result<String, String>>,
    },
    /// A list that is no array of ids; what it is.
    Wrong(&'static str),
}

/// Reads an element; decodes an array of no more than `left` ids.
#[derive(Clone, Copy)]
pub(super) struct ElementSeed<'a> {
    /// `None` = lists are just lists.
    pub(super) arrays: Option<TokenArrays<'a>>,
    pub(super) left: usize,
}

impl<'de> DeserializeSeed<'de> for ElementSeed<'_> {
    type Value = Element<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ElementSeed<'_> {
    type Value = Element<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let Some(arrays) = self.arrays else {
            drain_list(&mut list)?;
            return Ok(Element::Scalar(Scalar::List));
        };
        let (mut ids, mut total) = (Vec::new(), 0);
        while let Some(element) = list.next_element::<Scalar>()? {
            let Some(id) = token_id(&element) else {
                drain_list(&mut list)?;
                return Ok(Element::Wrong("a list with something else than token ids in it"));
            };
            total += 1;
            if total <= self.left {
                ids.push(id);
            }
        }
        let text = || (arrays.decode)(&ids);
        Ok(if total == 0 { Element::Wrong("an empty list") } else { Element::Tokens { ids: total, text: (total <= self.left).then(text) } })
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Element::Scalar(Scalar::Str(Cow::Borrowed(text))))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Element::Scalar(Scalar::Str(Cow::Owned(text.to_owned()))))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        drain_object(map)?;
        Ok(Element::Scalar(Scalar::Object))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Element::Scalar(Scalar::Null))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Element::Scalar(Scalar::Bool))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Element::Scalar(Scalar::Integer(number.into())))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Element::Scalar(Scalar::Integer(number.into())))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Element::Scalar(Scalar::Float(number)))
    }
}

/// A whole number that may be an id.
pub(super) fn token_id(element: &Scalar) -> Option<u32> {
    match element {
        Scalar::Integer(number) => u32::try_from(*number).ok(),
        _ => None,
    }
}
