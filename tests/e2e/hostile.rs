//! Clients that mean harm, or do it: the server answers what it must, and goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::errors::NOBODY;
use crate::raw::{self, Connection};
use crate::support::{
    Client, Dice, Kind, Options, PATIENCE, Reply, Stack, Stopwatch, make, variable,
};

/// How many connections a client opens and leaves.
const IDLE: usize = 10_000;
/// How many of them are opened at one time: fewer than the queue of a listener holds.
const AT_ONCE: usize = 100;
/// How long a body may take to arrive.
const BODY_READ: Duration = Duration::from_secs(15);
/// Requests of the random kind, where `WAYBILL_TEST_HOSTILE_REQUESTS` does not say otherwise.
const REQUESTS: u64 = 3_000;
/// What has no business in a name: control characters, and those that turn the text around them.
const FORBIDDEN: [(u32, u32); 7] = [
    (0x00, 0x1f),
    (0x7f, 0x9f),
    (0x061c, 0x061c),
    (0x200e, 0x200f),
    (0x202a, 0x202e),
    (0x2066, 0x2069),
    (0xfdd0, 0xfdd0),
];

/// Requests whose end two servers may see in different places, and the statuses of the answers to
/// each and to the plain question that is sent behind it.
fn requests_in_disguise() -> Vec<(&'static str, String, &'static [u16])> {
    const BODY: &str = r#"{"name":"Ada","email":"ada@example.com"}"#;
    const HEAD: &str = "POST /v1/users HTTP/1.1\r\nhost: w\r\ncontent-type: application/json\r\n";
    let length = BODY.len();
    let chunks = format!("{length:x}\r\n{BODY}\r\n0\r\n\r\n");
    let with = |headers: &str, body: &str| format!("{HEAD}{headers}\r\n\r\n{body}");
    let sized = |headers: String| with(&headers, BODY);
    let chunked = |headers: &str| with(headers, &chunks);
    let in_chunks = |body: &str| with("transfer-encoding: chunked", body);
    let get = |rest: &str| format!("GET /livez HTTP/1.1\r\n{rest}\r\n");
    let n = length;
    vec![
        ("plain", sized(format!("content-length: {n}")), &[201, 200]),
        ("in chunks", chunked("transfer-encoding: chunked"), &[201, 200]),
        // Answered by its chunks, after which the connection is closed (RFC 9112, section 6.1).
        (
            "length and chunks",
            chunked(&format!("content-length: {n}\r\ntransfer-encoding: chunked")),
            &[201],
        ),
        ("chunks and length", chunked("transfer-encoding: chunked\r\ncontent-length: 4"), &[201]),
        ("two lengths", sized(format!("content-length: {n}\r\ncontent-length: 0")), &[400]),
        ("a list of lengths", sized(format!("content-length: {n}, {n}")), &[400]),
        ("a length with a sign", sized(format!("content-length: +{n}")), &[400]),
        ("a length in hexadecimal", sized(format!("content-length: 0x{n:x}")), &[400]),
        ("a negative length", sized("content-length: -1".to_owned()), &[400]),
        ("an endless length", sized("content-length: 99999999999999999999999".to_owned()), &[400]),
        ("an unknown coding", chunked("transfer-encoding: xchunked"), &[400]),
        ("chunks that are not last", chunked("transfer-encoding: chunked, identity"), &[400]),
        ("compressed chunks", chunked("transfer-encoding: gzip, chunked"), &[400]),
        (
            "chunks twice",
            chunked("transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
            &[400],
        ),
        ("a space before the colon", chunked("transfer-encoding : chunked"), &[400]),
        ("a coding after a tab", chunked("transfer-encoding: \u{b}chunked"), &[400]),
        (
            "a folded header",
            sized(format!("x: a\r\n transfer-encoding: chunked\r\ncontent-length: {n}")),
            &[400],
        ),
        (
            "a bare carriage return",
            sized(format!("x: a\rcontent-length: 0\r\ncontent-length: {n}")),
            &[400],
        ),
        ("a null character", sized(format!("x: a\0b\r\ncontent-length: {n}")), &[400]),
        ("a chunk of endless size", in_chunks(&format!("1000000000000000{chunks}")), &[400]),
        ("a chunk of negative size", in_chunks(&format!("-{chunks}")), &[400]),
        ("a chunk with another end", in_chunks(&chunks.replacen("\r\n", "\n", 1)), &[400]),
        ("a chunk that is too long", in_chunks(&chunks.replace("}\r\n", "}XX")), &[400]),
        ("no host", get(""), &[400]),
        ("two hosts", get("host: w\r\nhost: evil\r\n"), &[400]),
        (
            "a question with a body",
            format!("{}GET /", get("host: w\r\ncontent-length: 5\r\n")),
            &[200, 200],
        ),
        ("an upgrade", get("host: w\r\nconnection: upgrade\r\nupgrade: h2c\r\n"), &[200, 200]),
    ]
}

#[tokio::test]
async fn a_request_that_two_servers_may_read_differently_hides_no_other() {
    let stack = Stack::start(Kind::Sqlite).await;
    let next = "GET /livez HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n";
    for (name, request, statuses) in requests_in_disguise() {
        let answers = raw::ask(&stack, &format!("{request}{next}")).await;
        let answered: Vec<&str> =
            answers.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)).collect();
        let expected: Vec<String> = statuses.iter().map(u16::to_string).collect();
        assert_eq!(answered, expected, "{name}: {answers}");
    }
    stack.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_keep_nobody_out() {
    let stack = Stack::start(Kind::Sqlite).await;
    stack.product("TEA", 250, 1_000).await;
    let ada = stack.user(1_000_000).await;
    let address = stack.url("").replace("http://", "");
    let mut idle = Vec::with_capacity(IDLE);
    while idle.len() < IDLE {
        let some = join_all((0..AT_ONCE).map(|_| TcpStream::connect(&address))).await;
        let some: Result<Vec<TcpStream>, _> = some.into_iter().collect();
        idle.extend(some.expect(
            "connections: this and the server need 12,000 file descriptors each (`ulimit -n`)",
        ));
    }
    let watch = Stopwatch::start();
    for _ in 0..20 {
        stack.order(&ada, &[("TEA", 1)]).await;
    }
    assert!(watch.elapsed() < PATIENCE, "20 orders took {:?}", watch.elapsed());
    drop(idle);
    stack.ends_well().await;
}

