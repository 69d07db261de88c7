//! What the judge asked for and what it was answered, in its own words: the one side of the trial.

use std::collections::BTreeMap;

use serde_json::Value;

/// What was asked and answered, and what was seen meanwhile.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// What all keys of this run begin with.
    pub(crate) tag: String,
    /// Every request that changes something, in the order in which they were first sent.
    pub(crate) calls: Vec<Call>,
    /// What customers saw of their orders; those of one customer in the order seen.
    pub(crate) sights: Vec<Sight>,
    /// How often requests were sent, repetitions too.
    pub(crate) tries: u64,
    /// How many of those brought no answer that says what became of them.
    pub(crate) unknown: u64,
}

/// A request that changes something.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Its `Idempotency-Key`.
    pub(crate) key: String,
    /// Where it was posted.
    pub(crate) path: String,
    /// What was posted.
    pub(crate) body: Value,
    /// What it is meant to do.
    pub(crate) wish: Wish,
    /// Every answer that says what became of it; all should be alike.
    pub(crate) answers: Vec<Answer>,
    /// Why it last brought no such answer.
    pub(crate) trouble: String,
}

/// What a request is meant to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Register a customer.
    Register,
    /// List a product with this much stock.
    List { sku: String, price: i64, quantity: i64 },
    /// Take stock in.
    Receive { sku: String, quantity: i64 },
    /// Put money into a wallet.
    Deposit { customer: String, amount: i64 },
    /// Place an order: how many of which product.
    Place { customer: String, lines: BTreeMap<String, i64> },
    /// Place another order under a key that an order has; must be refused.
    Reuse,
    /// Cancel an order.
    Cancel { order: String },
    /// Report, as its carrier, what became of an order's parcel.
    Track { order: String, status: &'static str },
}

/// An answer that says what became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was done; what was answered.
    Yes(Value),
    /// It was refused.
    No { status: u16, why: String },
}

/// What a customer saw of an order.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    /// Which customer looked.
    pub(crate) by: usize,
    /// At which order.
    pub(crate) order: String,
    /// The version, or nothing if the order was not there.
    pub(crate) version: Option<i64>,
    /// Whether it was read just then. The answer to a repeated request is that of the first time.
    pub(crate) read: bool,
}

impl Call {
    /// What was answered when it was done, if it was.
    pub(crate) fn done(&self) -> Option<&Value> {
        self.answers.iter().find_map(|answer| match answer {
            Answer::Yes(value) => Some(value),
            Answer::No { .. } => None,
        })
    }
}

impl History {
    /// How many requests were answered with what became of them.
    pub(crate) fn answered(&self) -> usize {
        self.calls.iter().filter(|call| !call.answers.is_empty()).count()
    }

    /// The orders that were placed, as answered, with their requests.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (&Call, &Value)> {
        let places = |call: &&Call| matches!(call.wish, Wish::Place { .. });
        self.calls.iter().filter(places).filter_map(|call| Some((call, call.done()?)))
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Yes(value) => value.fmt(f),
            Self::No { status, why } => write!(f, "{status} {why}"),
        }
    }
}
