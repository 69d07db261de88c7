//! What events and timers have in common: decided in order; what fails is parked, and its lane waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::error;

use super::{Writer, spans};
use crate::dead_letters::{self, DeadLetterStatus, Kept, Parked};
use crate::error::StoreError;
use crate::event_store::StoredEvent;
use crate::failpoints::CommitPoint;
use crate::limits;
use crate::service::{Message, Service};
use crate::timers::{self, StoredTimer};
use crate::unit::{Cause, Closing, Unit, Verdict};

/// What a message is tried as, which tells whether it is this replica's to try.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attempt<'a> {
    /// The next event after the checkpoint.
    Next,
    /// A timer that came due.
    Due(&'a StoredTimer),
    /// A dead letter that an operator wants tried again.
    Again,
}

impl<S: Service> Writer<S> {
    /// Counts the first attempt at all of these together, committed before it runs. Not so if one of
    /// them was tried before: then each must go by itself, to tell which it was.
    pub(super) async fn begin_together(
        &mut self,
        unit: Unit<'_, S>,
        ids: Vec<String>,
    ) -> Result<bool, StoreError> {
        if !ids.is_empty() && self.open_together == ids {
            unit.rollback().await?;
            return Ok(true);
        }
        let mut turn = unit.into_turn()?;
        let first = dead_letters::count_first_attempts(&mut turn, &ids).await?;
        turn.commit(Vec::new()).await?;
        self.open_together = if first { ids } else { Vec::new() };
        Ok(first)
    }

    /// Counts an attempt at a message, committed before it runs; nothing if it is not this
    /// replica's to try any more.
    pub(super) async fn begin_attempt(
        &mut self,
        kept: &Kept,
        attempt: Attempt<'_>,
    ) -> Result<Option<i64>, StoreError> {
        let id = kept.id();
        if let Some((open, number)) = &self.open_attempt
            && *open == id
        {
            return Ok(Some(*number));
        }
        let core = Arc::clone(&self.core);
        let mut unit = Unit::begin(&core, CommitPoint::Attempt).await?;
        let mine = match attempt {
            Attempt::Next => self.is_next(&unit),
            Attempt::Due(timer) => {
                timers::still_set(unit.turn().await?, &[timer]).await?.contains(&id)
            }
            Attempt::Again => {
                !dead_letters::still_retrying(unit.turn().await?, &[&id]).await?.is_empty()
            }
        };
        if !mine {
            unit.rollback().await?;
            return Ok(None);
        }
        let mut turn = unit.into_turn()?;
        let number = dead_letters::count_attempt(&mut turn, &id).await?;
        turn.commit(Vec::new()).await?;
        self.open_attempt = Some((id, number));
        Ok(Some(number))
    }

    /// Decides kept messages in order: what fails is parked, and its lane waits behind it.
    pub(super) async fn handle_all(
        &self,
        unit: &mut Unit<'_, S>,
        kept: &[(&Kept, Result<Message<S>, String>)],
    ) -> Result<Closing, StoreError> {
        let mut held = BTreeMap::new();
        if unit.state().lanes_held {
            let lanes: BTreeSet<&str> = kept.iter().map(|(kept, _)| kept.lane()).collect();
            let lanes: Vec<&str> = lanes.into_iter().collect();
            held = dead_letters::held(unit.turn().await?, &lanes).await?;
        }
        let free = kept.iter().filter(|(kept, _)| !held.contains_key(kept.lane()));
        unit.prepare(free.filter_map(|(_, message)| message.as_ref().ok())).await?;
        let mut closing = Closing::default();
        for (kept, message) in kept {
            let lane_held = held.get(kept.lane()).copied();
            if let Kept::Timer(timer) = kept
                && (lane_held.is_some() || unit.touched_timer(&timer.key))
            {
                // It stays set, and comes due again when its lane is free.
                continue;
            }
            let mut keep = |status, cause, attempts| {
                let message = Kept::clone(kept);
                closing.parked.push(Parked { message, status, cause, attempts });
            };
            if let Some(behind) = behind(lane_held) {
                keep(behind, String::new(), 0);
                continue;
            }
            if let Some(cause) = self.try_one(unit, kept, message).await? {
                let (id, lane) = (kept.id(), kept.lane());
                error!(service = S::NAME, id, lane, cause, "a message is parked");
                held.insert(kept.lane().to_owned(), true);
                keep(DeadLetterStatus::Parked, cause, 1);
            }
        }
        Ok(closing)
    }

    /// Decides one kept message; why it failed, if it did.
    pub(super) async fn try_one(
        &self,
        unit: &mut Unit<'_, S>,
        kept: &Kept,
        message: &Result<Message<S>, String>,
    ) -> Result<Option<String>, StoreError> {
        let cause = cause_of::<S>(kept);
        let cause = spans::kept(unit, kept, &cause);
        let failed = match message {
            Err(unreadable) => Some(unreadable.clone()),
            Ok(message) => match unit.handle(message, &cause, None).await? {
                Verdict::Decided(_) => None,
                Verdict::Refused(refusal) => Some(format!("refused: {refusal}")),
                Verdict::Stale(version) => Some(format!("stale at version {version}")),
                Verdict::Failed(cause) => Some(cause),
                Verdict::Waits => return Err(StoreError::Overtaken),
            },
        };
        if let (Some(why), Some(span)) = (&failed, unit.span()) {
            span.fail(|| why.clone());
        }
        Ok(failed)
    }
}

/// Tells of a message that is parked without being handled again.
pub(super) fn tell_parked<S: Service>(unit: &mut Unit<'_, S>, kept: &Kept, why: &str) {
    let _ = spans::kept(unit, kept, &cause_of::<S>(kept));
    if let Some(span) = unit.span() {
        span.fail(|| why.to_owned());
    }
}

pub(super) fn to_message<S: Service>(kept: &Kept) -> Result<Message<S>, String> {
    match kept {
        Kept::Event(event) => {
            S::hear(&event.envelope).map(Message::Heard).map_err(|error| error.to_string())
        }
        Kept::Timer(timer) => serde_json::from_str(&timer.payload)
            .map(Message::Due)
            .map_err(|error| format!("the timer's payload cannot be read: {error}")),
    }
}

fn cause_of<S: Service>(kept: &Kept) -> Cause {
    let (causation, correlation, traceparent) = match kept {
        Kept::Event(StoredEvent { envelope, .. }) => {
            (envelope.id.to_string(), envelope.correlation.clone(), envelope.traceparent.clone())
        }
        Kept::Timer(timer) => {
            (timer.event_id.clone(), timer.correlation.clone(), timer.traceparent.clone())
        }
    };
    let actor = format!("/services/{}", S::NAME);
    let timer = kept.timer().map(|timer| timer.key.clone());
    Cause { causation, correlation: Some(correlation), timer, actor, traceparent }
}

/// What a message becomes in a lane that is held back, by whether a parked one heads it.
pub(super) fn behind(held: Option<bool>) -> Option<DeadLetterStatus> {
    held.map(|parked| if parked { DeadLetterStatus::Waiting } else { DeadLetterStatus::Retrying })
}

/// Why a message is parked that nobody saw fail.
pub(super) fn ended_often() -> String {
    format!("ended the process {} times", limits::ATTEMPTS)
}