#[tokio::test]
async fn a_client_that_closes_its_half_still_gets_the_answer_to_what_was_whole() {
    let stack = Stack::start(Kind::Sqlite).await;
    let body = make::user("Ada").to_string();
    let head = format!(
        "POST /v1/users HTTP/1.1\r\nhost: w\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut whole = Connection::open(&stack).await;
    whole.send(&format!("{head}{body}")).await;
    whole.close_half().await;
    assert!(whole.rest().await.starts_with("HTTP/1.1 201 "));

    let mut cut = Connection::open(&stack).await;
    cut.send(&format!("{head}{}", &body[..body.len() - 1])).await;
    cut.close_half().await;
    let answer = cut.rest().await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(stack.all("/v1/users").await.len(), 1, "what was cut short did nothing");
    stack.ends_well().await;
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up_on_after_15_seconds() {
    let stack = Stack::start(Kind::Sqlite).await;
    let mut slow = Connection::open(&stack).await;
    slow.send("POST /v1/users HTTP/1.1\r\nhost: w\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n").await;
    let watch = Stopwatch::start();
    let trickle = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if slow.try_send("x").await.is_err() {
                break;
            }
            if watch.elapsed() > BODY_READ + PATIENCE {
                break;
            }
        }
        slow.rest().await
    };
    let answer = trickle.await;
    let took = watch.elapsed();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!((BODY_READ..BODY_READ + PATIENCE).contains(&took), "given up on after {took:?}");
    stack.ends_well().await;
}

/// A request that may be anything.
#[derive(Debug)]
struct Request {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// Makes requests that are nearly right.
struct Attacker {
    dice: Dice,
    user: String,
    order: String,
}

impl Attacker {
    fn request(&mut self) -> Request {
        let (method, path, body) = self.template();
        let mut body = body;
        for _ in 0..self.dice.roll(3) {
            self.spoil(&mut body);
        }
        let mut bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        if !bytes.is_empty() && self.dice.roll(4) == 0 {
            self.spoil_bytes(&mut bytes);
        }
        let path = if self.dice.roll(4) == 0 { self.spoil_path(&path) } else { path };
        Request { method, path, headers: self.headers(), body: bytes }
    }

