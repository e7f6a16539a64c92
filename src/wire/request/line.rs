//! A request body inside of a batch job's line: read where it stands, without a copy of it in between.

use super::{Fields, FieldsVisitor};
use crate::wire::request::input::Rules;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Reads the field `body` of an object; of one given twice the last counts.
pub(super) struct LineVisitor<'a> {
    pub(super) rules: Rules<'a>,
}

impl<'de> Visitor<'de> for LineVisitor<'_> {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a line of a batch job")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = None;
        while let Some(key) = map.next_key::<Cow<str>>()? {
            if key == "body" {
                fields = Some(map.next_value_seed(BodySeed(self.rules))?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        fields.ok_or_else(|| A::Error::custom("no body"))
    }
}

struct BodySeed<'a>(Rules<'a>);

impl<'de> DeserializeSeed<'de> for BodySeed<'_> {
    type Value = Fields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(FieldsVisitor { rules: self.0 })
    }
}
