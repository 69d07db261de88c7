//! What every process serves besides its services: health, metrics, the document and its page.
#![expect(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;
use waybill_runtime::{Clock, Health, Timestamp};
use waybill_web::{Check, Peers, Site, SiteError, one_of, record_metrics};

struct Fixture {
    router: Router,
    health: Health,
    stopping: CancellationToken,
}

fn site() -> Fixture {
    fixture(|site| site)
}

fn fixture(more: impl FnOnce(Site) -> Site) -> Fixture {
    let (clock, _) = Clock::manual(Timestamp(10_000_000));
    let (health, stopping) = (Health::new(clock.clone()), CancellationToken::new());
    let site = more(Site::new(clock, health.clone(), stopping.clone()));
    Fixture { router: site.into_router().unwrap(), health, stopping }
}

/// Peers that always say the same.
struct Say(Vec<Check>);

impl Peers for Say {
    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        async { self.0.clone() }.boxed()
    }
}

impl Fixture {
    async fn ask(&self, path: &str) -> (StatusCode, HeaderMap, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = to_bytes(body, 10_000_000).await.unwrap();
        (parts.status, parts.headers, String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn readiness(&self) -> (u16, Value) {
        self.readiness_of("/readyz").await
    }

    async fn readiness_of(&self, path: &str) -> (u16, Value) {
        let (status, _, text) = self.ask(path).await;
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
async fn a_deployment_is_ready_while_the_process_and_all_its_peers_are() {
    let with = |peers| fixture(|site| site.answering_for(Arc::new(Say(peers))));
    let good = with(vec![Check::ready("order"), Check::ready("user")]);
    good.health.good("audit.reader");
    let (status, report) = good.readiness().await;
    assert_eq!((status, &report["status"]), (200, &Value::from("ready")));
    let named: Vec<_> = report["checks"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(named, ["audit.reader", "order", "user"]);
    good.health.bad("audit.reader", "away".to_owned());
    assert_eq!(good.readiness().await.0, 503);
    assert_eq!(good.readiness_of("/readyz?scope=process").await.0, 503);

    let bad = with(vec![Check::ready("order"), Check::not_ready("user", "does not answer")]);
    for path in ["/readyz", "/readyz?scope=deployment"] {
        let (status, report) = bad.readiness_of(path).await;
        assert_eq!((status, &report["status"]), (503, &Value::from("not_ready")));
        let user = json!({ "name": "user", "ready": false, "detail": "does not answer" });
        assert_eq!(report["checks"][1], user);
    }
    let alone = (200, json!({ "status": "ready", "checks": [] }));
    assert_eq!(bad.readiness_of("/readyz?scope=process").await, alone);
}

#[tokio::test]
async fn readiness_of_what_is_not_known_is_refused() {
    for (query, pointer) in [("scope=house", "/scope"), ("scope=", "/scope"), ("all=1", "/all")] {
        let (status, problem) = site().readiness_of(&format!("/readyz?{query}")).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &pointer.into()), "{problem}");
    }
    assert_eq!(site().readiness_of("/readyz?scope=deployment").await.0, 200);
}

#[tokio::test]
async fn the_document_tells_of_the_scope_of_readiness() {
    let (_, document) = site().readiness_of("/openapi.json").await;
    let parameter = &document["paths"]["/readyz"]["get"]["parameters"][0];
    assert_eq!((&parameter["name"], &parameter["in"]), (&json!("scope"), &json!("query")));
    assert_eq!(parameter["required"], false);
    assert_eq!(parameter["schema"]["default"], "deployment", "{parameter}");
    let values = document.pointer("/components/schemas/ReadinessScope/enum");
    assert_eq!(values, Some(&json!(["deployment", "process"])));
    let checks = &document["components"]["schemas"]["ReadinessReport"]["properties"]["checks"];
    assert!(checks["description"].as_str().unwrap().contains("peer"), "{checks}");
    assert!(document["paths"]["/readyz"]["get"]["responses"]["422"].is_object());
}

#[tokio::test]
async fn what_is_only_described_is_not_served() {
    let mut elsewhere =
        Site::new(Clock::system(), Health::new(Clock::system()), CancellationToken::new())
            .document()
            .clone();
    let livez = elsewhere.paths.paths.remove("/livez").unwrap();
    elsewhere.paths.paths.clear();
    elsewhere.paths.paths.insert("/v1/elsewhere".to_owned(), livez);
    let site = fixture(|site| site.describe(elsewhere));
    let (_, document) = site.readiness_of("/openapi.json").await;
    assert!(document["paths"]["/v1/elsewhere"]["get"].is_object());
    assert!(document["paths"]["/livez"]["get"].is_object());
    assert_eq!(site.ask("/v1/elsewhere").await.0, StatusCode::NOT_FOUND);
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
