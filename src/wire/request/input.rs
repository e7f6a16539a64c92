//! The field `input`: one string or a list of strings, counted and judged while it is read, so that a hostile list costs no memory.

use super::tokens::{Element, ElementSeed, TokenArrays, token_id};
use super::{Limits, MAX_DETAILS, Scalar, drain_object};
use crate::wire::Detail;
use crate::wire::scalar::drain_list;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// What `input` held.
pub(super) enum Input {
    One(String),
    Many(List),
    /// One text, as token ids; the text or its fault.
    Tokens(Result<String, Detail>),
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
    /// As long as every element may be a token id, on a layer that takes those: the ids, up to the limit.
    ids: Vec<u32>,
    /// Token arrays among the elements.
    arrays: usize,
    /// Ids in all token arrays together.
    ids_total: usize,
    /// Where a token array has no text, and why; the first `MAX_DETAILS` of them.
    unknown: Vec<(usize, String)>,
    unknown_total: usize,
    /// Where the empty strings are; the first `MAX_DETAILS` of them.
    empty: Vec<usize>,
    empty_total: usize,
    /// Where something other than a string is, and what; the first `MAX_DETAILS` of them.
    wrong: Vec<(usize, &'static str)>,
    wrong_total: usize,
}

impl List {
    fn take(&mut self, element: Element) {
        let index = self.total;
        self.total += 1;
        let wrong = match element {
            Element::Scalar(Scalar::Str(text)) => return self.take_text(index, text.into_owned()),
            Element::Tokens { ids, text } => return self.take_tokens(index, ids, text),
            Element::Wrong(kind) => {
                self.lists += 1;
                kind
            }
            Element::Scalar(other) => {
                match other {
                    Scalar::Integer(_) | Scalar::Float(_) => self.numbers += 1,
                    Scalar::List => self.lists += 1,
                    _ => {}
                }
                other.kind()
            }
        };
        self.wrong_total += 1;
        push_capped(&mut self.wrong, (index, wrong));
    }

    fn take_text(&mut self, index: usize, text: String) {
        if text.is_empty() {
            self.empty_total += 1;
            push_capped(&mut self.empty, index);
        }
        self.texts.push(text);
    }

    fn take_tokens(&mut self, index: usize, ids: usize, text: Option<Result<String, String>>) {
        self.arrays += 1;
        self.ids_total += ids;
        match text {
            Some(Ok(text)) => self.take_text(index, text),
            Some(Err(message)) => {
                self.unknown_total += 1;
                push_capped(&mut self.unknown, (index, message));
            }
            None => {}
        }
    }
}

fn push_capped<T>(list: &mut Vec<T>, item: T) {
    if list.len() < MAX_DETAILS {
        list.push(item);
    }
}

/// The texts, or every fault of the field.
pub(super) fn check(input: Option<Input>, rules: Rules, empty_ok: bool) -> Result<Vec<String>, Vec<Detail>> {
    let fault = |message: String| Err(vec![Detail::new("input", message)]);
    match input {
        None => fault("is required".to_owned()),
        Some(Input::Wrong(kind)) => fault(format!("must be a string or a list of strings, not {kind}")),
        Some(Input::One(text)) if text.is_empty() && !empty_ok => fault("must not be empty".to_owned()),
        Some(Input::One(text)) => Ok(vec![text]),
        Some(Input::Tokens(text)) => text.map(|text| vec![text]).map_err(|fault| vec![fault]),
        Some(Input::Many(list)) => check_list(list, rules, empty_ok),
    }
}

fn check_list(mut list: List, rules: Rules, empty_ok: bool) -> Result<Vec<String>, Vec<Detail>> {
    let fault = |message: String| Err(vec![Detail::new("input", message)]);
    let Rules { limits, arrays } = rules;
    let seen = list.total.min(limits.max_texts);
    if list.total == 0 {
        return fault("must hold at least one text".to_owned());
    }
    if arrays.is_some() && list.arrays > 0 && list.texts.len() > list.arrays {
        return fault("mixes strings and lists of token ids; send one kind".to_owned());
    }
    if seen > 0 && list.numbers == seen && arrays.is_none() {
        return fault("must be a string or a list of strings; lists of token ids are not taken here".to_owned());
    }
    if seen > 0 && list.numbers == seen {
        return fault("must hold token ids (whole numbers from 0 on) and nothing else, or strings".to_owned());
    }
    if seen > 0 && list.lists == seen && arrays.is_none() {
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
    faults.extend(arrays.filter(|arrays| list.ids_total > arrays.max_ids).map(|arrays| arrays.too_many(list.ids_total)));
    faults.extend(element_faults(&list, if arrays.is_some() { "a string or a list of token ids" } else { "a string" }));
    if faults.is_empty() { Ok(list.texts) } else { Err(faults) }
}

/// One fault per element, in order, up to `MAX_DETAILS`; then one that counts the rest.
fn element_faults(list: &List, wanted: &str) -> Vec<Detail> {
    let empty = list.empty.iter().map(|index| (*index, "must not be empty".to_owned()));
    let wrong = list.wrong.iter().map(|(index, kind)| (*index, format!("must be {wanted}, not {kind}")));
    let mut faults: Vec<(usize, String)> = empty.chain(wrong).chain(list.unknown.iter().cloned()).collect();
    faults.sort_by_key(|(index, _)| *index);
    faults.truncate(MAX_DETAILS);
    let rest = list.empty_total + list.wrong_total + list.unknown_total - faults.len();
    let mut details: Vec<Detail> = faults.into_iter().map(|(index, message)| Detail::new(format!("input.{index}"), message)).collect();
    if rest > 0 {
        details.push(Detail::new("input", format!("{rest} more texts cannot be accepted; only the first {MAX_DETAILS} are listed")));
    }
    details
}

/// What `input` may be.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) limits: Limits,
    /// `None` = no token arrays.
    pub(super) arrays: Option<TokenArrays<'a>>,
}

/// Reads `input`; keeps at most `max_texts` elements of a list, and as many token ids as are taken.
pub(super) struct InputSeed<'a>(pub(super) Rules<'a>);

impl InputSeed<'_> {
    /// A list of nothing but token ids is one text.
    fn finish(&self, list: List, only_ids: bool) -> Input {
        match self.0.arrays.filter(|_| only_ids && list.total > 0) {
            None => Input::Many(list),
            Some(arrays) if list.total > arrays.max_ids => Input::Tokens(Err(arrays.too_many(list.total))),
            Some(arrays) => Input::Tokens((arrays.decode)(&list.ids).map_err(|message| Detail::new("input", message))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for InputSeed<'_> {
    type Value = Input;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Input, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for InputSeed<'_> {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Input, E> {
        Ok(Input::One(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Input, A::Error> {
        let Rules { limits, arrays } = self.0;
        let max_ids = arrays.map_or(0, |arrays| arrays.max_ids);
        let (mut list, mut only_ids) = (List::default(), arrays.is_some());
        while list.total < limits.max_texts || (only_ids && list.total <= max_ids) {
            let seed = ElementSeed { arrays, left: max_ids.saturating_sub(list.ids_total) };
            let Some(element) = elements.next_element_seed(seed)? else { return Ok(self.finish(list, only_ids)) };
            let id = if let Element::Scalar(scalar) = &element { token_id(scalar) } else { None };
            only_ids &= id.is_some();
            list.ids.extend(id.filter(|_| only_ids));
            list.take(element);
        }
        list.total += drain_list(&mut elements)?;
        Ok(self.finish(list, only_ids))
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
