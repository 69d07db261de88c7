//! The conventions that every answer keeps, over a small site of the test's own.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;
use waybill_contract::{OrderId, Quantity, Sku};
use waybill_runtime::{Clock, CommandError, Health, Timestamp, Version};
use waybill_web::{
    ById, Filters, InvalidField, Listing, Named, Problem, QueryFields, Seen, Site, Submitted,
    SubmittedOrEmpty,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    lines: Vec<FormLine>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FormLine {
    sku: Sku,
    quantity: Quantity,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    #[serde(default)]
    reason: Option<String>,
}

struct BySku(Option<Sku>);

impl Filters for BySku {
    type Place = ById;

    fn take(query: &mut QueryFields) -> Self {
        Self(query.optional("sku"))
    }
}

async fn submit(submitted: Submitted<Form>) -> String {
    let lines = &submitted.body.lines;
    let lines: Vec<_> =
        lines.iter().map(|line| format!("{} {}", line.sku, line.quantity)).collect();
    format!("{lines:?} {:?}", submitted.terms)
}

async fn cancel(SubmittedOrEmpty(submitted): SubmittedOrEmpty<Reason>) -> String {
    format!("{:?}", submitted.body.reason)
}

async fn list(listing: Listing<BySku>) -> Json<Value> {
    let ids = (0..listing.page.rows()).map(|n| format!("01937b6e-7f5a-7c3e-9a51-{n:012x}"));
    let page = listing.page.show(ids.collect(), Clone::clone, Clone::clone);
    Json(json!({
        "items": page.items.len(), "next": page.next, "after": listing.page.after,
        "sku": listing.filters.0.map(|sku| sku.to_string()),
    }))
}

async fn show(Named(_): Named<OrderId>, seen: Seen) -> Response {
    seen.answer(Version(7), || "shown")
}

async fn panic() -> StatusCode {
    panic!("on purpose")
}

async fn stale() -> Problem {
    CommandError::<Never>::Stale { current: Version(8) }.into()
}

async fn busy() -> Problem {
    CommandError::<Never>::Busy.into()
}

async fn failed() -> Problem {
    CommandError::<Never>::Failed("a secret".to_owned()).into()
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl From<Never> for Problem {
    fn from(_: Never) -> Self {
        Self::invalid(vec![InvalidField::new("/lines", "never")])
    }
}

fn site() -> Router {
    let (clock, _) = Clock::manual(Timestamp(0));
    let stopping = CancellationToken::new();
    let routes = OpenApiRouter::default()
        .route("/forms", post(submit).get(list))
        .route("/forms/{id}", get(show))
        .route("/forms/{id}/cancel", post(cancel))
        .route("/panic", get(panic))
        .route("/stale", get(stale))
        .route("/busy", get(busy))
        .route("/failed", get(failed));
    Site::new(clock.clone(), Health::new(clock), stopping).merge(routes).into_router().unwrap()
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    #[track_caller]
    fn is_problem(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["status"], status);
        assert!(!problem["title"].as_str().unwrap().is_empty());
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        problem
    }
}

async fn send(request: Request<Body>) -> Answer {
    let response = site().oneshot(request).await.into_response();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, 10_000_000).await.unwrap();
    Answer {
        status: parts.status,
        headers: parts.headers,
        text: String::from_utf8_lossy(&bytes).into_owned(),
    }
}

async fn ask(path: &str) -> Answer {
    send(Request::get(path).body(Body::empty()).unwrap()).await
}

async fn ask_with(path: &str, headers: &[(&str, &str)]) -> Answer {
    let request =
        headers.iter().fold(Request::get(path), |r, (name, value)| r.header(*name, *value));
    send(request.body(Body::empty()).unwrap()).await
}

const FORM: &str = r#"{"lines": [{"sku": "TEA", "quantity": 2}]}"#;

async fn post_form(headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let request = headers.iter().fold(Request::post("/forms"), |r, (name, v)| r.header(*name, *v));
    send(request.body(body.into()).unwrap()).await
}

async fn post_json(body: impl Into<Body>) -> Answer {
    post_form(&[("content-type", "application/json")], body).await
}

