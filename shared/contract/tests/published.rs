//! What was published can still be read, and is still written the same way.
//!
//! `published/` holds every event as it was first written: a file `{name}.{version}.json`, and
//! `{name}.{version}.full.json` with all that may be left out. A published file is never edited: an
//! event whose data must change gets a new version, with a file of its own, beside the old one.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use waybill_contract::logistics::CarrierMode;
use waybill_contract::order::{CancelReason, ReasonCode};
use waybill_contract::user::{DeclineReason, NotificationKind};
use waybill_contract::{
    Event, InventoryEvent, LogisticsEvent, OrderEvent, UserEvent, inventory, logistics, order, user,
};
use waybill_runtime::{DecodeError, Envelope, EventId, Timestamp, Version};

/// Each service with every event that it publishes.
const PUBLISHED: [(&str, &[(&str, i64)]); 4] = [
    (order::SOURCE, OrderEvent::KINDS),
    (inventory::SOURCE, InventoryEvent::KINDS),
    (user::SOURCE, UserEvent::KINDS),
    (logistics::SOURCE, LogisticsEvent::KINDS),
];

/// An event as it was first written.
struct Example {
    file: String,
    source: &'static str,
    kind: String,
    schema: i64,
    data: Value,
}

fn examples() -> Vec<Example> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/published");
    let read = |entry: Result<fs::DirEntry, _>| {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let parts: Vec<&str> = file.split('.').collect();
        let (kind, schema) = (parts[..2].join("."), parts[2].parse().unwrap());
        let data = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        Example { source: source_of(&file, &kind), file, kind, schema, data }
    };
    fs::read_dir(folder).unwrap().map(read).collect()
}

fn source_of(file: &str, kind: &str) -> &'static str {
    let of = |(_, kinds): &&(&str, &[(&str, i64)])| kinds.iter().any(|(name, _)| *name == kind);
    let published = PUBLISHED.iter().find(of);
    published.unwrap_or_else(|| panic!("{file}: no service publishes {kind} any more")).0
}

fn read(source: &str, kind: &str, schema: i64, data: &str) -> Result<Event, DecodeError> {
    Event::read(&Envelope {
        id: EventId("01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11".parse().unwrap()),
        source: source.to_owned(),
        kind: kind.to_owned(),
        schema,
        stream: "order-1".to_owned(),
        version: Version(1),
        time: Timestamp(0),
        correlation: String::new(),
        causation: String::new(),
        actor: String::new(),
        traceparent: String::new(),
        data: data.to_owned(),
    })
}

#[track_caller]
fn read_example(example: &Example, data: &Value) -> Event {
    let Example { file, source, kind, schema, .. } = example;
    let event = read(source, kind, *schema, &data.to_string());
    event.unwrap_or_else(|error| {
        panic!("{file} was published and cannot be read any more: {error}; give the change a new version")
    })
}

/// The event's name, version, stream, order and data as it is written now.
fn written(event: &Event) -> (&'static str, i64, String, bool, Value) {
    fn of(event: &impl waybill_runtime::Event) -> (&'static str, i64, String, bool, Value) {
        let data = serde_json::from_str(&event.encode().unwrap()).unwrap();
        (event.kind(), event.schema(), event.stream(), event.order().is_some(), data)
    }
    match event {
        Event::Order(event) => of(event),
        Event::Inventory(event) => of(event),
        Event::User(event) => of(event),
        Event::Logistics(event) => of(event),
    }
}

#[test]
fn every_event_has_an_example_of_its_present_form() {
    let known: BTreeSet<(String, i64)> =
        examples().into_iter().map(|example| (example.kind, example.schema)).collect();
    for (kind, schema) in PUBLISHED.iter().flat_map(|(_, kinds)| *kinds) {
        assert!(
            known.contains(&((*kind).to_owned(), *schema)),
            "{kind} has no example of version {schema}: write its data as it is first published \
             to tests/published/{kind}.{schema}.json, and do not touch it afterwards"
        );
    }
}

#[test]
fn every_published_event_is_read_and_written_as_it_was_first() {
    for example in examples() {
        let (kind, schema, _, _, data) = written(&read_example(&example, &example.data));
        assert_eq!((kind, schema), (example.kind.as_str(), example.schema), "{}", example.file);
        assert_eq!(data, example.data, "{} is written differently now", example.file);
    }
}

#[test]
fn no_two_services_publish_the_same_name() {
    let mut names = BTreeSet::new();
    for (kind, _) in PUBLISHED.iter().flat_map(|(_, kinds)| *kinds) {
        assert!(names.insert(kind), "{kind} is published twice");
    }
}

#[test]
fn an_event_belongs_to_the_stream_and_the_order_of_its_data() {
    let streams = [
        ("order.", "order-", "order_id"),
        ("catalogue.", "catalogue-", "sku"),
        ("product.", "product-", "sku"),
        ("stock.received", "product-", "sku"),
        ("stock.", "reservation-", "order_id"),
        ("user.", "user-", "user_id"),
        ("wallet.", "user-", "user_id"),
        ("payment.", "payment-", "order_id"),
        ("shipment.", "shipment-", "shipment_id"),
    ];
    for example in examples() {
        let (_, _, stream, has_order, _) = written(&read_example(&example, &example.data));
        let (_, prefix, id) =
            streams.iter().find(|(kind, ..)| example.kind.starts_with(kind)).unwrap();
        let id = example.data[id].as_str().unwrap();
        assert_eq!(stream, format!("{prefix}{id}"), "{}", example.file);
        assert_eq!(has_order, example.data.get("order_id").is_some(), "{}", example.file);
    }
}

