//! Cursors: where a page of a list ended.

use std::fmt::{self, Display};
use std::str::FromStr;

use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Required, Schema};
use uuid::Uuid;

use crate::limits;

/// What comes before the place in a cursor. A text that is no cursor is told from one by it.
const PREFIX: &str = "after:";

/// What a list is ordered by: its next page begins after a place that the last one ended at.
pub trait Place: FromStr + Display {
    /// The places that there may be, as a regular expression: exactly those that parse.
    const PATTERN: &'static str;
}

macro_rules! places {
    ($($(#[$meta:meta])* $Place:ident($Value:ty), $pattern:literal, $parse:expr;)+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $Place($Value);

        impl Place for $Place {
            const PATTERN: &'static str = $pattern;
        }

        impl FromStr for $Place {
            type Err = Foreign;

            fn from_str(text: &str) -> Result<Self, Foreign> {
                let parse: fn(&str) -> Option<$Value> = $parse;
                parse(text).map(Self).ok_or(Foreign)
            }
        }

        impl Display for $Place {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

places! {
    /// In a list ordered by an id that is a UUID.
    ById(Uuid), "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        |text| Uuid::parse_str(text).ok().filter(|id| id.to_string() == text);
    /// In a list ordered by a position.
    ByPosition(i64), "[0-9]{1,18}",
        |text| text.parse().ok().filter(|_| is_made_of(text, 18, |c| c.is_ascii_digit()));
    /// In a list ordered by a name that goes into an address as it is, such as a SKU.
    ByName(String), "[A-Za-z0-9._:/-]{1,200}",
        |text| is_made_of(text, 200, goes_into_addresses).then(|| text.to_owned());
}

fn is_made_of(text: &str, longest: usize, allowed: fn(char) -> bool) -> bool {
    (1..=longest).contains(&text.len()) && text.chars().all(allowed)
}

fn goes_into_addresses(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._:/-".contains(c)
}

/// A cursor of another list, or none at all.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("must be the `next` of an answer")]
pub struct Foreign;

/// The cursor that goes with a place.
pub(crate) struct Cursor<P>(pub(crate) P);

impl<P: Place> FromStr for Cursor<P> {
    type Err = Foreign;

    fn from_str(text: &str) -> Result<Self, Foreign> {
        let place = text.strip_prefix(PREFIX).ok_or(Foreign)?;
        place.parse().map(Self).map_err(|_| Foreign)
    }
}

impl<P: Display> Display for Cursor<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0)
    }
}

/// The query of every list, for the document; this one is ordered by `P`.
#[derive(Clone, Copy, Debug)]
pub struct PageQuery<P>(std::marker::PhantomData<P>);

impl<P: Place> IntoParams for PageQuery<P> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let limit = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Integer))
            .minimum(Some(1))
            .maximum(Some(limits::PAGE_MAX))
            .default(Some(limits::PAGE_DEFAULT.into()));
        let cursor = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .pattern(Some(format!("^{PREFIX}{}$", P::PATTERN)));
        vec![
            parameter("limit", "How many items at most.", limit),
            parameter("cursor", "The `next` of the page before.", cursor),
        ]
    }
}

fn parameter(name: &str, description: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(RefOr::T(Schema::Object(schema.build()))))
        .build()
}
