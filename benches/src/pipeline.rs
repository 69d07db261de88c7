//! Orders of two lines from placed to completed, through all services, as many as go; against the
//! same with batches of one, against a naive pipeline, and against the floor.

use std::time::Duration;

use crate::bench::Bench;
use crate::completions::Completions;
use crate::figure::{Figure, Latencies, number};
use crate::load::{self, Target};
use crate::place::{Kind, Place};
use crate::process::Server;
use crate::usage::{self, Usage};
use crate::world::World;
use crate::{floor, naive, stopwatch};

/// Connections that place the orders: more than enough to keep every service busy.
const CLIENTS: usize = 64;
/// Sizes of batches that throughput and latency are plotted over, and orders for each.
const BATCHES: [(&str, usize); 6] =
    [("1", 30), ("5", 10), ("20", 4), ("100", 2), ("500", 1), ("2000", 1)];

/// What became of a number of orders.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) orders_per_second: f64,
    pub(crate) events_per_second: f64,
    events: usize,
    orders: usize,
    accepted: Latencies,
    completed: Latencies,
    program: Option<Usage>,
    postgres: Option<Usage>,
}

pub(crate) async fn measure(bench: &Bench, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    let name = format!("{kind}/pipeline");
    let place = Place::fresh(bench, kind).await?;
    let run = on_fresh(bench, &place, bench.scale.orders, &[]).await?;
    let mut figures = run.figures(&name);
    bench.progress.tell("the floor");
    let floor = number(run.events) / floor::write_again(bench, kind, &place).await?.as_secs_f64();
    place.remove().await?;
    let backlog = from_backlog(bench, kind).await?;
    let of_one = {
        let place = Place::fresh(bench, kind).await?;
        bench.progress.tell("batches of one");
        let of_one = on_fresh(bench, &place, bench.scale.orders_of_one, &["--batch", "1"]).await?;
        place.remove().await?;
        of_one.events_per_second
    };
    let naive = match kind {
        Kind::Sqlite => None,
        Kind::Postgres => {
            bench.progress.tell("the naive pipeline");
            Some(naive::events_per_second(bench).await?)
        }
    };
    for (way, events) in [("events", run.events_per_second), ("backlog", backlog)] {
        let figure = |base: &str| Figure::new(format!("{name}/{way}/{base}"), events, "events/s");
        figures.push(figure("batches-of-one").against(of_one));
        figures.push(figure("floor").against(floor));
        if naive.is_some() {
            figures.push(figure("naive").against(naive));
        }
    }
    Ok(figures)
}

/// The pipeline over the size of batches.
pub(crate) async fn batches(bench: &Bench, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (size, part) in BATCHES {
        bench.progress.tell(format!("batches of {size}"));
        let place = Place::fresh(bench, kind).await?;
        let run = on_fresh(bench, &place, bench.scale.orders / part, &["--batch", size]).await?;
        place.remove().await?;
        let name = format!("{kind}/batches/{size}");
        figures.push(Figure::new(format!("{name}/orders"), run.orders_per_second, "orders/s"));
        figures.extend(run.completed.figures(&format!("{name}/completed")));
    }
    Ok(figures)
}

/// Places orders on an empty place and waits for their end.
async fn on_fresh(
    bench: &Bench,
    place: &Place,
    orders: usize,
    arguments: &[&str],
) -> anyhow::Result<Run> {
    let server = bench.waybill.serve(arguments, place).await?;
    let world = World::make(server.address).await?;
    let run = saturated(bench, place, &server, world, orders).await?;
    server.stop()?;
    Ok(run)
}

/// Places orders as fast as they are accepted, and waits until the last one is completed.
pub(crate) async fn saturated(
    bench: &Bench,
    place: &Place,
    server: &Server,
    world: World,
    orders: usize,
) -> anyhow::Result<Run> {
    bench.progress.tell(format!("{orders} orders"));
    let mut completions = Completions::follow(place).await?;
    let usages = || {
        let postgres = place.database().and(bench.postgres.as_ref());
        (usage::of_process(server.id()), postgres.and_then(crate::postgres::Postgres::usage))
    };
    let before = usages();
    let began = stopwatch::now();
    let target = Target { address: server.address, world, name: "pipeline" };
    let answered = load::for_count(&target, CLIENTS, orders).await?;
    completions.wait_for(orders).await?;
    let after = usages();
    let seconds = completions.last().since(began).as_secs_f64();
    let events = completions.events().await?;
    let completed = completions.latencies(&answered.orders)?;
    completions.close().await?;
    let taken = |after: Option<Usage>, before: Option<Usage>| Some(after?.since(before?));
    Ok(Run {
        orders_per_second: number(orders) / seconds,
        events_per_second: number(events) / seconds,
        events,
        orders,
        accepted: answered.latencies,
        completed,
        program: taken(after.0, before.0),
        postgres: taken(after.1, before.1),
    })
}

/// Events per second where all orders were accepted before the other services began.
async fn from_backlog(bench: &Bench, kind: Kind) -> anyhow::Result<f64> {
    let place = Place::fresh(bench, kind).await?;
    let server = bench.waybill.serve(&[], &place).await?;
    let world = World::make(server.address).await?;
    server.stop()?;
    let server = bench.waybill.serve(&["order"], &place).await?;
    bench.progress.tell("accepting a backlog");
    let mut completions = Completions::follow(&place).await?;
    let target = Target { address: server.address, world, name: "backlog" };
    load::for_count(&target, CLIENTS, bench.scale.orders).await?;
    server.stop()?;
    bench.progress.tell("working off the backlog");
    let accepted = completions.events().await?;
    let began = stopwatch::now();
    let server = bench.waybill.serve(&[], &place).await?;
    completions.wait_for(bench.scale.orders).await?;
    let seconds = completions.last().since(began).as_secs_f64();
    let events = completions.events().await? - accepted;
    completions.close().await?;
    server.stop()?;
    place.remove().await?;
    Ok(number(events) / seconds)
}

impl Run {
    fn figures(&self, name: &str) -> Vec<Figure> {
        let mut figures = vec![
            Figure::new(format!("{name}/orders"), self.orders_per_second, "orders/s"),
            Figure::new(format!("{name}/events-per-order"), self.per_order(self.events), "events"),
        ];
        figures.extend(self.accepted.figures(&format!("{name}/accepted")));
        figures.extend(self.completed.figures(&format!("{name}/completed")));
        for (whose, usage) in [("program", self.program), ("postgres", self.postgres)] {
            let Some(Usage { cpu, written }) = usage else { continue };
            figures.push(Figure::new(format!("{name}/cpu/{whose}"), self.cpu(cpu), "ms/order"));
            if let Some(written) = written {
                let written = self.per_order(usize::try_from(written / 1024).unwrap_or(0));
                figures.push(Figure::new(format!("{name}/written/{whose}"), written, "KiB/order"));
            }
        }
        figures
    }

    fn per_order(&self, count: usize) -> f64 {
        number(count) / number(self.orders)
    }

    fn cpu(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1000.0 / number(self.orders)
    }
}