#[test]
fn a_field_that_a_newer_writer_adds_does_not_disturb_a_reader() {
    for example in examples() {
        let mut data = example.data.clone();
        add_unknown_fields(&mut data);
        assert_ne!(data, example.data);
        assert_eq!(
            read_example(&example, &data),
            read_example(&example, &example.data),
            "{}",
            example.file
        );
    }
}

/// Adds a field to every object but money and addresses. Those are closed, since requests hold them
/// too, where an unknown field is a mistake: they change only with a new version of the events that
/// hold them.
fn add_unknown_fields(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(add_unknown_fields),
        Value::Object(fields) => {
            fields.values_mut().for_each(add_unknown_fields);
            let is_money = fields.len() == 2 && fields.contains_key("currency");
            if !is_money && !fields.contains_key("postal_code") {
                fields.insert("added_later".to_owned(), json!({ "by": ["a", 1, null] }));
            }
        }
        _ => {}
    }
}

#[test]
fn what_may_be_left_out_may_be_null() {
    for example in examples().iter().filter(|example| example.file.ends_with(".full.json")) {
        let least = format!("{}.{}.json", example.kind, example.schema);
        let all = examples();
        let least = all.iter().find(|other| other.file == least).unwrap();
        let (Value::Object(full), Value::Object(fields)) = (&example.data, &least.data) else {
            panic!("{}: the data is not an object", example.file)
        };
        let mut nulled = fields.clone();
        for left_out in full.keys().filter(|key| !fields.contains_key(*key)) {
            nulled.insert(left_out.clone(), Value::Null);
        }
        let nulled = read_example(least, &Value::Object(nulled));
        assert_eq!(nulled, read_example(least, &least.data), "{}", example.file);
    }
}

#[test]
fn a_field_that_is_missing_or_of_another_type_is_refused_with_the_events_name() {
    for example in examples() {
        let Value::Object(fields) = &example.data else { panic!("{}", example.file) };
        let (first, _) =
            fields.iter().find(|(name, _)| name.ends_with("_id") || *name == "sku").unwrap();
        for spoiled in [None, Some(Value::Null), Some(json!(7)), Some(json!({}))] {
            let mut fields = fields.clone();
            match spoiled {
                None => fields.remove(first),
                Some(value) => fields.insert(first.clone(), value),
            };
            let data = Value::Object(fields).to_string();
            let read = read(example.source, &example.kind, example.schema, &data);
            let Err(DecodeError::Malformed { kind, .. }) = read else {
                panic!("{}: {data} was read", example.file)
            };
            assert_eq!(kind, example.kind);
        }
    }
}

#[test]
fn an_event_of_another_version_name_or_service_is_unknown_and_said_to_be_so() {
    for example in examples() {
        let data = example.data.to_string();
        let unknown = |source: &str, name: &str, version: i64| {
            let read = read(source, name, version, &data);
            let Err(DecodeError::Unknown { kind, schema }) = read else {
                panic!("{name} with form {version} of {source} was read")
            };
            assert_eq!((kind.as_str(), schema), (name, version));
        };
        unknown(example.source, &example.kind, example.schema + 1_000);
        unknown(example.source, &example.kind, 0);
        unknown(example.source, &format!("{}x", example.kind), example.schema);
        unknown("nobody", &example.kind, example.schema);
        for (other, _) in PUBLISHED.iter().filter(|(other, _)| *other != example.source) {
            unknown(other, &example.kind, example.schema);
        }
    }
    let read = read(order::SOURCE, "order.returned", 3, "{}");
    assert_eq!(
        read.unwrap_err().to_string(),
        "event order.returned with form 3 is not known to this version"
    );
}

#[test]
fn every_word_that_was_published_is_still_understood() {
    fn understood<T: std::str::FromStr<Err = String> + ToString>(words: &[&str], all: &[T]) {
        for word in words {
            let read = word.parse::<T>().unwrap_or_else(|error| panic!("{word}: {error}"));
            assert_eq!(read.to_string(), *word);
        }
        assert_eq!(words.len(), all.len(), "add the new word to the list in this test");
    }
    understood(
        &[
            "out_of_stock",
            "insufficient_funds",
            "currency_mismatch",
            "unknown_customer",
            "customer",
            "expired",
            "shipment_failed",
        ],
        ReasonCode::ALL,
    );
    understood(&["customer", "expired", "shipment_failed"], CancelReason::ALL);
    understood(
        &["unknown_customer", "insufficient_funds", "currency_mismatch"],
        DeclineReason::ALL,
    );
    understood(
        &["confirmed", "rejected", "dispatched", "delivered", "cancelled"],
        NotificationKind::ALL,
    );
    understood(&["simulated", "manual"], CarrierMode::ALL);
}
