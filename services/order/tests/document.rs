//! What the `OpenAPI` document says of the order service.
#![expect(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use waybill_order::{OrderService, routes};
use waybill_runtime::{Clock, Health, Timestamp};
use waybill_web::{Site, ops_routes};

fn document() -> Value {
    let (clock, _) = Clock::manual(Timestamp(0));
    let site = Site::new(clock.clone(), Health::new(clock), CancellationToken::new());
    let mut document = site.document().clone();
    document.merge(routes().into_openapi());
    document.merge(ops_routes::<OrderService>().into_openapi());
    serde_json::to_value(document).unwrap()
}

fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let methods = paths.flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, it)| (format!("{method} {path}"), it))
    });
    methods.collect()
}

#[test]
fn every_route_of_the_contract_is_in_it() {
    let document = document();
    let found: Vec<String> = operations(&document).into_iter().map(|(name, _)| name).collect();
    for expected in [
        "post /v1/orders",
        "get /v1/orders",
        "get /v1/orders/{id}",
        "post /v1/orders/{id}/cancel",
        "get /v1/ops/order/consumers",
        "get /v1/ops/order/outbox",
        "get /v1/ops/order/dead-letters",
        "post /v1/ops/order/dead-letters/{id}/retry",
        "post /v1/ops/order/dead-letters/{id}/discard",
        "get /livez",
        "get /readyz",
        "get /metrics",
        "get /openapi.json",
    ] {
        assert!(found.iter().any(|name| name == expected), "{expected} in {found:?}");
    }
}

#[test]
fn every_operation_has_a_name_of_its_own_and_says_what_may_go_wrong() {
    let document = document();
    let operations = operations(&document);
    let mut names: Vec<&str> =
        operations.iter().map(|(_, it)| it["operationId"].as_str().unwrap()).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    for (name, operation) in operations.iter().filter(|(name, _)| name.contains("/v1/")) {
        let answers = operation["responses"].as_object().unwrap();
        for status in ["500", "503"] {
            assert!(answers.contains_key(status), "{status} of {name}");
        }
    }
}

#[test]
fn all_that_it_refers_to_is_in_it() {
    let document = document();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect<'a>(value: &'a Value, references: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            references.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| collect(member, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}

#[test]
fn what_is_refused_is_not_allowed_by_it() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    for name in ["NewOrder", "NewLine", "Cancellation", "Address", "Money"] {
        assert_eq!(schemas[name]["additionalProperties"], Value::Bool(false), "{name}");
    }
    let lines = &schemas["NewOrder"]["properties"]["lines"];
    assert_eq!((&lines["minItems"], &lines["maxItems"]), (&1.into(), &100.into()));
    assert_eq!(
        schemas["Order"]["properties"]["status"]["$ref"],
        "#/components/schemas/OrderStatus"
    );
    let cancel = &document["paths"]["/v1/orders/{id}/cancel"]["post"]["requestBody"];
    assert_eq!(cancel["required"], Value::Bool(false));
}
