//! Clients that place orders, each under a key, and repeat a request until it is answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use reqwest::Method;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use waybill_runtime::{Clock, Timestamp};

use crate::support::{Client, PATIENCE, Stopwatch, World, make};

/// How long a client pauses before it repeats a request.
const PAUSE: Duration = Duration::from_millis(30);
/// How long a request that was repeated all the time may stay without an answer.
const BOUND: Duration = Duration::from_mins(1);

/// Requests that are repeated at one time, to be compared with their first answers.
const REPEATED_AT_ONCE: usize = 16;

/// How many loads there were so far, so that each has keys of its own.
static LOADS: AtomicU32 = AtomicU32::new(0);

/// A running load.
pub(crate) struct Load {
    clients: JoinSet<Vec<Answered>>,
    goes_on: watch::Sender<bool>,
    answered: watch::Receiver<usize>,
    /// Answers "not now", all of which said when to come back.
    refused: watch::Receiver<usize>,
    /// Answers of a gateway that waited for too long.
    given_up: watch::Receiver<usize>,
}

/// An order that was answered with 201.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) key: String,
    pub(crate) request: Value,
    pub(crate) order: Value,
    pub(crate) at: Timestamp,
    /// How long the longest of its requests took.
    pub(crate) longest: Duration,
}

/// What the clients share.
#[derive(Clone, Default)]
struct Counts {
    answered: Arc<watch::Sender<usize>>,
    refused: Arc<watch::Sender<usize>>,
    given_up: Arc<watch::Sender<usize>>,
}

impl Load {
    /// This many clients, each of which places this many orders of one piece, one after the other.
    pub(crate) fn start(client: &Client, world: &World, clients: usize, each: usize) -> Self {
        Self::run(client, world, clients, each, Duration::ZERO)
    }

    /// The same without an end: it goes on until [`Self::stop`], each client with this pause
    /// between its orders.
    pub(crate) fn steady(client: &Client, world: &World, clients: usize, pause: Duration) -> Self {
        Self::run(client, world, clients, usize::MAX, pause)
    }

    fn run(client: &Client, world: &World, clients: usize, each: usize, pause: Duration) -> Self {
        let counts = Counts::default();
        let Counts { answered, refused, given_up } = &counts;
        let (answered, refused, given_up) =
            (answered.subscribe(), refused.subscribe(), given_up.subscribe());
        let goes_on = watch::Sender::new(true);
        let load = LOADS.fetch_add(1, Ordering::Relaxed);
        let mut running = JoinSet::new();
        for number in 0..clients {
            let (client, world, counts) = (client.clone(), world.clone(), counts.clone());
            let goes_on = goes_on.subscribe();
            running.spawn(async move {
                let mut done = Vec::new();
                while done.len() < each && *goes_on.borrow() {
                    let (key, request) = request(&world, load, number, done.len());
                    let placing =
                        tokio::time::timeout(BOUND, place(&client, &key, request, &counts));
                    let placed = placing.await;
                    done.push(placed.unwrap_or_else(|_| panic!("{key} was never answered")));
                    counts.answered.send_modify(|count| *count += 1);
                    tokio::time::sleep(pause).await;
                }
                done
            });
        }
        Self { clients: running, goes_on, answered, refused, given_up }
    }

    /// Waits until this many orders are answered.
    pub(crate) async fn answered(&mut self, count: usize) {
        reached(&mut self.answered, count).await;
    }

    /// Waits until this many requests were told to come back later.
    pub(crate) async fn refused(&mut self, count: usize) {
        reached(&mut self.refused, count).await;
    }

    /// Waits until a gateway has given up on this many requests.
    pub(crate) async fn given_up(&mut self, count: usize) {
        reached(&mut self.given_up, count).await;
    }

    /// How many requests were told to come back later so far.
    pub(crate) fn refusals(&self) -> usize {
        *self.refused.borrow()
    }

    /// How many are answered so far.
    pub(crate) fn answers(&self) -> usize {
        *self.answered.borrow()
    }

    /// Waits until all orders are answered.
    pub(crate) async fn finish(self) -> Vec<Answered> {
        self.clients.join_all().await.into_iter().flatten().collect()
    }

    /// Ends a steady load: waits until what has begun is answered.
    pub(crate) async fn stop(self) -> Vec<Answered> {
        self.goes_on.send_replace(false);
        self.finish().await
    }
}

async fn reached(count: &mut watch::Receiver<usize>, least: usize) {
    let waiting = count.wait_for(|count| *count >= least);
    let reached = tokio::time::timeout(PATIENCE, waiting).await;
    reached.expect("the load goes on").expect("clients are running");
}

/// The key, and the order with the key in it, so that an order tells which request it is of.
fn request(world: &World, load: u32, client: usize, number: usize) -> (String, Value) {
    let (customer, _) = &world.customers[client % world.customers.len()];
    let (sku, ..) = &world.products[(client + number) % world.products.len()];
    let key = format!("load-{load}-{client}-{number}");
    let mut order = make::order(customer, &[(sku, 1)]);
    order["ship_to"]["line2"] = Value::from(key.clone());
    (key, order)
}

/// Repeats a request until it is answered with 201.
async fn place(client: &Client, key: &str, request: Value, counts: &Counts) -> Answered {
    let mut longest = Duration::ZERO;
    loop {
        let ask = client.ask(Method::POST, "/v1/orders").key(key).json(&request);
        let watch = Stopwatch::start();
        let reply = ask.try_send().await;
        longest = longest.max(watch.elapsed());
        match reply {
            Ok(reply) if reply.status == 201 => {
                let (key, at) = (key.to_owned(), Clock::system().now());
                return Answered { key, request, order: reply.body, at, longest };
            }
            Ok(reply) if reply.status == 503 => {
                assert_ne!(reply.header("retry-after"), "", "{reply:?}");
                counts.refused.send_modify(|count| *count += 1);
            }
            // Only a gateway says so: whoever has the request may be gone, or late.
            Ok(reply) if reply.status == 504 => counts.given_up.send_modify(|count| *count += 1),
            Ok(reply) if reply.status == 502 => {}
            Ok(reply) => panic!("{key} was answered {} {}", reply.status, reply.text),
            // The server is gone, or went away before it answered.
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Every answered order is there once and is the one that was answered; repeating its request gives
/// the first answer again; and nothing else is there but orders of these keys, each once.
pub(crate) async fn each_exists_once(
    client: &Client,
    answered: &[Answered],
    orders: &BTreeMap<String, Value>,
) {
    let mut by_key: BTreeMap<&str, &Value> = BTreeMap::new();
    for order in orders.values() {
        let key = order["ship_to"]["line2"].as_str().expect("the key");
        let twice = by_key.insert(key, order);
        assert!(twice.is_none(), "{key} was placed twice: {twice:?} and {order:?}");
    }
    for Answered { key, order, .. } in answered {
        let found = by_key.get(key.as_str()).unwrap_or_else(|| panic!("{key} is lost: {order}"));
        for part in ["id", "number", "customer_id", "lines", "total", "placed_at"] {
            assert_eq!(found[part], order[part], "{part} of {key}");
        }
    }
    let repeated = stream::iter(answered).for_each_concurrent(REPEATED_AT_ONCE, async |one| {
        let ask = client.ask(Method::POST, "/v1/orders").key(&one.key).json(&one.request);
        let again = ask.send().await.expect(201);
        assert_eq!(again.body, one.order, "the answer under {}", one.key);
    });
    repeated.await;
}
