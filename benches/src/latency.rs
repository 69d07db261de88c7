//! Orders at fixed arrival times: how long until each is accepted and completed, and each hop
//! between.

use crate::bench::Bench;
use crate::completions::Completions;
use crate::figure::Figure;
use crate::load::{self, Target};
use crate::place::{Kind, Place};
use crate::world::World;

/// Orders per second.
const RATES: [u32; 2] = [50, 500];
/// Connections: enough for the next order to find one free.
const CLIENTS: usize = 64;

pub(crate) async fn measure(bench: &Bench, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for rate in RATES {
        bench.progress.tell(format!("{rate} orders a second"));
        let place = Place::fresh(bench, kind).await?;
        let server = bench.waybill.serve(&[], &place).await?;
        let world = World::make(server.address).await?;
        let target = |name| Target { address: server.address, world: world.clone(), name };
        let mut completions = Completions::follow(&place).await?;
        let first = load::at_rate(&target("first"), CLIENTS, rate, bench.scale.warm_up).await?;
        completions.wait_for(first.orders.len()).await?;
        let mut completions = completions.anew().await?;
        let answered =
            load::at_rate(&target("latency"), CLIENTS, rate, bench.scale.arrivals).await?;
        completions.wait_for(answered.orders.len()).await?;
        let completed = completions.latencies(&answered.orders)?;
        let name = format!("{kind}/latency/{rate}");
        figures.extend(answered.latencies.figures(&format!("{name}/accepted")));
        figures.extend(completed.figures(&format!("{name}/completed")));
        for (effect, times) in completions.hops().await? {
            let [p50, p99, _] = times.figures(&format!("{name}/hop/{effect}"));
            figures.extend([p50, p99]);
        }
        completions.close().await?;
        server.stop()?;
        place.remove().await?;
    }
    Ok(figures)
}
