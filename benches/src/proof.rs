//! The order service's tables made anew from a long history, and that history compared with tables
//! and event store.

use crate::bench::Bench;
use crate::figure::Figure;
use crate::log::{self, Of};
use crate::place::{Kind, Place};
use crate::template;

pub(crate) async fn measure(bench: &Bench, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    let templates = template::record(bench).await?;
    let place = Place::fresh(bench, kind).await?;
    log::make(bench, &place, &templates, Of::Order, bench.scale.history).await?;
    bench.progress.tell("rebuilding");
    let rebuilt = bench.waybill.run(&["rebuild", "order"], &place)?;
    bench.progress.tell("verifying");
    let verified = bench.waybill.run(&["verify", "order"], &place)?;
    place.remove().await?;
    Ok(vec![
        Figure::new(format!("{kind}/rebuild"), rebuilt.as_secs_f64(), "s"),
        Figure::new(format!("{kind}/verify"), verified.as_secs_f64(), "s"),
    ])
}
