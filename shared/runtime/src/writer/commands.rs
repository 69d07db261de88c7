//! Commands: carried out as one unit, answered after its commit.

use std::sync::Arc;

use tracing::{error, warn};

use super::{Step, Writer, spans};
use crate::answers::{self, StoredAnswer};
use crate::command::{CommandError, Job, Outcome, Request, RequestKey};
use crate::error::StoreError;
use crate::event::Version;
use crate::failpoints::CommitPoint;
use crate::service::{Message, Service};
use crate::unit::{Cause, Closing, Unit, Verdict};

/// A command taken out of its job.
pub(super) struct Asked<S: Service> {
    message: Message<S>,
    cause: Cause,
    key: Option<RequestKey>,
    if_match: Option<Vec<Version>>,
}

impl<S: Service> Writer<S> {
    /// Carries out commands as one unit and answers each. Nobody hears anything before the commit.
    pub(crate) async fn step_commands(&mut self, jobs: Vec<Job<S>>) -> Result<Step, StoreError> {
        let count = jobs.len();
        let (asked, replies): (Vec<Asked<S>>, Vec<_>) =
            jobs.into_iter().map(|job| (asked(job.request), job.reply)).unzip();
        let (outcomes, trouble) = match self.try_commands(&asked).await {
            Ok(outcomes) => (outcomes, None),
            Err(cause) if cause.is_about_data() && count > 1 => {
                warn!(service = S::NAME, %cause, "a batch of commands failed; each goes by itself");
                self.commands_one_by_one(&asked).await
            }
            Err(trouble) => (asked.iter().map(|_| Err(excuse(&trouble))).collect(), Some(trouble)),
        };
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // A client that hung up is not waiting for the answer; what was done is done.
            let _ = reply.send(outcome);
        }
        trouble.filter(StoreError::is_passing).map_or(Ok(Step::Did(count)), Err)
    }

    async fn commands_one_by_one(
        &mut self,
        asked: &[Asked<S>],
    ) -> (Vec<Outcome<S>>, Option<StoreError>) {
        let mut outcomes = Vec::with_capacity(asked.len());
        let mut trouble = None;
        for one in asked {
            match self.try_commands(std::slice::from_ref(one)).await {
                Ok(mut outcome) => outcomes.append(&mut outcome),
                Err(cause) => {
                    error!(service = S::NAME, %cause, "a command failed on its data");
                    outcomes.push(Err(excuse(&cause)));
                    trouble = Some(cause);
                }
            }
        }
        (outcomes, trouble)
    }

    async fn try_commands(&mut self, asked: &[Asked<S>]) -> Result<Vec<Outcome<S>>, StoreError> {
        let core = Arc::clone(&self.core);
        let keys: Vec<&str> =
            asked.iter().filter_map(|one| one.key.as_ref()).map(|key| key.key.as_str()).collect();
        let everything = asked.iter().map(|one| &one.message);
        let find = if keys.is_empty() { Vec::new() } else { vec![answers::find(&keys)?] };
        let (mut unit, mut answers) =
            Unit::begin_for(&core, CommitPoint::Commands, everything, find).await?;
        let mut stored = answers.pop().map(answers::found).transpose()?.unwrap_or_default();
        let fresh =
            |one: &&Asked<S>| one.key.as_ref().is_none_or(|key| !stored.contains_key(&key.key));
        let messages: Vec<&Message<S>> =
            asked.iter().filter(fresh).map(|one| &one.message).collect();
        unit.prepare(messages.iter().copied()).await?;
        let mut outcomes = Vec::with_capacity(asked.len());
        let mut closing = Closing::default();
        for one in asked {
            if let Some(known) = one.key.as_ref().and_then(|key| stored.get(&key.key)) {
                outcomes.push(repeat(one, known));
                continue;
            }
            let cause = spans::command(&mut unit, &one.cause);
            let verdict = unit.handle(&one.message, &cause, one.if_match.as_deref()).await?;
            let outcome = outcome::<S>(verdict);
            if let (Err(CommandError::Failed(why)), Some(span)) = (&outcome, unit.span()) {
                span.fail(|| why.clone());
            }
            if let (Some(key), Ok(answer)) = (&one.key, &outcome) {
                let answer = StoredAnswer {
                    key: key.key.clone(),
                    fingerprint: key.fingerprint.clone(),
                    answer: answer.clone(),
                };
                stored.insert(key.key.clone(), answer.clone());
                closing.answers.push(answer);
            }
            outcomes.push(outcome);
        }
        let committed = unit.commit(closing).await?;
        self.committed(committed, asked.len());
        Ok(outcomes)
    }
}

fn asked<S: Service>(request: Request<S>) -> Asked<S> {
    let Request { command, id, key, if_match, actor, traceparent } = request;
    let (causation, correlation, timer) = (id.to_string(), None, None);
    let cause = Cause { causation, correlation, timer, actor, traceparent };
    Asked { message: Message::Command(command), cause, key, if_match }
}

/// The answer to a repeated request: the stored one, if it is the same request.
fn repeat<S: Service>(asked: &Asked<S>, known: &StoredAnswer) -> Outcome<S> {
    let same = asked.key.as_ref().is_some_and(|key| key.fingerprint == known.fingerprint);
    if same { Ok(known.answer.clone()) } else { Err(CommandError::KeyReused) }
}

fn outcome<S: Service>(verdict: Verdict<S::Refusal>) -> Outcome<S> {
    match verdict {
        Verdict::Decided(Some(answer)) => Ok(answer),
        Verdict::Decided(None) => Err(CommandError::Failed("no answer".to_owned())),
        Verdict::Refused(refusal) => Err(CommandError::Refused(refusal)),
        Verdict::Stale(current) => Err(CommandError::Stale { current }),
        Verdict::Failed(cause) => {
            error!(service = S::NAME, cause, "a command failed");
            Err(CommandError::Failed(cause))
        }
    }
}

fn excuse<R: std::error::Error>(trouble: &StoreError) -> CommandError<R> {
    match trouble {
        StoreError::UnknownOutcome => CommandError::UnknownOutcome,
        StoreError::Unavailable(_) => CommandError::Unavailable,
        other => CommandError::Failed(other.to_string()),
    }
}
