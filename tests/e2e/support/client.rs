//! A small JSON client.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::wait::{PATIENCE, until};

/// How long one answer may take: longer than any server may be asked to wait.
const ANSWER: Duration = Duration::from_secs(70);
/// Where an order does not change any more.
const ENDS: [&str; 3] = ["completed", "rejected", "cancelled"];

/// Asks a server, wherever that is after a restart. Clones ask the same one.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    servers: Arc<RwLock<Servers>>,
}

/// Where requests go.
#[derive(Debug)]
struct Servers {
    base: String,
    /// Services that are elsewhere.
    apart: BTreeMap<String, String>,
}

impl Servers {
    fn of(&self, path: &str) -> &str {
        service_of(path).and_then(|service| self.apart.get(service)).unwrap_or(&self.base)
    }
}

/// The service that answers a path, where that is one of them.
fn service_of(path: &str) -> Option<&str> {
    let mut parts = path.strip_prefix("/v1/")?.split(['/', '?']);
    match parts.next()? {
        "orders" => Some("order"),
        "products" => Some("inventory"),
        "shipments" => Some("logistics"),
        "users" => Some("user"),
        "ops" => parts.next(),
        _ => None,
    }
}

/// What a server answered.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The body as it came.
    pub(crate) text: String,
    /// The body as JSON, or null if it is none.
    pub(crate) body: Value,
}

impl Reply {
    /// The value of a header; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a readable header"))
    }

    /// The items of a list.
    #[track_caller]
    pub(crate) fn items(&self) -> &[Value] {
        self.body["items"].as_array().unwrap_or_else(|| panic!("not a list: {self:?}"))
    }

    /// The reply itself, if it has this status; panics with all of it if not.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} {}", self.status, self.text);
        self
    }
}

/// A request that is being put together.
#[derive(Debug)]
pub(crate) struct Ask(reqwest::RequestBuilder);

impl Ask {
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    /// Names the request, so that it can be repeated.
    pub(crate) fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        Self(self.0.json(body))
    }

    /// Any body, with no content type of its own.
    pub(crate) fn bytes(self, body: impl Into<Vec<u8>>) -> Self {
        Self(self.0.body(body.into()))
    }

    pub(crate) async fn send(self) -> Reply {
        self.try_send().await.expect("the server answers")
    }

    /// For servers that may be gone.
    pub(crate) async fn try_send(self) -> Result<Reply, reqwest::Error> {
        let response = self.0.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Reply { status, headers, text, body })
    }

    /// The answer with its body still to come, for streams.
    pub(crate) async fn open(self) -> reqwest::Response {
        self.0.send().await.expect("the server answers")
    }
}

impl Client {
    pub(crate) fn new(base: String) -> Self {
        // The first of its kind in the process counts; a second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(ANSWER).build().expect("a client");
        let servers = Servers { base, apart: BTreeMap::new() };
        Self { http, servers: Arc::new(RwLock::new(servers)) }
    }

    /// From now on it is this server that is asked, by clones too.
    pub(crate) fn turn_to(&self, base: String) {
        self.servers.write().expect("no thread panics with it").base = base;
    }

    /// From now on this server is asked for what these services serve, by clones too.
    pub(crate) fn turn_for(&self, services: &[&str], base: &str) {
        let mut servers = self.servers.write().expect("no thread panics with it");
        let apart = services.iter().map(|&service| (service.to_owned(), base.to_owned()));
        servers.apart.extend(apart);
    }

    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.servers.read().expect("no thread panics with it").of(path))
    }

    pub(crate) fn ask(&self, method: Method, path: &str) -> Ask {
        Ask(self.http.request(method, self.url(path)))
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask(Method::GET, path).send().await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask(Method::POST, path).json(body).send().await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.ask(Method::PATCH, path).json(body).send().await
    }

    /// Every item of a list, page by page.
    pub(crate) async fn all(&self, path: &str) -> Vec<Value> {
        let sign = if path.contains('?') { '&' } else { '?' };
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("{path}{sign}limit=200{cursor}")).await.expect(200);
            items.extend_from_slice(page.items());
            match page.body["next"].as_str() {
                None => return items,
                Some(next) => cursor = format!("&cursor={next}"),
            }
        }
    }

    /// Waits until the server can do its work.
    pub(crate) async fn ready(&self) {
        until("the server is ready", PATIENCE, async || {
            let reply = self.ask(Method::GET, "/readyz").try_send().await.ok()?;
            (reply.status == 200).then_some(())
        })
        .await;
    }

    /// Waits until a resource is as it should be, by asking the server to wait for its changes.
    pub(crate) async fn until(
        &self,
        path: &str,
        what: &str,
        good: impl Fn(&Value) -> bool,
    ) -> Value {
        let waiting = async {
            let mut reply = self.get(path).await.expect(200);
            while !good(&reply.body) {
                let tag = reply.header("etag").to_owned();
                let ask = self.ask(Method::GET, path).header("if-none-match", &tag);
                let next = ask.header("prefer", "wait=5").send().await;
                if next.status != 304 {
                    reply = next.expect(200);
                }
            }
            reply.body
        };
        if let Ok(body) = tokio::time::timeout(PATIENCE, waiting).await {
            return body;
        }
        panic!("not in time: {path} {what}; it is {}", self.get(path).await.text)
    }

    /// Waits until an order has this status.
    pub(crate) async fn until_status(&self, order_id: &str, status: &str) -> Value {
        let path = format!("/v1/orders/{order_id}");
        self.until(&path, &format!("is {status}"), |order| order["status"] == status).await
    }

    /// Waits until an order has come to its end: completed, rejected or cancelled.
    pub(crate) async fn until_ended(&self, order_id: &str) -> Value {
        let ended = |order: &Value| ENDS.iter().any(|end| order["status"] == *end);
        self.until(&format!("/v1/orders/{order_id}"), "comes to its end", ended).await
    }

    /// Lists a product and waits until it can be ordered.
    pub(crate) async fn product(&self, sku: &str, price: i64, quantity: i64) {
        self.post("/v1/products", &super::make::product(sku, price, quantity)).await.expect(201);
        let path = format!("/v1/audit/events?stream=catalogue-{sku}&limit=1");
        until("the product can be ordered", PATIENCE, async || {
            (!self.get(&path).await.expect(200).items().is_empty()).then_some(())
        })
        .await;
    }

    /// Registers a user with this much money in EUR; its id.
    pub(crate) async fn user(&self, amount: i64) -> String {
        let user = self.post("/v1/users", &super::make::user("Ada")).await.expect(201);
        let id = user.body["id"].as_str().expect("an id").to_owned();
        if amount > 0 {
            let deposit = json!({ "amount": super::make::euros(amount) });
            self.post(&format!("/v1/users/{id}/deposits"), &deposit).await.expect(200);
        }
        id
    }

    /// Places an order; its id.
    pub(crate) async fn order(&self, customer_id: &str, lines: &[(&str, i64)]) -> String {
        let order = super::make::order(customer_id, lines);
        let placed = self.post("/v1/orders", &order).await.expect(201);
        placed.body["id"].as_str().expect("an id").to_owned()
    }
}
