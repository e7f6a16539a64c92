//! The field `input`: one string or a list of strings, counted and judged while it is read, so that a hostile list costs no memory.

use super::{Limits, MAX_DETAILS, Scalar, drain_object};
use crate::wire::Detail;
use crate::wire::scalar::drain_list;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// What `input` held.
pub(super) enum Input {
    One(String),
    Many(List),
    /// Something that is no text at all; what it is.
    Wrong(&'static str),
}

/// A list as it was read.
#[derive(Default)]
pub(super) struct List {
    /// The strings among the first `max_texts` elements.
    texts: Vec<String>,
    /// How many elements there were in all.
    total: usize,
    /// Numbers among the first `max_texts` elements: token ids, most likely.
    numbers: usize,
    /// Lists among them.
    lists: usize,
    /// Where the empty strings are; the first `MAX_DETAILS` of them.
    empty: Vec<usize>,
    empty_total: usize,
    /// Where something other than a string is, and what; the first `MAX_DETAILS` of them.
    wrong: Vec<(usize, &'static str)>,
    wrong_total: usize,
}

impl List {
    fn take(&mut self, element: Scalar) {
        let index = self.total;
        self.total += 1;
        let other = match element {
            Scalar::Str(text) => {
                if text.is_empty() {
                    self.empty_total += 1;
                    push_capped(&mut self.empty, index);
                }
                self.texts.push(text.into_owned());
                return;
            }
            other => other,
        };
        match other {
            Scalar::Integer(_) | Scalar::Float(_) => self.numbers += 1,
            Scalar::List => self.lists += 1,
            _ => {}
        }
        self.wrong_total += 1;
        push_capped(&mut self.wrong, (index, other.kind()));
    }
}

fn push_capped<T>(list: &mut Vec<T>, item: T) {
    if list.len() < MAX_DETAILS {
        list.push(item);
    }
}

/// The texts, or every fault of the field.
pub(super) fn check(input: Option<Input>, limits: Limits, empty_ok: bool) -> Result<Vec<String>, Vec<Detail>> {
    let fault = |message: String| Err(vec![Detail::new("input", message)]);
    match input {
        None => fault("is required".to_owned()),
        Some(Input::Wrong(kind)) => fault(format!("must be a string or a list of strings, not {kind}")),
        Some(Input::One(text)) if text.is_empty() && !empty_ok => fault("must not be empty".to_owned()),
        Some(Input::One(text)) => Ok(vec![text]),
        Some(Input::Many(list)) => check_list(list, limits, empty_ok),
    }
}

fn check_list(mut list: List, limits: Limits, empty_ok: bool) -> Result<Vec<String>, Vec<Detail>> {
    let fault = |message: String| Err(vec![Detail::new("input", message)]);
    let seen = list.total.min(limits.max_texts);
    if list.total == 0 {
        return fault("must hold at least one text".to_owned());
    }
    if seen > 0 && list.numbers == seen {
        return fault("must be a string or a list of strings; lists of token ids are not taken here".to_owned());
    }
    if seen > 0 && list.lists == seen {
        return fault("must be a string or a list of strings, not a list of lists".to_owned());
    }
    if empty_ok {
        list.empty.clear();
        list.empty_total = 0;
    }
    let mut faults = Vec::new();
    if list.total > limits.max_texts {
        faults.push(Detail::new("input", format!("holds {} texts; at most {} are taken in one request", list.total, limits.max_texts)));
    }
    faults.extend(element_faults(&list));
    if faults.is_empty() { Ok(list.texts) } else { Err(faults) }
}

/// One fault per element, in order, up to `MAX_DETAILS`; then one that counts the rest.
fn element_faults(list: &List) -> Vec<Detail> {
    let empty = list.empty.iter().map(|index| (*index, "must not be empty".to_owned()));
    let wrong = list.wrong.iter().map(|(index, kind)| (*index, format!("must be a string, not {kind}")));
    let mut faults: Vec<(usize, String)> = empty.chain(wrong).collect();
    faults.sort_by_key(|(index, _)| *index);
    faults.truncate(MAX_DETAILS);
    let rest = list.empty_total + list.wrong_total - faults.len();
    let mut details: Vec<Detail> = faults.into_iter().map(|(index, message)| Detail::new(format!("input.{index}"), message)).collect();
    if rest > 0 {
        details.push(Detail::new("input", format!("{rest} more texts cannot be accepted; only the first {MAX_DETAILS} are listed")));
    }
    details
}

/// Reads `input`; keeps at most `max_texts` elements of a list.
pub(super) struct InputSeed {
    pub(super) max_texts: usize,
}

impl<'de> DeserializeSeed<'de> for InputSeed {
    type Value = Input;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Input, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for InputSeed {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Input, E> {
        Ok(Input::One(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Input, A::Error> {
        let mut list = List::default();
        while list.total < self.max_texts {
            match elements.next_element::<Scalar>()? {
                Some(element) => list.take(element),
                None => return Ok(Input::Many(list)),
            }
        }
        list.total += drain_list(&mut elements)?;
        Ok(Input::Many(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Input, A::Error> {
        drain_object(map)?;
        Ok(Input::Wrong("an object"))
    }

    fn visit_unit<E: Error>(self) -> Result<Input, E> {
        Ok(Input::Wrong("null"))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Input, E> {
        Ok(Input::Wrong("a boolean"))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Input, E> {
        Ok(Input::Wrong("a number"))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Input, E> {
        Ok(Input::Wrong("a number"))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Input, E> {
        Ok(Input::Wrong("a number"))
    }
}
