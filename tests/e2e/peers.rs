//! One process that answers for a whole deployment: a process for each service on one Postgres,
//! beside each other as containers are.

use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::{Client, Kind, Options, Process, Stopwatch, Store, run, until};

/// Within which a deployment must say that a part of it is gone.
const NOTICED: Duration = Duration::from_secs(5);
/// Within which an answer for a deployment comes, however many of its parts hang.
const ANSWERED: Duration = Duration::from_secs(2);
/// The address of no server: nobody listens on this port.
const NOWHERE: &str = "http://127.0.0.1:1";
const WRITERS: [&str; 4] = ["order", "inventory", "logistics", "user"];

/// A server of these services with further options; its client.
async fn serve(store: &Store, services: &[&str], more: &[String]) -> (Process, Client) {
    let arguments = [Options::default().services(services).arguments(store), more.to_vec()];
    let (process, url) = Process::serve(&arguments.concat()).await;
    (process, Client::new(url))
}

fn peers<'a>(peers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let options =
        peers.into_iter().map(|(name, url)| ["--peer".to_owned(), format!("{name}={url}")]);
    options.flatten().collect()
}

/// What readiness says of a process and all it answers for: its status, and its checks.
async fn readiness(client: &Client, path: &str) -> (u16, Vec<Value>) {
    let reply = client.get(path).await;
    assert!([200, 503].contains(&reply.status), "{reply:?}");
    let checks = reply.body["checks"].as_array().unwrap();
    let ready = checks.iter().all(|check| check["ready"] == true);
    assert_eq!(
        (reply.status == 200, &reply.body["status"] == "ready"),
        (ready, ready),
        "{reply:?}"
    );
    (reply.status, checks.clone())
}

/// What is wrong with a part of a deployment, by its name; empty if nothing is.
fn wrong<'a>(checks: &'a [Value], name: &str) -> &'a str {
    let check = checks.iter().find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("no {name} in {checks:?}"))["detail"].as_str().unwrap()
}

async fn is_healthy(client: &Client) -> bool {
    let ended = run(&["healthcheck".to_owned(), "--server".to_owned(), client.url("")]).await;
    ended.code == Some(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_not_ready_while_a_service_of_it_is_gone() {
    let store = Store::new(Kind::Postgres).await;
    let mut parts = Vec::new();
    for service in WRITERS {
        parts.push(serve(&store, &[service], &[]).await);
    }
    let urls: Vec<String> = parts.iter().map(|(_, client)| client.url("")).collect();
    let options = peers(WRITERS.into_iter().zip(urls.iter().map(String::as_str)));
    let (_audit, whole) = serve(&store, &["audit"], &options).await;
    whole.ready().await;
    let (_, checks) = readiness(&whole, "/readyz").await;
    for service in WRITERS {
        assert_eq!(wrong(&checks, service), "");
    }
    assert!(checks.iter().all(|check| check["ready"] == true), "{checks:?}");

    let (user, of_user) = parts.last_mut().unwrap();
    user.kill().await;
    let (_, checks) = until("the whole is not ready", NOTICED, async || {
        let (status, checks) = readiness(&whole, "/readyz").await;
        (status == 503).then_some((status, checks))
    })
    .await;
    assert_eq!((wrong(&checks, "order"), wrong(&checks, "inventory")), ("", ""));
    let address = of_user.url("").replace("http://", "");
    assert_eq!(wrong(&checks, "user"), format!("{address} does not answer (connection refused)"));
    let (alone, checks) = readiness(&whole, "/readyz?scope=process").await;
    assert_eq!((alone, checks.iter().filter(|check| check["name"] == "user").count()), (200, 0));
    assert!(is_healthy(&whole).await, "the process itself is well");
    assert!(!is_healthy(of_user).await);

    // It comes back where it was, as a container that is started again.
    let back = Options::default().services(&["user"]).arguments(&store).into_iter();
    let back = back.map(|word| if word == "127.0.0.1:0" { address.clone() } else { word });
    let (_user, _) = Process::serve(&back.collect::<Vec<_>>()).await;
    whole.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_only_reads_is_not_ready_without_its_database() {
    let store = Store::new(Kind::Postgres).await;
    let (_process, audit) = serve(&store, &["audit"], &[]).await;
    audit.ready().await;
    store.goes_away().await;
    until("it is not ready", NOTICED, async || {
        (audit.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert!(!is_healthy(&audit).await);
    store.comes_back().await;
    audit.ready().await;
}

#[tokio::test]
async fn a_peer_that_accepts_and_never_answers_holds_nobody_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let store = Store::new(Kind::Sqlite).await;
    let options = peers([("order", silent_url.as_str()), ("user", NOWHERE)]);
    let (_process, whole) = serve(&store, &["audit"], &options).await;
    for _ in 0..3 {
        let watch = Stopwatch::start();
        let (status, checks) = readiness(&whole, "/readyz").await;
        assert!(watch.elapsed() < ANSWERED, "after {:?}", watch.elapsed());
        assert_eq!(status, 503);
        assert!(wrong(&checks, "order").ends_with("does not answer within 1s"), "{checks:?}");
        assert!(wrong(&checks, "user").ends_with("does not answer (connection refused)"));
    }
    let watch = Stopwatch::start();
    let (status, checks) = readiness(&whole, "/readyz?scope=process").await;
    assert_eq!((status, checks.len(), wrong(&checks, "event_store.reader")), (200, 1, ""));
    assert!(watch.elapsed() < ANSWERED / 2, "nobody else is asked");
    assert!(is_healthy(&whole).await);
    whole.get("/readyz?scope=order").await.invalid(&["/scope"]);
    whole.get("/readyz?services=order").await.invalid(&["/services"]);
}

#[tokio::test]
async fn one_document_covers_a_deployment_whichever_process_answers_for_it() {
    let mut texts = Vec::new();
    let all = ["order", "inventory", "logistics", "user", "audit"];
    let elsewhere = |service: &str| match service {
        "order" => "/v1/orders",
        "inventory" => "/v1/products",
        "logistics" => "/v1/shipments",
        "user" => "/v1/users",
        _ => "/v1/audit/events",
    };
    for hosted in [&all[..], &["audit"], &["user", "order"]] {
        let others = all.into_iter().filter(|service| !hosted.contains(service));
        let options = peers(others.clone().map(|service| (service, NOWHERE)));
        let store = Store::new(Kind::Sqlite).await;
        let (_process, client) = serve(&store, hosted, &options).await;
        let document = client.get("/openapi.json").await.expect(200);
        assert!(document.body["paths"]["/v1/orders"]["post"].is_object());
        texts.push(document.text);
        for service in others {
            client.get(elsewhere(service)).await.problem(404);
            client.get(&format!("/v1/ops/{service}/outbox")).await.problem(404);
        }
        for service in hosted {
            client.get(elsewhere(service)).await.expect(200);
        }
    }
    let parsed: Vec<Value> = texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(parsed[1], parsed[0]);
    assert_eq!(texts[1..], [texts[0].clone(), texts[0].clone()], "byte by byte");
}
