//! A disk without room, under the files of SQLite and under a Postgres server.

use serde_json::Value;

use super::{Place, Trial};
use crate::support::{Kind, Options, PATIENCE, make, until};

breaking_both!(a_full_disk_is_told_to_callers_and_afterwards_nothing_is_lost_or_doubled);

const ROUNDS: usize = 3;
/// Room to begin with: files of SQLite, or a server's.
fn megabytes(kind: Kind) -> u64 {
    if kind == Kind::Postgres { 384 } else { 64 }
}

async fn a_full_disk_is_told_to_callers_and_afterwards_nothing_is_lost_or_doubled(kind: Kind) {
    let mut place = Place::of_megabytes(kind, megabytes(kind)).await;
    let mut trial = Trial::of(place.stack(Options::default()).await, kind).await;
    for _ in 0..ROUNDS {
        trial.answers(20).await;
        place.disk.fill(kind);
        trial.load.refused(trial.load.refusals() + 50).await;
        refuses_in_a_sentence(&trial).await;
        place.disk.free();
        if let Some(server) = &mut place.server
            && server.has_ended()
        {
            // It takes no part of its history for granted that it could not write.
            server.gone().await;
            server.start().await;
        }
        trial.stack.ready().await;
        trial.answers(20).await;
    }
    trial.ends_well().await;
}

/// Callers hear 503 with a sentence, and the process says that it lives and is not ready.
async fn refuses_in_a_sentence(trial: &Trial) {
    let user: Value = make::user("Grace");
    until("a command is refused", PATIENCE, async || {
        let reply = trial.stack.post("/v1/users", &user).await;
        // What fits into the room that files had already is taken.
        if reply.status == 201 {
            return None;
        }
        assert_ne!(reply.header("retry-after"), "", "{reply:?}");
        reply.problem(503);
        Some(())
    })
    .await;
    assert_eq!(trial.stack.get("/livez").await.status, 200);
    until("the process says that it is not ready", PATIENCE, async || {
        (trial.stack.get("/readyz").await.status == 503).then_some(())
    })
    .await;
}
