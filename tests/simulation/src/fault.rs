//! What happens inside one step: the plan that its failpoints follow, and the gate at which the
//! scheduler waits for a replica that paused or ended there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use waybill_runtime::failpoints::{Action, CommitPoint, Moment, Reached};

use crate::poison;
use crate::tally::Fault;

/// A fault, and at which of the places where it can happen: the first, the second, … of the step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    pub(crate) fault: Fault,
    pub(crate) skip: usize,
}

/// Between a step and the scheduler.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    happened: Mutex<Vec<(Reached, Fault)>>,
    /// Rings when the step does not go on by itself.
    pub(crate) stuck: Notify,
    /// Rings when a paused step may go on.
    go: Notify,
    /// Rings when the process of the step ends.
    pub(crate) end: Notify,
}

impl Gate {
    /// What happened since this was last asked.
    pub(crate) fn take(&self) -> Vec<(Reached, Fault)> {
        std::mem::take(&mut self.happened.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn let_go(&self) {
        self.go.notify_one();
    }

    pub(crate) fn end_process(&self) {
        self.end.notify_one();
    }

    fn note(&self, reached: Reached, fault: Fault) {
        self.happened.lock().unwrap_or_else(PoisonError::into_inner).push((reached, fault));
    }
}

/// What a step's failpoints do.
pub(crate) fn plan(
    planned: Option<Planned>,
    gate: Arc<Gate>,
) -> impl Fn(Reached) -> Action + Send + Sync + 'static {
    let left = AtomicUsize::new(planned.map_or(0, |planned| planned.skip));
    let done = AtomicUsize::new(0);
    move |reached| {
        // A message that takes its process down is never committed.
        if reached.moment == Moment::Before && poison::is_deadly() {
            return act(Fault::EndBeforeCommit, reached, &gate);
        }
        let Some(Planned { fault, .. }) = planned else { return Action::Pass };
        let here = reached.moment == fault.moment() && reached.point != CommitPoint::Inquiry;
        if !here
            || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
        {
            return Action::Pass;
        }
        if done.fetch_add(1, Ordering::SeqCst) > 0 {
            return Action::Pass;
        }
        act(fault, reached, &gate)
    }
}

fn act(fault: Fault, reached: Reached, gate: &Arc<Gate>) -> Action {
    gate.note(reached, fault);
    match fault {
        Fault::NoTurn | Fault::NoCommit | Fault::LostAnswer => Action::Fail,
        Fault::EndBeforeTurn | Fault::EndBeforeCommit | Fault::EndAfterCommit => {
            gate.end_process();
            Action::Wait(Box::pin(std::future::pending()))
        }
        Fault::PauseBeforeTurn | Fault::PauseAfterCommit => {
            gate.stuck.notify_one();
            let gate = Arc::clone(gate);
            Action::Wait(Box::pin(async move { gate.go.notified().await }))
        }
    }
}
