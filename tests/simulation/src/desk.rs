//! Where clients ask one service for things, and what they remember of it.

use std::future::Future;
use std::pin::Pin;

use futures_util::FutureExt as _;
use uuid::Uuid;
use waybill_runtime::{
    Answer, CommandError, Handle, Outcome, Request, RequestKey, Service, Version,
};

/// Something that a client wants done once.
#[derive(Clone, Debug)]
pub(crate) struct Intent<C> {
    pub(crate) command: C,
    /// The idempotency key, if the client gives one.
    pub(crate) key: Option<String>,
    /// The version that the resource must have, if the client says so.
    pub(crate) if_match: Option<Version>,
    /// The ids of the requests sent for it, each with what is known to have come of it.
    pub(crate) requests: Vec<(Uuid, Came)>,
    /// The first answer.
    pub(crate) answer: Option<Answer>,
    /// Whether the key was used for another request before, which was answered.
    pub(crate) reuses_key: bool,
}

/// What came of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// It may have been carried out, or not.
    Open,
    /// It was answered: carried out, or known to have been before.
    Answered,
    /// It was not carried out.
    Nothing,
}

impl<C> Intent<C> {
    /// Whether the client cannot know what became of it.
    pub(crate) fn is_open(&self) -> bool {
        self.answer.is_none() && self.requests.last().is_some_and(|(_, came)| *came == Came::Open)
    }
}

/// A request under way.
struct Call<S: Service> {
    intent: usize,
    request: usize,
    replica: usize,
    answer: Pin<Box<dyn Future<Output = Outcome<S>>>>,
}

/// An answer that arrived.
pub(crate) struct Arrived<S: Service> {
    pub(crate) intent: usize,
    pub(crate) outcome: Outcome<S>,
}

/// All clients of one service.
pub(crate) struct Desk<S: Service> {
    pub(crate) intents: Vec<Intent<S::Command>>,
    calls: Vec<Call<S>>,
}

impl<S: Service> Default for Desk<S> {
    fn default() -> Self {
        Self { intents: Vec::new(), calls: Vec::new() }
    }
}

impl<S: Service<Command: Clone>> Desk<S> {
    /// Sends a request for an intent to a replica.
    pub(crate) fn ask(&mut self, intent: usize, replica: usize, handle: &Handle<S>, id: Uuid) {
        let wanted = &mut self.intents[intent];
        let request = wanted.requests.len();
        wanted.requests.push((id, Came::Open));
        let command = wanted.command.clone();
        let fingerprint = format!("{command:?}");
        let key = wanted.key.clone().map(|key| RequestKey { key, fingerprint });
        let if_match = wanted.if_match.map(|version| vec![version]);
        let (actor, traceparent) = ("a client".to_owned(), String::new());
        let asked = Request { command, id, key, if_match, actor, traceparent };
        let handle = handle.clone();
        let mut answer: Pin<Box<dyn Future<Output = Outcome<S>>>> =
            Box::pin(async move { handle.submit(asked).await });
        // Asking once puts it into the queue. A queue is longer than a run has requests.
        let at_once = (&mut answer).now_or_never();
        if let Some(outcome) = at_once {
            answer = Box::pin(std::future::ready(outcome));
        }
        self.calls.push(Call { intent, request, replica, answer });
    }

    /// How many requests are under way, and with which replica.
    pub(crate) fn waiting_for(&self, replica: usize) -> usize {
        self.calls.iter().filter(|call| call.replica == replica).count()
    }

    /// How many requests are under way.
    pub(crate) fn waiting(&self) -> usize {
        self.calls.len()
    }

    /// A client goes away before the answer.
    pub(crate) fn hang_up(&mut self, index: usize) {
        self.calls.remove(index);
    }

    /// Takes the answers that have arrived.
    pub(crate) fn collect(&mut self) -> Vec<Arrived<S>> {
        let mut arrived = Vec::new();
        let mut waiting = Vec::with_capacity(self.calls.len());
        for mut call in std::mem::take(&mut self.calls) {
            match (&mut call.answer).now_or_never() {
                None => waiting.push(call),
                Some(outcome) => {
                    let came = match &outcome {
                        Ok(_) => Came::Answered,
                        Err(CommandError::UnknownOutcome) => Came::Open,
                        Err(_) => Came::Nothing,
                    };
                    self.intents[call.intent].requests[call.request].1 = came;
                    arrived.push(Arrived { intent: call.intent, outcome });
                }
            }
        }
        self.calls = waiting;
        arrived
    }
}
