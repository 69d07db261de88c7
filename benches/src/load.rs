//! Clients that place orders, each over a connection of its own: as many as go, or at fixed arrival
//! times.
//!
//! They share the cores with what they measure. Those that go as fast as they are answered are
//! therefore one thread, which wakes once for many answers. Those with arrival times are a thread each,
//! because that wakes up to the microsecond.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{anyhow, bail};
use futures_util::future::try_join_all;
use waybill_runtime::Timestamp;

use crate::figure::{self, Latencies};
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

impl Answered {
    /// What these clients did in this time.
    fn by(clients: Vec<Own>, run: Duration) -> anyhow::Result<Self> {
        let mut all = Self { orders: Vec::new(), latencies: Latencies::new()?, rate: 0.0 };
        for mut own in clients {
            all.orders.append(&mut own.orders);
            all.latencies.add(&own.latencies)?;
        }
        all.rate = figure::number(all.orders.len()) / run.as_secs_f64();
        Ok(all)
    }
}

/// Places as many orders as go for so long; what is answered during the warm-up is not counted.
pub(crate) async fn for_time(
    target: &Target,
    clients: usize,
    warm_up: Duration,
    run: Duration,
) -> anyhow::Result<Answered> {
    let end = warm_up + run;
    let owns = on_one_thread(target, clients, async move |target, next| {
        let mut client = Client::connect(target.address).await?;
        let mut own = Own::new()?;
        let watch = Stopwatch::start();
        while watch.elapsed() < end {
            let began = stopwatch::now();
            let id = place(&mut client, target, next.take_one()).await?;
            let at = watch.elapsed();
            if at >= warm_up && at < end {
                own.note(id, began);
            }
        }
        Ok(own)
    });
    Answered::by(owns.await?, run)
}

/// Places so many orders, each as soon as a client is free for it. Their rate is from the first one's
/// beginning to the last one's answer.
pub(crate) async fn for_count(
    target: &Target,
    clients: usize,
    count: usize,
) -> anyhow::Result<Answered> {
    let watch = Stopwatch::start();
    let owns = on_one_thread(target, clients, async move |target, next| {
        let mut client = Client::connect(target.address).await?;
        let mut own = Own::new()?;
        loop {
            let number = next.take_one();
            if number >= count {
                return Ok(own);
            }
            let began = stopwatch::now();
            let id = place(&mut client, target, number).await?;
            own.note(id, began);
        }
    });
    let owns = owns.await?;
    Answered::by(owns, watch.elapsed())
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
    let client = async move |target: &Target, own_number: usize| {
        let mut client = Client::connect(target.address).await?;
        let mut own = Own::new()?;
        let mut number = own_number;
        loop {
            let offset = apart * u32::try_from(number)?;
            if offset >= run {
                return Ok(own);
            }
            let due = first.plus(offset);
            std::thread::sleep(due.since(stopwatch::now()));
            let id = place(&mut client, target, number).await?;
            own.note(id, due);
            number += clients;
        }
    };
    let shared = target.clone();
    let owns = tokio::task::spawn_blocking(move || {
        std::thread::scope(|scope| {
            let own = |number| block_on(client(&shared, number));
            let threads: Vec<_> =
                (0..clients).map(|number| scope.spawn(move || own(number))).collect();
            let ended = threads.into_iter().map(|thread| {
                thread.join().map_err(|_| anyhow!("a client panicked")).and_then(|own| own)
            });
            ended.collect::<anyhow::Result<Vec<Own>>>()
        })
    });
    Answered::by(owns.await??, run)
}

/// The number of the next order.
#[derive(Debug, Default)]
struct Next(Cell<usize>);

impl Next {
    fn take_one(&self) -> usize {
        self.0.replace(self.0.get() + 1)
    }
}

/// Runs so many clients, all on one thread beside the tasks of this program.
async fn on_one_thread(
    target: &Target,
    clients: usize,
    client: impl AsyncFn(&Target, &Next) -> anyhow::Result<Own> + Send + 'static,
) -> anyhow::Result<Vec<Own>> {
    let target = target.clone();
    tokio::task::spawn_blocking(move || {
        let next = Next::default();
        block_on(try_join_all((0..clients).map(|_| client(&target, &next))))
    })
    .await?
}

/// Runs what one thread does, and nothing else there.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
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

/// Places an order; its id. Only a 201 counts: a server that is full is asked again.
async fn place(client: &mut Client, target: &Target, number: usize) -> anyhow::Result<String> {
    let (key, order) = (format!("{}-{number}", target.name), target.world.order(number));
    for _ in 0..REFUSALS {
        let answer = client.post("/v1/orders", &key, &order).await?;
        match answer.status {
            201 => {
                let id = answer.header("location").rsplit('/').next().unwrap_or_default();
                return Ok(id.to_owned());
            }
            503 => tokio::time::sleep(PAUSE).await,
            status => bail!("{status} {}", String::from_utf8_lossy(answer.body)),
        }
    }
    bail!("{} refused an order {REFUSALS} times in a row with 503", target.address)
}
