//! Orders over HTTP, each answered after it is on the disk; against one raw insert per transaction.
//!
//! Only the order service runs, with its relay: what the others do with the orders is the
//! pipeline's figure.

use crate::bench::Bench;
use crate::figure::{Figure, Latencies};
use crate::load::{self, Target};
use crate::place::{Kind, Place};
use crate::raw;
use crate::world::World;

const CLIENTS: [(usize, &str); 3] = [(1, "one"), (32, "some"), (128, "many")];

pub(crate) async fn measure(bench: &Bench, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    let place = Place::fresh(bench, kind).await?;
    let server = bench.waybill.serve(&[], &place).await?;
    let world = World::make(server.address).await?;
    server.stop()?;
    let mut figures = Vec::new();
    for (clients, name) in CLIENTS {
        bench.progress.tell(format!("raw inserts, {clients} clients"));
        let (raw, through_sqlx) = match kind {
            Kind::Sqlite => (raw::on_sqlite(bench).await?, None),
            Kind::Postgres => {
                let inserts = raw::on_postgres(bench, clients).await?;
                (inserts.pgbench, Some(inserts.sqlx))
            }
        };
        bench.progress.tell(format!("{clients} connections"));
        let server = bench.waybill.serve(&["order"], &place).await?;
        let target = Target { address: server.address, world: world.clone(), name };
        let scale = bench.scale;
        let answered = load::for_time(&target, clients, scale.warm_up, scale.run).await?;
        server.stop()?;
        let name = format!("{kind}/accept/{clients}");
        let figure = |name: &str| Figure::new(name, answered.rate, "orders/s");
        figures.push(figure(&name).against(raw.rate));
        if through_sqlx.is_some() {
            figures.push(figure(&format!("{name}/sqlx")).against(through_sqlx));
        }
        for percent in [50.0, 99.0] {
            let of = |times: &Latencies| times.percentile(percent);
            let figure = Figure::new(format!("{name}/p{percent}"), of(&answered.latencies), "ms");
            figures.push(figure.against(raw.times.as_ref().map(of)));
        }
    }
    place.remove().await?;
    Ok(figures)
}
