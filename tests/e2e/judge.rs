//! The judge: no violations where promises are kept, and the violation where a server lies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::{Client, Ended, Kind, Stack, Store, executable, finish};

on_every_deployment!(a_deployment_that_keeps_its_promises_has_no_violations);

/// How long a run may take on a busy machine.
const RUN: Duration = Duration::from_mins(4);

async fn judge(options: &[&str]) -> Ended {
    let options: Vec<String> =
        ["judge"].iter().chain(options).map(|&option| option.to_owned()).collect();
    finish(executable(&options), RUN).await
}

impl Ended {
    /// Its report, with this verdict.
    #[track_caller]
    fn report(&self, ok: bool) -> Value {
        assert_eq!(self.code, Some(i32::from(!ok)), "{self:?}");
        let report: Value = serde_json::from_str(&self.stdout).expect("a report in JSON");
        assert_eq!(report["ok"], json!(ok), "{report:#}");
        report
    }
}

async fn a_deployment_that_keeps_its_promises_has_no_violations(kind: Kind) {
    let stack = Stack::start(kind).await;
    let server = stack.url("");
    let run = ["--server", &server, "--orders", "60", "--customers", "8", "--seed", "7", "--json"];
    let report = judge(&run).await.report(true);
    assert_eq!(report["orders"]["placed"], 60);
    assert_eq!((&report["seed"], &report["violations"]), (&json!(7), &json!({})));
    let operations = &report["operations"];
    assert_eq!(operations["asked"], operations["answered"], "{report:#}");
    assert!(operations["asked"].as_u64() > Some(60), "{report:#}");
    assert!(report["events"]["checked"].as_u64() > Some(300), "{report:#}");
    assert!(report["orders"]["by_status"]["completed"].as_u64() > Some(0), "{report:#}");

    // Beside what other runs left there, and for people.
    let again = judge(&["--server", &server, "--orders", "20", "--customers", "4"]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    for part in ["operations  ", "20 placed", "read twice", "verdict: no violations\n"] {
        assert!(again.stdout.contains(part), "{part:?} is not in {}", again.stdout);
    }
    stack.ends_well().await;
}

/// Not of containers: the judge's deployments are its own.
mod breaking {
    use super::{Kind, Store, json, judge};

    on_both!(a_private_deployment_is_broken_and_has_no_violations);

    async fn a_private_deployment_is_broken_and_has_no_violations(kind: Kind) {
        let store = Store::new(kind).await;
        let mut run = vec!["--break", "--duration", "8s", "--kill-every", "1s", "--json"];
        if kind == Kind::Postgres {
            run.extend(["--database-url", store.database().0]);
        }
        let report = judge(&run).await.report(true);
        let faults = report["faults"].as_object().expect("counts");
        assert!(!faults.is_empty(), "{report:#}");
        assert!(report["orders"]["placed"].as_u64() > Some(0), "{report:#}");
        assert_eq!(report["kept"], json!([]), "{report:#}");
    }
}

#[tokio::test]
async fn without_a_server_there_is_no_verdict() {
    let ended = judge(&["--server", "http://127.0.0.1:1", "--json"]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
    assert!(ended.stderr.contains("http://127.0.0.1:1/ cannot be reached"), "{ended:?}");
    let nowhere = ["--break", "--database-url", "postgres://127.0.0.1:1/nowhere"];
    let ended = judge(&nowhere).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
    assert!(ended.stderr.contains("no database can be made for the run"), "{ended:?}");
}

/// How a server lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// It answers deposits and forgets them.
    Forgets,
    /// It places an order twice, the second time without its key.
    Doubles,
    /// It shows an order as it was before.
    IsStale,
    /// It leaves what was confirmed out of the event store.
    LeavesOut,
}

/// A server between the judge and a true one, that lies now and then.
#[derive(Debug)]
struct Liar {
    url: String,
    serving: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct Lying {
    truth: Client,
    lie: Lie,
    asked: Arc<AtomicU32>,
}

impl Liar {
    async fn start(truth: Client, lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let lying = Lying { truth, lie, asked: Arc::default() };
        let router = Router::new().fallback(answer).with_state(lying);
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves to the end");
        });
        Self { url, serving }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(
    State(lying): State<Lying>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path();
    let places = method == Method::POST && path == "/v1/orders";
    let deposits = path.ends_with("/deposits");
    let reads = method == Method::GET && path.starts_with("/v1/orders/");
    let concerned = match lying.lie {
        Lie::Forgets => deposits,
        Lie::Doubles => places,
        Lie::IsStale => reads,
        Lie::LeavesOut => false,
    };
    // Not the first, so that the run finds a beginning.
    let lies = concerned && lying.asked.fetch_add(1, Ordering::Relaxed) % 7 == 5;
    if lies && lying.lie == Lie::Forgets {
        return axum::Json(json!({ "id": "forgotten" })).into_response();
    }
    let whole = uri.path_and_query().map_or("/", |whole| whole.as_str());
    let ask = || lying.truth.ask(method.clone(), whole).header("content-type", "application/json");
    if lies && lying.lie == Lie::Doubles {
        ask().bytes(body.clone()).send().await;
    }
    let mut asking = ask();
    if let Some(key) = headers.get("idempotency-key") {
        asking = asking.key(key.to_str().expect("a readable key"));
    }
    let reply = asking.bytes(body).send().await;
    let mut shown = reply.body;
    if lies && lying.lie == Lie::IsStale {
        shown["version"] = json!(0);
    }
    if lying.lie == Lie::LeavesOut
        && path == "/v1/audit/events"
        && let Some(items) = shown["items"].as_array_mut()
    {
        items.retain(|item| item["event"]["type"] != "order.confirmed");
    }
    let status = StatusCode::from_u16(reply.status).expect("a status");
    (status, axum::Json(shown)).into_response()
}

/// What the judge says of a server that lies so, as counts by kind.
async fn judged(lie: Lie) -> Value {
    let stack = Stack::start(Kind::Sqlite).await;
    let liar = Liar::start(stack.client.clone(), lie).await;
    let run = ["--server", &liar.url, "--orders", "80", "--customers", "8", "--settle", "5s"];
    let report = judge(&[&run[..], &["--json"]].concat()).await.report(false);
    let evidence = report["evidence"].as_array().expect("evidence");
    assert!(evidence.iter().all(|one| one["look"].is_string()), "{report:#}");
    report["violations"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_what_it_answered_is_found_out() {
    let found = judged(Lie::Forgets).await;
    assert!(found["lost"].is_u64(), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_places_orders_twice_is_found_out() {
    let found = judged(Lie::Doubles).await;
    assert!(found["doubled"].is_u64(), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_shows_what_was_is_found_out() {
    let found = judged(Lie::IsStale).await;
    assert!(found["stale"].is_u64(), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_leaves_events_out_is_found_out() {
    let found = judged(Lie::LeavesOut).await;
    assert!(found["lost"].is_u64(), "{found}");
}
