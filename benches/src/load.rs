//! Clients that place orders: as many as go, or at fixed arrival times. Each is a thread with a
//! connection of its own, which costs the machine less than anything else that waits.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{anyhow, bail};
use waybill_runtime::Timestamp;

use crate::figure::Latencies;
use crate::http::Client;
use crate::stopwatch::{self, Stopwatch};
use crate::world::World;

/// What a refused client waits for.
const PAUSE: Duration = Duration::from_millis(2);
/// How often a client is refused in a row before the load is given up: 20 s of pauses.
const REFUSALS: u32 = 10_000;

/// Where to place orders.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) world: World,
    /// Tells the keys of this load from those of others on the same place.
    pub(crate) name: &'static str,
}

/// An order that was answered with 201.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) id: String,
    /// When its client began to send it, or should have.
    pub(crate) began: Timestamp,
}

/// What became of a load.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) orders: Vec<Placed>,
    pub(crate) latencies: Latencies,
    /// Orders per second in the time that was measured.
    pub(crate) rate: f64,
}

/// Places as many orders as go for so long; what is answered during the warm-up is not counted.
pub(crate) async fn for_time(
    target: &Target,
    clients: usize,
    warm_up: Duration,
    run: Duration,
) -> anyhow::Result<Answered> {
    let next = AtomicUsize::new(0);
    let watch = Stopwatch::start();
    let end = warm_up + run;
    let client = move |target: &Target| {
        let mut client = Client::connect(target.address)?;
        let mut own = Own::new()?;
        while watch.elapsed() < end {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let began = stopwatch::now();
            let id = place(&mut client, target, number)?;
            let at = watch.elapsed();
            if at >= warm_up && at < end {
                own.note(id, began);
            }
        }
        Ok(own)
    };
    run_clients(target, clients, move |target, _| client(target), run).await
}

/// Places so many orders, each as soon as a client is free for it.
pub(crate) async fn for_count(
    target: &Target,
    clients: usize,
    count: usize,
) -> anyhow::Result<Answered> {
    let next = AtomicUsize::new(0);
    let client = move |target: &Target, _: usize| {
        let mut client = Client::connect(target.address)?;
        let mut own = Own::new()?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(own);
            }
            let began = stopwatch::now();
            let id = place(&mut client, target, number)?;
            own.note(id, began);
        }
    };
    run_clients(target, clients, client, Duration::ZERO).await
}

/// Places orders at fixed times, so many a second. An order that could not be sent in time counts
/// from when it should have been: no stall hides the orders behind it.
pub(crate) async fn at_rate(
    target: &Target,
    clients: usize,
    rate: u32,
    run: Duration,
) -> anyhow::Result<Answered> {
    let apart = Duration::from_secs(1) / rate;
    let first = stopwatch::now().plus(Duration::from_millis(100));
    let client = move |target: &Target, own_number: usize| {
        let mut client = Client::connect(target.address)?;
        let mut own = Own::new()?;
        let mut number = own_number;
        loop {
            let offset = apart * u32::try_from(number)?;
            if offset >= run {
                return Ok(own);
            }
            let due = first.plus(offset);
            std::thread::sleep(due.since(stopwatch::now()));
            let id = place(&mut client, target, number)?;
            own.note(id, due);
            number += clients;
        }
    };
    run_clients(target, clients, client, run).await
}

/// What one client did.
struct Own {
    orders: Vec<Placed>,
    latencies: Latencies,
}

impl Own {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { orders: Vec::new(), latencies: Latencies::new()? })
    }

    fn note(&mut self, id: String, began: Timestamp) {
        let took = stopwatch::now().since(began).as_micros();
        self.latencies.record(u64::try_from(took).unwrap_or(u64::MAX));
        self.orders.push(Placed { id, began });
    }
}

/// Runs the clients beside the tasks of this program. Without a time to divide by, it is from the
/// first order's beginning to the last one's answer.
async fn run_clients(
    target: &Target,
    clients: usize,
    client: impl Fn(&Target, usize) -> anyhow::Result<Own> + Send + Sync + 'static,
    run: Duration,
) -> anyhow::Result<Answered> {
    let target = target.clone();
    let watch = Stopwatch::start();
    let running = tokio::task::spawn_blocking(move || {
        std::thread::scope(|scope| {
            let (client, target) = (&client, &target);
            let threads: Vec<_> =
                (0..clients).map(|number| scope.spawn(move || client(target, number))).collect();
            let ended = threads.into_iter().map(|thread| {
                thread.join().map_err(|_| anyhow!("a client panicked")).and_then(|own| own)
            });
            ended.collect::<anyhow::Result<Vec<Own>>>()
        })
    });
    let owns = running.await??;
    let run = if run.is_zero() { watch.elapsed() } else { run };
    let mut answered = Answered { orders: Vec::new(), latencies: Latencies::new()?, rate: 0.0 };
    for mut own in owns {
        answered.orders.append(&mut own.orders);
        answered.latencies.add(&own.latencies)?;
    }
    answered.rate = crate::figure::number(answered.orders.len()) / run.as_secs_f64();
    Ok(answered)
}

/// Places an order; its id. Only a 201 counts: a server that is full is asked again.
fn place(client: &mut Client, target: &Target, number: usize) -> anyhow::Result<String> {
    let (key, order) = (format!("{}-{number}", target.name), target.world.order(number));
    for _ in 0..REFUSALS {
        let answer = client.post("/v1/orders", &key, &order)?;
        match answer.status {
            201 => {
                let id = answer.header("location").rsplit('/').next().unwrap_or_default();
                return Ok(id.to_owned());
            }
            503 => std::thread::sleep(PAUSE),
            status => bail!("{status} {}", String::from_utf8_lossy(answer.body)),
        }
    }
    bail!("{} refused an order {REFUSALS} times in a row with 503", target.address)
}
