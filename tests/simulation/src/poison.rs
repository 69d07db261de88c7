//! A service that fails on some of its messages, until it is repaired.
//!
//! Which ones depends on the seed and on the message alone, so that it fails again whenever the
//! message comes again. A run has its thread to itself: what is poisoned and what was met stands in
//! a thread-local, since the functions of a service have nothing else to look at.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::marker::PhantomData;

use waybill_runtime::{
    Answer, Context, DecodeError, Envelope, Message, Migration, Service, TimerChange, Version,
};

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

#[derive(Debug, Default)]
struct State {
    seed: u64,
    /// Of how many messages one is poisoned; 0 for none.
    one_in: u64,
    repaired: BTreeSet<(String, String)>,
    all_repaired: bool,
    met: BTreeSet<Met>,
    deadly: bool,
}

/// A poisoned message that a service has met.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Met {
    pub(crate) service: &'static str,
    pub(crate) poison: Poison,
    /// The event's id; of a timer, the order it is about; of a command, its fresh id.
    pub(crate) id: String,
}

/// How a message is poisoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Poison {
    /// It cannot be read.
    Unreadable,
    /// It makes the service panic.
    Panic,
    /// As a timer it does.
    Timer,
    /// As a command it does.
    Command,
    /// It takes the process down.
    Deadly,
}

/// How events, timers and commands are poisoned.
const HEARD: &[Poison] = &[Poison::Unreadable, Poison::Panic, Poison::Deadly];
const DUE: &[Poison] = &[Poison::Timer];
const COMMANDED: &[Poison] = &[Poison::Command, Poison::Deadly];

/// Begins a run: one in so many messages is poisoned, none if that is 0.
pub(crate) fn begin(seed: u64, one_in: u64) {
    STATE.set(State { seed, one_in, ..State::default() });
}

/// Takes the poison out of the message with this id, for this service.
pub(crate) fn repair(service: &str, id: &str) {
    let one = (service.to_owned(), id.to_owned());
    STATE.with_borrow_mut(|state| state.repaired.insert(one));
}

/// Takes the poison out of everything.
pub(crate) fn repair_all() {
    STATE.with_borrow_mut(|state| state.all_repaired = true);
}

/// Every poisoned message met so far.
pub(crate) fn met() -> Vec<Met> {
    STATE.with_borrow(|state| state.met.iter().cloned().collect())
}

/// Whether the process that runs now is about to end, because of a message it handles.
pub(crate) fn is_deadly() -> bool {
    STATE.with_borrow(|state| state.deadly)
}

/// Another process runs.
pub(crate) fn process_begins() {
    STATE.with_borrow_mut(|state| state.deadly = false);
}

/// How the message is poisoned for this service, if it is.
fn poison(service: &'static str, id: &str, among: &[Poison]) -> Option<Poison> {
    STATE.with_borrow(|state| {
        if state.one_in == 0
            || state.all_repaired
            || state.repaired.contains(&(service.to_owned(), id.to_owned()))
        {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (state.seed, service, id).hash(&mut hasher);
        let (hash, kinds) = (hasher.finish(), u64::try_from(among.len()).ok()?);
        let index = usize::try_from((hash / state.one_in) % kinds).ok()?;
        (hash % state.one_in == 0).then(|| among[index])
    })
}

/// The message does its harm.
fn meet(service: &'static str, id: &str, poison: Poison) {
    STATE.with_borrow_mut(|state| {
        state.deadly |= poison == Poison::Deadly;
        state.met.insert(Met { service, poison, id: id.to_owned() });
    });
}

/// A service some of whose messages are poisoned.
#[derive(Debug)]
pub(crate) struct Poisoned<S>(PhantomData<fn() -> S>);

/// An event of another service, with what makes it poisonous.
#[derive(Debug)]
pub(crate) struct HeardPoison<E> {
    event: E,
    id: String,
}

/// A service that can be wrapped: its messages can be handed on.
pub(crate) trait Plain:
    Service<Command: Clone, Heard: Clone, Timer: Clone, Settings: Clone>
{
}

impl<S: Service<Command: Clone, Heard: Clone, Timer: Clone, Settings: Clone>> Plain for S {}

fn plain<S: Plain>(message: &Message<Poisoned<S>>) -> Message<S> {
    match message {
        Message::Command(command) => Message::Command(command.clone()),
        Message::Heard(heard) => Message::Heard(heard.event.clone()),
        Message::Due(timer) => Message::Due(timer.clone()),
    }
}

fn plain_context<'a, S: Plain>(context: &Context<'a, Poisoned<S>>) -> Context<'a, S> {
    let Context { now, fresh_id, position, settings } = *context;
    Context { now, fresh_id, position, settings }
}

/// The order that a timer is about, which all timers here name in their payload.
fn order_of(timer: &impl serde::Serialize) -> String {
    let payload = serde_json::to_value(timer).unwrap_or_default();
    let order = payload.as_object().and_then(|fields| fields.values().next());
    order.and_then(|order| order.as_str()).unwrap_or_default().to_owned()
}

impl<S: Plain> Service for Poisoned<S> {
    const NAME: &'static str = S::NAME;
    const HEARS: &'static [&'static str] = S::HEARS;
    const MIGRATIONS: &'static [Migration] = S::MIGRATIONS;

    type Tables = S::Tables;
    type Event = S::Event;
    type Heard = HeardPoison<S::Heard>;
    type Command = S::Command;
    type Timer = S::Timer;
    type Refusal = S::Refusal;
    type Settings = S::Settings;

    fn hear(envelope: &Envelope) -> Result<Self::Heard, DecodeError> {
        let id = envelope.id.to_string();
        let Envelope { kind, schema, .. } = envelope;
        if poison(S::NAME, &id, HEARD) == Some(Poison::Unreadable) {
            meet(S::NAME, &id, Poison::Unreadable);
            return Err(DecodeError::Unknown { kind: kind.clone(), schema: *schema });
        }
        Ok(HeardPoison { event: S::hear(envelope)?, id })
    }

    fn concerns(message: &Message<Self>, tables: &mut S::Tables) {
        S::concerns(&plain(message), tables);
    }

    fn decide(
        message: &Message<Self>,
        tables: &S::Tables,
        context: &Context<'_, Self>,
    ) -> Result<Vec<S::Event>, S::Refusal> {
        let (id, among) = match message {
            Message::Heard(heard) => (heard.id.clone(), HEARD),
            Message::Due(timer) => (order_of(timer), DUE),
            Message::Command(_) => (context.fresh_id.to_string(), COMMANDED),
        };
        if let Some(poison) = poison(S::NAME, &id, among) {
            meet(S::NAME, &id, poison);
            if poison != Poison::Deadly {
                // A panic, but without a word on standard error.
                std::panic::resume_unwind(Box::new(format!("{poison:?}")));
            }
        }
        S::decide(&plain(message), tables, &plain_context(context))
    }

    fn timers(event: &S::Event) -> Vec<TimerChange<S::Timer>> {
        S::timers(event)
    }

    fn version(command: &S::Command, tables: &S::Tables) -> Option<Version> {
        S::version(command, tables)
    }

    fn answer(command: &S::Command, tables: &S::Tables, context: &Context<'_, Self>) -> Answer {
        S::answer(command, tables, &plain_context(context))
    }
}
