//! Dead letters that an operator wants tried again.

use std::sync::Arc;

use tracing::warn;

use super::messages::{Attempt, ended_often, tell_parked, to_message};
use super::{Step, Writer};
use crate::dead_letters::{self, DeadLetterStatus, Kept, Parked};
use crate::error::StoreError;
use crate::failpoints::CommitPoint;
use crate::limits;
use crate::service::Service;
use crate::timers::{self, StoredTimer};
use crate::unit::{Closing, Unit};

impl<S: Service> Writer<S> {
    /// Tries dead letters again that an operator wants tried, in the order of their lanes.
    pub async fn step_retries(&mut self, limit: usize) -> Result<Step, StoreError> {
        let core = Arc::clone(&self.core);
        let listed = dead_letters::retrying(&core.database, limit).await?;
        if listed.is_empty() {
            self.careful_retries = false;
            return Ok(Step::Idle);
        }
        if !self.careful_retries {
            match self.try_retries(&listed, None).await {
                Err(cause) if cause.is_about_data() => {
                    warn!(service = S::NAME, %cause, "a batch of retries failed; each goes by itself");
                }
                other => return other.map(|()| Step::Did(listed.len())),
            }
        }
        for one in listed.iter().take(limits::CAREFUL_MESSAGES) {
            self.retry_with_care(one).await?;
        }
        Ok(Step::Did(listed.len()))
    }

    /// Tries one dead letter again, the attempt committed before it runs, so that a crash counts.
    async fn retry_with_care(&mut self, letter: &(String, i64, Kept)) -> Result<(), StoreError> {
        let (_, _, kept) = letter;
        let Some(attempt) = self.begin_attempt(kept, Attempt::Again).await? else { return Ok(()) };
        let letter = std::slice::from_ref(letter);
        let failed = (attempt > limits::ATTEMPTS).then(ended_often);
        match self.try_retries(letter, failed).await {
            Err(cause) if cause.is_about_data() => {
                self.try_retries(letter, Some(cause.to_string())).await?;
            }
            other => other?,
        }
        self.open_attempt = None;
        Ok(())
    }

    /// Tries dead letters again as one unit; with `failed`, their retry is known to fail so.
    async fn try_retries(
        &mut self,
        listed: &[(String, i64, Kept)],
        failed: Option<String>,
    ) -> Result<(), StoreError> {
        let core = Arc::clone(&self.core);
        let mut unit = Unit::begin(&core, CommitPoint::Retries).await?;
        let ids: Vec<&str> = listed.iter().map(|(id, _, _)| id.as_str()).collect();
        let still = dead_letters::still_retrying(unit.turn().await?, &ids).await?;
        let timers: Vec<&StoredTimer> =
            listed.iter().filter_map(|(_, _, kept)| kept.timer()).collect();
        let set = timers::still_set(unit.turn().await?, &timers).await?;
        let listed: Vec<_> = listed.iter().filter(|(id, _, _)| still.contains(id)).collect();
        let messages: Vec<_> = listed.iter().map(|(_, _, kept)| to_message::<S>(kept)).collect();
        if failed.is_none() {
            unit.prepare(messages.iter().filter_map(|message| message.as_ref().ok())).await?;
        }
        let mut closing = Closing::default();
        if unit.state().attempts_left {
            closing.settled_attempts = ids.iter().map(ToString::to_string).collect();
        }
        for ((id, attempts, kept), message) in listed.into_iter().zip(&messages) {
            if closing.stopped_lanes.iter().any(|lane| lane == kept.lane()) {
                continue;
            }
            let cleared = kept
                .timer()
                .is_some_and(|timer| !set.contains(id) || unit.touched_timer(&timer.key));
            let cause = match &failed {
                _ if cleared => None,
                Some(cause) => {
                    tell_parked(&mut unit, kept, cause);
                    Some(cause.clone())
                }
                None => self.try_one(&mut unit, kept, message).await?,
            };
            match cause {
                None => closing.revived.push(id.clone()),
                Some(cause) => {
                    closing.stopped_lanes.push(kept.lane().to_owned());
                    let (message, status) = (kept.clone(), DeadLetterStatus::Parked);
                    closing.parked.push(Parked { message, status, cause, attempts: attempts + 1 });
                }
            }
        }
        let committed = unit.commit(closing).await?;
        self.committed_beside_commands(committed, messages.len());
        Ok(())
    }
}
