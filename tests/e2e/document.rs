//! What every process serves besides its services: the document, its page and health.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::errors::NOBODY;
use crate::support::{Client, Kind, Options, Stack};

on_every_deployment!(
    the_document_has_every_route_and_no_other,
    every_route_of_the_document_is_served,
    schemas_say_what_the_values_of_each_service_may_be,
    the_page_about_the_api_comes_from_the_process_alone,
);

/// Every route there is.
const ROUTES: &str = "
    POST /v1/orders
    GET /v1/orders
    GET /v1/orders/{id}
    POST /v1/orders/{id}/cancel
    POST /v1/products
    GET /v1/products
    GET /v1/products/{sku}
    PATCH /v1/products/{sku}
    POST /v1/products/{sku}/receipts
    POST /v1/users
    GET /v1/users
    GET /v1/users/{id}
    POST /v1/users/{id}/deposits
    GET /v1/users/{id}/notifications
    GET /v1/shipments
    GET /v1/shipments/{id}
    POST /v1/shipments/{id}/tracking
    GET /v1/audit/events
    GET /v1/audit/events/{event_id}
    GET /v1/audit/orders/{id}
    GET /v1/audit/orders/{id}/state
    GET /v1/audit/stream
    GET /livez
    GET /readyz
    GET /metrics
    GET /openapi.json
";

/// What operators ask of each service that has a consumer.
const OPERATORS_ROUTES: &str = "
    GET consumers
    GET outbox
    GET dead-letters
    POST dead-letters/{id}/retry
    POST dead-letters/{id}/discard
";

/// The services that write, with the routes of their own.
const SERVICES: [(&str, &str); 4] = [
    ("order", "/v1/orders"),
    ("inventory", "/v1/products"),
    ("logistics", "/v1/shipments"),
    ("user", "/v1/users"),
];

fn routes() -> BTreeSet<String> {
    let lines = |text: &'static str| text.lines().map(str::trim).filter(|line| !line.is_empty());
    let of_operators = SERVICES.iter().flat_map(|(service, _)| {
        lines(OPERATORS_ROUTES)
            .map(move |line| line.replacen(' ', &format!(" /v1/ops/{service}/"), 1))
    });
    lines(ROUTES).map(str::to_owned).chain(of_operators).collect()
}

async fn document(client: &Client) -> Value {
    let reply = client.get("/openapi.json").await.expect(200);
    assert_eq!(reply.header("content-type"), "application/json");
    assert!(reply.body["openapi"].as_str().unwrap().starts_with("3."), "{}", reply.body["openapi"]);
    reply.body
}

/// Every operation of a document: `METHOD path`, and what the document says about it.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(move |(method, told)| (format!("{} {path}", method.to_uppercase()), told))
    });
    operations.collect()
}

