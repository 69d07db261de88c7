//! Answers under their idempotency keys: the inbox of HTTP commands.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::limits;
use crate::service::Answer;
use crate::sql::{self, Answered, Connection, Statement};
use crate::writes::Writes;

/// An answer that a repeated request gets again.
#[derive(Clone, Debug)]
pub(crate) struct StoredAnswer {
    /// The key that the client chose.
    pub(crate) key: String,
    /// The digest of the request it answers.
    pub(crate) fingerprint: String,
    /// The answer.
    pub(crate) answer: Answer,
}

/// Finds the answers stored under these keys.
pub(crate) fn find(keys: &[&str]) -> Result<Statement, StoreError> {
    Ok(sql::query(
        "select idempotency_key, fingerprint, answer from answers \
         where idempotency_key in (select atom from jsonb_each($1))",
    )
    .bind(serde_json::to_string(keys)?))
}

/// The answers that it found, by their keys.
pub(crate) fn found(answered: Answered) -> Result<HashMap<String, StoredAnswer>, StoreError> {
    let rows: Vec<(String, String, String)> = answered.rows()?;
    let mut stored = HashMap::with_capacity(rows.len());
    for (key, fingerprint, answer) in rows {
        let answer = serde_json::from_str(&answer)?;
        stored.insert(key.clone(), StoredAnswer { key, fingerprint, answer });
    }
    Ok(stored)
}

/// Stores answers in the transaction of what they answer.
pub(crate) fn store(
    writes: &mut Writes,
    answers: &[StoredAnswer],
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut rows = Vec::with_capacity(answers.len());
    for stored in answers {
        rows.push(vec![
            stored.key.as_str().into(),
            stored.fingerprint.as_str().into(),
            serde_json::to_string(&stored.answer)?.into(),
            now.0.into(),
        ]);
    }
    writes.add(
        "insert into answers (idempotency_key, fingerprint, answer, stored_at) select * from rows",
        rows,
    );
    Ok(())
}

/// Whether an answer is stored under the key.
pub(crate) async fn exists(connection: &mut Connection, key: &str) -> Result<bool, StoreError> {
    let count: i64 = sql::query("select count(*) from answers where idempotency_key = $1")
        .bind(key.to_owned())
        .fetch_one(connection)
        .await?;
    Ok(count > 0)
}

/// Forgets a bounded number of the answers stored before then; how many it forgot.
pub(crate) async fn prune(
    connection: &mut Connection,
    before: Timestamp,
) -> Result<u64, StoreError> {
    let pruned = sql::query(
        "delete from answers where idempotency_key in \
         (select idempotency_key from answers where stored_at < $1 order by stored_at limit $2)",
    )
    .bind(before.0)
    .bind(limits::ANSWERS_PRUNED)
    .execute(connection)
    .await?;
    Ok(pruned)
}
