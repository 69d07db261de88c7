//! What can be wrong, and where to look at it.

use serde::Serialize;
use serde::ser::{SerializeStruct as _, Serializer};
use waybill_runtime::text_enum;

text_enum! {
    /// Which promise is broken; [`Kind::meaning`] says what that means.
    pub(crate) enum Kind {
        Lost = "lost",
        Doubled = "doubled",
        Oversold = "oversold",
        Unbalanced = "unbalanced",
        Reordered = "reordered",
        Stale = "stale",
        Hanging = "hanging",
        Changed = "changed",
        Contradicted = "contradicted",
        Refused = "refused",
        Parked = "parked",
        Unproven = "unproven",
    }
}

impl Kind {
    /// What it means, in one sentence.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Lost => "Something that was answered is not there.",
            Self::Doubled => "Something that was asked for once happened twice.",
            Self::Oversold => "More was set aside, sold or spent than there was.",
            Self::Unbalanced => "Stock or money is not what came in less what went out.",
            Self::Reordered => "Something happened out of order, or before its cause.",
            Self::Stale => "Somebody saw an older version after a newer one.",
            Self::Hanging => "Something did not come to its end within the time it had.",
            Self::Changed => "Something is not what was answered, or was read before.",
            Self::Contradicted => "Two places of the API say different things.",
            Self::Refused => "A request that is in order was refused.",
            Self::Parked => "A service could not handle a message of this run.",
            Self::Unproven => "`waybill verify` finds tables, outboxes and event store to differ.",
        }
    }
}

/// A promise that is broken, with its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which promise.
    pub(crate) kind: Kind,
    /// What was found, with its ids and keys.
    pub(crate) evidence: String,
    /// The path to look at.
    pub(crate) look: String,
}

impl Violation {
    /// A broken promise.
    pub(crate) fn new(kind: Kind, evidence: impl Into<String>, look: impl Into<String>) -> Self {
        Self { kind, evidence: evidence.into(), look: look.into() }
    }

    /// One about an order, whose history shows it.
    pub(crate) fn of_order(kind: Kind, order: &str, evidence: impl std::fmt::Display) -> Self {
        Self::new(kind, format!("order {order}: {evidence}"), history_of(order))
    }
}

/// Where an order's history is.
pub(crate) fn history_of(order: &str) -> String {
    format!("/v1/audit/orders/{order}")
}

impl Serialize for Violation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Violation", 4)?;
        object.serialize_field("kind", &self.kind)?;
        object.serialize_field("meaning", self.kind.meaning())?;
        object.serialize_field("evidence", &self.evidence)?;
        object.serialize_field("look", &self.look)?;
        object.end()
    }
}
