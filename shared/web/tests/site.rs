//! What every process serves besides its services: health, metrics, the document and its page.
#![expect(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;
use waybill_runtime::{Clock, Health, Timestamp};
use waybill_web::{Site, SiteError, one_of, record_metrics};

struct Fixture {
    router: Router,
    health: Health,
    stopping: CancellationToken,
}

fn site() -> Fixture {
    let (clock, _) = Clock::manual(Timestamp(10_000_000));
    let (health, stopping) = (Health::new(clock.clone()), CancellationToken::new());
    let router = Site::new(clock, health.clone(), stopping.clone()).into_router().unwrap();
    Fixture { router, health, stopping }
}

impl Fixture {
    async fn ask(&self, path: &str) -> (StatusCode, HeaderMap, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = to_bytes(body, 10_000_000).await.unwrap();
        (parts.status, parts.headers, String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn readiness(&self) -> (u16, Value) {
        let (status, _, text) = self.ask("/readyz").await;
        (status.as_u16(), serde_json::from_str(&text).unwrap())
    }
}

#[tokio::test]
async fn a_process_is_ready_while_all_its_loops_are() {
    let site = site();
    site.health.expect("order.writer");
    let (status, report) = site.readiness().await;
    assert_eq!((status, &report["status"]), (503, &Value::from("not_ready")));
    assert_eq!(report["checks"][0]["name"], "order.writer");
    assert_eq!(report["checks"][0]["detail"], "starting");

    site.health.good("order.writer");
    let (status, report) = site.readiness().await;
    assert_eq!((status, &report["status"]), (200, &Value::from("ready")));

    site.health.bad("order.writer", "the database does not answer".to_owned());
    assert_eq!(site.readiness().await.0, 503);
}

#[tokio::test]
async fn a_process_that_stops_is_alive_and_not_ready() {
    let site = site();
    site.stopping.cancel();
    let (status, report) = site.readiness().await;
    assert_eq!((status, &report["status"]), (503, &Value::from("stopping")));
    assert_eq!(site.ask("/livez").await.0, StatusCode::OK);
}

#[tokio::test]
async fn requests_are_counted_by_their_route() {
    record_metrics();
    record_metrics();
    let site = site();
    site.ask("/livez").await;
    site.ask("/no/such/thing").await;
    let (status, headers, text) = site.ask("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let counted = |line: &str| text.lines().any(|l| l.starts_with(line));
    assert!(counted(r#"http_requests_total{method="GET",route="/livez",status="200"}"#), "{text}");
    assert!(
        counted(r#"http_requests_total{method="GET",route="unmatched",status="404"}"#),
        "{text}"
    );
    assert!(counted("http_request_duration_seconds_bucket"), "{text}");
}

#[tokio::test]
async fn the_document_is_json_and_names_the_routes_of_the_process() {
    let (status, headers, text) = site().ask("/openapi.json").await;
    assert_eq!(
        (status, &headers["content-type"]),
        (StatusCode::OK, &"application/json".parse().unwrap())
    );
    let document: Value = serde_json::from_str(&text).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in ["/livez", "/readyz", "/metrics", "/openapi.json"] {
        assert!(document["paths"][path]["get"].is_object(), "{path}");
    }
}

#[tokio::test]
async fn the_page_about_the_api_needs_nothing_from_elsewhere() {
    let site = site();
    let (status, headers, _) = site.ask("/docs").await;
    assert_eq!((status, &headers["location"]), (StatusCode::SEE_OTHER, &"/docs/".parse().unwrap()));
    let (status, _, page) = site.ask("/docs/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(!page.contains("http://") && !page.contains("https://"), "{page}");
    for asset in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
        assert!(page.contains(asset), "{asset} in {page}");
        assert_eq!(site.ask(&format!("/docs/{asset}")).await.0, StatusCode::OK, "{asset}");
    }
    assert!(site.ask("/docs/swagger-initializer.js").await.2.contains("/openapi.json"));
    let (status, headers, _) = site.ask("/docs/no-such-file").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(headers["content-type"], "application/problem+json");
}

#[test]
fn one_name_means_one_thing_in_the_whole_document() {
    let with = |texts: Vec<&'static str>| {
        let mut routes = OpenApiRouter::default();
        let components = routes.get_openapi_mut().components.get_or_insert_default();
        components.schemas.insert("Status".to_owned(), one_of(texts));
        routes
    };
    let (clock, _) = Clock::manual(Timestamp(0));
    let site = |second: Vec<&'static str>| {
        Site::new(clock.clone(), Health::new(clock.clone()), CancellationToken::new())
            .merge(with(vec!["new"]))
            .merge(with(second))
            .into_router()
    };
    assert!(site(vec!["new"]).is_ok());
    assert!(matches!(site(vec!["old"]), Err(SiteError::Ambiguous(name)) if name == "Status"));
}