    fn template(&mut self) -> (Method, String, Value) {
        let Self { dice, user, order } = self;
        let mut placed = make::order(user, &[("TEA", 1)]);
        placed["ship_to"]["line2"] = json!("Second floor");
        let deposit = json!({ "amount": make::euros(1) });
        let receipt = json!({ "quantity": 1, "reference": "Note 7" });
        let listing =
            ["orders", "products", "users", "shipments", "audit/events", "ops/order/dead-letters"];
        match dice.roll(8) {
            0 => (Method::POST, "/v1/orders".to_owned(), placed),
            1 => (Method::POST, "/v1/users".to_owned(), make::user("Ada")),
            2 => (Method::POST, format!("/v1/users/{user}/deposits"), deposit),
            3 => (Method::POST, "/v1/products".to_owned(), make::product("CUP", 100, 7)),
            4 => (Method::PATCH, "/v1/products/TEA".to_owned(), json!({ "name": "Assam" })),
            5 => (Method::POST, "/v1/products/TEA/receipts".to_owned(), receipt),
            6 => (Method::GET, format!("/v1/{}?limit=5", dice.pick(&listing)), Value::Null),
            _ => {
                let one = [
                    format!("orders/{order}"),
                    format!("orders/{NOBODY}"),
                    "products/TEA".to_owned(),
                    format!("audit/orders/{order}"),
                    format!("audit/orders/{order}/state?at=3"),
                ];
                (Method::GET, format!("/v1/{}", dice.pick(&one)), Value::Null)
            }
        }
    }

    /// Puts something else in the place of some part of the value.
    fn spoil(&mut self, value: &mut Value) {
        let deeper = self.dice.roll(4) > 0;
        match value {
            Value::Object(members) if deeper && !members.is_empty() => {
                let names: Vec<String> = members.keys().cloned().collect();
                let name = self.dice.pick(&names).clone();
                match self.dice.roll(8) {
                    0 => drop(members.remove(&name)),
                    1 => drop(members.insert(self.text(), json!(1))),
                    _ => self.spoil(&mut members[&name]),
                }
            }
            Value::Array(items) if deeper && !items.is_empty() => {
                let place = self.dice.roll(items.len().try_into().expect("it fits"));
                self.spoil(&mut items[usize::try_from(place).expect("it fits")]);
            }
            other => *other = self.value(),
        }
    }

    fn value(&mut self) -> Value {
        match self.dice.roll(10) {
            0 => Value::Null,
            1 => json!(self.dice.roll(2) == 0),
            2 => json!(-1),
            3 => json!(i64::MAX),
            4 => json!(u64::MAX),
            5 => json!(1e308),
            6 => json!([[[[{}]]]]),
            7 => json!({ "": { "": [] } }),
            _ => json!(self.text()),
        }
    }

    /// A text, most of which hides a character that must not be there.
    fn text(&mut self) -> String {
        let (first, last) = *self.dice.pick(&FORBIDDEN);
        let number = u64::from(first) + self.dice.roll(u64::from(last - first) + 1);
        let hidden = u32::try_from(number).ok().and_then(char::from_u32).expect("a character");
        let long = "x".repeat(usize::try_from(self.dice.roll(300)).expect("it fits"));
        match self.dice.roll(4) {
            0 => long,
            1 => format!("{hidden}"),
            2 => format!("A{hidden}b"),
            _ => format!("{long}{hidden}"),
        }
    }

    fn spoil_bytes(&mut self, bytes: &mut Vec<u8>) {
        let place = usize::try_from(self.dice.roll(bytes.len().try_into().expect("it fits")));
        let place = place.expect("it fits");
        match self.dice.roll(5) {
            0 => bytes.truncate(place),
            1 => bytes[place] = u8::try_from(self.dice.roll(256)).expect("a byte"),
            2 => bytes.insert(place, u8::try_from(self.dice.roll(256)).expect("a byte")),
            3 => *bytes = "[".repeat(60_000).into_bytes(),
            _ => *bytes = [bytes.as_slice(), bytes.as_slice()].concat(),
        }
    }

