//! Reading lists that are bounded while they are read: a few bytes may stand for an item
//! that takes a hundred in memory, so a body's length is no bound on what it becomes.
//!
//! [`Counted`] stands between a codec and what it reads. Whatever the type is, and wherever
//! in it a list or a map stands, the first item too many ends the reading.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// How many items one list may have, and all lists of a message together.
#[derive(Debug)]
pub(crate) struct Counter {
    list_max: usize,
    left: Cell<usize>,
    is_exceeded: Cell<bool>,
}

impl Counter {
    pub(crate) fn new(list_max: usize, all_max: usize) -> Counter {
        Counter {
            list_max,
            left: Cell::new(all_max),
            is_exceeded: Cell::new(false),
        }
    }

    /// Whether reading ended because there was an item too many.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.is_exceeded.get()
    }

    /// Another item comes, behind so many in its list.
    fn count<E: Error>(&self, before: usize) -> Result<(), E> {
        let left = self.left.get();
        if before >= self.list_max || left == 0 {
            self.is_exceeded.set(true);
            return Err(E::custom(format_args!(
                "a list has more than {} items, or all lists together too many",
                self.list_max
            )));
        }
        self.left.set(left - 1);
        Ok(())
    }
}

/// A deserializer, seed, visitor or access that counts what passes through it.
pub(crate) struct Counted<'c, T> {
    inner: T,
    counter: &'c Counter,
    /// How many items came so far, where they are counted: in lists and maps, not in structs.
    items: Option<usize>,
}

impl<'c, T> Counted<'c, T> {
    pub(crate) fn new(inner: T, counter: &'c Counter) -> Self {
        Counted {
            inner,
            counter,
            items: None,
        }
    }

    fn list(inner: T, counter: &'c Counter) -> Self {
        Counted {
            inner,
            counter,
            items: Some(0),
        }
    }

    fn counted(&mut self) {
        if let Some(items) = &mut self.items {
            *items += 1;
        }
    }
}

macro_rules! forward {
    ($wrap:ident: $($method:ident($($name:ident: $type:ty),*)),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(
            self,
            $($name: $type,)*
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            let visitor = Counted::$wrap(visitor, self.counter);
            self.inner.$method($($name,)* visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Counted<'_, D> {
    type Error = D::Error;

    // What a text codec finds of itself may be a list.
    forward!(list: deserialize_any(), deserialize_seq(), deserialize_map());
    forward!(
        new: deserialize_bool(),
        deserialize_i8(),
        deserialize_i16(),
        deserialize_i32(),
        deserialize_i64(),
        deserialize_i128(),
        deserialize_u8(),
        deserialize_u16(),
        deserialize_u32(),
        deserialize_u64(),
        deserialize_u128(),
        deserialize_f32(),
        deserialize_f64(),
        deserialize_char(),
        deserialize_str(),
        deserialize_string(),
        deserialize_bytes(),
        deserialize_byte_buf(),
        deserialize_option(),
        deserialize_unit(),
        deserialize_identifier(),
        deserialize_ignored_any(),
        deserialize_unit_struct(name: &'static str),
        deserialize_newtype_struct(name: &'static str),
        deserialize_tuple(len: usize),
        deserialize_tuple_struct(name: &'static str, len: usize),
        deserialize_struct(name: &'static str, fields: &'static [&'static str]),
        deserialize_enum(name: &'static str, variants: &'static [&'static str]),
    );

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Counted<'_, V> {
    type Value = V::Value;

    visit!(
        visit_bool: bool,
        visit_i8: i8,
        visit_i16: i16,
        visit_i32: i32,
        visit_i64: i64,
        visit_i128: i128,
        visit_u8: u8,
        visit_u16: u16,
        visit_u32: u32,
        visit_u64: u64,
        visit_u128: u128,
        visit_f32: f32,
        visit_f64: f64,
        visit_char: char,
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
        visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>,
    );

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Counted::new(inner, self.counter))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let inner = Counted::new(inner, self.counter);
        self.inner.visit_newtype_struct(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let (counter, items) = (self.counter, self.items);
        self.inner.visit_seq(Counted {
            inner,
            counter,
            items,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let (counter, items) = (self.counter, self.items);
        self.inner.visit_map(Counted {
            inner,
            counter,
            items,
        })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Counted::new(inner, self.counter))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Counted<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Counted::new(inner, self.counter))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Counted<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        let counter = self.counter;
        let seed = Before {
            seed,
            list: self.items,
            counter,
        };
        let found = self.inner.next_element_seed(seed)?;
        if found.is_some() {
            self.counted();
        }
        Ok(found)
    }

    fn size_hint(&self) -> Option<usize> {
        let hint = self.inner.size_hint()?;
        Some(hint.min(self.counter.list_max))
    }
}

/// The seed of an item: refused before it is read when it is one too many.
struct Before<'c, S> {
    seed: S,
    list: Option<usize>,
    counter: &'c Counter,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Before<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        if let Some(before) = self.list {
            self.counter.count(before)?;
        }
        self.seed.deserialize(Counted::new(inner, self.counter))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Counted<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let counter = self.counter;
        let seed = Before {
            seed,
            list: self.items,
            counter,
        };
        let found = self.inner.next_key_seed(seed)?;
        if found.is_some() {
            self.counted();
        }
        Ok(found)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Counted::new(seed, self.counter))
    }

    fn size_hint(&self) -> Option<usize> {
        let hint = self.inner.size_hint()?;
        Some(hint.min(self.counter.list_max))
    }
}

impl<'de, 'c, A: EnumAccess<'de>> EnumAccess<'de> for Counted<'c, A> {
    type Error = A::Error;
    type Variant = Counted<'c, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.inner.variant_seed(Counted::new(seed, self.counter))?;
        Ok((value, Counted::new(variant, self.counter)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Counted<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = Counted::new(seed, self.counter);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = Counted::new(visitor, self.counter);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = Counted::new(visitor, self.counter);
        self.inner.struct_variant(fields, visitor)
    }
}
