//! The types whose every value is valid: what they take, what they refuse, and what they say then.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::fmt::Debug;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use waybill_contract::{
    Address, Amount, Currency, Email, Invalid, Money, OrderId, Quantity, Sku, Text,
};
use waybill_runtime::{Cell, Column};

/// Takes a text from people, from JSON and from a column, and gives it back the same.
#[track_caller]
fn takes<T>(text: &str)
where
    T: FromStr<Err = Invalid>
        + ToString
        + Column
        + DeserializeOwned
        + Serialize
        + PartialEq
        + Debug,
{
    let value: T = text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!(value.to_string(), text);
    assert_eq!(serde_json::from_value::<T>(json!(text)).unwrap(), value);
    assert_eq!(serde_json::to_value(&value).unwrap(), json!(text));
    assert_eq!(value.to_cell(), Cell::Text(text.to_owned()));
    assert_eq!(T::from_cell(value.to_cell()), Ok(value));
}

/// Refuses a text from people, from JSON and from a column, with the same sentence.
#[track_caller]
fn refuses<T>(text: &str, sentence: &str)
where
    T: FromStr<Err = Invalid> + Column + DeserializeOwned + PartialEq + Debug,
{
    assert_eq!(text.parse::<T>(), Err(Invalid(sentence.to_owned())), "{text:?}");
    let error = serde_json::from_value::<T>(json!(text)).unwrap_err();
    assert_eq!(error.to_string(), sentence, "{text:?}");
    let cell = Cell::Text(text.to_owned());
    assert_eq!(T::from_cell(cell.clone()), Err(cell), "{text:?}");
    assert_eq!(T::from_cell(Cell::Bigint(7)), Err(Cell::Bigint(7)));
}

#[test]
fn an_id_is_a_uuid_with_hyphens_and_has_one_text() {
    takes::<OrderId>("01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11");
    let upper: OrderId = "01937B6E-7F5A-7C3E-9A51-3F0C6F2D8B11".parse().unwrap();
    assert_eq!(upper.to_string(), "01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11");
    for other_form in [
        "",
        "01937b6e7f5a7c3e9a513f0c6f2d8b11",
        "{01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11}",
        "urn:uuid:01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11",
        " 01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11",
    ] {
        refuses::<OrderId>(other_form, "must be a UUID with hyphens");
    }
    refuses::<OrderId>("01937b6e-7f5a-7c3e-9a51-3f0c6f2d8bxx", "must be a UUID");
    refuses::<OrderId>("01937b6e7-f5a-7c3e-9a51-3f0c6f2d8b11", "must be a UUID");
    refuses::<OrderId>("01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b1é", "must be a UUID with hyphens");
}

#[test]
fn a_sku_is_1_to_64_plain_characters() {
    ["A", "TEA-500", "a.b_c-9", &"x".repeat(64)].into_iter().for_each(takes::<Sku>);
    for text in ["", &"x".repeat(65), "TEA 500", "TEA/500", "Tee-ü", "tea\n", "tea\0", "١"] {
        refuses::<Sku>(text, "must be 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-'");
    }
}

#[test]
fn a_text_is_1_to_200_characters_whatever_their_bytes() {
    for text in ["x", " ", "Zoë O'Brien 🐦", "שלום", "名", "'; drop table orders; --", "\u{200b}"]
    {
        takes::<Text>(text);
    }
    takes::<Text>(&"🐦".repeat(200));
    refuses::<Text>("", "must be 1 to 200 characters");
    refuses::<Text>(&"x".repeat(201), "must be 1 to 200 characters");
}

#[test]
fn a_text_holds_no_control_or_bidi_character() {
    let controls = ('\0'..='\u{1f}').chain('\u{7f}'..='\u{9f}');
    let bidi = ['\u{61c}', '\u{200e}', '\u{200f}']
        .into_iter()
        .chain('\u{202a}'..='\u{202e}')
        .chain('\u{2066}'..='\u{2069}');
    for character in controls.chain(bidi) {
        for text in [format!("{character}"), format!("a{character}b")] {
            refuses::<Text>(&text, "must not hold control or bidi characters");
        }
        assert_eq!(Text::fit(&format!("a{character}b")).as_str(), "ab");
    }
}

#[test]
fn a_text_of_the_house_is_made_to_fit() {
    assert_eq!(
        Text::fit("the carrier reports a failure").as_str(),
        "the carrier reports a failure"
    );
    assert_eq!(Text::fit(&"🐦".repeat(300)).as_str(), "🐦".repeat(200));
    assert_eq!(Text::fit("").as_str(), "-");
    assert_eq!(Text::fit("\u{202e}\n").as_str(), "-");
}

