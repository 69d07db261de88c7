//! Runs of a service: how the next one learns that the last did not end cleanly.

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::sql::{self, Connection};

/// Notes that a run begins; the earlier ones that are not known to have ended.
///
/// A run of another replica that is still at it is among them: the two cannot be told apart from
/// here, and going on with care is never wrong, only slower for a while. May be repeated.
pub(crate) async fn begin(
    connection: &mut Connection,
    run: &str,
    now: Timestamp,
) -> Result<Vec<String>, StoreError> {
    let unclean = sql::query("select id from runs where id <> $1")
        .bind(run.to_owned())
        .fetch_all(connection)
        .await?;
    sql::query("insert into runs (id, started_at) values ($1, $2) on conflict (id) do nothing")
        .bind(run.to_owned())
        .bind(now.0)
        .execute(connection)
        .await?;
    Ok(unclean)
}

/// Notes that runs have ended, or are done with.
pub(crate) async fn end(connection: &mut Connection, runs: &[String]) -> Result<(), StoreError> {
    sql::query("delete from runs where id in (select atom from jsonb_each($1))")
        .bind(serde_json::to_string(runs)?)
        .execute(connection)
        .await?;
    Ok(())
}
