//! Timers that came due.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::{error, warn};

use super::messages::{Attempt, ended_often, tell_parked, to_message};
use super::{Step, Writer};
use crate::clock::Timestamp;
use crate::dead_letters::{self, DeadLetterStatus, Kept, Parked};
use crate::error::StoreError;
use crate::failpoints::CommitPoint;
use crate::limits;
use crate::service::Service;
use crate::timers::{self, StoredTimer};
use crate::unit::{Closing, Unit};

impl<S: Service> Writer<S> {
    /// Handles timers that came due, as one unit.
    pub async fn step_timers(&mut self, limit: usize) -> Result<Step, StoreError> {
        let core = Arc::clone(&self.core);
        let due = timers::due(&core.database, core.clock.now(), limit).await?;
        if due.is_empty() {
            self.next_due = timers::next_due(&core.database).await?;
            return Ok(Step::Idle);
        }
        let count = due.len();
        self.next_due = Some(Timestamp(0));
        if self.careful == 0 {
            match self.try_timers(&due).await {
                Err(cause) if cause.is_about_data() => {
                    warn!(service = S::NAME, %cause, "a batch of timers failed; each goes by itself");
                }
                other => return other.map(|()| Step::Did(count)),
            }
        } else if self.timers_with_care(&due).await? {
            return Ok(Step::Did(count));
        }
        for timer in due.into_iter().take(limits::CAREFUL_MESSAGES) {
            self.timer_with_care(timer).await?;
        }
        Ok(Step::Did(count))
    }

    /// Timers of which one may have ended the last run, as one unit, the attempt committed before it
    /// runs. Not so if that was tried before: then each must go by itself.
    async fn timers_with_care(&mut self, due: &[StoredTimer]) -> Result<bool, StoreError> {
        let core = Arc::clone(&self.core);
        let mut unit = Unit::begin(&core, CommitPoint::Attempt).await?;
        let set = timers::still_set(unit.turn().await?, &due.iter().collect::<Vec<_>>()).await?;
        let ids = due.iter().map(StoredTimer::id).filter(|id| set.contains(id)).collect();
        if !self.begin_together(unit, ids).await? {
            return Ok(false);
        }
        let tried = self.try_timers(due).await;
        match tried {
            Err(cause) if !cause.is_about_data() => return Err(cause),
            _ => self.open_together.clear(),
        }
        Ok(tried.is_ok())
    }

    async fn try_timers(&mut self, due: &[StoredTimer]) -> Result<(), StoreError> {
        let core = Arc::clone(&self.core);
        let kept: Vec<Kept> = due.iter().cloned().map(Kept::Timer).collect();
        let mut heard: Vec<_> = kept.iter().map(|timer| (timer, to_message::<S>(timer))).collect();
        let messages = heard.iter().filter_map(|(_, message)| message.as_ref().ok());
        let find = timers::find_set(&due.iter().collect::<Vec<_>>())?;
        let (mut unit, mut answers) =
            Unit::begin_for(&core, CommitPoint::Timers, messages, vec![find]).await?;
        let set: BTreeSet<String> = answers.pop().unwrap_or_default().rows()?.into_iter().collect();
        heard.retain(|(timer, _)| set.contains(&timer.id()));
        let mut closing = self.handle_all(&mut unit, &heard).await?;
        if unit.state().attempts_left {
            closing.settled_attempts = due.iter().map(StoredTimer::id).collect();
        }
        let committed = unit.commit(closing).await?;
        self.committed_beside_commands(committed, due.len());
        Ok(())
    }

    async fn timer_with_care(&mut self, timer: StoredTimer) -> Result<(), StoreError> {
        let kept = Kept::Timer(timer.clone());
        let Some(attempt) = self.begin_attempt(&kept, Attempt::Due(&timer)).await? else {
            return Ok(());
        };
        let failed = if attempt > limits::ATTEMPTS {
            Some(ended_often())
        } else {
            match self.try_timers(std::slice::from_ref(&timer)).await {
                Err(cause) if cause.is_about_data() && attempt == limits::ATTEMPTS => {
                    Some(cause.to_string())
                }
                // Comes due again at once, and is counted again.
                Err(cause) if cause.is_about_data() => None,
                other => other.map(|()| None)?,
            }
        };
        if let Some(cause) = failed {
            self.park_timer(&timer, cause).await?;
        }
        self.open_attempt = None;
        Ok(())
    }

    async fn park_timer(&mut self, timer: &StoredTimer, cause: String) -> Result<(), StoreError> {
        let core = Arc::clone(&self.core);
        let mut unit = Unit::begin(&core, CommitPoint::ParkedTimer).await?;
        let (id, lane) = (timer.id(), timer.correlation.as_str());
        let mut closing = Closing { settled_attempts: vec![id.clone()], ..Closing::default() };
        let set = timers::still_set(unit.turn().await?, &[timer]).await?.contains(&id);
        if set && dead_letters::held(unit.turn().await?, &[lane]).await?.is_empty() {
            error!(service = S::NAME, id, lane, cause, "a timer is parked");
            let (message, status) = (Kept::Timer(timer.clone()), DeadLetterStatus::Parked);
            tell_parked(&mut unit, &message, &cause);
            closing.parked.push(Parked { message, status, cause, attempts: limits::ATTEMPTS });
        }
        unit.commit(closing).await?;
        Ok(())
    }
}
