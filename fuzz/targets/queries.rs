//! Any query of a list is read or refused, and each page's cursor leads to the next.
#![no_main]

use axum::body::Body;
use axum::extract::Request;
use axum::http::Uri;
use axum::routing::get;
use axum::{Json, Router};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use waybill_web::{ById, ByName, ByPosition, Listing, Place, Unfiltered};

/// A list that goes on for ever, at the place that the cursor names.
async fn list<P: Place + Send>(listing: Listing<Unfiltered<P>>) -> Json<Value> {
    let page = &listing.page;
    let Some(after) = &page.after else { return Json(json!({ "next": null })) };
    let shown = page.show(vec![(); page.rows()], |()| after.clone(), |()| ());
    Json(json!({ "after": after, "next": shown.next }))
}

fn ask(list: &str, query: &str) -> Option<Value> {
    let uri: Uri = format!("/{list}?{query}").parse().ok()?;
    let request = Request::get(uri).body(Body::empty()).expect("a request");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let router: Router = Router::new()
            .route("/id", get(self::list::<ById>))
            .route("/position", get(self::list::<ByPosition>))
            .route("/name", get(self::list::<ByName>));
        let answer = router.oneshot(request).await.expect("an answer");
        let status = answer.status().as_u16();
        assert!([200, 422].contains(&status), "answered {status}");
        let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.expect("a body");
        (status == 200).then(|| serde_json::from_slice(&bytes).expect("JSON"))
    })
}

fuzz_target!(|query: &str| {
    for list in ["id", "position", "name"] {
        let Some(page) = ask(list, query) else { continue };
        let Some(next) = page["next"].as_str() else { continue };
        let follow = ask(list, &format!("cursor={next}")).expect("a cursor is taken as it is");
        assert_eq!(follow["after"], page["after"], "{next}");
    }
});