#[track_caller]
fn points_to(answer: &Answer, pointer: &str) -> String {
    let problem = answer.is_problem(422);
    assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    problem["errors"][0]["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_unknown_route_is_a_problem() {
    assert_eq!(ask("/nowhere").await.is_problem(404)["title"], "Not Found");
}

#[tokio::test]
async fn an_unknown_method_is_a_problem_that_names_the_known_ones() {
    let answer = send(Request::delete("/forms").body(Body::empty()).unwrap()).await;
    answer.is_problem(405);
    let mut allowed: Vec<&str> = answer.header("allow").split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
}

#[tokio::test]
async fn a_panic_is_a_problem_that_tells_nothing() {
    let problem = ask("/panic").await.is_problem(500);
    assert!(!problem.to_string().contains("purpose"), "{problem}");
}

#[tokio::test]
async fn each_refusal_of_the_runtime_has_its_status() {
    ask("/stale").await.is_problem(412);
    let busy = ask("/busy").await;
    busy.is_problem(503);
    assert_eq!(busy.header("retry-after"), "1");
    let failed = ask("/failed").await.is_problem(500);
    assert!(!failed.to_string().contains("secret"), "{failed}");
}

#[tokio::test]
async fn every_answer_forbids_guessing_and_keeping() {
    for path in ["/livez", "/nowhere", "/openapi.json"] {
        let answer = ask(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
    }
}

#[tokio::test]
async fn an_address_that_is_too_long_is_refused() {
    ask(&format!("/forms?sku={}", "x".repeat(9_000))).await.is_problem(414);
}

#[tokio::test]
async fn a_form_with_its_terms_is_taken() {
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [
        ("content-type", "application/json; charset=UTF-8"),
        ("idempotency-key", "a-key"),
        ("if-match", r#""7", W/"8""#),
        ("traceparent", traceparent),
    ];
    let answer = post_form(&headers, FORM).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    for part in ["TEA 2", "a-key", "Version(7)", traceparent] {
        assert!(answer.text.contains(part), "{part} in {}", answer.text);
    }
    assert!(!answer.text.contains("Version(8)"), "a weak tag never matches");
}

#[tokio::test]
async fn a_malformed_trace_context_is_dropped() {
    for text in ["00-x-y-01", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"] {
        let answer =
            post_form(&[("content-type", "application/json"), ("traceparent", text)], FORM).await;
        assert!(answer.text.contains(r#"traceparent: """#), "{}", answer.text);
    }
}

#[tokio::test]
async fn only_announced_plain_json_is_read() {
    for media_type in ["application/json", "Application/JSON", "application/vnd.waybill+json"] {
        let answer = post_form(&[("content-type", media_type)], FORM).await;
        assert_eq!(answer.status, StatusCode::OK, "{media_type}");
    }
    let others =
        ["text/plain", "application/xml", "application/+json", "application/json; charset=latin1"];
    for media_type in others {
        post_form(&[("content-type", media_type)], FORM).await.is_problem(415);
    }
    post_form(&[], FORM).await.is_problem(415);
}

#[tokio::test]
async fn an_encoded_body_is_refused_whatever_it_holds() {
    let json = ("content-type", "application/json");
    for encoding in ["gzip", "br", "identity, gzip", ""] {
        post_form(&[json, ("content-encoding", encoding)], FORM).await.is_problem(415);
    }
    assert_eq!(post_form(&[json, ("content-encoding", "identity")], FORM).await.status, 200);
}

#[tokio::test]
async fn a_body_of_64_kib_is_read_and_one_byte_more_is_not() {
    let padded = |length: usize| format!("{FORM}{}", " ".repeat(length - FORM.len()));
    assert_eq!(post_json(padded(64 * 1024)).await.status, StatusCode::OK);
    post_json(padded(64 * 1024 + 1)).await.is_problem(413);
    let announced = [("content-type", "application/json"), ("content-length", "70000")];
    post_form(&announced, FORM).await.is_problem(413);
}

#[tokio::test]
async fn what_is_no_json_is_malformed() {
    let deep = "[".repeat(60_000);
    // The first part would not fit either, but that is not what is wrong.
    let broken = r#"{"lines": 5, "#;
    for text in ["", "{", "nonsense", r#"{"lines": [],}"#, "{} {}", broken, deep.as_str()] {
        post_json(text.to_owned()).await.is_problem(400);
    }
    post_json(&b"{\"lines\": \"\xff\"}"[..]).await.is_problem(400);
}

#[tokio::test]
async fn what_does_not_fit_is_pointed_to() {
    let detail = points_to(
        &post_json(r#"{"lines": [{"sku": "a b", "quantity": 1}]}"#).await,
        "/lines/0/sku",
    );
    assert!(detail.starts_with("must be 1 to 64 characters"), "{detail}");
    let zero = r#"{"lines": [{"sku": "A", "quantity": 1}, {"sku": "B", "quantity": 0}]}"#;
    points_to(&post_json(zero).await, "/lines/1/quantity");
    points_to(
        &post_json(r#"{"lines": [{"sku": "A", "quantity": 1e999}]}"#).await,
        "/lines/0/quantity",
    );
    points_to(
        &post_json(r#"{"lines": [{"sku": "A", "quantity": 1.5}]}"#).await,
        "/lines/0/quantity",
    );
    for whole in ["1.0", "1e0", "10e-1"] {
        let body = format!(r#"{{"lines": [{{"sku": "A", "quantity": {whole}}}]}}"#);
        assert_eq!(
            post_json(body.clone()).await.status,
            200,
            "JSON Schema calls {whole} an integer"
        );
    }
    points_to(&post_json(r#"{"lines": [{"sku": "A"}]}"#).await, "/lines/0");
    points_to(&post_json(r#"{"lines": [], "a/b~c": 1}"#).await, "/a~1b~0c");
}

#[tokio::test]
async fn a_list_is_no_structure_and_a_name_comes_once() {
    points_to(&post_json("[]").await, "");
    points_to(&post_json(r#"[[{"sku": "A", "quantity": 1}]]"#).await, "");
    points_to(&post_json(r#"{"lines": [["A", 1]]}"#).await, "/lines/0");
    let twice = points_to(&post_json(r#"{"lines": [], "lines": []}"#).await, "");
    assert_eq!(twice, "duplicate field `lines`");
    let deep = format!(r#"{{"lines": {}{}}}"#, "[".repeat(1_000), "]".repeat(1_000));
    post_json(deep).await.is_problem(422);
}

#[tokio::test]
async fn an_explanation_does_not_repeat_a_whole_body() {
    let field = "x".repeat(50_000);
    let answer = post_json(format!(r#"{{"{field}": 1}}"#)).await;
    let problem = answer.is_problem(422);
    assert!(problem["errors"][0]["detail"].as_str().unwrap().chars().count() < 400);
}

#[tokio::test]
async fn an_idempotency_key_is_one_visible_text() {
    let json = ("content-type", "application/json");
    let longest = "k".repeat(255);
    let too_long = "k".repeat(256);
    assert_eq!(post_form(&[json, ("idempotency-key", &longest)], FORM).await.status, 200);
    for key in ["", "a b", "ключ", too_long.as_str()] {
        let request = Request::post("/forms").header(json.0, json.1);
        let key = axum::http::HeaderValue::from_bytes(key.as_bytes()).unwrap();
        let request = request.header("idempotency-key", key).body(Body::from(FORM)).unwrap();
        send(request).await.is_problem(400);
    }
    post_form(&[json, ("idempotency-key", "a"), ("idempotency-key", "a")], FORM)
        .await
        .is_problem(400);
}

#[tokio::test]
async fn the_fingerprint_depends_on_the_body() {
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let first = post_form(&headers, FORM).await.text;
    assert_eq!(first, post_form(&headers, FORM).await.text);
    assert_ne!(first, post_form(&headers, format!("{FORM} ")).await.text);
}

#[tokio::test]
async fn a_malformed_condition_is_refused() {
    let json = ("content-type", "application/json");
    for condition in ["7", "", "\"7", "*, \"7\""] {
        post_form(&[json, ("if-match", condition)], FORM).await.is_problem(400);
    }
}

#[tokio::test]
async fn an_empty_body_stands_for_an_empty_object_where_it_may() {
    let path = "/forms/01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11/cancel";
    let json = "application/json";
    let post = || Request::post(path);
    let said = |request: Request<Body>| async { send(request).await.text };
    assert_eq!(said(post().body(Body::empty()).unwrap()).await, "None");
    assert_eq!(
        said(post().header("content-type", json).body(Body::empty()).unwrap()).await,
        "None"
    );
    let reason = post().header("content-type", json).body(Body::from(r#"{"reason": "late"}"#));
    assert_eq!(said(reason.unwrap()).await, r#"Some("late")"#);
    send(post().body(Body::from("{}")).unwrap()).await.is_problem(415);
}

#[tokio::test]
async fn what_cannot_name_anything_names_nothing() {
    for id in ["7", "01937b6e7f5a7c3e9a513f0c6f2d8b11", "%ff", "%00"] {
        ask(&format!("/forms/{id}")).await.is_problem(404);
    }
    assert_eq!(ask("/forms/01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11").await.status, 200);
}

#[tokio::test]
async fn a_resource_carries_its_version_and_is_not_sent_to_who_has_it() {
    let path = "/forms/01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11";
    let fresh = ask(path).await;
    assert_eq!((fresh.status.as_u16(), fresh.header("etag")), (200, "\"7\""));
    for tags in ["\"7\"", "W/\"7\"", "\"1\", \"7\"", "*"] {
        let answer = ask_with(path, &[("if-none-match", tags)]).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (304, ""), "{tags}");
        assert_eq!(answer.header("etag"), "\"7\"");
    }
    assert_eq!(ask_with(path, &[("if-none-match", "\"6\"")]).await.status, 200);
    ask_with(path, &[("if-none-match", "7")]).await.is_problem(400);
}

#[tokio::test]
async fn a_preference_is_applied_where_it_can_be_and_ignored_elsewhere() {
    let path = "/forms/01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11";
    let seen = ("if-none-match", "\"7\"");
    for (prefer, applied) in [
        ("wait=5", "wait=5"),
        ("respond-async, Wait = \"60\"; foo", "wait=60"),
        ("wait=61", "wait=60"),
        ("wait=-1", ""),
        ("wait", ""),
        ("soon", ""),
    ] {
        let answer = ask_with(path, &[seen, ("prefer", prefer)]).await;
        assert_eq!(answer.header("preference-applied"), applied, "{prefer}");
    }
    assert_eq!(ask_with(path, &[("prefer", "wait=5")]).await.header("preference-applied"), "");
}

#[tokio::test]
async fn a_list_is_cut_into_pages_by_a_cursor() {
    let page = ask("/forms?limit=3&sku=TEA").await.json();
    assert_eq!(
        (&page["items"], &page["sku"], &page["after"]),
        (&json!(3), &json!("TEA"), &Value::Null)
    );
    let cursor = page["next"].as_str().unwrap();
    let next = ask(&format!("/forms?cursor={cursor}")).await.json();
    assert_eq!(next["after"], "01937b6e-7f5a-7c3e-9a51-000000000002");
    assert_eq!(next["items"], 50);
}

#[tokio::test]
async fn a_query_that_is_not_valid_names_its_fields() {
    for (query, pointer) in [
        ("limit=0", "/limit"),
        ("limit=201", "/limit"),
        ("limit=ten", "/limit"),
        ("limit=", "/limit"),
        ("limit=1&limit=1", "/limit"),
        ("cursor=garbage", "/cursor"),
        ("cursor=", "/cursor"),
        ("cursor=%00", "/cursor"),
        ("sku=a%20b", "/sku"),
        ("skew=TEA", "/skew"),
        ("sku", "/sku"),
    ] {
        points_to(&ask(&format!("/forms?{query}")).await, pointer);
    }
    let all = ask("/forms?limit=0&cursor=x&sku=%20&more=1").await.is_problem(422);
    assert_eq!(all["errors"].as_array().unwrap().len(), 4);
}
