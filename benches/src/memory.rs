//! What one process with all services takes of the machine.

use std::time::Duration;

use anyhow::Context as _;

use crate::bench::Bench;
use crate::completions::Completions;
use crate::figure::Figure;
use crate::load::{self, Target};
use crate::place::{Kind, Place};
use crate::usage;
use crate::world::World;

/// Connections that place orders while memory is measured under load.
const CLIENTS: usize = 128;
/// How long a server is left alone before it counts as idle.
const REST: Duration = Duration::from_secs(5);

pub(crate) async fn measure(bench: &Bench, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    let place = Place::fresh(bench, kind).await?;
    let server = bench.waybill.serve(&[], &place).await?;
    let first_start = server.start_up;
    let world = World::make(server.address).await?;
    server.stop()?;
    let mut starts = Vec::new();
    for _ in 1..bench.scale.starts {
        let server = bench.waybill.serve(&[], &place).await?;
        starts.push(server.start_up);
        server.stop()?;
    }
    let server = bench.waybill.serve(&[], &place).await?;
    starts.push(server.start_up);
    starts.sort();
    let start = starts[starts.len() / 2];
    bench.progress.tell("idle");
    tokio::time::sleep(REST).await;
    let untold = "the memory of a process is not told here";
    let (idle, _) = usage::memory(server.id()).context(untold)?;
    bench.progress.tell("under load");
    let mut completions = Completions::follow(&place).await?;
    let target = Target { address: server.address, world, name: "memory" };
    let answered = load::for_time(&target, CLIENTS, Duration::ZERO, bench.scale.run).await?;
    completions.wait_for(answered.orders.len()).await?;
    completions.close().await?;
    let (_, most) = usage::memory(server.id()).context(untold)?;
    server.stop()?;
    place.remove().await?;
    let size = crate::figure::number(usize::try_from(bench.waybill.size()?)?) / 1024.0 / 1024.0;
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    Ok(vec![
        Figure::new(format!("{kind}/memory/idle"), idle, "MiB"),
        Figure::new(format!("{kind}/memory/load"), most, "MiB"),
        Figure::new(format!("{kind}/memory/executable"), size, "MiB"),
        Figure::new(format!("{kind}/memory/first-start"), millis(first_start), "ms"),
        Figure::new(format!("{kind}/memory/start"), millis(start), "ms"),
    ])
}
