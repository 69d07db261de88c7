//! Commands: carried out as units, each answered after its commit. While one unit is being committed the
//! next is decided, on the rows that the first leaves.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::oneshot;
use tracing::{error, warn};

use super::{Step, Writer, spans};
use crate::answers::{self, StoredAnswer};
use crate::command::{CommandError, Job, Outcome, Queue, Request, RequestKey};
use crate::core::Core;
use crate::error::StoreError;
use crate::event::Version;
use crate::failpoints::CommitPoint;
use crate::limits;
use crate::sealed::{Committed, Sealed};
use crate::service::{Message, Service};
use crate::unit::{Cause, Closing, Unit, Verdict};

/// A command taken out of its job.
struct Asked<S: Service> {
    message: Message<S>,
    cause: Cause,
    key: Option<RequestKey>,
    if_match: Option<Vec<Version>>,
}

/// Commands of one unit, and who waits for their answers.
struct Batch<S: Service> {
    asked: Vec<Asked<S>>,
    replies: Vec<oneshot::Sender<Outcome<S>>>,
}

/// A unit that is committed, and whose commands are not answered yet.
type Done<S> = (Batch<S>, Vec<Outcome<S>>, Committed);

/// A unit of commands, as far as they are decided.
struct Deciding<'a, S: Service> {
    unit: Unit<'a, S>,
    /// Whether answers stored before were looked for.
    keys_known: bool,
    /// Answers under the keys of this unit's commands, by key.
    stored: HashMap<String, StoredAnswer>,
    outcomes: Vec<Outcome<S>>,
    closing: Closing,
}

/// Which commands follow those of the first unit, as further units of the same step.
#[derive(Clone, Copy)]
pub(crate) enum Further<'a> {
    /// Those that wait, decided before the unit before is sent: no matter how fast the database is, the
    /// same follow.
    Waiting,
    /// Those that wait or come while the unit before is being committed; none if this says that something
    /// else waits.
    Coming(&'a (dyn Fn() -> bool + Sync)),
}

impl<S: Service> Writer<S> {
    /// Carries out the commands that wait, at most `size` as one unit, and answers each. Nobody hears
    /// anything before the commit.
    pub(crate) async fn step_commands(
        &mut self,
        queue: &mut Queue<S>,
        size: usize,
        further: Further<'_>,
    ) -> Result<Step, StoreError> {
        let mut batch = Batch::of(queue.take(size));
        if batch.asked.is_empty() {
            return Ok(Step::Idle);
        }
        let mut did = batch.asked.len();
        let core = Arc::clone(&self.core);
        let messages = batch.asked.iter().map(|one| &one.message);
        let repeats = batch.asked.iter().any(|one| self.was_answered(one));
        let ahead = || Unit::ahead(&core, CommitPoint::Commands, messages);
        let Some(unit) = (!repeats).then(ahead).flatten() else {
            self.in_turn(batch).await?;
            return Ok(Step::Did(did));
        };
        let mut deciding = Deciding::of(unit);
        let mut unanswered = None;
        for nth in 1..=limits::COMMAND_UNITS {
            let sealed = self.seal(deciding, &batch.asked, &mut unanswered).await;
            let (sealed, outcomes) = match sealed {
                Ok(sealed) => sealed,
                Err(trouble) => {
                    self.answer(unanswered.take());
                    self.ahead_failed(batch, trouble).await?;
                    return Ok(Step::Did(did));
                }
            };
            let last = nth == limits::COMMAND_UNITS;
            let mut next: Option<(Batch<S>, Deciding<'_, S>)> = None;
            if let Further::Waiting = further {
                let mut open = !last;
                while open && !queue.is_empty() {
                    open = decide_behind(&core, queue, &mut next, size).await;
                }
            }
            let mut committing = pin!(sealed.commit());
            let mut ended = poll_once(committing.as_mut()).await;
            // The database is at work: time for those who are waiting.
            self.answer(unanswered.take());
            let mut open = match further {
                Further::Waiting => false,
                Further::Coming(others_wait) => !last && !others_wait(),
            };
            let ended = loop {
                if let Poll::Ready(ended) = ended {
                    break ended;
                }
                tokio::select! {
                    biased;
                    committed = &mut committing => ended = Poll::Ready(committed),
                    () = queue.arrived(), if open => {
                        open = decide_behind(&core, queue, &mut next, size).await;
                    }
                }
            };
            match ended {
                Ok(committed) => unanswered = Some((batch, outcomes, committed)),
                Err(trouble) => {
                    let next = next.map(|(batch, _)| batch);
                    let failed = self.ahead_failed(batch, trouble).await;
                    return self.after_failure(next, failed).await.map(|()| Step::Did(did));
                }
            }
            let Some(following) = next else { break };
            (batch, deciding) = following;
            deciding.unit.is_next();
            did += batch.asked.len();
        }
        self.answer(unanswered);
        Ok(Step::Did(did))
    }

    /// Decides what is left of a unit and seals it. If that reads something, those before it do not wait.
    async fn seal<'a>(
        &mut self,
        deciding: Deciding<'a, S>,
        asked: &[Asked<S>],
        unanswered: &mut Option<Done<S>>,
    ) -> Result<(Sealed<'a, S>, Vec<Outcome<S>>), StoreError> {
        let mut sealing = pin!(deciding.seal(asked));
        match poll_once(sealing.as_mut()).await {
            Poll::Ready(sealed) => sealed,
            Poll::Pending => {
                self.answer(unanswered.take());
                sealing.await
            }
        }
    }

