//! serde's view of a node: how each type that may be asked for is read from what was written.
//!
//! What happens after an error is `decode`'s business.

use std::iter::Enumerate;
use std::marker::PhantomData;
use std::slice;

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::decode::{Notes, Replaced, address};
use super::fault::{Error, Kind, Part, listed};
use super::node::{KeyNode, Node, NodeValue, Style};
use super::stand_in::StandIn;
use super::yaml::plain_value;
use crate::problem::KeyPath;

/// Where a reader is, as a chain through the readers above it.
#[derive(Clone, Copy)]
pub(super) struct Spot<'s> {
    parent: Option<&'s Spot<'s>>,
    step: Step<'s>,
}

#[derive(Clone, Copy)]
enum Step<'s> {
    Root(&'s KeyPath),
    Name(&'s str),
    Index(usize),
}

impl<'s> Spot<'s> {
    pub(super) fn root(at: &'s KeyPath) -> Spot<'s> {
        Spot { parent: None, step: Step::Root(at) }
    }

    pub(super) fn path(&self) -> KeyPath {
        let above = self.parent.map(Spot::path).unwrap_or_default();
        match self.step {
            Step::Root(at) => at.clone(),
            Step::Name(name) => above.join(name),
            Step::Index(index) => above.join(index),
        }
    }
}

/// The number that a text without quotes stands for: `2_000_000`, `2M`, `1.5k` (thousand), `7B`.
pub fn written_number(text: &str) -> Option<NodeValue> {
    let (mantissa, zeros) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 3),
        b'M' => (&text[..text.len() - 1], 6),
        b'B' => (&text[..text.len() - 1], 9),
        _ => (text, 0),
    };
    let bytes = mantissa.as_bytes();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let is_between_digits = |at: usize| is_digit(at.checked_sub(1)) && is_digit(Some(at + 1));
    if !(0..bytes.len()).all(|at| bytes[at] != b'_' || is_between_digits(at)) {
        return None;
    }
    let digits = mantissa.replace('_', "");
    // As an exponent, since parsing rounds once: `1.1M` is 1100000, while 1.1 * 1e6 is not.
    let value = plain_value(&if zeros == 0 { digits } else { format!("{digits}e{zeros}") });
    matches!(value, NodeValue::Integer(_) | NodeValue::Float(_)).then_some(value)
}

/// Reads one node.
pub(super) struct Reader<'s> {
    pub(super) node: &'s Node,
    pub(super) spot: Spot<'s>,
    pub(super) notes: &'s Notes,
}

