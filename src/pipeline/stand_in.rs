//! A deserializer that makes up a value of whatever type is asked for.
//!
//! `decode` puts it in the place of a value that has a problem, so that the values beside and after
//! it are read, too. What it makes is never handed out.

use serde::de::{self, DeserializeSeed, Error as _, IntoDeserializer, Visitor};

use super::fault::Error;

/// Where types contain themselves (an enum whose first choice is boxed), it ends here.
const DEPTH_MAX: usize = 32;

#[derive(Clone, Copy)]
pub(super) struct StandIn {
    depth: usize,
}

impl StandIn {
    pub(super) fn new() -> StandIn {
        StandIn { depth: 0 }
    }

    fn deeper(self) -> Result<StandIn, Error> {
        if self.depth == DEPTH_MAX {
            return Err(Error::custom("no value can stand in here"));
        }
        Ok(StandIn { depth: self.depth + 1 })
    }

    fn values(self, count: usize) -> Result<StandIns, Error> {
        Ok(StandIns { keys: &[], left: count, stand_in: self.deeper()? })
    }
}

/// Makes a visitor see one plain value. Numbers are 1, which suits types that refuse zero.
macro_rules! plain_values {
    ($($method:ident $visit:ident($($value:expr)?),)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit($($value)?)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for StandIn {
    type Error = Error;

    plain_values! {
        deserialize_any visit_unit(),
        deserialize_bool visit_bool(false),
        deserialize_u8 visit_u8(1),
        deserialize_u16 visit_u16(1),
        deserialize_u32 visit_u32(1),
        deserialize_u64 visit_u64(1),
        deserialize_u128 visit_u128(1),
        deserialize_i8 visit_i8(1),
        deserialize_i16 visit_i16(1),
        deserialize_i32 visit_i32(1),
        deserialize_i64 visit_i64(1),
        deserialize_i128 visit_i128(1),
        deserialize_f32 visit_f32(1.0),
        deserialize_f64 visit_f64(1.0),
        deserialize_char visit_char('x'),
        deserialize_str visit_str("x"),
        deserialize_string visit_str("x"),
        deserialize_identifier visit_str("x"),
        deserialize_bytes visit_bytes(b"x"),
        deserialize_byte_buf visit_bytes(b"x"),
        deserialize_option visit_none(),
        deserialize_unit visit_unit(),
        deserialize_ignored_any visit_unit(),
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self.deeper()?)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(self.values(0)?)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(self.values(length)?)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(self.values(length)?)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(self.values(0)?)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(StandIns { keys, left: keys.len(), stand_in: self.deeper()? })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        choices: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let first = choices.first().ok_or_else(|| Error::custom("there is no choice"))?;
        visitor.visit_enum(FirstChoice { name: first, stand_in: self.deeper()? })
    }
}

/// The values of a list, or of the keys of a struct.
struct StandIns {
    keys: &'static [&'static str],
    left: usize,
    stand_in: StandIn,
}

impl<'de> de::SeqAccess<'de> for StandIns {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(self.stand_in).map(Some)
    }
}

impl<'de> de::MapAccess<'de> for StandIns {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some((first, rest)) = self.keys.split_first() else { return Ok(None) };
        self.keys = rest;
        seed.deserialize((*first).into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.stand_in)
    }
}

struct FirstChoice {
    name: &'static str,
    stand_in: StandIn,
}

impl<'de> de::EnumAccess<'de> for FirstChoice {
    type Error = Error;
    type Variant = StandIn;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, StandIn), Error> {
        Ok((seed.deserialize(self.name.into_deserializer())?, self.stand_in))
    }
}

impl<'de> de::VariantAccess<'de> for StandIn {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(self.values(length)?)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_struct(self, "", keys, visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Everything {
        count: std::num::NonZeroU32,
        pair: (f64, char),
        list: Vec<Everything>,
        map: BTreeMap<String, bool>,
        maybe: Option<Box<Everything>>,
        any: serde_json::Value,
        choice: Shape,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    enum Shape {
        Square { side: i8 },
    }

    #[derive(Debug, Deserialize, PartialEq)]
    enum Endless {
        Boxed(Box<Endless>),
    }

    #[track_caller]
    fn check<T: for<'de> Deserialize<'de> + Debug + PartialEq>(expected: Option<&T>) {
        assert_eq!(T::deserialize(StandIn::new()).ok().as_ref(), expected);
    }

    #[test]
    fn it_stands_in_for_any_type_that_has_an_end() {
        check(Some(&Everything {
            count: std::num::NonZeroU32::MIN,
            pair: (1.0, 'x'),
            list: Vec::new(),
            map: BTreeMap::new(),
            maybe: None,
            any: serde_json::Value::Null,
            choice: Shape::Square { side: 1 },
        }));
        check::<Endless>(None);
    }
}
