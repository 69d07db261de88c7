//! Whether every background loop is alive and its database answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::clock::{Clock, Timestamp};
use crate::limits;

/// The health of everything that runs in this process.
#[derive(Clone, Debug)]
pub struct Health {
    clock: Clock,
    loops: Arc<Mutex<BTreeMap<String, Beat>>>,
}

#[derive(Clone, Debug)]
struct Beat {
    last_good: Timestamp,
    trouble: Option<String>,
}

/// One background loop, as readiness shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoopHealth {
    /// Which loop, such as `order.writer`.
    pub name: String,
    /// Whether it works.
    pub ready: bool,
    /// What is wrong; empty if nothing is.
    pub detail: String,
}

impl Health {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, loops: Arc::default() }
    }

    /// A loop exists; it is not ready before its first good step.
    pub fn expect(&self, name: &str) {
        self.set(name, Beat { last_good: Timestamp(0), trouble: Some("starting".to_owned()) });
    }

    /// A loop finished a step.
    pub fn good(&self, name: &str) {
        self.set(name, Beat { last_good: self.clock.now(), trouble: None });
    }

    /// A loop cannot do its work.
    pub fn bad(&self, name: &str, trouble: String) {
        let last_good = self.lock().get(name).map_or(Timestamp(0), |beat| beat.last_good);
        self.set(name, Beat { last_good, trouble: Some(trouble) });
    }

    /// A loop ended because it was asked to.
    pub fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    /// Every loop with its health.
    #[must_use]
    pub fn report(&self) -> Vec<LoopHealth> {
        let now = self.clock.now();
        let of = |(name, beat): (&String, &Beat)| {
            let silent = now.since(beat.last_good) > limits::LOOP_SILENCE;
            let detail = match &beat.trouble {
                Some(trouble) => trouble.clone(),
                None if silent => "has not finished a step lately".to_owned(),
                None => String::new(),
            };
            LoopHealth { name: name.clone(), ready: detail.is_empty(), detail }
        };
        self.lock().iter().map(of).collect()
    }

    fn set(&self, name: &str, beat: Beat) {
        self.lock().insert(name.to_owned(), beat);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Beat>> {
        // The map is whole between any two statements, so a panic elsewhere does not spoil it.
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