    fn spoil_path(&mut self, path: &str) -> String {
        let odd = [
            "%00",
            "%ff",
            "%F0%9F%92%A9",
            "..",
            "%2e%2e",
            ";",
            "%",
            "a%0d%0ab",
            "\u{e9}",
            "'--",
            "/",
        ];
        let odd = *self.dice.pick(&odd);
        match self.dice.roll(4) {
            0 => format!("{path}{odd}"),
            1 => format!("{path}/{odd}"),
            2 => format!("{path}?cursor={odd}&limit={odd}&since={odd}"),
            _ => path.replacen("/v1/", &format!("/v1/{odd}"), 1),
        }
    }

    fn headers(&mut self) -> Vec<(&'static str, String)> {
        let names = [
            "idempotency-key",
            "if-match",
            "if-none-match",
            "prefer",
            "traceparent",
            "content-encoding",
            "content-type",
            "accept",
            "range",
            "expect",
            "x-http-method-override",
        ];
        let values = [
            "",
            "*",
            "\"1\"",
            "W/\"0\"",
            "wait=0",
            "0",
            "gzip",
            "text/plain",
            "bytes=0-",
            "application/json; charset=utf-16",
            "00-00-00-00",
            "\u{e9}",
            "a b",
        ];
        let json = ("content-type", "application/json".to_owned());
        let count = self.dice.roll(3).saturating_sub(1);
        let odd =
            (0..count).map(|_| (*self.dice.pick(&names), (*self.dice.pick(&values)).to_owned()));
        [json].into_iter().chain(odd).collect()
    }
}

async fn send(client: &Client, request: &Request) -> Option<Reply> {
    let mut ask = client.ask(request.method.clone(), &request.path).bytes(request.body.clone());
    for (name, value) in &request.headers {
        ask = ask.header(name, value);
    }
    ask.try_send().await.ok()
}

/// A house whose order moves no more, so that answers depend on nothing that happens meanwhile.
async fn house(kind: Kind) -> (Stack, String, String) {
    let stack = Stack::with(kind, Options::default().manual_carrier()).await;
    stack.product("TEA", 250, 1_000).await;
    let user = stack.user(1_000_000).await;
    let order = stack.order(&user, &[("TEA", 3)]).await;
    stack.until_status(&order, "dispatched").await;
    (stack, user, order)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_requests_are_answered_alike_on_both_databases_and_never_with_5xx() {
    let (sqlite, user, order) = house(Kind::Sqlite).await;
    let (postgres, other_user, other_order) = house(Kind::Postgres).await;
    let mut attacker = Attacker { dice: Dice::thrown(), user, order };
    let mut statuses: BTreeMap<u16, u64> = BTreeMap::new();
    for number in 0..variable("WAYBILL_TEST_HOSTILE_REQUESTS", REQUESTS) {
        let request = attacker.request();
        let there = |text: &str| {
            text.replace(&attacker.user, &other_user).replace(&attacker.order, &other_order)
        };
        let same = Request {
            method: request.method.clone(),
            path: there(&request.path),
            headers: request.headers.clone(),
            body: String::from_utf8(request.body.clone())
                .map_or_else(|_| request.body.clone(), |text| there(&text).into_bytes()),
        };
        let (one, other) = tokio::join!(send(&sqlite, &request), send(&postgres, &same));
        // A client may refuse to send it: a header's value or an address that is none.
        let (Some(one), Some(other)) = (one, other) else { continue };
        assert_eq!(one.status, other.status, "{number}: {request:?}: {} {}", one.text, other.text);
        assert!(one.status < 500, "{number}: {request:?}: {}", one.text);
        *statuses.entry(one.status).or_default() += 1;
    }
    eprintln!("answers by status: {statuses:?}");
    for status in [200, 201, 400, 404, 405, 415, 422] {
        assert!(statuses.contains_key(&status), "no request was answered {status}: {statuses:?}");
    }
    sqlite.ends_well().await;
    postgres.ends_well().await;
}
