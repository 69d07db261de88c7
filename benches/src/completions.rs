//! When orders came to their good end: what the event store says of each.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::ensure;
use sqlx::{AnyConnection, Connection as _};
use waybill_runtime::Timestamp;

use crate::figure::Latencies;
use crate::load::Placed;
use crate::place::{Commits, Place};
use crate::stopwatch::Stopwatch;

/// How long nothing may complete before the run has failed.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(50);

/// Follows the event store from where it is.
#[derive(Debug)]
pub(crate) struct Completions {
    connection: AnyConnection,
    /// Where it ended at first.
    first: i64,
    seen: i64,
    at: HashMap<String, Timestamp>,
}

impl Completions {
    /// Those from now on.
    pub(crate) async fn follow(place: &Place) -> anyhow::Result<Self> {
        let mut connection = place.connect("event_store", Commits::Durable).await?;
        let first = head(&mut connection).await?;
        Ok(Self { connection, first, seen: first, at: HashMap::new() })
    }

    /// Forgets those so far.
    pub(crate) async fn anew(mut self) -> anyhow::Result<Self> {
        let first = head(&mut self.connection).await?;
        Ok(Self { first, seen: first, at: HashMap::new(), ..self })
    }

    /// Waits until so many orders are completed.
    pub(crate) async fn wait_for(&mut self, count: usize) -> anyhow::Result<()> {
        let mut progress = Stopwatch::start();
        while self.at.len() < count {
            let rows: Vec<(i64, String, i64)> = sqlx::query_as(
                "select position, correlation_id, recorded_at from event \
                 where type = 'order.completed' and position > $1 order by position",
            )
            .bind(self.seen)
            .fetch_all(&mut self.connection)
            .await?;
            if let Some(last) = rows.last() {
                self.seen = last.0;
                progress = Stopwatch::start();
            }
            self.at.extend(rows.into_iter().map(|(_, order, at)| (order, Timestamp(at))));
            let stuck = progress.elapsed() > PATIENCE;
            ensure!(!stuck, "of {count} orders only {} completed", self.at.len());
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// When the last one completed.
    pub(crate) fn last(&self) -> Timestamp {
        self.at.values().copied().max().unwrap_or_default()
    }

    /// How long each of these orders took.
    pub(crate) fn latencies(&self, orders: &[Placed]) -> anyhow::Result<Latencies> {
        let mut latencies = Latencies::new()?;
        for order in orders {
            if let Some(at) = self.at.get(&order.id) {
                latencies.record(u64::try_from(at.since(order.began).as_micros())?);
            }
        }
        let (found, all) = (latencies.count(), u64::try_from(orders.len())?);
        ensure!(found == all, "of {all} orders {found} completed");
        Ok(latencies)
    }

    /// Of each type the time from the event that caused one to that one: each hop of the way.
    pub(crate) async fn hops(&mut self) -> anyhow::Result<Vec<(String, Latencies)>> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "select effect.type, effect.recorded_at - cause.recorded_at from event as effect \
             join event as cause on cause.id = effect.causation_id \
             where effect.position > $1 order by effect.position",
        )
        .bind(self.first)
        .fetch_all(&mut self.connection)
        .await?;
        let mut hops: Vec<(String, Latencies)> = Vec::new();
        for (kind, micros) in rows {
            let index = hops.iter().position(|(known, _)| *known == kind);
            let index = if let Some(index) = index {
                index
            } else {
                hops.push((kind, Latencies::new()?));
                hops.len() - 1
            };
            hops[index].1.record(u64::try_from(micros).unwrap_or(0));
        }
        Ok(hops)
    }

    /// How many events came in since.
    pub(crate) async fn events(&mut self) -> anyhow::Result<usize> {
        Ok(usize::try_from(head(&mut self.connection).await? - self.first)?)
    }

    /// Lets go of the event store.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        Ok(self.connection.close().await?)
    }
}

async fn head(connection: &mut AnyConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select coalesce(max(position), 0) from event").fetch_one(connection).await
}
