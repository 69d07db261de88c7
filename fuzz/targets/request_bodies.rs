//! Any body is read or refused, and what was read says the same when it is written and read again.
#![no_main]

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use libfuzzer_sys::fuzz_target;
use serde::{Deserialize, Serialize};
use tower::ServiceExt as _;
use waybill_contract::{Address, Currency, Email, Money, OrderId, Quantity, Sku, Text, UserId};
use waybill_web::Submitted;

/// Every kind of value that a request may hold.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Form {
    customer_id: Option<UserId>,
    order_id: Option<OrderId>,
    #[serde(default)]
    lines: Vec<FormLine>,
    ship_to: Option<Address>,
    price: Option<Money>,
    name: Option<Text>,
    email: Option<Email>,
    currency: Option<Currency>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct FormLine {
    sku: Sku,
    quantity: Quantity,
}

async fn repeat(submitted: Submitted<Form>) -> Json<Form> {
    Json(submitted.body)
}

/// The status of the answer, and its body.
fn ask(body: Vec<u8>) -> (StatusCode, Vec<u8>) {
    let request = Request::post("/").header("content-type", "application/json");
    let request = request.body(Body::from(body)).expect("a request");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let router: Router = Router::new().route("/", post(repeat));
        let answer = router.oneshot(request).await.expect("an answer");
        let status = answer.status();
        let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.expect("a body");
        (status, bytes.to_vec())
    })
}

fuzz_target!(|body: &[u8]| {
    let (status, said) = ask(body.to_vec());
    match status.as_u16() {
        200 => assert_eq!(ask(said.clone()), (StatusCode::OK, said)),
        400 | 413 | 422 => {}
        other => panic!("answered {other}"),
    }
});
