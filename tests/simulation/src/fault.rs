//! What happens inside one step: the plan that its failpoints follow, and the gate at which the
//! scheduler waits for a replica that paused or ended there.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use waybill_runtime::failpoints::{Action, CommitPoint, Moment, Reached};

use crate::poison;
use crate::tally::Fault;

/// What is to happen inside a step, if it gets there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Planned {
    /// A fault, and how often its moment passes before it happens.
    pub(crate) fault: Option<(Fault, usize)>,
    /// A fault that waits for this very transaction.
    pub(crate) ambush: Option<(CommitPoint, Fault)>,
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
    planned: Planned,
    gate: Arc<Gate>,
) -> impl Fn(Reached) -> Action + Send + Sync + 'static {
    let passed = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    move |reached| {
        // A message that takes its process down is never committed.
        if reached.moment == Moment::Before && poison::is_deadly() {
            return act(Fault::EndBeforeCommit, reached, &gate);
        }
        let sprung = planned
            .ambush
            .filter(|(point, fault)| (*point, fault.moment()) == (reached.point, reached.moment))
            .map(|(_, fault)| fault);
        let timely = planned
            .fault
            .filter(|(fault, _)| fault.moment() == reached.moment)
            .filter(|_| reached.point != CommitPoint::Inquiry)
            .filter(|(_, skip)| passed.fetch_add(1, Ordering::SeqCst) >= *skip)
            .map(|(fault, _)| fault);
        match sprung.or(timely) {
            Some(fault) if !done.swap(true, Ordering::SeqCst) => act(fault, reached, &gate),
            _ => Action::Pass,
        }
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