    /// Tells what a unit did, and answers its commands.
    fn answer(&mut self, done: Option<Done<S>>) {
        if let Some((batch, outcomes, committed)) = done {
            self.committed(committed, batch.asked.len());
            self.remember(&batch.asked, &outcomes);
            batch.answer(outcomes);
        }
    }

    /// What could not be committed ahead of its turn is decided anew in its turn, if that may help.
    async fn ahead_failed(
        &mut self,
        batch: Batch<S>,
        trouble: StoreError,
    ) -> Result<(), StoreError> {
        if matches!(trouble, StoreError::Overtaken) || trouble.is_about_data() {
            return self.in_turn(batch).await;
        }
        let outcomes = batch.asked.iter().map(|_| Err(excuse(&trouble))).collect();
        batch.answer(outcomes);
        Err(trouble)
    }

    /// Commands that were decided after others that have gone another way since.
    async fn after_failure(
        &mut self,
        next: Option<Batch<S>>,
        before: Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match (next, before) {
            (None, before) => before,
            (Some(next), Ok(())) => self.in_turn(next).await,
            (Some(next), Err(trouble)) => {
                // Nothing of them was sent.
                let outcomes = next.asked.iter().map(|_| Err(CommandError::Unavailable)).collect();
                next.answer(outcomes);
                Err(trouble)
            }
        }
    }

    /// Takes the turn, carries out commands as one unit and answers each.
    async fn in_turn(&mut self, batch: Batch<S>) -> Result<(), StoreError> {
        let asked = &batch.asked;
        let (outcomes, trouble) = match self.try_commands(asked).await {
            Ok(outcomes) => (outcomes, None),
            Err(cause) if cause.is_about_data() && asked.len() > 1 => {
                warn!(service = S::NAME, %cause, "a batch of commands failed; each goes by itself");
                self.commands_one_by_one(asked).await
            }
            Err(trouble) => (asked.iter().map(|_| Err(excuse(&trouble))).collect(), Some(trouble)),
        };
        batch.answer(outcomes);
        trouble.filter(StoreError::is_passing).map_or(Ok(()), Err)
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
        let stored = answers.pop().map(answers::found).transpose()?.unwrap_or_default();
        let fresh =
            |one: &&Asked<S>| one.key.as_ref().is_none_or(|key| !stored.contains_key(&key.key));
        let messages: Vec<&Message<S>> =
            asked.iter().filter(fresh).map(|one| &one.message).collect();
        unit.prepare(messages.iter().copied()).await?;
        let deciding = Deciding { keys_known: true, stored, ..Deciding::of(unit) };
        let (sealed, outcomes) = deciding.seal(asked).await?;
        let committed = sealed.commit().await?;
        self.committed(committed, asked.len());
        self.remember(asked, &outcomes);
        Ok(outcomes)
    }

    /// Whether it is known to be a repeat.
    fn was_answered(&self, asked: &Asked<S>) -> bool {
        asked.key.as_ref().is_some_and(|key| self.answered.has(&key.key))
    }

    /// Knows these commands when they are repeated.
    fn remember(&mut self, asked: &[Asked<S>], outcomes: &[Outcome<S>]) {
        for (one, outcome) in asked.iter().zip(outcomes) {
            if let (Some(key), Ok(_)) = (&one.key, outcome) {
                self.answered.put(key.key.clone(), ());
            }
        }
    }
}

/// Lets work begin, without waiting for its end.
async fn poll_once<F: Future>(mut work: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await
}