impl<'s> Reader<'s> {
    fn text(&self) -> Result<&'s str, Error> {
        match &self.node.value {
            NodeValue::Text { text, .. } => Ok(text),
            NodeValue::Bool(_) | NodeValue::Integer(_) | NodeValue::Float(_) => {
                Err(Error::wrong("text", Some("put it in quotes")))
            }
            _ => Err(Error::wrong("text", None)),
        }
    }

    fn bool(&self) -> Result<bool, Error> {
        let hint = match &self.node.value {
            NodeValue::Bool(value) => return Ok(*value),
            NodeValue::Text { text, .. } => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "true" | "y" => Some("write `true`"),
                "no" | "off" | "false" | "n" => Some("write `false`"),
                _ => None,
            },
            _ => None,
        };
        Err(Error::wrong("`true` or `false`", hint))
    }

    /// The node as a number, if it is one where numbers are wanted.
    fn number(&self, wanted: &str) -> Result<NodeValue, Error> {
        let (text, style) = match &self.node.value {
            number @ (NodeValue::Integer(_) | NodeValue::Float(_)) => return Ok(number.clone()),
            NodeValue::Text { text, style } => (text, *style),
            _ => return Err(Error::wrong(wanted, None)),
        };
        let unpadded = text.trim_start_matches('0');
        let hint = match written_number(text) {
            Some(number) if style == Style::Plain => return Ok(number),
            Some(_) => Some("remove the quotes"),
            None if text.starts_with('0') && written_number(unpadded).is_some() => {
                Some("write it without leading zeros")
            }
            None => None,
        };
        Err(Error::wrong(wanted, hint))
    }

    fn whole<N: TryFrom<i128>>(&self, min: i128, max: i128) -> Result<N, Error> {
        /// Up to here every whole number is a float of its own (2^53).
        const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
        const WANTED: &str = "a whole number";
        let value = match self.number(WANTED)? {
            NodeValue::Integer(value) => value,
            #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53, just tested")]
            NodeValue::Float(value) if value.fract() == 0.0 && value.abs() <= EXACT_MAX => value as i128,
            _ => return Err(Error::wrong(WANTED, None)),
        };
        if value < min {
            return Err(Error::wrong(format!("at least {min}"), None));
        }
        N::try_from(value).map_err(|_| Error::wrong(format!("at most {max}"), None))
    }

    fn float(&self) -> Result<f64, Error> {
        match self.number("a number")? {
            NodeValue::Float(value) => Ok(value),
            #[expect(clippy::cast_precision_loss, reason = "a float was asked for")]
            NodeValue::Integer(value) => Ok(value as f64),
            _ => Err(Error::wrong("a number", None)),
        }
    }

    fn list(self, wanted: &str) -> Result<ListReader<'s>, Error> {
        let Reader { node, spot, notes } = self;
        match &node.value {
            NodeValue::List(items) => Ok(ListReader { items: items.iter().enumerate(), spot, notes }),
            NodeValue::Map(_) => Err(Error::wrong(wanted, Some("begin each item with `- `"))),
            NodeValue::Null => Err(Error::wrong(wanted, None)),
            _ => Err(Error::wrong(wanted, Some("put it in brackets: `[…]`"))),
        }
    }

    /// Reads the entries of a map, all or (for a struct) those with a known key.
    fn map(self, known: Option<&'static [&'static str]>) -> Result<MapReader<'s>, Error> {
        let Reader { node, spot, notes } = self;
        let NodeValue::Map(entries) = &node.value else {
            let hint = known.filter(|keys| !keys.is_empty());
            let hint = hint.map(|keys| format!("its keys are {}", listed(keys, "and")));
            return Err(Error::wrong("a map", hint.as_deref()));
        };
        let mut filled = Vec::new();
        if let Some(known) = known {
            notes.known.borrow_mut().insert(address(node), known);
            let is_filled =
                |key: &&&str| notes.filled.borrow().contains(&(address(node), (**key).to_string()));
            filled = known.iter().filter(is_filled).copied().collect();
        }
        Ok(MapReader { map: node, entries: entries.iter(), value: None, filled, known, spot, notes })
    }
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $type:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.whole(<$type>::MIN.into(), <$type>::MAX.into())?)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Reader<'_> {
    type Error = Error;

    whole_numbers! {
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            NodeValue::Null => visitor.visit_unit(),
            NodeValue::Bool(value) => visitor.visit_bool(*value),
            NodeValue::Integer(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_i64(value),
                (_, Ok(value)) => visitor.visit_u64(value),
                _ => Err(Error::wrong("a number of at most 64 bits", Some("put it in quotes"))),
            },
            NodeValue::Float(value) => visitor.visit_f64(*value),
            NodeValue::Text { text, .. } => visitor.visit_str(text),
            NodeValue::List(_) => visitor.visit_seq(self.list("a list")?),
            NodeValue::Map(_) => visitor.visit_map(self.map(None)?),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.bool()?)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_f64(self.float()?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_f64(self.float()?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let text = self.text()?;
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => visitor.visit_char(character),
            _ => Err(Error::wrong("one character", None)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value {
            NodeValue::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(self.list("a list")?)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        let wanted = format!("a list of {length} values");
        match &self.node.value {
            NodeValue::List(items) if items.len() != length => {
                let given = Some(format!("of {}", items.len()));
                Err(Error::new(Kind::Wrong { wanted, given, hint: None }))
            }
            _ => visitor.visit_seq(self.list(&wanted)?),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(self.map(None)?)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(self.map(Some(keys))?)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        choices: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let choice = match &self.node.value {
            NodeValue::Text { text, .. } => Choice { name: text, value: None, reader: self },
            NodeValue::Map(entries) if entries.len() == 1 => {
                let (key, value) = &entries[0];
                Choice { name: &key.name, value: Some(value), reader: self }
            }
            NodeValue::Map(entries) => {
                let given = Some(format!("with {}", entries.len()));
                let hint = Some(format!("the key is one of {}", listed(choices, "and")));
                return Err(Error::new(Kind::Wrong { wanted: "a map with one key".to_owned(), given, hint }));
            }
            _ => return Err(Error::wrong(listed(choices, "or"), None)),
        };
        if !choices.contains(&choice.name) {
            return Err(de::Error::unknown_variant(choice.name, choices));
        }
        visitor.visit_enum(choice)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value {
            NodeValue::Null => visitor.visit_unit(),
            _ => Err(Error::wrong("empty", None)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { bytes byte_buf unit_struct }
}

struct ListReader<'s> {
    items: Enumerate<slice::Iter<'s, Node>>,
    spot: Spot<'s>,
    notes: &'s Notes,
}

impl<'de> de::SeqAccess<'de> for ListReader<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let notes = self.notes;
        let mut left =
            self.items.by_ref().filter(|(_, item)| notes.replaced(item) != Some(Replaced::ByNothing));
        let Some((index, item)) = left.next() else { return Ok(None) };
        let spot = Spot { parent: Some(&self.spot), step: Step::Index(index) };
        notes.read(seed, item, spot).map(Some)
    }
}

struct MapReader<'s> {
    map: &'s Node,
    entries: slice::Iter<'s, (KeyNode, Node)>,
    /// The value of the key just read.
    value: Option<(&'s str, &'s Node)>,
    /// Keys that the map lacks, for which stand-ins follow its entries.
    filled: Vec<&'static str>,
    /// The keys of the struct that is being read; anything is a key for other maps.
    known: Option<&'static [&'static str]>,
    spot: Spot<'s>,
    notes: &'s Notes,
}

impl<'de> de::MapAccess<'de> for MapReader<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        for (key, value) in self.entries.by_ref() {
            if self.notes.replaced(value) == Some(Replaced::ByNothing) {
                continue;
            }
            if let Some(known) = self.known.filter(|known| !known.contains(&key.name.as_str())) {
                self.notes.unknown_key(self.map, &self.spot.path(), &key.name, known);
                continue;
            }
            self.value = Some((&key.name, value));
            let spot = Spot { parent: Some(&self.spot), step: Step::Name(&key.name) };
            let key = seed.deserialize(key.name.as_str().into_deserializer());
            return key.map(Some).map_err(|error: Error| error.at(spot, Part::Key));
        }
        self.value = None;
        self.filled.pop().map(|key| seed.deserialize(key.into_deserializer())).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let Some((name, value)) = self.value.take() else { return seed.deserialize(StandIn::new()) };
        let spot = Spot { parent: Some(&self.spot), step: Step::Name(name) };
        self.notes.read(seed, value, spot)
    }
}