#[test]
fn a_currency_is_one_of_iso_4217() {
    ["EUR", "USD", "JPY", "KWD"].into_iter().for_each(takes::<Currency>);
    for text in ["", "eur", "Eur", "EU", "EURO", "ABC", " EUR", "978", "€"] {
        refuses::<Currency>(text, "must be an ISO 4217 currency code such as EUR");
    }
}

#[test]
fn an_email_is_a_text_with_one_at_between_two_parts() {
    ["a@b", "ada@example.com", "ada+x@例え.jp"].into_iter().for_each(takes::<Email>);
    takes::<Email>(&format!("{}@b", "a".repeat(198)));
    for text in ["ada", "@", "a@", "@b", "a@b@c", "a b@c", "a@b c", "a@b "] {
        refuses::<Email>(text, "must be an address such as ada@example.com");
    }
    refuses::<Email>("", "must be 1 to 200 characters");
    refuses::<Email>(&format!("{}@b", "a".repeat(199)), "must be 1 to 200 characters");
    refuses::<Email>("a@b\n", "must not hold control or bidi characters");
}

/// Takes the bounds and refuses what is beyond, the same in Rust, in JSON and in columns.
#[track_caller]
fn is_bounded<T>(least: i64, largest: i64)
where
    T: TryFrom<i64, Error = Invalid> + Into<i64> + Column + DeserializeOwned + Serialize + Copy,
    T: PartialEq + Debug,
{
    for number in [least, largest] {
        let value = T::try_from(number).unwrap();
        assert_eq!(value.into(), number);
        assert_eq!(serde_json::from_value::<T>(json!(number)).unwrap(), value);
        assert_eq!(serde_json::to_value(value).unwrap(), json!(number));
        assert_eq!(T::from_cell(value.to_cell()), Ok(value));
    }
    let sentence = format!("must be a whole number from {least} to {largest}");
    for number in [least - 1, largest + 1, i64::MIN, i64::MAX] {
        assert_eq!(T::try_from(number), Err(Invalid(sentence.clone())));
        let error = serde_json::from_value::<T>(json!(number)).unwrap_err();
        assert_eq!(error.to_string(), sentence);
        assert_eq!(T::from_cell(Cell::Bigint(number)), Err(Cell::Bigint(number)));
    }
    for other in [json!(1.5), json!(1.0), json!("1"), json!(null), json!(u64::MAX), json!(true)] {
        assert!(serde_json::from_value::<T>(other.clone()).is_err(), "{other}");
    }
}

#[test]
fn a_quantity_is_1_to_a_million_and_an_amount_0_to_a_trillion() {
    is_bounded::<Quantity>(1, 1_000_000);
    is_bounded::<Amount>(0, 1_000_000_000_000);
}

fn amount(number: i64) -> Amount {
    number.try_into().unwrap()
}

fn quantity(number: i64) -> Quantity {
    number.try_into().unwrap()
}

#[test]
fn amounts_that_come_to_too_much_are_refused_and_never_wrap() {
    let too_much = Err(Invalid("comes to more than 1000000000000 minor units".to_owned()));
    let largest = amount(1_000_000_000_000);
    assert_eq!(amount(1999).times(quantity(2)), Ok(amount(3998)));
    assert_eq!(amount(1_000_000).times(quantity(1_000_000)), Ok(largest));
    assert_eq!(amount(1_000_001).times(quantity(1_000_000)), too_much);
    assert_eq!(largest.times(quantity(1_000_000)), too_much);
    assert_eq!(Amount::ZERO.times(quantity(1_000_000)), Ok(Amount::ZERO));
    assert_eq!(largest.plus(Amount::ZERO), Ok(largest));
    assert_eq!(largest.plus(amount(1)), too_much);
    assert_eq!(largest.plus(largest), too_much);
}

#[test]
fn money_and_addresses_refuse_unknown_fields_and_an_address_may_lack_its_second_line() {
    let money = json!({ "amount": 1999, "currency": "EUR" });
    let read: Money = serde_json::from_value(money.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), money);
    let address = json!({ "name": "Ada", "line1": "1 Road", "city": "London",
        "postal_code": "SW1", "country": "GB" });
    let read: Address = serde_json::from_value(address.clone()).unwrap();
    assert_eq!((&read.line2, serde_json::to_value(&read).unwrap()), (&None, address.clone()));
    assert!(serde_json::from_value::<Money>(with(&money, "cents", json!(5))).is_err());
    assert!(serde_json::from_value::<Address>(with(&address, "planet", json!("Mars"))).is_err());
    assert!(serde_json::from_value::<Address>(with(&address, "line2", json!(""))).is_err());
}

fn with(object: &Value, field: &str, value: Value) -> Value {
    let mut object = object.clone();
    object[field] = value;
    object
}