/// Decides the next command that waits, as part of the unit after one that is being committed. Whether
/// that unit is open for more.
async fn decide_behind<'a, S: Service>(
    core: &'a Core<S>,
    queue: &mut Queue<S>,
    next: &mut Option<(Batch<S>, Deciding<'a, S>)>,
    size: usize,
) -> bool {
    if next.is_none() {
        let unit = Unit::behind(core, CommitPoint::Commands);
        *next = unit.map(|unit| (Batch::of(Vec::new()), Deciding::of(unit)));
    }
    let Some((batch, deciding)) = next else { return false };
    batch.add(queue.take(1));
    // Trouble shows again when it is sealed.
    let decided = deciding.decide(&batch.asked).await.is_ok();
    decided && deciding.outcomes.len() == batch.asked.len() && batch.asked.len() < size
}

impl<S: Service> Batch<S> {
    fn of(jobs: Vec<Job<S>>) -> Self {
        let mut batch = Self { asked: Vec::new(), replies: Vec::new() };
        batch.add(jobs);
        batch
    }

    fn add(&mut self, jobs: Vec<Job<S>>) {
        for job in jobs {
            self.asked.push(asked(job.request));
            self.replies.push(job.reply);
        }
    }

    fn answer(self, outcomes: Vec<Outcome<S>>) {
        for (reply, outcome) in self.replies.into_iter().zip(outcomes) {
            // A client that hung up is not waiting for the answer; what was done is done.
            let _ = reply.send(outcome);
        }
    }
}

impl<'a, S: Service> Deciding<'a, S> {
    fn of(unit: Unit<'a, S>) -> Self {
        let (stored, outcomes, closing) = (HashMap::new(), Vec::new(), Closing::default());
        Self { unit, keys_known: false, stored, outcomes, closing }
    }

    /// Decides those of them that are not decided yet, up to one that must wait.
    async fn decide(&mut self, asked: &[Asked<S>]) -> Result<(), StoreError> {
        for one in asked.iter().skip(self.outcomes.len()) {
            if let Some(known) = one.key.as_ref().and_then(|key| self.stored.get(&key.key)) {
                self.outcomes.push(repeat(one, known));
                continue;
            }
            let cause = spans::command(&mut self.unit, &one.cause);
            let verdict = self.unit.handle(&one.message, &cause, one.if_match.as_deref()).await?;
            let Some(outcome) = outcome::<S>(verdict) else { return Ok(()) };
            if outcome.is_err() && one.key.is_some() && !self.keys_known {
                // It may have been carried out before, and have its answer. A key that is used again
                // otherwise meets the stored one when this unit is committed.
                return Err(StoreError::Overtaken);
            }
            if let (Err(CommandError::Failed(why)), Some(span)) = (&outcome, self.unit.span()) {
                span.fail(|| why.clone());
            }
            if let (Some(key), Ok(answer)) = (&one.key, &outcome) {
                let answer = StoredAnswer {
                    key: key.key.clone(),
                    fingerprint: key.fingerprint.clone(),
                    answer: answer.clone(),
                };
                self.stored.insert(key.key.clone(), answer.clone());
                self.closing.answers.push(answer);
            }
            self.outcomes.push(outcome);
        }
        Ok(())
    }

    /// Decides all of them, and puts together what is to be committed before they are answered so.
    async fn seal(
        mut self,
        asked: &[Asked<S>],
    ) -> Result<(Sealed<'a, S>, Vec<Outcome<S>>), StoreError> {
        self.decide(asked).await?;
        Ok((self.unit.seal(self.closing).await?, self.outcomes))
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

/// Nothing while it must wait.
fn outcome<S: Service>(verdict: Verdict<S::Refusal>) -> Option<Outcome<S>> {
    Some(match verdict {
        Verdict::Decided(Some(answer)) => Ok(answer),
        Verdict::Decided(None) => Err(CommandError::Failed("no answer".to_owned())),
        Verdict::Refused(refusal) => Err(CommandError::Refused(refusal)),
        Verdict::Stale(current) => Err(CommandError::Stale { current }),
        Verdict::Failed(cause) => {
            error!(service = S::NAME, cause, "a command failed");
            Err(CommandError::Failed(cause))
        }
        Verdict::Waits => return None,
    })
}

fn excuse<R: std::error::Error>(trouble: &StoreError) -> CommandError<R> {
    match trouble {
        StoreError::UnknownOutcome => CommandError::UnknownOutcome,
        StoreError::Unavailable(_) => CommandError::Unavailable,
        other => CommandError::Failed(other.to_string()),
    }
}