/// A choice of an enum: `name`, or `name: value`.
struct Choice<'s> {
    name: &'s str,
    value: Option<&'s Node>,
    reader: Reader<'s>,
}

impl Choice<'_> {
    fn read<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        let Some(value) = self.value else {
            let message = format!(
                "`{0}` needs a value
hint: write `{0}: …`",
                self.name
            );
            return Err(de::Error::custom(message));
        };
        let spot = Spot { parent: Some(&self.reader.spot), step: Step::Name(self.name) };
        self.reader.notes.read(seed, value, spot)
    }
}

impl<'de> de::EnumAccess<'de> for Choice<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        Ok((seed.deserialize(self.name.into_deserializer())?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Choice<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.value {
            None => Ok(()),
            Some(_) => self.read(PhantomData::<()>),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        self.read(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        self.read(Shape { keys: None, length, visitor })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.read(Shape { keys: Some(keys), length: 0, visitor })
    }
}

/// Reads the fields of an enum's variant: as a struct if there are keys, else as a tuple.
struct Shape<V> {
    keys: Option<&'static [&'static str]>,
    length: usize,
    visitor: V,
}

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Shape<V> {
    type Value = V::Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        match self.keys {
            Some(keys) => deserializer.deserialize_struct("", keys, self.visitor),
            None => deserializer.deserialize_tuple(self.length, self.visitor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_number(text: &str, expected: Option<&NodeValue>) {
        assert_eq!(written_number(text).as_ref(), expected, "{text}");
    }

    #[test]
    fn numbers_are_written_with_underscores_and_suffixes() {
        check_number("2_000_000", Some(&NodeValue::Integer(2_000_000)));
        check_number("-1_0", Some(&NodeValue::Integer(-10)));
        check_number("2M", Some(&NodeValue::Float(2e6)));
        check_number("1.1M", Some(&NodeValue::Float(1_100_000.0)));
        check_number("0.5k", Some(&NodeValue::Float(500.0)));
        check_number("7B", Some(&NodeValue::Float(7e9)));
        check_number("1_0.2_5", Some(&NodeValue::Float(10.25)));
        for text in [
            "", "M", "k", "_1", "1_", "1__0", "1_M", "1._5", "1e3k", "012", "0x10", "2 M", "2m", "inf", "NaN",
        ] {
            check_number(text, None);
        }
    }
}
