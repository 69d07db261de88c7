//! A command on its way to a service's writer, and what comes back.

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::event::Version;
use crate::service::{Answer, Service};

/// A command with what its request says beside it.
#[derive(Debug)]
pub struct Request<S: Service> {
    /// What to do.
    pub command: S::Command,
    /// The command's own id, which the events name as their cause.
    pub id: Uuid,
    /// Under which its answer is kept, if the client may repeat it.
    pub key: Option<RequestKey>,
    /// The versions of the resource that the client has seen; refused if none is the present one.
    pub if_match: Option<Vec<Version>>,
    /// Who asks.
    pub actor: String,
    /// W3C trace context, or empty.
    pub traceparent: String,
}

/// Names a request that may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// What the client chose.
    pub key: String,
    /// A digest of method, path and body: the same key with another digest is a mistake.
    pub fingerprint: String,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError<R: std::error::Error> {
    /// The service says no.
    #[error(transparent)]
    Refused(R),
    /// The resource has changed since the client saw it.
    #[error("the resource is at version {current} by now")]
    Stale {
        /// The version it has now.
        current: Version,
    },
    /// The idempotency key was used for another request.
    #[error("this idempotency key was used for another request")]
    KeyReused,
    /// The queue is full, or the service is stopping; nothing was done.
    #[error("the service is busy")]
    Busy,
    /// The database does not answer; nothing was done.
    #[error("the service's database does not answer")]
    Unavailable,
    /// The database was lost in the middle of the commit; repeat with the same key to learn more.
    #[error("it is not known whether this was done; repeat it with the same Idempotency-Key")]
    UnknownOutcome,
    /// A defect of the service; nothing was done.
    #[error("the service failed on this request: {0}")]
    Failed(String),
}

/// What a request comes to.
pub type Outcome<S> = Result<Answer, CommandError<<S as Service>::Refusal>>;

/// A request in the queue, with who waits for it.
#[derive(Debug)]
pub(crate) struct Job<S: Service> {
    pub(crate) request: Request<S>,
    pub(crate) reply: oneshot::Sender<Outcome<S>>,
}

/// The queue of commands, of which one may be in hand already.
#[derive(Debug)]
pub(crate) struct Queue<S: Service> {
    receiver: mpsc::Receiver<Job<S>>,
    in_hand: Option<Job<S>>,
}

impl<S: Service> Queue<S> {
    pub(crate) fn new(receiver: mpsc::Receiver<Job<S>>) -> Self {
        Self { receiver, in_hand: None }
    }

    /// Lets no more in.
    pub(crate) fn close(&mut self) {
        self.receiver.close();
    }

    /// Takes those that wait, at most so many.
    pub(crate) fn take(&mut self, most: usize) -> Vec<Job<S>> {
        let mut taken: Vec<Job<S>> = self.in_hand.take().into_iter().collect();
        while taken.len() < most
            && let Ok(job) = self.receiver.try_recv()
        {
            taken.push(job);
        }
        taken
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.in_hand.is_none() && self.receiver.is_empty()
    }

    /// Returns when a command waits.
    pub(crate) async fn arrived(&mut self) {
        if self.in_hand.is_none() {
            self.in_hand = self.receiver.recv().await;
        }
        if self.in_hand.is_none() {
            // Nobody is left who could send one.
            std::future::pending::<()>().await;
        }
    }
}
