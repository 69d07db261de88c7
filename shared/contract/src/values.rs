//! Types whose every value is valid: what does not fit is refused where it is read.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use iso_currency::IntoEnumIterator as _;
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;
use waybill_runtime::{Cell, Column, text_columns};

/// The largest amount of money, in minor units, and the largest stock of a product.
pub const LARGEST: i64 = 1_000_000_000_000;
/// The largest quantity of one line or receipt.
pub const LARGEST_QUANTITY: i64 = 1_000_000;
/// Characters of the longest text.
pub const LONGEST_TEXT: usize = 200;
/// Characters of the longest SKU.
pub const LONGEST_SKU: usize = 64;

/// Why a value is not one of its type, as a sentence for whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// An id that is a UUID of its own kind.
macro_rules! ids {
    ($($(#[$meta:meta])* $Id:ident),+ $(,)?) => {$(
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
        $(#[$meta])*
        #[serde(transparent)]
        #[schema(value_type = String, format = "uuid", example = "01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11")]
        pub struct $Id(pub Uuid);

        impl fmt::Display for $Id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $Id {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                // Only the hyphenated form, so that one id has one text.
                if text.len() != 36 {
                    return Err(Invalid("must be a UUID with hyphens".to_owned()));
                }
                Uuid::parse_str(text).map(Self).map_err(|_| Invalid("must be a UUID".to_owned()))
            }
        }

        impl<'de> Deserialize<'de> for $Id {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        text_columns!($Id);
    )+};
}

ids! {
    /// Names an order.
    OrderId,
    /// Names a user; an order's customer.
    UserId,
    /// Names a shipment.
    ShipmentId,
}

/// Makes a validated text type: `check` says what is wrong with a text.
macro_rules! texts {
    ($($(#[$meta:meta])* $Text:ident, $check:expr;)+) => {$(
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        $(#[$meta])*
        #[serde(try_from = "String", into = "String")]
        pub struct $Text(String);

        impl $Text {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $Text {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                let check: fn(&str) -> Result<(), Invalid> = $check;
                check(&text)?;
                Ok(Self(text))
            }
        }

        impl FromStr for $Text {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$Text> for String {
            fn from(text: $Text) -> Self {
                text.0
            }
        }

        impl fmt::Display for $Text {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        text_columns!($Text);
    )+};
}

texts! {
    /// Names a product: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    #[derive(ToSchema)]
    #[schema(value_type = String, pattern = "^[A-Za-z0-9._-]{1,64}$", example = "TEA-500")]
    Sku, check_sku;
    /// A text for people: 1 to 200 characters, none of them a control or bidi character.
    #[derive(ToSchema)]
    #[schema(value_type = String, min_length = 1, max_length = 200, example = "Ada Lovelace",
        pattern = r"^[^\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+$")]
    Text, check_text;
    /// An ISO 4217 currency code.
    Currency, check_currency;
    /// An address for mail: a [`Text`] with one `@` between two parts.
    #[derive(ToSchema)]
    #[schema(value_type = String, format = "email", min_length = 3, max_length = 200, example = "ada@example.com")]
    Email, check_email;
}

impl Text {
    /// The text made to fit, for words of the house's own: without the characters that are not
    /// allowed, cut at the longest, `-` where nothing is left.
    #[must_use]
    pub fn fit(text: &str) -> Self {
        let allowed = text.chars().filter(|c| !is_forbidden(*c)).take(LONGEST_TEXT);
        let text: String = allowed.collect();
        Self(if text.is_empty() { "-".to_owned() } else { text })
    }
}

impl PartialSchema for Currency {
    fn schema() -> RefOr<Schema> {
        let codes = iso_currency::Currency::iter().map(|currency| currency.code());
        let codes = codes.filter(|code| check_currency(code).is_ok());
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .description(Some("An ISO 4217 currency code."))
            .enum_values(Some(codes))
            .examples(["EUR"])
            .into()
    }
}

impl ToSchema for Currency {}

fn check_sku(text: &str) -> Result<(), Invalid> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || text.len() > LONGEST_SKU || !text.chars().all(allowed) {
        return Err(Invalid(format!(
            "must be 1 to {LONGEST_SKU} characters of A-Z, a-z, 0-9, '.', '_' and '-'"
        )));
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), Invalid> {
    if text.is_empty() || text.chars().count() > LONGEST_TEXT {
        return Err(Invalid(format!("must be 1 to {LONGEST_TEXT} characters")));
    }
    if text.chars().any(is_forbidden) {
        return Err(Invalid("must not hold control or bidi characters".to_owned()));
    }
    Ok(())
}

fn is_forbidden(c: char) -> bool {
    c.is_control() || is_bidi(c)
}

/// Characters that change the direction of what stands around them (Unicode UAX #9, `Bidi_Control`).
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn check_currency(text: &str) -> Result<(), Invalid> {
    iso_currency::Currency::from_code(text)
        .map(|_| ())
        .ok_or_else(|| Invalid("must be an ISO 4217 currency code such as EUR".to_owned()))
}

fn check_email(text: &str) -> Result<(), Invalid> {
    check_text(text)?;
    let invalid = || Invalid("must be an address such as ada@example.com".to_owned());
    let (name, host) = text.split_once('@').ok_or_else(invalid)?;
    let spaced = text.chars().any(char::is_whitespace);
    if name.is_empty() || host.is_empty() || host.contains('@') || spaced {
        return Err(invalid());
    }
    Ok(())
}

/// Makes a whole number with bounds.
macro_rules! numbers {
    ($($(#[$meta:meta])* $Number:ident, $least:expr, $largest:expr;)+) => {$(
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        $(#[$meta])*
        #[serde(try_from = "i64", into = "i64")]
        pub struct $Number(i64);

        impl $Number {
            /// The number.
            #[must_use]
            pub fn get(self) -> i64 {
                self.0
            }
        }

        impl TryFrom<i64> for $Number {
            type Error = Invalid;
            fn try_from(number: i64) -> Result<Self, Invalid> {
                if ($least..=$largest).contains(&number) {
                    Ok(Self(number))
                } else {
                    Err(Invalid(format!("must be a whole number from {} to {}", $least, $largest)))
                }
            }
        }

        impl From<$Number> for i64 {
            fn from(number: $Number) -> Self {
                number.0
            }
        }

        impl fmt::Display for $Number {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl Column for $Number {
            fn to_cell(&self) -> Cell {
                Cell::Bigint(self.0)
            }
            fn from_cell(cell: Cell) -> Result<Self, Cell> {
                let number = i64::from_cell(cell)?;
                number.try_into().map_err(|Invalid(_)| Cell::Bigint(number))
            }
        }
    )+};
}

numbers! {
    /// How many of something: 1 to 1,000,000.
    #[schema(value_type = i64, minimum = 1, maximum = 1_000_000, example = 2)]
    Quantity, 1, LARGEST_QUANTITY;
    /// An amount of money in minor units: 0 to 10^12.
    #[schema(value_type = i64, minimum = 0, maximum = 1_000_000_000_000_i64, example = 1999)]
    Amount, 0, LARGEST;
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The amount this many times; refused beyond the largest.
    pub fn times(self, quantity: Quantity) -> Result<Self, Invalid> {
        self.0.checked_mul(quantity.0).ok_or_else(too_much)?.try_into().map_err(|_| too_much())
    }

    /// Both amounts; refused beyond the largest.
    pub fn plus(self, other: Self) -> Result<Self, Invalid> {
        self.0.checked_add(other.0).ok_or_else(too_much)?.try_into().map_err(|_| too_much())
    }
}

fn too_much() -> Invalid {
    Invalid(format!("comes to more than {LARGEST} minor units"))
}

/// Money in minor units of its currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// How much, in minor units.
    pub amount: Amount,
    /// Of what.
    pub currency: Currency,
}

/// One line of an order as it was priced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Line {
    /// Which product.
    pub sku: Sku,
    /// Its name when it was ordered.
    pub name: Text,
    /// How many.
    pub quantity: Quantity,
    /// The price of one when it was ordered.
    pub unit_price: Money,
}

/// Where a parcel goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// Who receives it.
    pub name: Text,
    /// Street and number.
    pub line1: Text,
    /// What else finds the door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line2: Option<Text>,
    /// The town.
    pub city: Text,
    /// Its postal code.
    pub postal_code: Text,
    /// The country.
    pub country: Text,
}