/// Everything that a value refers to by `$ref`.
fn references(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(members) => {
            let own = members.get("$ref").and_then(Value::as_str);
            own.into_iter().chain(members.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

async fn the_document_has_every_route_and_no_other(kind: Kind) {
    let stack = Stack::start(kind).await;
    let document = document(&stack).await;
    let found: BTreeSet<String> = operations(&document).into_iter().map(|(name, _)| name).collect();
    assert_eq!(found, routes());
    for (name, told) in operations(&document) {
        assert!(
            !told["summary"].as_str().unwrap_or_default().is_empty(),
            "{name} says what it does"
        );
        assert!(!told["tags"].as_array().unwrap().is_empty(), "{name} has its place");
        let answers = told["responses"].as_object().unwrap();
        assert!(answers.keys().any(|status| status.starts_with('2')), "{name} has a good end");
        let (_, path) = name.split_once(' ').unwrap();
        let named = path.split(['{', '}']).skip(1).step_by(2);
        let parameters = told["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        for parameter in named {
            let described = |p: &Value| p["name"] == parameter && p["in"] == "path";
            assert!(parameters.iter().any(described), "{name} describes {parameter}");
        }
        let has_body = told["requestBody"].is_object();
        let wants_one = name.starts_with("PATCH")
            || name.starts_with("POST /v1/") && { !name.contains("/dead-letters/") };
        assert_eq!(has_body, wants_one, "{name}");
    }
    for reference in references(&document) {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} is there");
    }
    stack.ends_well().await;
}

async fn every_route_of_the_document_is_served(kind: Kind) {
    let stack = Stack::start(kind).await;
    stack.product("TEA", 250, 10).await;
    let user = stack.user(1_000).await;
    let order = stack.order(&user, &[("TEA", 1)]).await;
    stack.until_status(&order, "completed").await;
    stack.quiet().await;
    let parcels = stack.all("/v1/shipments").await;
    let events = stack.all("/v1/audit/events").await;
    let named = |path: &str| -> String {
        let id = match path.split('/').nth(2) {
            Some("users") => &user,
            Some("shipments") => parcels[0]["id"].as_str().unwrap(),
            Some("ops") => NOBODY,
            _ => &order,
        };
        let event = events[0]["event"]["id"].as_str().unwrap();
        path.replace("{id}", id).replace("{sku}", "TEA").replace("{event_id}", event)
    };
    for (name, told) in operations(&document(&stack).await) {
        let (method, path) = name.split_once(' ').unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let ask = stack.ask(method.clone(), &named(path));
        // Only the head: the stream of events has no end.
        let answer = ask.json(&json!({ "unknown": 1 })).open().await;
        let status = answer.status().as_u16();
        let expected: &[u16] = match method.as_str() {
            "GET" => &[200],
            _ if path.contains("dead-letters") => &[404],
            _ => &[422],
        };
        assert!(expected.contains(&status), "{name} answered {status}");
        let told = &told["responses"];
        assert!(told[status.to_string()].is_object(), "{name} may answer {status}: {told}");
    }
    stack.ends_well().await;
}

#[tokio::test]
async fn a_process_documents_only_the_services_that_it_hosts() {
    for (service, prefix) in SERVICES {
        let options = Options::default().services(&[service]);
        let mut stack = Stack::with(Kind::Sqlite, options).await;
        let document = document(&stack).await;
        let operations = operations(&document);
        let of_service = |path: &str| {
            let operators = format!("/v1/ops/{service}/");
            path.starts_with(prefix) || path.starts_with(&operators)
        };
        let is_there = |(name, _): &&(String, &Value)| name.contains(" /v1/");
        for (name, _) in operations.iter().filter(is_there) {
            assert!(of_service(name.split_once(' ').unwrap().1), "{service} serves {name}");
        }
        let there: BTreeSet<&str> = operations.iter().map(|(name, _)| name.as_str()).collect();
        let missing = |route: &&String| {
            let path = route.split_once(' ').unwrap().1;
            (of_service(path) || !path.starts_with("/v1/")) && !there.contains(route.as_str())
        };
        assert_eq!(routes().iter().find(missing), None, "{service}");
        stack.get("/v1/audit/events").await.problem(404);
        stack.stop().await;
    }
}

async fn schemas_say_what_the_values_of_each_service_may_be(kind: Kind) {
    let stack = Stack::start(kind).await;
    let document = document(&stack).await;
    let schemas = &document["components"]["schemas"];
    let values = |name: &str| schemas[name]["enum"].clone();
    let of_order = "placed confirmed cancelling dispatched delivered completed rejected cancelled";
    let of_shipment = "created dispatched in_transit delivered failed cancelled";
    let words = |text: &str| json!(text.split_whitespace().collect::<Vec<_>>());
    assert_eq!(values("OrderStatus"), words(of_order));
    assert_eq!(values("ShipmentStatus"), words(of_shipment));
    let status = |of: &str| schemas[of]["properties"]["status"]["$ref"].clone();
    assert_eq!(status("Order"), "#/components/schemas/OrderStatus");
    assert_eq!(status("Shipment"), "#/components/schemas/ShipmentStatus");
    assert_eq!(schemas["Quantity"]["maximum"], 1_000_000);
    assert_eq!(schemas["Text"]["maxLength"], 200);

    // What is served is what is described: the same members, and the required ones among them.
    stack.product("TEA", 250, 10).await;
    let user = stack.user(1_000).await;
    let order = stack.order(&user, &[("TEA", 1)]).await;
    stack.until_status(&order, "completed").await;
    stack.quiet().await;
    for (schema, path) in [
        ("Order", "/v1/orders"),
        ("Product", "/v1/products"),
        ("User", "/v1/users"),
        ("Shipment", "/v1/shipments"),
        ("StoredEvent", "/v1/audit/events"),
        ("Consumer", "/v1/ops/order/consumers"),
        ("Notification", &format!("/v1/users/{user}/notifications")),
    ] {
        let described: BTreeSet<&String> =
            schemas[schema]["properties"].as_object().unwrap().keys().collect();
        for item in stack.all(path).await {
            let shown: BTreeSet<&String> = item.as_object().unwrap().keys().collect();
            assert_eq!(shown, described, "{schema}");
        }
        let required = schemas[schema]["required"].as_array().unwrap();
        assert_eq!(required.len(), described.len(), "{schema} is always whole: {required:?}");
    }
    stack.ends_well().await;
}

async fn the_page_about_the_api_comes_from_the_process_alone(kind: Kind) {
    let stack = Stack::start(kind).await;
    let page = stack.get("/docs").await.expect(200);
    assert!(page.header("content-type").starts_with("text/html"), "{page:?}");
    assert!(page.text.contains("swagger-ui"), "{page:?}");
    let assets: Vec<&str> = page
        .text
        .split(['"', '\''])
        .filter(|part| [".css", ".js", ".png"].iter().any(|end| part.ends_with(end)))
        .collect();
    assert!(assets.len() >= 4, "{assets:?}");
    for asset in assets {
        assert!(!asset.contains("//"), "{asset} is not elsewhere");
        let path = format!("/docs/{}", asset.trim_start_matches("./"));
        let served = stack.ask(Method::GET, &path).open().await;
        assert_eq!(served.status(), 200, "{path}");
        let kind = served.headers()["content-type"].to_str().unwrap().to_owned();
        let expected = match asset.rsplit('.').next() {
            Some("css") => "text/css",
            Some("js") => "text/javascript",
            _ => "image/png",
        };
        assert!(kind.starts_with(expected), "{path} is {kind}");
        assert!(!served.bytes().await.unwrap().is_empty(), "{path}");
    }
    let initializer = stack.get("/docs/swagger-initializer.js").await.expect(200);
    assert!(initializer.text.contains("/openapi.json"), "{}", initializer.text);
    stack.ends_well().await;
}

#[tokio::test]
async fn a_process_says_that_it_lives_and_that_it_is_ready() {
    let stack = Stack::start(Kind::Sqlite).await;
    let alive = stack.get("/livez").await.expect(200);
    assert_eq!(alive.body, json!({ "status": "alive" }));
    let ready = stack.get("/readyz").await.expect(200).body;
    assert_eq!(ready["status"], "ready");
    let checks = ready["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["ready"] == true), "{ready}");
    let named: Vec<&str> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    for service in ["order", "inventory", "logistics", "user"] {
        let of_service = named.iter().filter(|name| name.starts_with(service)).count();
        assert!(of_service >= 2, "{service} has its loops: {named:?}");
    }
    for path in ["/livez", "/readyz", "/metrics", "/openapi.json"] {
        let head = stack.ask(Method::HEAD, path).send().await.expect(200);
        assert_eq!((head.text.as_str(), head.header("cache-control")), ("", "no-store"), "{path}");
    }
    stack.ends_well().await;
}
